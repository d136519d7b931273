// SPDX-License-Identifier: Apache-2.0
// The page: what is shown, and what each click and key does.

import { Connection, isKeptOut, logIn, PROTOCOL } from "./connection.js";
import { decodePicture, Draft } from "./draft.js";
import { listen, showKeys } from "./keys.js";
import {
  Curves,
  element,
  nameOf,
  showHealth,
  showNotices,
  showObjects,
  showRecent,
  showRequests,
  showTrackers,
  toast,
} from "./panels.js";
import { pack } from "./runs.js";
import { Stage } from "./stage.js";
import { text } from "./text.js";

const HOLD_PERIOD_MS = 8000; // the server forgets after 30 s who took a request
const QUIET_S = 60;
const NEW_COLOUR = "#3aa6ff";
const MAX_BRUSH = 200;
const VERDICT_MS = 2500;

const $ = (id) => document.getElementById(id);
const stored = {
  get: (name) => {
    try {
      return localStorage.getItem(name) || "";
    } catch {
      return "";
    }
  },
  set: (name, value) => {
    try {
      localStorage.setItem(name, value);
    } catch {
      // a browser that keeps nothing
    }
  },
};

const page = {
  state: null,
  tracker: "", // whose pictures are shown
  live: null, // the newest picture
  past: null, // a picture of the past that is looked at
  draft: null, // the answer that is on the stage
  drafts: new Map(), // all that were begun, by key
  skipped: new Set(), // requests that this operator left
  asked: "", // the request whose picture is awaited
  pastAsked: null, // {stamp, step} that is awaited, and the next one
  tool: "object",
  brush: 12,
  heat: false,
  compare: false,
  curves: new Map(),
  closed: "connecting",
  told: new Map(), // outcomes that were said, by key
  verdict: "",
  lastStroke: null,
};

let connection;
const stage = new Stage(
  $("stage"),
  $("canvas"),
  {
    point: (x, y, positive) => mark((draft) => draft.click(x, y, positive)),
    box: (...box) => mark((draft) => draft.drawBox(...box)),
    paint: (phase, x, y) => paint(phase, x, y),
  },
  () => page.tool,
);

// ---- what is known

const trackerState = () =>
  page.state ? page.state.trackers.find((each) => each.tracker === page.tracker) : undefined;
const requestOf = (key) =>
  (page.state ? page.state.trackers : [])
    .flatMap((tracker) => tracker.requests)
    .find((request) => request.key === key);
const trackerOfKey = (key) => key.split("|")[0];
const seconds = (later, earlier) => Number(BigInt(later) - BigInt(earlier)) / 1e9;
const newestStamp = () => (page.live ? page.live.stamp : (trackerState() || {}).newest || "");

function say(words) {
  $("speech").textContent = words;
}

// ---- from the server

function onMessage(message, payload) {
  if (message.type === "welcome") {
    if (message.protocol !== PROTOCOL) return closed("version");
    if (document.activeElement !== $("operator")) $("operator").value = message.name;
    connection.name = message.name;
  } else if (message.type === "state") takeState(message);
  else if (message.type === "samples") curvesOf(message.tracker).add(message);
  else if (message.type === "picture") takePicture(message, payload);
  else if (message.type === "refined") takeRefined(message, payload);
  else if (message.type === "refused") {
    if (message.about === page.asked) page.asked = "";
    if (message.code !== "not_open" && message.code !== "no_past") {
      toast($("toasts"), text.fault(message.code, message.detail), true);
    }
    page.pastAsked = null;
  }
}

function curvesOf(tracker) {
  if (!page.curves.has(tracker)) page.curves.set(tracker, new Curves());
  return page.curves.get(tracker);
}

function takeState(state) {
  page.state = state;
  if (!trackerState()) choose(state.trackers.length ? state.trackers[0].tracker : "");
  tellOutcomes();
  lookAfterDraft();
  openNext();
  render();
}

