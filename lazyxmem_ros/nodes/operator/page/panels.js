// SPDX-License-Identifier: Apache-2.0
// What lies around the picture: requests, objects, answers, who is there, notices.

import { text } from "./text.js";

const CURVE_S = 60;
const CURVE_TOP = 1.5; // of masked entropy; more is drawn at the top
const CONFIRM_MS = 4000;

export const nameOf = (object) =>
  object.label || text.unnamed(object.object_id === undefined ? object.id : object.object_id);

export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "class") made.className = value;
    else if (name === "role") made.setAttribute(name, value);
    else if (name.startsWith("aria")) made.setAttribute(`aria-${name.slice(4).toLowerCase()}`, value);
    else made[name] = value;
  }
  made.append(...children);
  return made;
}

const write = (node, words) => {
  if (node.textContent !== words) node.textContent = words;
};

/** Children for items, kept by their keys, so that what has the focus keeps it. Items may share one. */
function keyed(container, items, keyOf, create, update) {
  const known = new Map([...container.children].map((child) => [child.dataset.key, child]));
  const counts = new Map();
  const keys = items.map((item) => {
    const name = String(keyOf(item));
    const count = (counts.get(name) || 0) + 1;
    counts.set(name, count);
    return count > 1 ? `${name} ${count}` : name;
  });
  // At first, so that those behind need not be moved: a click on one that is moved is lost.
  for (const [key, child] of known) if (!keys.includes(key)) child.remove();
  let before = null;
  items.forEach((item, place) => {
    let child = known.get(keys[place]);
    if (!child) {
      child = create(item);
      child.dataset.key = keys[place];
    }
    const next = before ? before.nextSibling : container.firstChild;
    if (child !== next) container.insertBefore(child, next);
    update(child, item);
    before = child;
  });
}

// ---- requests

/** on.open(request). open: the key of the one that is shown. */
export function showRequests(list, requests, open, on) {
  keyed(
    list,
    requests.length ? requests : [{ key: "none" }],
    (request) => request.key,
    (request) => {
      if (request.key === "none") return element("li", { class: "empty" }, text.noRequests);
      const button = element(
        "button",
        { class: "request" },
        element("span", { class: "request-number", ariaHidden: "true" }),
        element("strong"),
        element("span", { class: "request-left" }),
        element("span", { class: "request-note" }),
        element("span", { class: "request-bar" }, element("i")),
      );
      button.onclick = () => on.open(button.request);
      return element("li", {}, button);
    },
    (item, request) => {
      if (request.key === "none") return;
      const button = item.firstChild;
      button.request = request;
      const [number, name, left, note, bar] = button.children;
      write(number, String(requests.indexOf(request) + 1));
      write(name, nameOf(request));
      write(left, text.secondsLeftShort(request.left_s));
      const taken = request.taken_by && !request.mine;
      write(note, taken ? text.takenBy(request.taken_by) : request.mine ? text.yours : request.reason);
      button.classList.toggle("taken", Boolean(taken));
      button.setAttribute("aria-current", String(request.key === open));
      item.most = Math.max(item.most || 0, request.left_s || 0);
      bar.hidden = request.left_s === null;
      if (request.left_s !== null) {
        bar.firstChild.style.width = `${(100 * Math.max(0, request.left_s)) / (item.most || 1)}%`;
      }
      button.classList.toggle("urgent", request.left_s !== null && request.left_s < 4);
    },
  );
}

// ---- objects

