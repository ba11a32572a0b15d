// Spans as rows with bars on a time axis, a minimap to zoom, and the axis itself.

import { bytes, duration, h, replace, short } from "./dom.js";
import { WindowedList } from "./window.js";
import { keyOf, labelOf } from "./spans.js";

// The part of the time that all lanes show.
export class TimeScale {
  constructor(onChange) {
    this.whole = { from: 0, to: 1 };
    this.zoom = null;
    this.onChange = onChange;
  }

  get from() { return this.zoom?.from ?? this.whole.from; }
  get to() { return this.zoom?.to ?? this.whole.to; }

  // A place on the axis: 0 is its start, 1 its end.
  place(time) { return (time - this.from) / (this.to - this.from || 1); }

  set(from, to) {
    const { whole } = this;
    const least = Math.max((whole.to - whole.from) / 1e6, 1e-6);
    const start = Math.max(whole.from, Math.min(from, to - least)), end = Math.min(whole.to, Math.max(to, start + least));
    this.zoom = start <= whole.from && end >= whole.to ? null : { from: start, to: end };
    this.onChange();
  }

  by(factor, around = (this.from + this.to) / 2) {
    this.set(around - (around - this.from) * factor, around + (this.to - around) * factor);
  }

  move(share) {
    const length = this.to - this.from, by = Math.max(this.whole.from - this.from, Math.min(this.whole.to - this.to, share * length));
    this.set(this.from + by, this.to + by);
  }

  reset() { this.zoom = null; this.onChange(); }
}

// Rows of spans. `select(span)` and `fold(span)` are called for what a person does.
export class SpanList {
  constructor({ scale, label, select, fold }) {
    this.scale = scale;
    this.selected = "";
    this.list = new WindowedList({
      rowHeight: 26, label, role: "tree", key: ({ span }) => keyOf(span),
      version: ({ span, depth, children, isFolded }) => `${depth} ${children} ${isFolded} ${span.end}`,
      render: (row) => this.row(row),
    });
    this.element = this.list.element;
    this.element.addEventListener("click", (event) => {
      const row = event.target.closest(".row");
      const item = row && this.list.items.find(({ span }) => keyOf(span) === row.dataset.key);
      if (!item) return;
      if (event.target.closest(".fold")) fold(item.span); else select(item.span);
    });
    this.element.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.shiftKey) return;
      event.preventDefault();
      const track = this.element.querySelector(".track")?.getBoundingClientRect();
      if (!track) return;
      if (event.shiftKey) return this.scale.move((event.deltaY || event.deltaX) / 1000);
      const around = this.scale.from + ((event.clientX - track.left) / track.width) * (this.scale.to - this.scale.from);
      this.scale.by(event.deltaY > 0 ? 1.25 : 0.8, around);
    }, { passive: false });
  }

  destroy() { this.list.destroy(); }
  // The rows are made anew: the time that they show may have changed.
  setRows(rows) { this.list.clear(); this.list.setItems(rows); }
  refresh() { this.list.refresh(); }

  select(key) {
    this.selected = key;
    for (const { element } of this.list.rows.values()) element.setAttribute("aria-selected", element.dataset.key === key);
  }

  // Whether the row of a span is on the screen, or nearly.
  hasRow(key) { return this.list.rows.has(key); }

  indexOf(key) { return this.list.items.findIndex(({ span }) => keyOf(span) === key); }

  row({ span, depth, children, isFolded }) {
    const took = span.start && span.end ? span.end - span.start : undefined;
    return h("div", { class: ["span-row", span.class, span.error && "error"], role: "treeitem", "aria-level": depth + 1, "aria-selected": keyOf(span) === this.selected, "aria-expanded": children ? !isFolded : null, "data-key": keyOf(span), title: titleOf(span) },
      h("span", { class: "label", style: { "padding-left": `${depth * 14}px` } },
        h("button", { type: "button", class: "fold", tabindex: -1, "aria-hidden": children ? null : "true", "aria-label": children ? (isFolded ? "Unfold" : "Fold") : null, disabled: !children }, children ? (isFolded ? "▸" : "▾") : ""),
        h("span", { class: "mark", "aria-hidden": "true" }), h("span", { class: "text ellipsis" }, labelOf(span)),
        span.role && span.role !== "main" ? h("span", { class: "role" }, span.role) : null,
        isFolded ? h("span", { class: "role" }, `+${children}`) : null),
      h("span", { class: "num muted size" }, sizeOf(span)), h("span", { class: "num muted" }, duration(took)), this.track(span));
  }

  track(span) {
    if (!span.start) return h("span", { class: "track" });
    const end = span.end ?? this.scale.whole.to;
    const from = this.scale.place(span.start), to = this.scale.place(Math.max(end, span.start));
    if (to < -0.01 || from > 1.01) return h("span", { class: "track" });
    const left = Math.max(-0.01, from), right = Math.min(1.01, to);
    const waited = span.first_ms && span.end > span.start ? Math.min(1, span.first_ms / 1000 / (span.end - span.start)) : 0;
    const isWhole = from >= -0.01;
    return h("span", { class: "track" }, h("i", { style: { left: `${left * 100}%`, width: `${(right - left) * 100}%` } },
      waited > 0.02 && isWhole ? h("b", { style: { width: `${Math.min(100, (waited * (to - from) * 100) / (right - left || 1))}%` } }) : null));
  }
}

function sizeOf(span) {
  if (span.class === "llm") return span.in !== undefined || span.out !== undefined ? `${short(span.in)} → ${short(span.out)}` : span.status ?? "";
  if (span.status) return span.down !== undefined ? `${span.status} · ${bytes(span.down)}` : span.status;
  return span.outcome ?? "";
}