function takePicture(message, payload) {
  decodePicture(message, payload)
    .then((picture) => {
      if (picture.kind === "live") {
        connection.send({ type: "shown", number: picture.number });
        if (picture.tracker !== page.tracker) return;
        page.live = picture;
        $("canvas").dataset.number = picture.number;
      } else if (picture.kind === "past") {
        takePast(picture);
      } else if (picture.kind === "request") {
        takeRequestPicture(picture);
      }
      render();
    })
    .catch((error) => {
      // A broken picture must not stop those that follow.
      if (message.kind === "live") connection.send({ type: "shown", number: message.number });
      console.error(error);
    });
}

function takeRefined(message, payload) {
  for (const draft of page.drafts.values()) {
    if (!draft.refined(message, payload)) continue;
    if (draft !== page.draft) return;
    if (message.ok) {
      const share = draft.mask.reduce((sum, value) => sum + value, 0) / draft.mask.length;
      say(text.announce.refined((100 * share).toFixed(1)));
    }
    if (draft.accepting && !draft.isRefining) send(draft);
    return;
  }
}

/** Say once what became of requests: of one's own, and of those that were open here. */
function tellOutcomes() {
  for (const tracker of page.state.trackers) {
    for (const done of tracker.finished) {
      const before = page.told.get(done.key);
      page.told.set(done.key, done.outcome);
      if (before === done.outcome || done.ago_s > 5) continue;
      const name = nameOf(done);
      if (done.mine && done.outcome === "applied") toast($("toasts"), text.toasts.applied(name));
      else if (done.mine && done.outcome === "refused") {
        toast($("toasts"), text.toasts.refusedByTracker(name, done.detail), true);
      }
    }
  }
  if (page.told.size > 500) page.told.clear();
}

/** The request on the stage may be over. */
function lookAfterDraft() {
  for (const [key, draft] of page.drafts) {
    if (draft.kind !== "request" || requestOf(key)) continue;
    const tracker = page.state.trackers.find((each) => each.tracker === trackerOfKey(key));
    const done = tracker && tracker.finished.find((each) => each.key === key);
    if (!done) {
      // A console that has just begun may not have heard of it yet.
      if (draft === page.draft && tracker && tracker.node === "present") leaveSoon(draft);
      continue;
    }
    if (draft.sending) continue;
    page.drafts.delete(key);
    if (draft !== page.draft) continue;
    const name = nameOf(done);
    const words = {
      expired: text.toasts.expired(name),
      withdrawn: text.toasts.gone(name),
      elsewhere: text.toasts.elsewhere(name),
    };
    verdict(words[done.outcome] || text.toasts.firstBy(name, done.by || "–"));
    leaveDraft();
  }
}

function leaveSoon(draft) {
  draft.missing = draft.missing || performance.now();
  if (performance.now() - draft.missing < 5000) return;
  verdict(text.faults.first_unknown);
  page.drafts.delete(draft.key);
  leaveDraft();
}

// ---- what is on the stage

function choose(tracker) {
  if (tracker === page.tracker) return;
  leaveDraft();
  page.tracker = tracker;
  page.live = null;
  page.past = null;
  watch();
  render();
}

function watch() {
  if (!connection) return;
  const tracker = document.hidden || !page.tracker ? null : page.tracker;
  connection.send({ type: "watch", tracker, heat: page.heat && !page.draft });
}

/** Open the most urgent request that nobody answers, unless the operator is busy. */
function openNext() {
  if (page.draft || page.asked || page.past || page.verdict || document.querySelector("dialog[open]"))
    return;
  if (document.activeElement === $("operator")) return;
  const state = trackerState();
  const free = (request) =>
    (!request.taken_by || request.mine) && !page.skipped.has(request.key);
  const next = state && state.requests.find(free);
  if (next) openRequest(next);
}

function openRequest(request) {
  if (page.draft && page.draft.key === request.key) return;
  page.skipped.delete(request.key);
  const draft = page.drafts.get(request.key);
  if (trackerOfKey(request.key) !== page.tracker) choose(trackerOfKey(request.key));
  if (draft) show(draft);
  else {
    page.asked = request.key;
    connection.send({ type: "open_request", request: request.key });
  }
}

