// SPDX-License-Identifier: Apache-2.0
// What each key does; the list that "?" shows is made of the same table.

import { element } from "./panels.js";
import { text } from "./text.js";

/**
 * keys: of KeyboardEvent.key. hold: what counts while the key is held. repeats: what is done again
 * and again then; all else is done once, since what it is about may be another thing by then.
 */
export const KEYS = [
  { action: "accept", keys: ["Enter"], group: "answer", shown: ["Enter"] },
  { action: "dismiss", keys: ["Escape"], group: "answer", shown: ["Esc"] },
  { action: "absent", keys: ["v"], group: "answer", shown: ["V"] },
  { action: "quiet", keys: ["m"], group: "answer", shown: ["M"] },
  { action: "next", keys: ["j"], group: "answer", shown: ["J"] },
  {
    action: "numbered",
    keys: ["1", "2", "3", "4", "5", "6", "7", "8", "9"],
    group: "answer",
    shown: ["1 … 9"],
  },
  { action: "object", keys: ["a"], group: "mark", shown: ["A"] },
  { action: "other", keys: ["s"], group: "mark", shown: ["S"] },
  { action: "box", keys: ["b"], group: "mark", shown: ["B"] },
  { action: "paint", keys: ["p"], group: "mark", shown: ["P"] },
  { action: "erase", keys: ["e"], group: "mark", shown: ["E"] },
  { action: "brush", keys: ["[", "]"], group: "mark", shown: ["[", "]"], repeats: true },
  {
    action: "arrows",
    keys: ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"],
    group: "mark",
    shown: ["←", "→", "↑", "↓"],
    repeats: true,
  },
  { action: "zoom", keys: ["+", "=", "-"], group: "mark", shown: ["+", "-"], repeats: true },
  { action: "undo", keys: ["u", "ctrl+z"], group: "mark", shown: ["U", "Ctrl Z"], repeats: true },
  { action: "heat", keys: ["h"], group: "watch", shown: ["H"], hold: true },
  { action: "compare", keys: ["c"], group: "watch", shown: ["C"], hold: true },
  { action: "add", keys: ["n"], group: "watch", shown: ["N"] },
  { action: "step", keys: [",", "."], group: "watch", shown: [",", "."], repeats: true },
  { action: "live", keys: ["l"], group: "watch", shown: ["L"] },
  { action: "tracker", keys: ["t"], group: "page", shown: ["T"] },
  { action: "theme", keys: ["d"], group: "page", shown: ["D"] },
  { action: "help", keys: ["?"], group: "page", shown: ["?"] },
];

/**
 * The keys of these end the writing of a name. From the field with a new object's they do what they do
 * everywhere, too: to give it is a part of showing it.
 */
const ENDS_NAMING = new Set(["accept", "dismiss"]);

const byKey = new Map(KEYS.flatMap((row) => row.keys.map((key) => [key, row])));

function rowOf(event) {
  if (event.altKey || event.metaKey) return null;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (event.ctrlKey) return byKey.get(`ctrl+${key}`) || null;
  return byKey.get(key) || null;
}

/** on.press(action, event); on.hold(action, whether it is held) for keys that count while held. */
export function listen(on) {
  const held = new Map();
  const writes = (target) => target.closest("input[type=text], input:not([type]), textarea");
  document.addEventListener("keydown", (event) => {
    // A key that chooses among an input method's characters is not the page's. Safari says so by its
    // code alone.
    if (event.isComposing || event.keyCode === 229) return;
    const { target } = event;
    const presses = event.key === "Enter" && target.closest("button, a, summary");
    if (presses && event.repeat) event.preventDefault(); // a button is pressed once, too
    const row = rowOf(event);
    if (!row || document.querySelector("dialog[open]")) return;
    if (writes(target)) {
      if (!ENDS_NAMING.has(row.action)) return;
      if (target.id !== "label") {
        target.blur();
        return;
      }
    }
    if (presses) return;
    if (row.action === "arrows" && target.closest("input")) return; // they move that slider
    if (event.repeat && !row.repeats && !row.hold) {
      event.preventDefault();
      return;
    }
    if (row.hold) {
      event.preventDefault();
      if (!held.has(event.code)) {
        held.set(event.code, row.action);
        on.hold(row.action, true);
      }
      return;
    }
    if (on.press(row.action, event) !== false) event.preventDefault();
  });
  document.addEventListener("keyup", (event) => {
    const action = held.get(event.code);
    if (action) {
      held.delete(event.code);
      on.hold(action, false);
    }
  });
  window.addEventListener("blur", () => {
    for (const action of held.values()) on.hold(action, false);
    held.clear();
  });
}

export function showKeys(container) {
  container.replaceChildren(
    ...Object.entries(text.keys.groups).map(([group, heading]) =>
      element(
        "section",
        {},
        element("h3", {}, heading),
        element(
          "dl",
          {},
          ...KEYS.filter((row) => row.group === group).flatMap((row) => [
            element("dt", {}, ...row.shown.map((key) => element("kbd", {}, key))),
            element("dd", {}, text.keys.rows[row.action]),
          ]),
        ),
      ),
    ),
  );
}