/** on.pause(object, pause), on.find(object), on.remove(object). curves: Curves. */
export function showObjects(list, objects, curves, on) {
  keyed(
    list,
    objects.length ? objects : [{ id: "none" }],
    (object) => object.id,
    (object) => {
      if (object.id === "none") return element("li", { class: "empty" }, text.noObjects);
      const canvas = element("canvas", { class: "curve", role: "img" });
      const buttons = ["pause", "find", "remove"].map((action) => {
        const button = element("button", { class: "small" });
        button.dataset.action = action;
        return button;
      });
      const item = element(
        "li",
        { class: "object" },
        element(
          "div",
          { class: "object-head" },
          element("span", { class: "dot", ariaHidden: "true" }),
          element("strong"),
          element("span", { class: "state" }),
        ),
        canvas,
        element("div", { class: "figures" }, element("span"), element("span")),
        element("div", { class: "actions" }, ...buttons),
      );
      const [pause, find, remove] = buttons;
      pause.onclick = () => on.pause(item.object, item.object.state !== "paused");
      find.onclick = () => on.find(item.object);
      remove.onclick = () => confirm(remove, () => on.remove(item.object));
      return item;
    },
    (item, object) => {
      if (object.id === "none") return;
      item.object = object;
      const name = nameOf(object);
      const [head, canvas, figures, actions] = item.children;
      head.children[0].style.background = object.colour;
      write(head.children[1], name);
      write(head.children[2], text.states[object.state]);
      head.children[2].dataset.state = object.state;
      canvas.setAttribute("aria-label", text.curve(name, object.uncertainty));
      curves.draw(canvas, object.id);
      write(figures.children[0], text.predictedIou(object.predicted_iou));
      write(figures.children[1], text.uncertainty(object.uncertainty));
      for (const button of actions.children) {
        let { action } = button.dataset;
        if (action === "pause" && object.state === "paused") action = "resume";
        const words =
          action === "remove" && button.armed ? text.actions.reallyRemove : text.actions[action];
        write(button, words);
        button.setAttribute("aria-label", text.actions.ofObject(words, name));
      }
    },
  );
}

/** Do something on the second press; the first one asks. */
function confirm(button, act) {
  const arm = (armed) => {
    button.armed = armed;
    button.classList.toggle("armed", armed);
  };
  if (button.armed) {
    arm(false);
    clearTimeout(button.timer);
    act();
  } else {
    arm(true);
    button.textContent = text.actions.reallyRemove;
    button.timer = setTimeout(() => arm(false), CONFIRM_MS);
  }
}

/** The last minute of every object of a tracker. */
export class Curves {
  constructor() {
    this.samples = new Map(); // object id -> [{at, uncertainty}]
    this.last = 0;
  }

  add(message) {
    if (message.restart) {
      this.samples.clear();
      this.last = 0;
    }
    for (const [at, id, uncertainty] of message.samples) {
      const curve = this.samples.get(id) || [];
      curve.push({ at, uncertainty });
      while (curve.length && at - curve[0].at > CURVE_S) curve.shift();
      this.samples.set(id, curve);
      this.last = at;
    }
    for (const [id, curve] of this.samples) {
      if (this.last - curve[curve.length - 1].at > CURVE_S) this.samples.delete(id);
    }
  }

  draw(canvas, id) {
    const ratio = window.devicePixelRatio || 1;
    const width = Math.round(canvas.clientWidth * ratio);
    const height = Math.round(canvas.clientHeight * ratio);
    if (!width) return;
    if (canvas.width !== width || canvas.height !== height) {
      canvas.width = width;
      canvas.height = height;
    }
    const context = canvas.getContext("2d");
    const style = getComputedStyle(canvas);
    context.clearRect(0, 0, width, height);
    const y = (value) => height - 2 - (Math.min(value, CURVE_TOP) / CURVE_TOP) * (height - 4);
    context.strokeStyle = style.getPropertyValue("--line");
    context.lineWidth = ratio;
    context.beginPath();
    for (const value of [0, 0.5, 1]) {
      context.moveTo(0, y(value));
      context.lineTo(width, y(value));
    }
    context.stroke();
    const curve = this.samples.get(id) || [];
    if (!curve.length) return;
    const x = (at) => width - ((this.last - at) / CURVE_S) * width;
    context.beginPath();
    for (const { at, uncertainty } of curve) context.lineTo(x(at), y(uncertainty || 0));
    context.strokeStyle = style.getPropertyValue("--curve");
    context.lineWidth = 2 * ratio;
    context.lineJoin = "round";
    context.stroke();
    context.lineTo(x(curve[curve.length - 1].at), height);
    context.lineTo(x(curve[0].at), height);
    context.globalAlpha = 0.14;
    context.fillStyle = style.getPropertyValue("--curve");
    context.fill();
    context.globalAlpha = 1;
  }
}

// ---- answers