function takeRequestPicture(picture) {
  if (picture.request !== page.asked) return;
  page.asked = "";
  const request = requestOf(picture.request);
  if (!request) return;
  begin({
    key: request.key,
    kind: "request",
    picture,
    objectId: request.object_id,
    label: nameOf(request),
  });
  say(text.announce.request(nameOf(request), text.secondsLeft(request.left_s)));
}

function begin(what) {
  const draft = new Draft({ ...what, refine, changed: (changed) => changed === page.draft && render() });
  page.drafts.set(draft.key, draft);
  show(draft);
}

function show(draft) {
  if (page.draft && page.draft !== draft) leaveDraft();
  page.draft = draft;
  page.past = null;
  page.tool = "object";
  page.lastStroke = null;
  if (!document.activeElement || !document.activeElement.closest("input")) {
    $("stage").focus({ preventScroll: true });
  }
  watch();
  render();
}

/** Put the answer on the stage aside. */
function leaveDraft() {
  const draft = page.draft;
  page.draft = null;
  page.asked = "";
  if (!draft) return;
  if (draft.kind === "request") {
    connection.send({ type: "take", request: draft.key, hold: false });
  } else page.drafts.delete(draft.key);
  watch();
}

/** What became of the request that was on the stage; the operator shall see it before the next. */
function verdict(words) {
  page.verdict = words;
  say(words);
  setTimeout(() => {
    page.verdict = "";
    render();
  }, VERDICT_MS);
}

// ---- marking

function mark(change) {
  const { draft } = page;
  if (!draft || draft.sending) return;
  change(draft);
  hold(draft);
}

/** Tell the others that this request is being answered. */
function hold(draft) {
  const now = performance.now();
  if (draft.kind !== "request" || now - (draft.heldAt || -Infinity) < HOLD_PERIOD_MS) return;
  draft.heldAt = now;
  connection.send({ type: "take", request: draft.key });
}

function paint(phase, x, y) {
  const value = page.tool === "erase" ? 0 : 1;
  mark((draft) => {
    if (phase === "begin") {
      draft.beginStroke();
      page.lastStroke = { x, y };
    }
    const from = page.lastStroke || { x, y };
    draft.stroke(from.x, from.y, x, y, page.brush, value);
    page.lastStroke = phase === "end" ? null : { x, y };
    if (phase === "end") draft.endStroke();
  });
}

function refine(draft) {
  if (!connection.open) return 0;
  const seq = connection.number();
  connection.send(
    {
      type: "refine",
      seq,
      tracker: draft.picture.tracker,
      stamp: draft.picture.stamp,
      request: draft.kind === "request" ? draft.key : "",
      ...draft.prompts,
    },
    pack(draft.prior),
  );
  return seq;
}

// ---- answering

function accept() {
  const { draft } = page;
  if (!draft || draft.sending) return;
  if (draft.isRefining) {
    draft.accepting = true;
    render();
    return;
  }
  send(draft);
}

function send(draft) {
  const runs = pack(draft.mask);
  const { tracker, stamp } = draft.picture;
  if (draft.kind === "request") {
    answer(draft, { type: "answer", request: draft.key, outcome: "mask", ...draft.prompts }, runs);
    return;
  }
  if (draft.isEmpty) {
    draft.accepting = false;
    toast($("toasts"), text.faults.empty_mask, true);
    return;
  }
  const command =
    draft.kind === "add"
      ? { type: "add_object", tracker, stamp, label: $("label").value.trim() }
      : { type: "correct_object", tracker, stamp, object_id: draft.objectId };
  answer(draft, command, runs);
}

/** Send an answer; it stays on the stage until the console has it. */
function answer(draft, command, runs) {
  draft.sending = true;
  render();
  connection.command(command, runs).then((done) => {
    draft.sending = false;
    draft.accepting = false;
    tell(done);
    const over = done.ok || done.code.startsWith("first_");
    if (over) {
      page.drafts.delete(draft.key);
      if (page.draft === draft) {
        if (!done.ok) verdict(text.fault(done.code, done.detail));
        page.draft = null;
        watch();
      }
    }
    openNext();
    render();
  });
}