const titleOf = (span) => [span.name, span.url, span.cause, span.finish && `ended with ${span.finish}`, span.ids && `token ids ${span.ids}`].filter(Boolean).join("\n");

// All spans at once: drag to zoom, click to move, double-click for all.
export class Minimap {
  constructor(scale) {
    this.scale = scale;
    this.spans = [];
    this.element = h("canvas", { class: "minimap", role: "img", "aria-label": "All spans over time. Drag to zoom; + and − zoom too, 0 shows all." });
    this.axis = h("div", { class: "axis", "aria-hidden": "true" });
    this.observer = new ResizeObserver(() => this.draw());
    this.observer.observe(this.element);
    let start = null;
    const time = (event) => {
      const box = this.element.getBoundingClientRect(), { from, to } = this.scale.whole;
      return from + Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)) * (to - from);
    };
    this.element.addEventListener("pointerdown", (event) => { start = time(event); this.element.setPointerCapture(event.pointerId); });
    this.element.addEventListener("pointermove", (event) => {
      if (start === null) return;
      const now = time(event), { from, to } = this.scale.whole;
      if (Math.abs(now - start) > (to - from) / 200) this.scale.set(Math.min(start, now), Math.max(start, now));
    });
    const end = (event) => {
      if (start === null) return;
      const length = this.scale.to - this.scale.from, { from, to } = this.scale.whole;
      if (Math.abs(time(event) - start) <= (to - from) / 200 && this.scale.zoom) this.scale.set(start - length / 2, start + length / 2);
      start = null;
    };
    this.element.addEventListener("pointerup", end);
    this.element.addEventListener("pointercancel", () => { start = null; });
    this.element.addEventListener("dblclick", () => this.scale.reset());
  }

  destroy() { this.observer.disconnect(); }

  draw() {
    const { clientWidth: width, clientHeight: height } = this.element;
    if (!width) return;
    const ratio = devicePixelRatio || 1;
    this.element.width = width * ratio;
    this.element.height = height * ratio;
    const context = this.element.getContext("2d");
    context.scale(ratio, ratio);
    const { from, to } = this.scale.whole, length = to - from || 1;
    const color = colors(this.element);
    // Bars that overlap go to lanes below each other, as far as there is room.
    const lanes = Math.floor((height - 4) / 4), ends = new Array(lanes).fill(-1);
    // What was drawn last in each lane: its colour, and where it ends.
    const drawn = Array.from({ length: lanes }, () => ({ fill: "", end: -1 }));
    let ink = "";
    for (const span of this.spans) {
      if (!span.start) continue;
      const x = ((span.start - from) / length) * width, wide = Math.max(1.5, (((span.end ?? to) - span.start) / length) * width);
      let lane = ends.findIndex((end) => end <= x);
      if (lane < 0) lane = lanes - 1;
      const fill = span.error ? color.bad : color[span.class] ?? color.internal;
      const last = drawn[lane], end = x + wide;
      // On top of the same colour nothing would change.
      if (fill === last.fill && end <= last.end) continue;
      drawn[lane] = { fill, end: fill === last.fill ? Math.max(end, last.end) : end };
      ends[lane] = Math.max(ends[lane], end);
      if (fill !== ink) context.fillStyle = ink = fill;
      context.fillRect(x, 2 + lane * 4, wide, 3);
    }
    if (this.scale.zoom) {
      const left = ((this.scale.from - from) / length) * width, right = ((this.scale.to - from) / length) * width;
      context.fillStyle = color.shade;
      context.fillRect(0, 0, left, height);
      context.fillRect(right, 0, width - right, height);
      context.strokeStyle = color.accent;
      context.strokeRect(left + 0.5, 0.5, Math.max(1, right - left - 1), height - 1);
    }
    this.drawAxis(width);
  }

  drawAxis() {
    const share = Number.parseFloat(getComputedStyle(this.axis).getPropertyValue("--track")) / 100 || 0.35;
    const room = this.axis.clientWidth * share, length = this.scale.to - this.scale.from;
    const step = niceStep(length / Math.max(2, room / 72)), start = this.scale.from - this.scale.whole.from;
    const marks = [];
    for (let at = Math.ceil(start / step - 1e-9) * step; at <= start + length && marks.length < 20; at += step) {
      const place = (at - start) / length;
      if (place < 0.9) marks.push(h("span", { style: { left: `${(1 - share + share * place) * 100}%` } }, at === 0 ? "0" : duration(at).replace(/\.0+ /, " ")));
    }
    replace(this.axis, marks);
  }
}

function niceStep(least) {
  const size = 10 ** Math.floor(Math.log10(least));
  return [1, 2, 5, 10].map((step) => step * size).find((step) => step >= least) ?? least;
}

// The colours of the theme, as a canvas takes them: found once, because finding them takes a layout.
export function colors(element) {
  const { theme } = document.documentElement.dataset;
  if (known.theme === theme) return known.colors;
  const probe = h("i", { hidden: true });
  element.parentNode?.append(probe);
  const found = {};
  for (const name of ["llm", "tool", "http", "internal", "reward", "bad", "good", "warn", "accent", "ink", "muted", "line", "panel", "sunken"]) {
    probe.style.color = `var(--${name})`;
    found[name] = getComputedStyle(probe).color;
  }
  probe.remove();
  found.tunnel = found.connection = found.http;
  found.event = found.reward;
  found.shade = "rgb(128 128 128 / .25)";
  known = { theme, colors: found };
  return found;
}
let known = {};
