// SPDX-License-Identifier: Apache-2.0
// Masks as run lengths, the other side of runs.py: each little-endian uint32 has the value in its
// upper 8 bits and the number of pixels that carry it in the lower 24, row by row.

const MAX_LENGTH = (1 << 24) - 1;

/** A Uint8Array of the values that a buffer's runs describe. */
export function unpack(bytes, pixels) {
  const words = new Uint32Array(bytes.slice().buffer);
  const values = new Uint8Array(pixels);
  let at = 0;
  for (const word of words) {
    const end = at + (word & MAX_LENGTH);
    const value = word >>> 24;
    if (value) values.fill(value, at, end);
    at = end;
  }
  return values;
}

/** The runs of a Uint8Array, as bytes. */
export function pack(values) {
  const words = [];
  let at = 0;
  while (at < values.length) {
    const value = values[at];
    let end = at + 1;
    while (end < values.length && values[end] === value && end - at < MAX_LENGTH) end += 1;
    words.push(((value << 24) | (end - at)) >>> 0);
    at = end;
  }
  return new Uint8Array(new Uint32Array(words).buffer);
}

/** The mask with 0 and 1 where a label map has one value. */
export function maskOf(labels, value) {
  const mask = new Uint8Array(labels.length);
  for (let i = 0; i < labels.length; i += 1) if (labels[i] === value) mask[i] = 1;
  return mask;
}

/** A mask in another size, each pixel that of the nearest one. */
export function resize(mask, width, height, newWidth, newHeight) {
  if (width === newWidth && height === newHeight) return mask;
  const made = new Uint8Array(newWidth * newHeight);
  for (let y = 0; y < newHeight; y += 1) {
    const row = Math.min(height - 1, Math.floor(((y + 0.5) * height) / newHeight)) * width;
    for (let x = 0; x < newWidth; x += 1) {
      made[y * newWidth + x] = mask[row + Math.min(width - 1, Math.floor(((x + 0.5) * width) / newWidth))];
    }
  }
  return made;
}

/** Draw a filled disc of a value. */
export function disc(mask, width, height, x, y, radius, value) {
  const top = Math.max(0, Math.ceil(y - radius));
  const bottom = Math.min(height - 1, Math.floor(y + radius));
  for (let row = top; row <= bottom; row += 1) {
    const half = Math.sqrt(Math.max(0, radius * radius - (row - y) * (row - y)));
    const left = Math.max(0, Math.ceil(x - half));
    const right = Math.min(width - 1, Math.floor(x + half));
    if (right >= left) mask.fill(value, row * width + left, row * width + right + 1);
  }
}
