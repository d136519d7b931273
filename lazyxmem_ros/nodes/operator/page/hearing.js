// SPDX-License-Identifier: Apache-2.0
// What comes from the console, and what it means for the page.

import { choose, end, openNext, send, takePast, takeRequestPicture } from "./answering.js";
import { decodePicture } from "./draft.js";
import {
  $,
  curvesOf,
  page,
  portraitsOf,
  render,
  requestOf,
  say,
  trackerOfKey,
  trackerState,
} from "./page.js";
import { nameOf, toast } from "./panels.js";
import { text } from "./text.js";

export function onMessage(message, payload) {
  if (message.type === "welcome") {
    if (document.activeElement !== $("operator")) $("operator").value = message.name;
    page.connection.name = message.name;
    page.quietS = message.quiet_s;
  } else if (message.type === "state") takeState(message);
  else if (message.type === "samples") curvesOf(message.tracker).add(message);
  else if (message.type === "picture") takePicture(message, payload);
  else if (message.type === "refined") takeRefined(message, payload);
  else if (message.type === "refused") {
    if (message.about && message.about === page.asked) {
      page.asked = "";
      page.skipped.add(message.about); // it would be asked for at once, again and again
    }
    if (message.code !== "not_open" && message.code !== "no_past") {
      toast($("toasts"), text.fault(message.code, message.detail), true);
    }
    if (!message.about) page.pastAsked = null;
  }
}

function takeState(state) {
  page.state = state;
  for (const key of page.skipped) if (!requestOf(key)) page.skipped.delete(key);
  for (const { tracker, objects } of state.trackers) portraitsOf(tracker).keep(objects);
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
        page.connection.send({ type: "shown", number: picture.number });
        if (picture.tracker !== page.tracker) return;
        page.live = picture;
        $("canvas").dataset.number = picture.number;
        portraitsOf(page.tracker).see(picture, (trackerState() || { objects: [] }).objects);
      } else if (picture.kind === "past") {
        takePast(picture);
      } else if (picture.kind === "request") {
        takeRequestPicture(picture);
      }
      render();
    })
    .catch((error) => {
      // A broken picture must not stop those that follow.
      if (message.kind === "live") page.connection.send({ type: "shown", number: message.number });
      else if (message.kind === "past") page.pastAsked = null;
      else if (message.request === page.asked) {
        page.asked = "";
        page.skipped.add(message.request);
      }
      console.error(error);
    });
}

function takeRefined(message, payload) {
  const draft = [...page.drafts.values()].find((each) => each.refining === message.seq);
  if (!draft) return;
  const isNew = draft.refined(message, payload);
  if (draft !== page.draft) return;
  if (isNew) {
    const share = draft.mask.reduce((sum, value) => sum + value, 0) / draft.mask.length;
    say(text.announce.refined((100 * share).toFixed(1)));
  }
  if (draft.accepting && !draft.isRefining) send(draft);
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

/** The requests whose answers were begun may be over, the one on the stage or others. */
function lookAfterDraft() {
  for (const [key, draft] of page.drafts) {
    if (draft.kind !== "request") continue;
    if (requestOf(key)) {
      draft.missing = 0;
      continue;
    }
    const tracker = page.state.trackers.find((each) => each.tracker === trackerOfKey(key));
    const done = tracker && tracker.finished.find((each) => each.key === key);
    if (!done) {
      // A console that has just begun may not have heard of it yet.
      if (!tracker || tracker.node === "present") leaveSoon(draft);
      continue;
    }
    if (!draft.sending) end(draft, `first_${done.outcome}`, done.by);
  }
}

function leaveSoon(draft) {
  draft.missing = draft.missing || performance.now();
  if (performance.now() - draft.missing >= 5000) end(draft, "first_unknown");
}
