// SPDX-License-Identifier: Apache-2.0
// The row of buttons under the picture.

import { KEYS } from "./keys.js";
import { $, page, render } from "./page.js";
import { element } from "./panels.js";
import { text } from "./text.js";

export const MAX_BRUSH = 200;

const GROUPS = [
  ["object", "other", "box", "paint", "erase"],
  ["undo", "heat", "compare"],
  ["add"],
  ["quiet", "absent", "dismiss", "accept"],
];
const HELD = new Set(["heat", "compare"]);
const [MARKING] = GROUPS;
const tools = new Map(); // name -> button

const keyOf = (id) => KEYS.find((row) => row.action === id).shown[0];

/** on.press(name, event): a button that does something. on.hold(name, whether): one that is held. */
export function makeTools(on) {
  for (const group of GROUPS) {
    const made = element("div", { class: "group" });
    for (const id of group) {
      const button = element(
        "button",
        { class: `tool tool-${id}` },
        element("span", {}, text.tools[id]),
        element("kbd", {}, keyOf(id)),
      );
      button.id = `tool-${id}`;
      button.setAttribute("aria-keyshortcuts", keyOf(id) === "Esc" ? "Escape" : keyOf(id));
      if (HELD.has(id)) holdable(button, (held) => on.hold(id, held));
      else if (group === MARKING) button.onclick = () => choose(id);
      else button.onclick = (event) => on.press(id, event);
      tools.set(id, button);
      made.append(button);
    }
    if (group === MARKING) {
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

function choose(tool) {
  page.tool = tool;
  render();
}

/** A button that is held, by mouse, finger or key. */
function holdable(button, set) {
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

export function showTools(state) {
  const { draft } = page;
  const isRequest = Boolean(draft && draft.kind === "request");
  const set = (id, { hidden = false, disabled = false, pressed }) => {
    const button = tools.get(id);
    button.hidden = hidden;
    button.disabled = disabled;
    if (pressed !== undefined) button.setAttribute("aria-pressed", String(pressed));
  };
  for (const tool of MARKING) {
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
  if (page.quietS) tools.get("quiet").firstChild.textContent = text.quietFor(page.quietS);
  const word = isRequest ? text.tools.dismiss : text.tools.cancel;
  tools.get("dismiss").firstChild.textContent = word;
  const accepts = draft && draft.kind === "add" ? text.tools.add : text.tools.accept;
  tools.get("accept").firstChild.textContent = accepts;
  $("brush").hidden = !(draft && (page.tool === "paint" || page.tool === "erase"));
}