function tell(done) {
  if (done.ok) toast($("toasts"), text.toasts[done.code] + (done.detail ? ` ${done.detail}` : ""));
  else toast($("toasts"), text.fault(done.code, done.detail), true);
}

function command(message, payload) {
  connection.command(message, payload).then(tell);
}

const without = (outcome) => () => {
  const { draft } = page;
  if (!draft || draft.kind !== "request" || draft.sending) return;
  answer(draft, { type: "answer", request: draft.key, outcome });
};

function dismiss() {
  const { draft } = page;
  if (draft && draft.kind === "request") without("dismissed")();
  else if (draft) {
    page.drafts.delete(draft.key);
    leaveDraft();
    render();
  } else if (page.past) goLive();
}

function quiet() {
  const state = trackerState();
  if (!state) return;
  command({ type: "quiet", tracker: page.tracker, seconds: state.quiet_s > 0 ? 0 : QUIET_S });
}

function takeBack(done) {
  command({ type: "take_back", tracker: page.tracker, answer: done.key });
}

// ---- objects

function addObject() {
  const picture = page.past || page.live;
  if (!picture || (page.draft && page.draft.kind === "add")) return;
  $("label").value = "";
  begin({
    key: `add|${picture.tracker}|${picture.stamp}`,
    kind: "add",
    picture: { ...picture, ids: [] },
    objectId: 0,
    label: "",
  });
}

function findObject(object) {
  const picture = page.past || page.live;
  if (!picture) return;
  begin({
    key: `correct|${picture.tracker}|${picture.stamp}|${object.id}`,
    kind: "correct",
    picture,
    objectId: object.id,
    label: nameOf(object),
  });
}

const objects = {
  pause: (object, pause) =>
    command({ type: "pause_objects", tracker: page.tracker, ids: [object.id], pause }),
  find: findObject,
  remove: (object) => command({ type: "remove_objects", tracker: page.tracker, ids: [object.id] }),
};

// ---- the recent past

function lookBack(stamp, step = 0) {
  if (page.draft || !stamp) return;
  const wanted = { stamp, step };
  if (page.pastAsked) {
    page.pastAsked.next = wanted;
    return;
  }
  page.pastAsked = { next: null };
  connection.send({ type: "open_past", tracker: page.tracker, ...wanted });
}

function takePast(picture) {
  const next = page.pastAsked && page.pastAsked.next;
  page.pastAsked = null;
  if (picture.tracker !== page.tracker || page.draft) return;
  page.past = picture;
  if (next) lookBack(next.stamp, next.step);
}

function step(by) {
  const at = page.past ? page.past.stamp : newestStamp();
  if (page.past && by > 0 && page.past.stamp === (trackerState() || {}).newest) goLive();
  else lookBack(at, by);
}

function goLive() {
  page.past = null;
  openNext();
  render();
}

// ---- showing

function scene() {
  const { draft } = page;
  if (draft && !page.compare) {
    const { picture } = draft;
    return {
      key: draft.key,
      version: draft.version,
      image: picture.image,
      heat: page.heat ? picture.heat : null,
      width: draft.width,
      height: draft.height,
      labels: draft.mask,
      labelWidth: draft.width,
      labelHeight: draft.height,
      colours: new Map([[1, NEW_COLOUR]]),
      names: null,
      clicks: draft.clicks,
      box: draft.box,
      brush: page.tool === "paint" || page.tool === "erase" ? page.brush : 0,
      editable: !draft.sending,
    };
  }
  const picture = (page.compare ? null : page.past) || page.live;
  if (!picture) return null;
  const state = trackerState();
  const known = new Map((state ? state.objects : []).map((object) => [object.id, object]));
  const colours = new Map();
  const names = new Map();
  picture.ids.forEach((id, index) => {
    const object = known.get(id);
    colours.set(index + 1, object ? object.colour : "#ffffff");
    const mark = object && object.state === "uncertain" ? " ?" : "";
    names.set(index + 1, (object ? nameOf(object) : text.unnamed(id)) + mark);
  });
  return {
    key: `picture|${picture.tracker}`,
    version: `${picture.stamp}|${picture.number}`,
    image: picture.image,
    heat: page.heat ? picture.heat : null,
    width: picture.full_width,
    height: picture.full_height,
    labels: picture.labels,
    labelWidth: picture.width,
    labelHeight: picture.height,
    colours,
    names,
    editable: false,
  };
}

