// SPDX-License-Identifier: Apache-2.0
// The picture: it draws frames, masks and marks, and says where in the picture somebody points.

const DRAG_PIXELS = 6; // of the screen; less is a click
const OPACITY = 0.34;
const OUTLINE = 2.5; // pixels of the screen
const MAX_ZOOM = 12;
const MARK = "#ffb224";
const BUTTONS = [0, 2]; // left and right; the tip of a pen is the left one

/** [red, green, blue] of "#rrggbb". */
function channels(colour) {
  return [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
}

/**
 * Tint and outline objects: RGBA pixels of a label map. colours: by value, [r, g, b].
 * thickness: of the outline, pixels.
 */
function paintLabels(pixels, labels, width, height, colours, thickness) {
  const data = new Uint32Array(pixels.data.buffer);
  const fill = new Uint32Array(256);
  const edge = new Uint32Array(256);
  for (const [value, [r, g, b]] of colours) {
    const rgb = (b << 16) | (g << 8) | r;
    fill[value] = ((Math.round(255 * OPACITY) << 24) | rgb) >>> 0;
    edge[value] = ((255 << 24) | rgb) >>> 0;
  }
  for (let i = 0; i < labels.length; i += 1) data[i] = fill[labels[i]];
  const reach = Math.max(1, thickness);
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      const i = y * width + x;
      const value = labels[i];
      if (!value) continue;
      const inside =
        x >= reach &&
        y >= reach &&
        x < width - reach &&
        y < height - reach &&
        labels[i - reach] === value &&
        labels[i + reach] === value &&
        labels[i - reach * width] === value &&
        labels[i + reach * width] === value;
      if (!inside) data[i] = edge[value];
    }
  }
}

/**
 * Value -> [x, y] over the objects of a label map, where their names go: above the column that halves
 * an object, which lies in its largest piece.
 */
function places(labels, width) {
  const columns = new Map(); // value -> {count and top of each column, total}
  for (let i = 0; i < labels.length; i += 1) {
    const value = labels[i];
    if (!value) continue;
    let of = columns.get(value);
    if (!of) {
      of = { count: new Uint32Array(width), top: new Uint32Array(width), total: 0 };
      columns.set(value, of);
    }
    const x = i % width;
    if (!of.count[x]) of.top[x] = Math.floor(i / width);
    of.count[x] += 1;
    of.total += 1;
  }
  const found = new Map();
  for (const [value, { count, top, total }] of columns) {
    let x = 0;
    for (let sum = count[0]; 2 * sum < total; sum += count[x]) x += 1;
    found.set(value, [x, top[x]]);
  }
  return found;
}

/** How a picture is looked at; it stays so while another one is shown. */
export class Look {
  zoom = 1;
  x = 0.5; // the picture's part in the middle
  y = 0.5;
  crosshair = null;
  corner = null; // the first one of a box from the keyboard
}

export class Stage {
  /**
   * on.point(x, y, positive), on.box(x0, y0, x1, y1), on.paint(phase, x, y) with phase "begin",
   * "go", "end" or "cancel": all in pixels of the picture. tool(): "object", "other", "box", "paint" or
   * "erase".
   */
  constructor(element, canvas, on, tool) {
    this.element = element;
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.on = on;
    this.tool = tool;
    this.scene = null; // {look, image, width, height, labels, labelWidth, labelHeight, colours, …}
    this.overlay = document.createElement("canvas");
    this.painted = null;
    this.pointers = new Map(); // pointerId -> its last event, of what is pressed
    this.drag = null;
    this.pinches = false; // whether two fingers move the picture that they were put on
    this.due = false;
    new ResizeObserver(() => this.draw()).observe(element);
    this.listen();
  }

  show(scene) {
    if (!this.scene || this.scene.key !== scene.key) {
      // What was begun on one picture does not go on in the next.
      this.abandon();
      this.pinches = false;
    }
    this.scene = scene;
    this.draw();
  }

  get look() {
    return this.scene && this.scene.look;
  }

  draw() {
    if (this.due) return;
    this.due = true;
    requestAnimationFrame(() => {
      this.due = false;
      this.paint();
    });
  }

  // ---- geometry

  /** Where the picture lies on the canvas: {left, top, scale}, in pixels of the canvas. */
  layout() {
    const { width, height } = this.scene;
    const fit = Math.min(this.canvas.width / width, this.canvas.height / height);
    const scale = fit * this.look.zoom;
    const limit = (middle, shown, whole) => {
      const half = shown / whole / 2;
      return half >= 0.5 ? 0.5 : Math.min(1 - half, Math.max(half, middle));
    };
    this.look.x = limit(this.look.x, this.canvas.width / scale, width);
    this.look.y = limit(this.look.y, this.canvas.height / scale, height);
    return {
      left: this.canvas.width / 2 - this.look.x * width * scale,
      top: this.canvas.height / 2 - this.look.y * height * scale,
      scale,
    };
  }

