// SPDX-License-Identifier: Apache-2.0
// What people do on the page: open a request, mark, answer, add and find objects, look back.

import { Draft } from "./draft.js";
import { nameOf, toast } from "./panels.js";
import {
  $,
  newestStamp,
  page,
  render,
  requestOf,
  say,
  trackerOfKey,
  trackerState,
} from "./page.js";
import { pack } from "./runs.js";
import { text } from "./text.js";

const HOLD_PERIOD_MS = 8000; // the server forgets after 30 s who took a request
const VERDICT_MS = 2500;
const MAX_STEP = 1000; // pictures; the console takes no more
// For how long an answer has to be seen before it can be given. The next request opens as soon as one is
// answered: the second press of a double click would answer what nobody has looked at.
const SEEN_MS = 400;

// ---- what is on the stage

export function choose(tracker) {
  if (tracker === page.tracker) return;
  leaveDraft();
  page.asked = "";
  page.tracker = tracker;
  page.live = null;
  leavePast();
  watch();
  render();
}

export function watch() {
  if (!page.connection) return;
  const tracker = document.hidden || !page.tracker ? null : page.tracker;
  page.connection.send({ type: "watch", tracker, heat: page.heat && !page.draft });
}

/** Open the most urgent request that nobody answers, unless the operator is busy. */
export function openNext() {
  if (page.draft || page.asked || page.past || page.verdict || document.querySelector("dialog[open]"))
    return;
  if (document.activeElement === $("operator")) return;
  const state = trackerState();
  const free = (request) =>
    (!request.taken_by || request.mine) && !page.skipped.has(request.key);
  const next = state && state.requests.find(free);
  if (next) openRequest(next);
}

export function openRequest(request) {
  page.asked = "";
  if (page.draft && page.draft.key === request.key) return;
  page.skipped.delete(request.key);
  const draft = page.drafts.get(request.key);
  if (trackerOfKey(request.key) !== page.tracker) choose(trackerOfKey(request.key));
  if (draft) show(draft);
  else {
    page.asked = request.key;
    page.connection.send({ type: "open_request", request: request.key });
  }
}

export function takeRequestPicture(picture) {
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
  if (page.draft && page.draft.key === what.key) return; // pressed twice
  const draft = new Draft({ ...what, refine, changed: (changed) => changed === page.draft && render() });
  page.drafts.set(draft.key, draft);
  show(draft);
}

function show(draft) {
  if (page.draft && page.draft !== draft) leaveDraft();
  page.draft = draft;
  draft.seenAt = Infinity;
  if (draft.touched) hold(draft);
  page.asked = ""; // what was begun meanwhile stays on the stage
  leavePast();
  page.tool = "object";
  if (!document.activeElement || !document.activeElement.closest("input")) {
    $("stage").focus({ preventScroll: true });
  }
  watch();
  render();
}

/** Put the answer on the stage aside, without what is only half done of it. */
export function leaveDraft() {
  const draft = page.draft;
  page.draft = null;
  if (!draft) return;
  if (page.stroke) paint("cancel");
  draft.accepting = false; // the outline that was accepted would come when nobody sees it
  giveBack(draft);
  if (draft.kind !== "request") forget(draft);
  watch();
}

/** Another one may have got its key since. */
function forget(draft) {
  if (page.drafts.get(draft.key) === draft) page.drafts.delete(draft.key);
}

/** An answer is over. code: what became of its request, as of `verdict`; "" where nothing is to be said. */
export function end(draft, code = "", by = "") {
  forget(draft);
  if (draft !== page.draft) return;
  if (code) verdict(draft, code, by);
  leaveDraft();
}

/** Whether an answer has been on the stage long enough to be given. */
export const isSeen = (draft) => Boolean(draft) && performance.now() - draft.seenAt >= SEEN_MS;

/**
 * What became of the request that was on the stage; the operator shall see it before the next. code:
 * of text.faults; by: who was first, if somebody was.
 */
function verdict(draft, code, by) {
  const words = text.verdict(draft.label, text.fault(code, by));
  page.verdict = words;
  say(words);
  setTimeout(() => {
    page.verdict = "";
    render();
  }, VERDICT_MS);
}

// ---- marking

export function mark(change) {
  const { draft } = page;
  // The stage may show something else: another picture to compare with, or still the one before.
  if (!draft || draft.sending || page.seen !== draft.key) return;
  change(draft);
  hold(draft);
}

/** Tell the others that this request is being answered. */
export function hold(draft) {
  const now = performance.now();
  if (draft.kind !== "request" || now - draft.heldAt < HOLD_PERIOD_MS) return;
  draft.heldAt = now;
  page.connection.send({ type: "take", request: draft.key });
}

/** Leave the request to the others. */
export function giveBack(draft) {
  if (draft.heldAt === -Infinity) return;
  draft.heldAt = -Infinity;
  page.connection.send({ type: "take", request: draft.key, hold: false });
}