let renderDue = false;

function render() {
  if (renderDue) return;
  renderDue = true;
  requestAnimationFrame(() => {
    renderDue = false;
    renderNow();
  });
}

function renderNow() {
  const state = trackerState();
  stage.show(scene() || { key: "none", image: null, width: 1, height: 1, none: true });
  renderTask(state);
  renderTools(state);
  renderScrubber(state);
  showTrackers($("trackers"), page.state ? page.state.trackers : [], page.tracker, { choose });
  showHealth($("health"), page.closed ? null : state);
  showNotices($("notices"), notices(state));
  const requests = state ? state.requests : [];
  $("requests-count").hidden = !requests.length;
  $("requests-count").textContent = requests.length;
  const title = requests.length ? `(${requests.length}) ${text.title}` : text.title;
  if (document.title !== title) document.title = title;
  showRequests($("requests"), requests, page.draft ? page.draft.key : "", { open: openRequest });
  showObjects($("objects"), state ? state.objects : [], curvesOf(page.tracker), objects);
  showRecent($("recent"), state ? state.finished : [], {
    takeBack: state && state.takes_back ? takeBack : null,
  });
}

function headline(state) {
  const { draft } = page;
  if (page.compare) return [text.badges.now, ""];
  if (draft && draft.kind === "request") {
    const request = requestOf(draft.key);
    let hint = draft.isEmpty ? text.hints.requestNothing : text.hints.request;
    if (draft.touched) hint = text.hints.requestEdited;
    if (request && request.taken_by && !request.mine) hint = text.hints.taken(request.taken_by);
    return [text.headlines.request(draft.label), hint];
  }
  if (draft && draft.kind === "add") return [text.headlines.add, text.hints.add];
  if (draft) {
    return [
      text.headlines.correct(draft.label),
      draft.touched ? text.hints.requestEdited : text.hints.correct,
    ];
  }
  if (page.past) return [text.headlines.past, text.hints.past];
  if (!page.live) return [text.headlines.none, ""];
  return [text.headlines.watching, text.hints.watching(state ? state.objects.length : 0)];
}

function renderTask(state) {
  const { draft } = page;
  const request = draft && draft.kind === "request" ? requestOf(draft.key) : null;
  const task = $("task");
  task.dataset.kind = draft ? draft.kind : "watch";
  let [title, hint] = headline(state);
  let isFault = false;
  if (draft && !page.compare) {
    if (draft.fault) [hint, isFault] = [text.fault(draft.fault, draft.fault), true];
    else if (draft.sending || draft.accepting) hint = text.hints.accepting;
    else if (draft.isRefining) hint = text.hints.requestRefining;
  }
  $("headline").textContent = title;
  $("hint").textContent = hint;
  $("hint").classList.toggle("bad", isFault);
  $("stage").classList.toggle("busy", Boolean(draft && draft.isRefining));
  $("naming").hidden = !(draft && draft.kind === "add");
  const limited = Boolean(request && request.left_s !== null);
  $("clock").hidden = !limited;
  if (limited) {
    draft.most = Math.max(draft.most || 0, request.left_s);
    $("clock").classList.toggle("urgent", request.left_s < 4);
    const share = draft.most ? (100 * Math.max(0, request.left_s)) / draft.most : 0;
    $("clock").querySelector(".left").style.strokeDashoffset = 100 - share;
    $("clock-text").textContent = text.secondsLeft(request.left_s);
  }
  const picture = draft && !page.compare ? draft.picture : page.compare ? null : page.past;
  const badge = $("badge");
  badge.dataset.kind = picture ? "past" : "live";
  const newest = newestStamp();
  if (page.heat && scene() && scene().heat) badge.textContent = text.badges.heat;
  else if (picture && newest) {
    badge.textContent = text.badges.ago(Math.max(0, seconds(newest, picture.stamp)));
  } else if (page.live) {
    badge.textContent = page.live.tracked ? text.badges.live : text.badges.untracked;
    if (page.compare) badge.textContent = text.badges.now;
  } else badge.textContent = "";
  $("verdict").hidden = !page.verdict;
  $("verdict").textContent = page.verdict;
}

