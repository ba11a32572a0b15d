// A list of which only the visible rows exist. All rows have one height.

import { h } from "./dom.js";

// `render(item, index)` makes a row; `key(item)` names it, and `version(item)` changes when its row has to be made again.
export class WindowedList {
  constructor({ rowHeight, render, key, version = () => "", label, role = "list", onVisible = () => {} }) {
    Object.assign(this, { rowHeight, render, key, version, onVisible });
    this.items = [];
    this.rows = new Map();
    this.spacer = h("div", { class: "spacer", role: "presentation" });
    this.element = h("div", { class: "windowed", role, "aria-label": label, tabindex: 0, on: { scroll: () => this.schedule() } }, this.spacer);
    for (const event of ["wheel", "pointerdown", "keydown"]) this.element.addEventListener(event, () => { this.centered = null; }, { passive: true });
    this.observer = new ResizeObserver(() => { this.centerAgain(); this.schedule(); });
    this.observer.observe(this.element);
  }

  destroy() {
    this.observer.disconnect();
  }

  setRowHeight(rowHeight) {
    if (rowHeight === this.rowHeight) return;
    const top = this.element.scrollTop / this.rowHeight;
    this.rowHeight = rowHeight;
    this.clear();
    this.setItems(this.items);
    this.element.scrollTop = top * rowHeight;
  }

  clear() {
    for (const { element } of this.rows.values()) element.remove();
    this.rows.clear();
  }

  // Replaces the items. What a reader looks at stays where it is when items are added above it.
  setItems(items) {
    const first = Math.floor(this.element.scrollTop / this.rowHeight);
    const anchor = this.element.scrollTop > this.rowHeight && this.items[first] ? this.key(this.items[first]) : null;
    this.items = items;
    this.spacer.style.height = `${items.length * this.rowHeight}px`;
    this.element.setAttribute("aria-rowcount", items.length);
    if (anchor !== null) {
      const now = items.findIndex((item) => this.key(item) === anchor);
      if (now >= 0 && now !== first) this.element.scrollTop += (now - first) * this.rowHeight;
    }
    this.draw();
  }

  schedule() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => { this.frame = 0; this.draw(); });
  }

  draw() {
    const { scrollTop, clientHeight } = this.element;
    const from = Math.max(0, Math.floor(scrollTop / this.rowHeight) - OVERSCAN);
    const to = Math.min(this.items.length, Math.ceil((scrollTop + clientHeight) / this.rowHeight) + OVERSCAN);
    const wanted = new Map();
    for (let at = from; at < to; at += 1) wanted.set(this.key(this.items[at]), at);
    for (const [key, row] of this.rows) {
      if (!wanted.has(key)) { row.element.remove(); this.rows.delete(key); }
    }
    let previous = null;
    for (const [key, at] of wanted) {
      const item = this.items[at], version = this.version(item);
      let row = this.rows.get(key);
      if (!row || row.version !== version) {
        const element = this.render(item, at);
        element.classList.add("row");
        if (row) row.element.replaceWith(element); else this.spacer.append(element);
        row = { element, version };
        this.rows.set(key, row);
      }
      row.element.style.transform = `translateY(${at * this.rowHeight}px)`;
      row.element.setAttribute("aria-rowindex", at + 1);
      // Readers of the screen follow the order of the document.
      if (previous && previous.nextSibling !== row.element) previous.after(row.element);
      else if (!previous && this.spacer.firstChild !== row.element) this.spacer.prepend(row.element);
      previous = row.element;
    }
    this.onVisible(from, to);
  }

  // Makes all rows again.
  refresh() {
    this.clear();
    this.draw();
  }

  // Scrolls so that there are rows on both sides of one, if it is not shown already. Until the reader scrolls, it stays on the
  // screen when the room changes.
  center(index) {
    const { scrollTop, clientHeight } = this.element, top = index * this.rowHeight, margin = 2 * this.rowHeight;
    this.centered = this.key(this.items[index]);
    if ((index && top < scrollTop + margin) || top + this.rowHeight + margin > scrollTop + clientHeight) {
      this.element.scrollTop = top - (clientHeight - this.rowHeight) * 0.6;
      this.draw();
    }
  }

  centerAgain() {
    const index = this.centered ? this.items.findIndex((item) => this.key(item) === this.centered) : -1;
    if (index >= 0) this.center(index);
  }

  show(index) {
    this.centered = null;
    const top = index * this.rowHeight, { scrollTop, clientHeight } = this.element;
    if (top < scrollTop) this.element.scrollTop = top;
    else if (top + this.rowHeight > scrollTop + clientHeight) this.element.scrollTop = top + this.rowHeight - clientHeight;
    this.draw();
  }
}

// Rows beyond the edges, so that scrolling shows no gaps.
const OVERSCAN = 8;
