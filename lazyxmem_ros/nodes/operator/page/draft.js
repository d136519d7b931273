// SPDX-License-Identifier: Apache-2.0
// An answer that is being made: clicks, a box, paint, and the mask that comes of them. It belongs to
// one picture and outlives a lost connection.

import { disc, maskOf, pack, resize, unpack } from "./runs.js";
import { Look } from "./stage.js";
import { text } from "./text.js";

const MAX_UNDO = 60;
const MAX_POINTS = 200; // of each kind, as the console takes them

/** A picture message with its parts decoded: {…header, image (ImageBitmap), labels, heat}. */
export async function decodePicture(message, payload) {
  const [jpeg, runs, heat] = message.parts;
  const part = (from, length) => payload.subarray(from, from + length);
  const bitmap = (bytes) => createImageBitmap(new Blob([bytes], { type: "image/jpeg" }));
  const [image, heatImage] = await Promise.all([
    bitmap(part(0, jpeg)),
    heat ? bitmap(part(jpeg + runs, heat)) : null,
  ]);
  const labels = unpack(part(jpeg, runs), message.width * message.height);
  return { ...message, image, labels, heat: heatImage };
}

export class Draft {
  /**
   * picture: what it is about. kind: "request", "add" or "correct". objectId: 0 for a new one.
   * refine(draft): asks for a mask. changed(draft): there is something new to show.
   */
  constructor({ key, kind, picture, objectId, label, refine, changed }) {
    this.key = key;
    this.kind = kind;
    this.picture = picture;
    this.objectId = objectId;
    this.label = label;
    this.askRefine = refine;
    this.changed = changed;
    this.width = picture.full_width;
    this.height = picture.full_height;
    const value = picture.ids.indexOf(objectId) + 1;
    const mask = value
      ? maskOf(picture.labels, value)
      : new Uint8Array(picture.width * picture.height);
    this.mask = resize(mask, picture.width, picture.height, this.width, this.height);
    this.prior = this.mask; // what clicks start from
    this.clicks = []; // {x, y, positive}
    this.box = null; // [x0, y0, x1, y1]
    this.history = [];
    this.refining = 0; // the number of the question that is under way
    this.isVoid = false; // its answer is not wanted any more
    this.wanted = false; // another is to follow
    this.fault = "";
    this.accepting = false;
    this.heldAt = -Infinity; // when the others were told that its request is being answered
    this.seenAt = Infinity; // when it came to the stage, once it is drawn there
    this.look = new Look(); // of its picture
    this.version = 0;
    this.touched = false;
  }

  get isRefining() {
    return (this.refining !== 0 && !this.isVoid) || this.wanted;
  }

  get isEmpty() {
    return !this.mask.includes(1);
  }

  click(x, y, positive) {
    if (this.clicks.filter((click) => click.positive === positive).length >= MAX_POINTS) {
      this.fault = text.fault("too_many_points");
      this.show();
      return;
    }
    this.remember();
    this.clicks = [...this.clicks, { x, y, positive }];
    this.question();
  }

  drawBox(x0, y0, x1, y1) {
    this.remember();
    this.box = [Math.min(x0, x1), Math.min(y0, y1), Math.max(x0, x1), Math.max(y0, y1)];
    this.question();
  }

  /** Begin to paint: what is under way would paint over it. */
  beginStroke() {
    this.remember();
    this.askNoMore();
    this.mask = this.mask.slice();
  }

  stroke(x0, y0, x1, y1, radius, value) {
    const steps = Math.max(1, Math.ceil(Math.hypot(x1 - x0, y1 - y0) / Math.max(1, radius / 2)));
    for (let i = 0; i <= steps; i += 1) {
      const t = i / steps;
      disc(this.mask, this.width, this.height, x0 + t * (x1 - x0), y0 + t * (y1 - y0), radius, value);
    }
    this.show();
  }

  endStroke() {
    this.prior = this.mask;
    this.box = null;
    this.show();
  }

  undo() {
    const before = this.history.pop();
    if (!before) return false;
    Object.assign(this, before);
    this.mask = unpack(before.mask, this.width * this.height);
    this.prior = unpack(before.prior, this.width * this.height);
    this.askNoMore();
    this.fault = "";
    this.accepting = false;
    if (before.pending) this.question();
    this.show();
    return true;
  }

  remember() {
    this.touched = true;
    this.fault = "";
    this.accepting = false;
    this.history.push({
      clicks: this.clicks,
      box: this.box,
      mask: pack(this.mask),
      prior: pack(this.prior),
      pending: this.isRefining,
    });
    if (this.history.length > MAX_UNDO) this.history.shift();
  }

  /** Ask for the mask of what is marked now; one question at a time, the newest next. */
  question() {
    this.wanted = true;
    this.ask();
    this.show();
  }

  /** What is asked is of no use any more. The next question waits for its answer all the same. */
  askNoMore() {
    this.isVoid = true;
    this.wanted = false;
  }

  ask() {
    if (!this.wanted || this.refining) return;
    if (!this.clicks.length && !this.box) {
      this.wanted = false;
      return;
    }
    const number = this.askRefine(this);
    if (number) {
      this.refining = number;
      this.isVoid = false;
      this.wanted = false;
    }
  }

  /** The connection was lost with a question under way. */
  askAgain() {
    this.wanted = this.isRefining;
    this.refining = 0;
    this.ask();
  }

  /** The answer to the question that is under way; whether there is a new mask. */
  refined(message, payload) {
    const isWanted = !this.isVoid;
    this.refining = 0;
    if (isWanted && message.ok) {
      this.mask = unpack(payload, this.width * this.height);
      this.fault = "";
    } else if (isWanted) {
      this.fault = text.fault(message.code, message.detail);
      this.accepting = false;
    }
    this.ask();
    this.show();
    return isWanted && message.ok;
  }

  show() {
    this.version += 1;
    this.changed(this);
  }

  /** What the answer is made of, as messages have it. */
  get prompts() {
    const of = (positive) =>
      this.clicks.filter((click) => click.positive === positive).map(({ x, y }) => [x, y]);
    return { positive: of(true), negative: of(false), box: this.box };
  }
}