function renderTools(state) {
  const { draft } = page;
  const isRequest = Boolean(draft && draft.kind === "request");
  const set = (id, { hidden = false, disabled = false, pressed }) => {
    const button = tools.get(id);
    button.hidden = hidden;
    button.disabled = disabled;
    if (pressed !== undefined) button.setAttribute("aria-pressed", String(pressed));
  };
  for (const tool of ["object", "other", "box", "paint", "erase"]) {
    set(tool, { hidden: !draft, pressed: page.tool === tool });
  }
  set("undo", { hidden: !draft, disabled: !draft || !draft.history.length });
  set("heat", { hidden: draft ? !draft.picture.heat : !page.live, pressed: page.heat });
  set("compare", { hidden: !draft, pressed: page.compare });
  set("absent", { hidden: !isRequest, disabled: isRequest && draft.sending });
  set("quiet", { hidden: Boolean(draft && !isRequest), pressed: Boolean(state && state.quiet_s > 0) });
  set("add", { hidden: Boolean(draft), disabled: !page.live && !page.past });
  set("dismiss", { hidden: !draft, disabled: Boolean(draft && draft.sending) });
  set("accept", { hidden: !draft, disabled: Boolean(draft && draft.sending) });
  const word = isRequest ? text.tools.dismiss : text.tools.cancel;
  tools.get("dismiss").firstChild.textContent = word;
  const accepts = draft && draft.kind === "add" ? text.tools.add : text.tools.accept;
  tools.get("accept").firstChild.textContent = accepts;
  $("brush").hidden = !(draft && (page.tool === "paint" || page.tool === "erase"));
}

function renderScrubber(state) {
  const shown = Boolean(state && state.newest && !page.draft);
  $("scrub").classList.toggle("off", !shown);
  const slider = $("past");
  slider.disabled = !shown;
  $("live").disabled = !page.past;
  if (!shown) return;
  const length = Math.max(1, Math.round(1000 * seconds(state.newest, state.oldest)));
  const at = page.past ? -1000 * seconds(state.newest, page.past.stamp) : 0;
  slider.min = -length;
  slider.step = 50;
  if (document.activeElement !== slider || !page.past) slider.value = at;
  const words = text.scrubberValue(Math.max(0, -at / 1000));
  slider.setAttribute("aria-valuetext", words);
  $("past-text").textContent = words;
}

function notices(state) {
  const found = [];
  const note = (key, words, more = {}) => found.push({ key, words, ...more });
  if (page.closed) {
    note(page.closed, text.notices[page.closed], { urgent: page.closed !== "connecting" });
    return found;
  }
  if (!state) return found;
  const { title } = state;
  if (state.node === "absent") note("noTracker", text.notices.noTracker(title), { urgent: true });
  else if (state.node === "inactive") note("inactive", text.notices.inactive(title), { urgent: true });
  else if (state.picture === "absent") note("noCamera", text.notices.noCamera(title), { urgent: true });
  else if (state.picture === "waiting") {
    note("noPicture", text.notices.noPicture(title), { urgent: true });
  }
  if (state.node !== "absent" && state.corrector === "absent") {
    note("noCorrector", text.notices.noCorrector, { urgent: true });
  }
  if (state.detail) note("complaint", text.notices.complaint(state.detail));
  if (state.quiet_s > 0) {
    note("quiet", text.notices.quiet(Math.ceil(state.quiet_s)), {
      action: text.endQuiet,
      act: quiet,
    });
  }
  return found;
}

