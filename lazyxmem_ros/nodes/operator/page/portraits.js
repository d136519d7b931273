// SPDX-License-Identifier: Apache-2.0
// What each object looks like, for people who have not watched it: as it was when the tracker was
// surest of it. An earlier look is preferred to one that is hardly better, since later the tracker may
// have gone over to something else.

const SIDE = 144; // pixels
const MARGIN = 0.08; // of the longer side of the object's box
const LEAST_SIDE = 8; // pixels of the picture; less shows nothing
const BETTER_BY = 0.05; // of the predicted IoU
const DIM = 0.55;

/**
 * [left, top, right, bottom] of a value's largest piece in a label map, edges included; null where
 * there is none.
 */
function boxOf(labels, width, value) {
  const seen = new Uint8Array(labels.length);
  let most = 0;
  let largest = null;
  for (let start = 0; start < labels.length; start += 1) {
    if (labels[start] !== value || seen[start]) continue;
    const waiting = [start];
    const box = [width, labels.length, 0, 0];
    let count = 0;
    seen[start] = 1;
    while (waiting.length) {
      const i = waiting.pop();
      const x = i % width;
      const y = (i - x) / width;
      count += 1;
      box[0] = Math.min(box[0], x);
      box[1] = Math.min(box[1], y);
      box[2] = Math.max(box[2], x);
      box[3] = Math.max(box[3], y);
      for (const next of [x ? i - 1 : i, x + 1 < width ? i + 1 : i, i - width, i + width]) {
        if (labels[next] !== value || seen[next]) continue;
        seen[next] = 1;
        waiting.push(next);
      }
    }
    if (count > most) [most, largest] = [count, box];
  }
  return largest;
}

/** The object with what is around it, which is dimmed; null where too little of it is seen. */
function draw(picture, value) {
  const { image, labels, width, height } = picture;
  const box = boxOf(labels, width, value);
  if (!box) return null;
  const longer = Math.max(box[2] - box[0], box[3] - box[1]) + 1;
  if (longer < LEAST_SIDE) return null;
  const side = Math.min(longer * (1 + 2 * MARGIN), width, height);
  const within = (middle, whole) => Math.min(whole - side, Math.max(0, middle - side / 2));
  const left = within((box[0] + box[2] + 1) / 2, width);
  const top = within((box[1] + box[3] + 1) / 2, height);
  const canvas = document.createElement("canvas");
  canvas.width = SIDE;
  canvas.height = SIDE;
  const context = canvas.getContext("2d");
  context.drawImage(image, left, top, side, side, 0, 0, SIDE, SIDE);
  const pixels = context.getImageData(0, 0, SIDE, SIDE);
  for (let i = 0; i < SIDE * SIDE; i += 1) {
    const x = Math.floor(left + (((i % SIDE) + 0.5) * side) / SIDE);
    const y = Math.floor(top + ((Math.floor(i / SIDE) + 0.5) * side) / SIDE);
    if (labels[y * width + x] === value) continue;
    for (let channel = 0; channel < 3; channel += 1) pixels.data[4 * i + channel] *= DIM;
  }
  context.putImageData(pixels, 0, 0);
  return canvas;
}

export class Portraits {
  constructor() {
    this.known = new Map(); // object id -> {label, quality, canvas}
  }

  /** Forget objects that are gone, also where others have got their ids. objects: what there is. */
  keep(objects) {
    const labels = new Map(objects.map(({ id, label }) => [id, label]));
    for (const [id, { label }] of this.known) if (labels.get(id) !== label) this.known.delete(id);
  }

  /** Look at a live picture. objects: what is known of those in the newest one. */
  see(picture, objects) {
    for (const { id, label, state, predicted_iou: iou } of objects) {
      const value = picture.ids.indexOf(id) + 1;
      const known = this.known.get(id);
      const quality = iou === null ? 0 : iou;
      if (state !== "tracked" || !value || (known && quality < known.quality + BETTER_BY)) continue;
      const canvas = draw(picture, value);
      if (canvas) this.known.set(id, { label, quality, canvas });
    }
  }

  /** Show an object's portrait on a canvas; whether there is one. */
  show(canvas, id) {
    const known = this.known.get(id);
    if (!known) return false;
    if (canvas.portrait !== known.canvas) {
      canvas.portrait = known.canvas;
      canvas.width = SIDE;
      canvas.height = SIDE;
      canvas.getContext("2d").drawImage(known.canvas, 0, 0);
    }
    return true;
  }
}