/** phase: "begin", "go", "end" or "cancel". A stroke is of the answer that it was begun on. */
export function paint(phase, x, y) {
  if (phase === "begin") {
    endStroke();
    mark((draft) => {
      draft.beginStroke();
      page.stroke = { draft, x, y };
    });
  }
  const { stroke } = page;
  if (!stroke) return;
  const { draft } = stroke;
  if (phase === "cancel") {
    page.stroke = null;
    draft.undo();
    return;
  }
  draft.stroke(stroke.x, stroke.y, x, y, page.brush, page.tool === "erase" ? 0 : 1);
  Object.assign(stroke, { x, y });
  hold(draft);
  if (phase === "end") endStroke();
}

/** What has been painted of a stroke is all of it. */
function endStroke() {
  if (page.stroke) page.stroke.draft.endStroke();
  page.stroke = null;
}

export function undo() {
  const { draft } = page;
  if (page.stroke) paint("cancel");
  else if (draft && !draft.sending) draft.undo();
}

function refine(draft) {
  if (!page.connection.open) return 0;
  const seq = page.connection.number();
  page.connection.send(
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

export function accept() {
  const { draft } = page;
  if (!isSeen(draft) || draft.sending) return;
  if (draft.isRefining) {
    draft.accepting = true;
    render();
    return;
  }
  send(draft);
}

export function send(draft) {
  endStroke();
  const runs = pack(draft.mask);
  const { tracker, stamp } = draft.picture;
  if (draft.isEmpty) {
    draft.accepting = false;
    const isRequest = draft.kind === "request";
    toast($("toasts"), isRequest ? text.faults.empty_answer : text.faults.empty_mask, true);
    render();
    return;
  }
  if (draft.kind === "request") {
    answer(draft, { type: "answer", request: draft.key, outcome: "mask", ...draft.prompts }, runs);
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
  page.connection.command(command, runs).then((done) => {
    draft.sending = false;
    draft.accepting = false;
    tell(done);
    if (done.ok) end(draft);
    else if (done.code.startsWith("first_")) end(draft, done.code, done.detail);
    openNext();
    render();
  });
}

function tell(done) {
  if (done.ok) toast($("toasts"), text.toasts[done.code] + (done.detail ? ` ${done.detail}` : ""));
  else toast($("toasts"), text.fault(done.code, done.detail), true);
}

function command(message, payload) {
  page.connection.command(message, payload).then(tell);
}

export const without = (outcome) => () => {
  const { draft } = page;
  if (!isSeen(draft) || draft.kind !== "request" || draft.sending) return;
  endStroke();
  answer(draft, { type: "answer", request: draft.key, outcome });
};

export function dismiss() {
  const { draft } = page;
  if (draft && draft.kind === "request") without("dismissed")();
  else if (draft) {
    end(draft);
    render();
  } else if (page.past) goLive();
}

export function quiet() {
  const state = trackerState();
  if (!state) return;
  command({ type: "quiet", tracker: page.tracker, seconds: state.quiet_s > 0 ? 0 : page.quietS });
}

export function takeBack(done) {
  command({ type: "take_back", tracker: page.tracker, answer: done.key });
}

// ---- objects

export function addObject() {
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

export const objects = {
  pause: (object, pause) =>
    command({ type: "pause_objects", tracker: page.tracker, ids: [object.id], pause }),
  find: findObject,
  remove: (object) => command({ type: "remove_objects", tracker: page.tracker, ids: [object.id] }),
};

// ---- the recent past

export function lookBack(stamp, step = 0) {
  if (page.draft || !stamp) return;
  const wanted = { stamp, step };
  if (page.pastAsked) {
    page.pastAsked.next = wanted;
    return;
  }
  page.pastAsked = { wanted, next: null };
  page.connection.send({ type: "open_past", tracker: page.tracker, ...wanted });
}

export function takePast(picture) {
  const asked = page.pastAsked;
  if (!asked) return;
  page.pastAsked = null;
  if (asked.wanted) page.past = picture;
  if (asked.next) lookBack(asked.next.stamp, asked.next.step);
}

/** Show what is now, and not what is on its way from the past. */
function leavePast() {
  page.past = null;
  if (page.pastAsked) Object.assign(page.pastAsked, { wanted: null, next: null });
}

export function step(by) {
  const asked = page.pastAsked;
  const coming = asked && (asked.next || asked.wanted);
  if (coming) {
    // It is a step from the picture that is on its way.
    const sum = coming.step + by;
    lookBack(coming.stamp, Math.min(MAX_STEP, Math.max(-MAX_STEP, sum)));
    return;
  }
  const at = page.past ? page.past.stamp : newestStamp();
  if (page.past && by > 0 && page.past.stamp === (trackerState() || {}).newest) goLive();
  else lookBack(at, by);
}

export function goLive() {
  leavePast();
  openNext();
  render();
}