// ---- keys

const NUDGE = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

const actions = {
  accept,
  dismiss,
  absent: without("not_in_view"),
  quiet,
  next: () => {
    const requests = (trackerState() || {}).requests || [];
    const at = page.draft ? requests.findIndex((each) => each.key === page.draft.key) : -1;
    if (requests.length) openRequest(requests[(at + 1) % requests.length]);
  },
  numbered: (event) => {
    const request = ((trackerState() || {}).requests || [])[Number(event.key) - 1];
    if (request) openRequest(request);
  },
  object: () => pointAt(true),
  other: () => pointAt(false),
  box: () => page.draft && stage.boxCorner(),
  paint: () => useTool("paint"),
  erase: () => useTool("erase"),
  brush: (event) => resizeBrush(event.key === "[" ? 0.8 : 1.25),
  arrows: (event) => {
    if (!page.draft) return false;
    const pace = event.shiftKey ? 25 : 5;
    const [dx, dy] = NUDGE[event.key];
    stage.moveCrosshair(dx * pace, dy * pace);
    return true;
  },
  undo: () => page.draft && !page.draft.sending && page.draft.undo(),
  heat: () => setHeat(true),
  compare: () => setCompare(true),
  add: addObject,
  step: (event) => step(event.key === "," ? -1 : 1),
  live: goLive,
  tracker: () => {
    const names = page.state ? page.state.trackers.map((each) => each.tracker) : [];
    if (names.length > 1) choose(names[(names.indexOf(page.tracker) + 1) % names.length]);
  },
  theme: switchTheme,
  help: () => $("keys").showModal(),
};

/** Mark, or paint, where the crosshair is. */
function pointAt(positive) {
  if (!page.draft) return;
  const at = stage.aim();
  if (page.tool === "paint" || page.tool === "erase") {
    page.tool = positive ? "paint" : "erase";
    paint("begin", at.x, at.y);
    paint("end", at.x, at.y);
  } else {
    mark((draft) => draft.click(at.x, at.y, positive));
    say(text.announce.point(positive));
  }
}

function useTool(tool) {
  if (!page.draft) return;
  page.tool = page.tool === tool ? "object" : tool;
  render();
}

function resizeBrush(factor) {
  page.brush = Math.min(MAX_BRUSH, Math.max(1, page.brush * factor));
  $("brush").querySelector("input").value = page.brush;
  render();
}

function setHeat(heat) {
  page.heat = heat;
  watch();
  render();
}

function setCompare(compare) {
  page.compare = compare && Boolean(page.draft);
  render();
}

function switchTheme() {
  const root = document.documentElement;
  const dark = getComputedStyle(root).colorScheme.startsWith("dark");
  root.dataset.theme = dark ? "light" : "dark";
  stored.set("theme", root.dataset.theme);
  render();
}

// ---- the page is made

const tools = new Map();

function makeTools() {
  const groups = [
    ["object", "other", "box", "paint", "erase"],
    ["undo", "heat", "compare"],
    ["add"],
    ["quiet", "absent", "dismiss", "accept"],
  ];
  const keys = {
    object: "A",
    other: "S",
    box: "B",
    paint: "P",
    erase: "E",
    undo: "U",
    heat: "H",
    compare: "C",
    add: "N",
    quiet: "M",
    absent: "V",
    dismiss: "Esc",
    accept: "Enter",
  };
  for (const group of groups) {
    const made = element("div", { class: "group" });
    for (const id of group) {
      const button = element(
        "button",
        { class: `tool tool-${id}` },
        element("span", {}, text.tools[id]),
        element("kbd", {}, keys[id]),
      );
      button.id = `tool-${id}`;
      button.setAttribute("aria-keyshortcuts", keys[id] === "Esc" ? "Escape" : keys[id]);
      if (id === "heat" || id === "compare") holdable(button, id);
      else button.onclick = (event) => pressTool(id, event);
      tools.set(id, button);
      made.append(button);
    }
    if (group.includes("erase")) {
      const size = element("input", { type: "range", min: "1", max: String(MAX_BRUSH) });
      size.value = page.brush;
      size.oninput = () => {
        page.brush = Number(size.value);
        render();
      };
      made.append(
        element("label", { id: "brush", class: "brush" }, element("span", {}, text.tools.brush), size),
      );
    }
    $("tools").append(made);
  }
  $("tools").setAttribute("aria-label", text.toolsLabel);
}

