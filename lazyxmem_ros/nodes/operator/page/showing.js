// SPDX-License-Identifier: Apache-2.0
// How the page shows what it knows.

import { choose, mark, objects, openRequest, paint, quiet, takeBack } from "./answering.js";
import {
  $,
  curvesOf,
  newestStamp,
  page,
  portraitsOf,
  requestOf,
  seconds,
  trackerState,
} from "./page.js";
import {
  nameOf,
  showComplaint,
  showHealth,
  showNotices,
  showObjects,
  showRecent,
  showRequests,
  showTrackers,
} from "./panels.js";
import { Look, Stage } from "./stage.js";
import { text } from "./text.js";
import { showTools } from "./tools.js";

const NEW_COLOUR = "#3aa6ff";

export const stage = new Stage(
  $("stage"),
  $("canvas"),
  {
    point: (x, y, positive) => mark((draft) => draft.click(x, y, positive)),
    box: (...box) => mark((draft) => draft.drawBox(...box)),
    paint: (phase, x, y) => paint(phase, x, y),
  },
  () => page.tool,
);

const looks = new Map(); // of live and past pictures, by tracker

function lookOf(tracker) {
  if (!looks.has(tracker)) looks.set(tracker, new Look());
  return looks.get(tracker);
}

function scene() {
  const { draft } = page;
  if (draft && !page.compare) {
    const { picture } = draft;
    return {
      key: draft.key,
      look: draft.look,
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
    look: draft ? draft.look : lookOf(picture.tracker), // what is compared is the same section
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

/** Draw everything that is not of the newest state yet. */
export function renderNow() {
  const state = trackerState();
  const shown = scene() || { key: "none", look: new Look(), image: null, width: 1, height: 1 };
  stage.show(shown);
  page.seen = shown.key;
  const { draft } = page;
  if (draft && page.seen === draft.key) draft.seenAt = Math.min(draft.seenAt, performance.now());
  renderTask(state);
  showTools(state);
  renderScrubber(state);
  showTrackers($("trackers"), page.state ? page.state.trackers : [], page.tracker, { choose });
  showHealth($("health"), page.closed ? null : state);
  showComplaint($("complaint"), page.closed ? null : state);
  showNotices($("notices"), notices(state));
  showNotices($("remarks"), page.closed ? [] : remarks(state));
  const requests = state ? state.requests : [];
  $("requests-count").hidden = !requests.length;
  $("requests-count").textContent = requests.length;
  const title = requests.length ? `(${requests.length}) ${text.title}` : text.title;
  if (document.title !== title) document.title = title;
  showRequests($("requests"), requests, draft ? draft.key : "", { open: openRequest });
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
    const todo = draft.isEmpty ? text.hints.requestNothing : text.hints.request;
    let hint = (request ? text.impression(request.reason) : "") + todo;
    if (draft.touched) hint = text.hints.requestEdited;
    if (request && request.taken_by && !request.mine) hint = text.hints.taken(request.taken_by);
    return [text.headlines.request(draft.label), hint];
  }
  if (draft && draft.kind === "add") {
    return [text.headlines.add, draft.touched ? text.hints.addEdited : text.hints.add];
  }
  if (draft) {
    return [
      text.headlines.correct(draft.label),
      draft.touched ? text.hints.requestEdited : text.hints.correct,
    ];
  }
  if (page.past) return [text.headlines.past, text.hints.past];
  if (!page.live) return [text.headlines.none, text.hints.none];
  const { objects, requests } = state || { objects: [], requests: [] };
  return [text.headlines.watching, text.hints.watching(objects.length, requests.length)];
}

function renderTask(state) {
  const { draft } = page;
  const request = draft && draft.kind === "request" ? requestOf(draft.key) : null;
  const task = $("task");
  task.dataset.kind = draft ? draft.kind : "watch";
  let [title, hint] = headline(state);
  let isFault = false;
  if (draft && !page.compare) {
    if (draft.fault) [hint, isFault] = [draft.fault, true];
    else if (draft.sending || draft.accepting) hint = text.hints.accepting;
    else if (draft.isRefining) hint = text.hints.requestRefining;
  }
  $("headline").textContent = title;
  $("hint").textContent = hint;
  $("hint").classList.toggle("bad", isFault);
  $("stage").classList.toggle("busy", Boolean(draft && draft.isRefining));
  $("naming").hidden = !(draft && draft.kind === "add");
  const portrait = $("portrait").querySelector("canvas");
  const sought = draft && draft.kind !== "add" && !page.compare;
  $("portrait").hidden = !(
    sought && portraitsOf(draft.picture.tracker).show(portrait, draft.objectId)
  );
  if (sought) portrait.setAttribute("aria-label", text.portraitOf(draft.label));
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

/** Why the picture is not one of now; over it. */
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
  } else if (state.fault) note("fault", text.notices.fault(title, state.fault), { urgent: true });
  return found;
}

/** What else is not as ever. */
function remarks(state) {
  const found = [];
  if (!state) return found;
  if (state.node !== "absent" && state.corrector === "absent") {
    found.push({ key: "noCorrector", words: text.notices.noCorrector, urgent: true });
  }
  if (state.quiet_s > 0) {
    found.push({
      key: "quiet",
      words: text.notices.quiet(Math.ceil(state.quiet_s)),
      action: text.endQuiet,
      act: quiet,
    });
  }
  return found;
}