/** on.takeBack(done), or null where the tracker cannot. */
export function showRecent(list, finished, on) {
  keyed(
    list,
    finished.length ? finished.slice(0, 6) : [{ key: "none" }],
    (done) => done.key,
    (done) => {
      if (done.key === "none") return element("li", { class: "empty" }, text.noRecent);
      const button = element("button", { class: "small" }, text.actions.takeBack);
      const item = element(
        "li",
        { class: "done" },
        element("span", { class: "mark", ariaHidden: "true" }),
        element("strong"),
        element("span", { class: "done-outcome" }),
        element("span", { class: "done-time" }),
        button,
      );
      button.onclick = () => item.takeBack();
      return item;
    },
    (item, done) => {
      if (done.key === "none") return;
      const [mark, name, outcome, time, button] = item.children;
      button.hidden = !on.takeBack || done.outcome !== "applied";
      button.setAttribute("aria-label", text.actions.ofObject(text.actions.takeBack, nameOf(done)));
      item.takeBack = () => on.takeBack(done);
      item.dataset.outcome = done.outcome;
      write(mark, { applied: "✓", sent: "…", refused: "!", expired: "!" }[done.outcome] || "–");
      write(name, nameOf(done));
      write(outcome, [text.outcomes[done.outcome], done.by].filter(Boolean).join(" · "));
      write(time, text.secondsAgo(done.ago_s));
      item.title = done.detail;
    },
  );
}

// ---- who is there

export function showHealth(list, tracker) {
  const camera = tracker ? tracker.picture : "unknown";
  const node = tracker ? tracker.node : "unknown";
  const corrector = tracker ? tracker.corrector : "unknown";
  const rate = tracker && node === "present" && camera === "present" ? text.rate(tracker.rate) : "";
  keyed(
    list,
    [
      ["camera", camera, "", false],
      ["tracker", node, rate, Boolean(tracker && tracker.detail)],
      ["corrector", corrector, "", false],
    ],
    ([what]) => what,
    ([what]) =>
      element(
        "li",
        {},
        element("span", { class: "lamp", ariaHidden: "true" }),
        element("span", {}, text.health[what]),
        element("span", { class: "health-state" }),
      ),
    (item, [, state, note, complains]) => {
      item.dataset.state = state;
      item.classList.toggle("complains", complains);
      write(item.children[2], note || text.healthStates[state]);
    },
  );
}

/** What a tracker complains about. */
export function showComplaint(node, tracker) {
  const words = tracker && tracker.detail ? text.complaint(tracker.detail) : "";
  node.hidden = !words;
  write(node, words);
}

/** notices: [{key, words, urgent, action, act}]. */
export function showNotices(container, notices) {
  keyed(
    container,
    notices,
    (notice) => notice.key,
    (notice) => {
      const item = element("div", { class: "notice" }, element("span"));
      if (notice.action) {
        const button = element("button", { class: "small" }, notice.action);
        button.onclick = () => item.notice.act();
        item.append(button);
      }
      return item;
    },
    (item, notice) => {
      item.notice = notice;
      item.classList.toggle("bad", Boolean(notice.urgent));
      write(item.firstChild, notice.words);
    },
  );
}

export function showTrackers(nav, trackers, chosen, on) {
  nav.hidden = trackers.length < 2;
  keyed(
    nav,
    trackers,
    (tracker) => tracker.tracker,
    (tracker) => {
      const button = element("button", {}, element("span"), element("span", { class: "count" }));
      button.onclick = () => on.choose(tracker.tracker);
      return button;
    },
    (button, tracker) => {
      write(button.children[0], tracker.title);
      write(button.children[1], String(tracker.requests.length));
      button.children[1].hidden = !tracker.requests.length;
      button.setAttribute("aria-pressed", String(tracker.tracker === chosen));
    },
  );
}

const TOAST_MS = 5000;

export function toast(container, words, bad = false) {
  const item = element("div", { class: bad ? "toast bad" : "toast" }, words);
  container.append(item);
  while (container.children.length > 3) container.firstChild.remove();
  setTimeout(() => item.remove(), bad ? 2 * TOAST_MS : TOAST_MS);
}