  /** The picture's pixel under a pointer; pixel centres are whole numbers. */
  pixel(event, clamp = false) {
    const area = this.canvas.getBoundingClientRect();
    const { left, top, scale } = this.layout();
    const ratio = this.canvas.width / area.width;
    let x = ((event.clientX - area.left) * ratio - left) / scale - 0.5;
    let y = ((event.clientY - area.top) * ratio - top) / scale - 0.5;
    const { width, height } = this.scene;
    if (clamp) {
      x = Math.min(width - 0.51, Math.max(-0.5, x));
      y = Math.min(height - 0.51, Math.max(-0.5, y));
    }
    const inside = x >= -0.5 && y >= -0.5 && x < width - 0.5 && y < height - 0.5;
    return { x, y, inside };
  }

  /** at: the place that stays where it is; else the crosshair's. */
  zoomBy(factor, at = this.look && this.look.crosshair) {
    if (!this.scene) return;
    const zoom = Math.min(MAX_ZOOM, Math.max(1, this.look.zoom * factor));
    if (at) {
      const { width, height } = this.scene;
      const keep = 1 - this.look.zoom / zoom;
      this.look.x += ((at.x + 0.5) / width - this.look.x) * keep;
      this.look.y += ((at.y + 0.5) / height - this.look.y) * keep;
    }
    this.look.zoom = zoom;
    this.draw();
  }

  /** Move the picture by pixels of the screen. */
  moveBy(dx, dy) {
    const { scale } = this.layout();
    const ratio = this.canvas.width / this.canvas.getBoundingClientRect().width;
    this.look.x -= (dx * ratio) / (this.scene.width * scale);
    this.look.y -= (dy * ratio) / (this.scene.height * scale);
    this.draw();
  }

  /** Move the picture as far as a place of it is out of sight. */
  reveal(at) {
    const { width, height } = this.scene;
    const { scale } = this.layout();
    const near = (middle, place, shown) =>
      Math.min(place + 0.45 * shown, Math.max(place - 0.45 * shown, middle));
    this.look.x = near(this.look.x, (at.x + 0.5) / width, this.canvas.width / scale / width);
    this.look.y = near(this.look.y, (at.y + 0.5) / height, this.canvas.height / scale / height);
  }

  // ---- the mouse, a pen, fingers

  listen() {
    const { canvas } = this;
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("pointerdown", (event) => this.press(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    canvas.addEventListener("pointerup", (event) => this.release(event));
    canvas.addEventListener("pointercancel", (event) => {
      this.pointers.delete(event.pointerId);
      this.abandon();
    });
    canvas.addEventListener(
      "wheel",
      (event) => {
        if (!this.scene) return;
        event.preventDefault();
        this.zoomBy(Math.exp(-event.deltaY / 400), this.pixel(event, true));
      },
      { passive: false },
    );
  }

  press(event) {
    if (!this.scene) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, event);
    if (this.pointers.size > 1) {
      this.abandon();
      this.pinches = true;
      return;
    }
    const at = this.pixel(event);
    if (!this.scene.editable || !BUTTONS.includes(event.button) || !at.inside) return;
    this.element.focus({ preventScroll: true });
    this.look.crosshair = null;
    const tool = this.tool();
    const paints = (tool === "paint" || tool === "erase") && event.button === 0;
    this.drag = { from: at, to: at, start: event, right: event.button === 2, paints, isBox: false };
    if (paints) this.on.paint("begin", at.x, at.y);
  }

  /** Two fingers: where the middle between them is on the screen, and how far they are apart. */
  spread() {
    const [a, b] = this.pointers.values();
    return {
      clientX: (a.clientX + b.clientX) / 2,
      clientY: (a.clientY + b.clientY) / 2,
      apart: Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY),
    };
  }

  pinch(event) {
    const before = this.spread();
    this.pointers.set(event.pointerId, event);
    if (!this.pinches) return;
    const after = this.spread();
    this.zoomBy(after.apart / Math.max(1, before.apart), this.pixel(before, true));
    this.moveBy(after.clientX - before.clientX, after.clientY - before.clientY);
  }

  move(event) {
    const { drag } = this;
    if (this.pointers.size === 2 && this.pointers.has(event.pointerId) && this.scene) {
      this.pinch(event);
      return;
    }
    if (!drag) {
      this.pointer = this.scene && this.scene.editable ? this.pixel(event) : null;
      if (this.scene && this.scene.brush) this.draw();
      return;
    }
    drag.to = this.pixel(event, true);
    this.pointer = drag.to;
    const moved = Math.hypot(
      event.clientX - drag.start.clientX,
      event.clientY - drag.start.clientY,
    );
    if (drag.paints) this.on.paint("go", drag.to.x, drag.to.y);
    else if (!drag.right && moved > DRAG_PIXELS) drag.isBox = true;
    this.draw();
  }