function pressTool(id, event) {
  if (["object", "other", "box", "paint", "erase"].includes(id)) {
    page.tool = id;
    render();
  } else actions[id](event);
}

/** A button that is held, by mouse, finger or key. */
function holdable(button, id) {
  const set = id === "heat" ? setHeat : setCompare;
  const end = () => set(false);
  button.addEventListener("pointerdown", (event) => {
    if (event.button === 0) set(true);
  });
  for (const name of ["pointerup", "pointerleave", "pointercancel", "blur"]) {
    button.addEventListener(name, end);
  }
  button.addEventListener("keydown", (event) => {
    if ((event.key === " " || event.key === "Enter") && !event.repeat) set(true);
  });
  button.addEventListener("keyup", end);
}

function closed(reason) {
  page.closed = reason;
  if (reason === "version") connection.ended = true;
  render();
  if (reason === "lost") {
    isKeptOut().then((out) => {
      if (out && page.closed === "lost") closed("token");
    });
  }
}

function opened() {
  page.closed = "";
  page.asked = "";
  page.pastAsked = null;
  watch();
  for (const draft of page.drafts.values()) draft.askAgain();
  if (page.draft) {
    page.draft.heldAt = -Infinity;
    if (page.draft.touched) hold(page.draft);
  }
  render();
}

async function start() {
  document.documentElement.dataset.theme = stored.get("theme");
  for (const node of document.querySelectorAll("[data-text]")) {
    node.textContent = text[node.dataset.text];
  }
  for (const node of document.querySelectorAll("[data-label]")) {
    node.setAttribute("aria-label", text[node.dataset.label]);
    if (node.tagName === "BUTTON") node.title = text[node.dataset.label];
  }
  $("stage").setAttribute("aria-label", text.stageLabel);
  $("trackers").setAttribute("aria-label", text.trackers);
  $("label").placeholder = text.namePlaceholder;
  $("live").textContent = text.tools.live;
  $("keys-heading").textContent = text.keys.heading;
  makeTools();
  showKeys($("keys-list"));
  $("theme").onclick = switchTheme;
  $("help").onclick = actions.help;
  $("live").onclick = goLive;
  $("back").setAttribute("aria-label", text.scrubberBack);
  $("forth").setAttribute("aria-label", text.scrubberForth);
  $("back").onclick = () => step(-1);
  $("forth").onclick = () => step(1);
  $("past").oninput = (event) => {
    const state = trackerState();
    if (!state || !state.newest) return;
    const stamp = BigInt(state.newest) + BigInt(Math.round(Number(event.target.value))) * 1000000n;
    lookBack(String(stamp));
  };
  $("operator").value = stored.get("name");
  $("operator").onchange = (event) => {
    const name = event.target.value.trim();
    stored.set("name", name);
    connection.name = name;
    connection.hello();
  };
  document.addEventListener("visibilitychange", watch);
  window.addEventListener("beforeunload", (event) => {
    if (page.drafts.size && [...page.drafts.values()].some((draft) => draft.touched)) {
      event.preventDefault();
    }
  });
  listen({
    start: (action, event) => actions[action](event),
    end: (action) => (action === "heat" ? setHeat(false) : setCompare(false)),
  });
  render();
  const allowed = await logIn();
  connection = new Connection(
    { message: onMessage, open: opened, closed },
    stored.get("name"),
  );
  if (!allowed) closed("token");
  setInterval(render, 500);
}

start();
