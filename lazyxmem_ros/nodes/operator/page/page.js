// SPDX-License-Identifier: Apache-2.0
// What the page knows, and when it is drawn again. Everything else changes or shows this.

import { Curves } from "./panels.js";
import { Portraits } from "./portraits.js";

export const $ = (id) => document.getElementById(id);
export const stored = {
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

export const page = {
  connection: null,
  state: null,
  tracker: "", // whose pictures are shown
  live: null, // the newest picture
  past: null, // a picture of the past that is looked at
  draft: null, // the answer that is on the stage
  drafts: new Map(), // all that were begun, by key
  skipped: new Set(), // open requests whose pictures cannot be shown
  asked: "", // the request whose picture is awaited
  pastAsked: null, // {wanted, next} of the picture of the past that is on its way
  quietS: 0, // for how long Quiet is
  tool: "object",
  brush: 12,
  heat: false,
  compare: false,
  curves: new Map(), // by tracker
  portraits: new Map(), // by tracker
  closed: "connecting",
  told: new Map(), // outcomes that were said, by key
  verdict: "",
  seen: "", // the key of what the stage shows
  stroke: null, // {draft, x, y} of the one that is being painted
};

export const trackerState = () =>
  page.state ? page.state.trackers.find((each) => each.tracker === page.tracker) : undefined;
export const requestOf = (key) =>
  (page.state ? page.state.trackers : [])
    .flatMap((tracker) => tracker.requests)
    .find((request) => request.key === key);
export const trackerOfKey = (key) => key.split("|")[0];
export const seconds = (later, earlier) => Number(BigInt(later) - BigInt(earlier)) / 1e9;
export const newestStamp = () => (page.live ? page.live.stamp : (trackerState() || {}).newest || "");

export function say(words) {
  $("speech").textContent = words;
}

export function curvesOf(tracker) {
  if (!page.curves.has(tracker)) page.curves.set(tracker, new Curves());
  return page.curves.get(tracker);
}

export function portraitsOf(tracker) {
  if (!page.portraits.has(tracker)) page.portraits.set(tracker, new Portraits());
  return page.portraits.get(tracker);
}

// ---- drawing again

let draw = () => {};
let drawDue = false;

/** Say what draws the page. */
export function drawWith(renderNow) {
  draw = renderNow;
}

/** Draw the page before the browser's next picture, once for all that changed until then. */
export function render() {
  if (drawDue) return;
  drawDue = true;
  requestAnimationFrame(() => {
    drawDue = false;
    draw();
  });
}