  release(event) {
    const { drag } = this;
    this.pointers.delete(event.pointerId);
    this.drag = null;
    if (!drag) return;
    const to = this.pixel(event, true);
    if (drag.paints) this.on.paint("end", to.x, to.y);
    else if (drag.isBox) {
      this.finishBox(drag.from, to);
    } else if (this.tool() !== "box") {
      this.on.point(drag.from.x, drag.from.y, drag.right === (this.tool() === "other"));
    }
    this.draw();
  }

  abandon() {
    if (this.drag && this.drag.paints) this.on.paint("cancel", this.drag.to.x, this.drag.to.y);
    this.drag = null;
    this.draw();
  }

  /** A box in whole pixels, edges included. */
  finishBox(a, b) {
    const { width, height } = this.scene;
    const x0 = Math.max(0, Math.floor(Math.min(a.x, b.x) + 0.5));
    const y0 = Math.max(0, Math.floor(Math.min(a.y, b.y) + 0.5));
    const x1 = Math.min(width, Math.ceil(Math.max(a.x, b.x) + 0.5));
    const y1 = Math.min(height, Math.ceil(Math.max(a.y, b.y) + 0.5));
    if (x1 - x0 >= 2 && y1 - y0 >= 2) this.on.box(x0, y0, x1, y1);
  }

  // ---- the keyboard

  moveCrosshair(dx, dy) {
    const { scene } = this;
    if (!scene || !scene.editable) return;
    const { x, y, crosshair } = this.look;
    const at = crosshair || { x: Math.floor(x * scene.width), y: Math.floor(y * scene.height) };
    this.look.crosshair = {
      x: Math.min(scene.width - 1, Math.max(0, at.x + dx)),
      y: Math.min(scene.height - 1, Math.max(0, at.y + dy)),
    };
    this.reveal(this.look.crosshair);
    this.draw();
  }

  /** Where to mark; null where nothing can be marked, and where the crosshair has yet to be shown. */
  aim() {
    if (!this.scene || !this.scene.editable) return null;
    const at = this.look.crosshair;
    if (!at) this.moveCrosshair(0, 0); // nobody has seen where it would be
    return at;
  }

  boxCorner() {
    const at = this.aim();
    if (!at) return;
    if (!this.look.corner) this.look.corner = at;
    else {
      this.finishBox(this.look.corner, at);
      this.look.corner = null;
    }
    this.draw();
  }

  // ---- drawing

  paint() {
    const { canvas, element, context } = this;
    const ratio = window.devicePixelRatio || 1;
    const width = Math.round(element.clientWidth * ratio);
    const height = Math.round(element.clientHeight * ratio);
    if (canvas.width !== width || canvas.height !== height) {
      canvas.width = width;
      canvas.height = height;
    }
    context.clearRect(0, 0, width, height);
    const { scene } = this;
    if (!scene || !scene.image) return;
    const { left, top, scale } = this.layout();
    const toX = (x) => left + (x + 0.5) * scale;
    const toY = (y) => top + (y + 0.5) * scale;
    const size = [left, top, scene.width * scale, scene.height * scale];
    context.imageSmoothingEnabled = scale < 4;
    context.drawImage(scene.image, ...size);
    if (scene.heat) {
      context.globalCompositeOperation = "multiply";
      context.fillStyle = "#667";
      context.fillRect(...size);
      context.globalCompositeOperation = "lighter";
      context.drawImage(this.heatOverlay(scene), ...size);
      context.globalCompositeOperation = "source-over";
    } else if (scene.labels) {
      context.drawImage(this.labelOverlay(scene, scale), ...size);
      this.writeNames(scene, left, top, scale, ratio);
    }
    if (scene.editable) this.drawMarks(scene, toX, toY, scale, ratio);
  }

  labelOverlay(scene, scale) {
    const { labelWidth: width, labelHeight: height } = scene;
    const ratio = window.devicePixelRatio || 1;
    const thickness = Math.max(1, Math.round((OUTLINE * ratio * width) / (scene.width * scale)));
    const key = `${scene.key}:${scene.version}:${thickness}`;
    if (this.painted === key) return this.overlay;
    this.overlay.width = width;
    this.overlay.height = height;
    const context = this.overlay.getContext("2d");
    const pixels = context.createImageData(width, height);
    const colours = [...scene.colours].map(([value, colour]) => [value, channels(colour)]);
    paintLabels(pixels, scene.labels, width, height, colours, thickness);
    context.putImageData(pixels, 0, 0);
    this.places = scene.names ? places(scene.labels, width) : null;
    this.painted = key;
    return this.overlay;
  }

