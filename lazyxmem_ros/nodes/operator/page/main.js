// SPDX-License-Identifier: Apache-2.0
// The page begins here: what each key does, the connection, and what is made once.

import {
  accept,
  addObject,
  choose,
  dismiss,
  giveBack,
  goLive,
  hold,
  lookBack,
  mark,
  openRequest,
  paint,
  quiet,
  step,
  undo,
  watch,
  without,
} from "./answering.js";
import { Connection, isRefusal, logIn, refusal } from "./connection.js";
import { onMessage } from "./hearing.js";
import { listen, showKeys } from "./keys.js";
import { $, drawWith, page, render, say, stored, trackerState } from "./page.js";
import { renderNow, stage } from "./showing.js";
import { text } from "./text.js";
import { makeTools, MAX_BRUSH } from "./tools.js";

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
  zoom: (event) => stage.zoomBy(event.key === "-" ? 0.8 : 1.25),
  undo,
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

// What a key or button does for as long as it is held.
const holds = { heat: setHeat, compare: setCompare };

/** Mark, or paint, where the crosshair is. */
function pointAt(positive) {
  const at = page.draft && stage.aim();
  if (!at) return;
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

const prefersDark = matchMedia("(prefers-color-scheme: dark)");

/** Light or dark as it was chosen here, else as the browser has it. */
function applyTheme() {
  document.documentElement.dataset.theme =
    stored.get("theme") || (prefersDark.matches ? "dark" : "light");
  render();
}

function switchTheme() {
  const { dataset } = document.documentElement;
  dataset.theme = dataset.theme === "dark" ? "light" : "dark";
  stored.set("theme", dataset.theme);
  render();
}

// ---- the connection

/** reason: as of Connection's on.closed, or why the console lets nobody in. */
function closed(reason) {
  if (reason === "lost") {
    refusal(page.connection.session).then((why) => {
      if (why && (page.closed === "lost" || isRefusal(page.closed))) closed(why);
    });
    // It is tried again and again; what is known of the cause stays, and is not read aloud each time.
    if (isRefusal(page.closed)) return;
  }
  page.closed = reason;
  render();
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

// ---- the page is made

async function start() {
  applyTheme();
  prefersDark.addEventListener("change", applyTheme);
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
  makeTools({ press: (id, event) => actions[id](event), hold: (id, held) => holds[id](held) });
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
    const oldest = BigInt(state.oldest); // the slider goes in whole milliseconds
    lookBack(String(stamp < oldest ? oldest : stamp));
  };
  $("operator").value = stored.get("name");
  $("operator").onchange = (event) => {
    const name = event.target.value.trim();
    stored.set("name", name);
    page.connection.name = name;
    page.connection.hello();
  };
  document.addEventListener("visibilitychange", watch);
  window.addEventListener("pagehide", () => page.draft && giveBack(page.draft));
  window.addEventListener("beforeunload", (event) => {
    if (page.drafts.size && [...page.drafts.values()].some((draft) => draft.touched)) {
      event.preventDefault();
    }
  });
  listen({
    press: (action, event) => actions[action](event),
    hold: (action, held) => holds[action](held),
  });
  drawWith(renderNow);
  render();
  const allowed = await logIn();
  page.connection = new Connection(
    { message: onMessage, open: opened, closed },
    stored.get("name"),
  );
  if (!allowed) closed("token");
  setInterval(render, 500);
}

start();