  /** The map of uncertainty, from dark over orange to white. */
  heatOverlay(scene) {
    if (this.heated === scene.heat) return this.heatCanvas;
    const { width, height } = scene.heat;
    const made = document.createElement("canvas");
    made.width = width;
    made.height = height;
    const context = made.getContext("2d");
    context.drawImage(scene.heat, 0, 0);
    const pixels = context.getImageData(0, 0, width, height);
    for (let i = 0; i < pixels.data.length; i += 4) {
      const value = pixels.data[i] / 255;
      pixels.data[i] = 255 * Math.min(1, 1.6 * value);
      pixels.data[i + 1] = 255 * Math.max(0, 1.3 * value - 0.3);
      pixels.data[i + 2] = 255 * Math.max(0, 3 * value - 2);
    }
    context.putImageData(pixels, 0, 0);
    this.heated = scene.heat;
    this.heatCanvas = made;
    return made;
  }

  writeNames(scene, left, top, scale, ratio) {
    if (!this.places) return;
    const { context } = this;
    const size = 16 * ratio;
    const across = (scene.width * scale) / scene.labelWidth;
    context.font = `600 ${size}px system-ui, sans-serif`;
    context.textBaseline = "middle";
    for (const [value, [column, row]] of this.places) {
      const name = scene.names.get(value);
      if (!name) continue;
      const width = context.measureText(name).width + 1.6 * size;
      const middle = left + (column + 0.5) * across;
      const x = Math.max(0, Math.min(this.canvas.width - width, middle - width / 2));
      const y = Math.max(0, top + row * across - 1.7 * size);
      context.fillStyle = "rgba(10, 14, 20, 0.82)";
      context.beginPath();
      context.roundRect(x, y, width, 1.5 * size, 0.75 * size);
      context.fill();
      context.fillStyle = scene.colours.get(value) || "#fff";
      context.beginPath();
      context.arc(x + 0.62 * size, y + 0.75 * size, 0.24 * size, 0, 7);
      context.fill();
      context.fillStyle = "#fff";
      context.fillText(name, x + 1.1 * size, y + 0.78 * size);
    }
  }

  drawMarks(scene, toX, toY, scale, ratio) {
    const { context } = this;
    const line = (width, colour) => {
      context.lineWidth = width * ratio;
      context.strokeStyle = colour;
    };
    const box = (x0, y0, x1, y1, dashed) => {
      for (const [width, colour] of [[5, "rgba(0,0,0,.6)"], [2.5, MARK]]) {
        line(width, colour);
        context.setLineDash(dashed ? [8 * ratio, 6 * ratio] : []);
        context.strokeRect(toX(x0 - 0.5), toY(y0 - 0.5), (x1 - x0) * scale, (y1 - y0) * scale);
      }
      context.setLineDash([]);
    };
    if (scene.box) box(...scene.box, false);
    if (this.drag && this.drag.isBox) {
      const { from, to } = this.drag;
      box(from.x, from.y, to.x, to.y, true);
    }
    const { crosshair, corner } = scene.look;
    if (corner && crosshair) box(corner.x, corner.y, crosshair.x, crosshair.y, true);
    for (const click of scene.clicks || []) {
      const x = toX(click.x);
      const y = toY(click.y);
      const radius = 9 * ratio;
      context.beginPath();
      context.arc(x, y, radius, 0, 7);
      context.fillStyle = click.positive ? "#16a34a" : "#dc2626";
      context.fill();
      line(2, "#fff");
      context.stroke();
      context.beginPath();
      context.moveTo(x - radius / 2, y);
      context.lineTo(x + radius / 2, y);
      if (click.positive) {
        context.moveTo(x, y - radius / 2);
        context.lineTo(x, y + radius / 2);
      }
      line(2.5, "#fff");
      context.stroke();
    }
    const at = crosshair || this.pointer;
    if (scene.brush && at) {
      for (const [width, colour] of [[4, "rgba(0,0,0,.6)"], [2, "#fff"]]) {
        line(width, colour);
        context.beginPath();
        context.arc(toX(at.x), toY(at.y), scene.brush * scale, 0, 7);
        context.stroke();
      }
    }
    if (crosshair) {
      const x = toX(crosshair.x);
      const y = toY(crosshair.y);
      const arm = 18 * ratio;
      const gap = 4 * ratio;
      for (const [width, colour] of [[5, "rgba(0,0,0,.7)"], [2.5, MARK]]) {
        line(width, colour);
        context.beginPath();
        for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
          context.moveTo(x + dx * gap, y + dy * gap);
          context.lineTo(x + dx * arm, y + dy * arm);
        }
        context.stroke();
      }
    }
  }
}
