// The tokens of the latest attempt: its branches as a graph, and the tokens of a call as boxes on a canvas.

import { ApiError, get, rolloutPath, spanPath } from "./api.js";
import { append, decimal, h, number, plural, replace, short, svg, visible } from "./dom.js";
import { amend, current } from "./route.js";
import { overlay, overlayOf, painter, tokensOf, versionColor } from "./token_paint.js";
import { marked, textsOf } from "./token_texts.js";
import { colors } from "./waterfall.js";
import { WindowedList } from "./window.js";

const LANE = 12, ROW = 32;
const LANES = 10;
// What fits into a box.
const BOX_CHARACTERS = 8;
const MODES = [["logprob", "Logprob"], ["mask", "Mask"], ["version", "Version"]];

export class TokensPane {
  constructor(rollout, params) {
    this.rollout = rollout;
    this.mode = params.color ?? "logprob";
    this.overlays = new Map();
    this.wanted = params.call ?? "";
    this.list = new WindowedList({ rowHeight: ROW, label: "Calls by branch", role: "listbox", key: (row) => row.at, version: (row) => (row.at === this.selected ? 1 : 0), render: (row) => this.row(row) });
    this.list.element.addEventListener("click", (event) => { const row = event.target.closest(".row"); if (row) this.select(Number(row.dataset.at)); });
    this.summary = h("div", { class: "pane-head" });
    this.head = h("div", { class: "pane-head" });
    this.break = h("div", { class: "break", hidden: true });
    this.canvas = h("canvas", { role: "img", "aria-label": "Tokens" });
    this.spacer = h("div", {});
    this.scroll = h("div", { class: "tokens-scroll", tabindex: 0, "aria-label": "Tokens of the call", on: { scroll: () => this.schedule(), mousemove: (event) => this.hover(event), mouseleave: () => this.hideTip() } }, this.canvas, this.spacer);
    this.tip = h("div", { class: "tip", role: "tooltip", hidden: true });
    this.legend = h("div", { class: "pane-head legend" });
    this.observer = new ResizeObserver(() => this.schedule());
    this.observer.observe(this.scroll);
    this.message = h("div", { class: "empty", hidden: true });
    this.body = h("div", { class: "split tokens" }, h("section", {}, this.summary, this.list.element), h("section", {}, this.head, this.break, this.legend, h("div", { class: "tokens-wrap" }, this.scroll), this.tip));
    this.element = h("div", { class: "lane", style: { flex: "1" } }, this.message, this.body);
    this.load();
  }

  // What is still being read is of no use to the next view, which may be of the same rollout.
  destroy() {
    this.isGone = true;
    this.observer.disconnect();
    this.list.destroy();
  }

  update(params) {
    if (params.color && params.color !== this.mode) this.paint(params.color);
    if (params.call && params.call !== this.wanted && this.calls) this.select(this.indexOf(params.call));
  }

  // The server is back.
  recovered() {
    if (!this.tree) this.load();
    else if (!this.tokens) this.select(this.selected);
    else if (this.overlays.get(overlayOf(this.mode))?.isFailed) this.readOverlay();
  }

  // Changes the address, while it is that of these tokens: what ends later must not write into the address of the next view.
  amend(changes) {
    const { parts: [view, rollout, part] } = current();
    if (view === "rollout" && rollout === this.rollout && part === "tokens") amend(changes);
  }

  async load() {
    this.explain("Reading the tokens…", "");
    try {
      this.tree = await get(`${rolloutPath(this.rollout)}/calls`);
      if (this.isGone) return;
    } catch (error) {
      if (this.isGone) return;
      this.explain("The tokens can't be read", error instanceof ApiError ? error.message : "The server does not answer.");
      return;
    }
    this.calls = this.tree.calls;
    if (!this.calls.length) { this.explain("There are no calls of models", "Only calls of models have tokens."); return; }
    this.message.hidden = true;
    this.body.hidden = false;
    const rows = layout(this.calls);
    this.lanes = 1 + Math.max(...rows.map((row) => row.lane));
    this.list.setItems(rows);
    const breaks = this.calls.filter((call) => call.break).length, sampled = sum(this.calls, "sampled_tokens"), trained = sum(this.calls, "trained_tokens");
    replace(this.summary, h("span", {}, plural(this.calls.length, "call")), h("span", {}, plural(this.list.items.filter((row) => row.isBranch).length, "branch").replace("branchs", "branches")),
      h("span", { class: breaks ? "warn" : "muted" }, plural(breaks, "break")), h("span", { class: "muted" }, `${short(trained)} of ${short(sampled)} sampled tokens trained`));
    const first = this.wanted ? this.indexOf(this.wanted) : this.calls.findIndex((call) => call.sampled_tokens > 0);
    this.select(Math.max(0, first));
  }

  explain(title, text) {
    this.message.hidden = false;
    this.body.hidden = true;
    replace(this.message, h("h2", {}, title), h("p", {}, text));
  }

  indexOf(name) {
    return this.calls.findIndex((call) => nameOf(call) === name || call.span_id === name);
  }

  row({ at, lane, through, parentLane, opens }) {
    const call = this.calls[at], center = (place) => place * LANE + LANE / 2 + 4, middle = ROW / 2;
    const lines = [...through.map((place) => svg("path", { d: `M${center(place)} 0V${ROW}` })),
      parentLane !== null ? svg("path", { d: `M${center(lane)} 0V${middle}` }) : null,
      ...opens.map((place) => svg("path", { d: place === lane ? `M${center(lane)} ${middle}V${ROW}` : `M${center(lane)} ${middle}C${center(lane)} ${ROW} ${center(place)} ${middle} ${center(place)} ${ROW}` }))];
    const graph = svg("svg", { width: this.lanes * LANE + 8, height: ROW, "aria-hidden": "true", fill: "none", stroke: "var(--line-strong)", "stroke-width": 1.5 }, lines,
      svg("circle", { cx: center(lane), cy: middle, r: 4, fill: call.break ? "var(--warn)" : call.exclusion ? "var(--internal)" : "var(--llm)", stroke: "none" }));
    const why = call.break ? call.break.cause.replaceAll("_", " ") : "";
    return h("div", { class: "branch-row", role: "option", "aria-selected": at === this.selected, "data-at": at }, graph,
      h("span", { class: "ellipsis" }, h("b", {}, `#${call.sequence_id}`), call.choice ? `.${call.choice}` : "", " ", call.role === "main" ? "" : `${call.role} `, why ? h("span", { class: "why" }, `${why} at token ${number(call.break.position)}`) : null, call.exclusion ? h("span", { class: "muted" }, ` not trained: ${String(call.exclusion).replaceAll("_", " ")}`) : null),
      h("span", { class: "num muted" }, `${short(call.prompt_tokens)} → `, h("b", {}, short(call.sampled_tokens))));
  }

  async select(at) {
    const call = this.calls[at];
    if (!call) return;
    const old = this.selected;
    this.selected = at;
    for (const row of this.list.rows.values()) { const place = Number(row.element.dataset.at); if (place === old || place === at) row.element.setAttribute("aria-selected", place === at); }
    this.list.show(this.list.items.findIndex((row) => row.at === at));
    this.amend({ call: this.wanted = nameOf(call) });
    const overlays = (this.overlays = new Map()), isCurrent = () => this.overlays === overlays && !this.isGone;
    this.tokens = null;
    this.drawHead(call);
    try {
      const span = await get(spanPath(this.rollout, this.tree.attempt_id, call.span_id));
      if (!isCurrent()) return;
      this.tokens = tokensOf(span, call, this.calls);
      this.scroll.scrollTop = 0;
      this.draw();
      this.scrollTo(call.break?.position ?? this.tokens.promptLength);
      this.readOverlay();
      await this.readTexts(span, call);
    } catch (error) {
      if (!isCurrent()) return;
      this.tokens = null;
      this.legendKey = "";
      replace(this.legend, h("span", { class: "bad" }, error instanceof ApiError ? error.message : "The server does not answer."));
    }
  }

  // The texts come after the boxes: a long response takes a while to read.
  async readTexts(span, call) {
    const { tokens } = this, sampled = tokens.ids.length - tokens.promptLength;
    const texts = await textsOf(span, call.choice ?? 0, sampled).catch((error) => `The texts of tokens can't be read from the response: ${error.message}`);
    if (Array.isArray(texts)) tokens.texts = texts; else tokens.noTexts = texts;
    if (this.tokens === tokens && !this.isGone) this.draw();
  }

  // Changes the colours, as a person wants them.
  paint(mode) {
    this.mode = mode;
    this.amend({ color: mode });
    const call = this.calls?.[this.selected];
    if (call) this.drawHead(call);
    // `select` does the rest when the tokens are there.
    if (this.tokens) this.readOverlay();
  }

  // Values that a trainer added are read when they are first shown, and again if that failed.
  async readOverlay() {
    const { overlays, tokens } = this, name = overlayOf(this.mode), known = overlays.get(name);
    const annotation = name && this.calls[this.selected].annotations?.find((one) => one.name === name);
    if (annotation && (known?.isFailed || !overlays.has(name))) {
      overlays.set(name, null);
      this.draw();
      try {
        const span = await get(spanPath(this.rollout, this.tree.attempt_id, annotation.span_id));
        overlays.set(name, overlay(name, span.attributes["tracewire.annotation.values"], tokens));
      } catch (error) {
        overlays.set(name, { name, isFailed: true, problem: error instanceof ApiError ? error.message : "The server does not answer." });
      }
    }
    if (this.overlays === overlays && !this.isGone) this.draw();
  }

  drawHead(call) {
    const overlays = (call.annotations ?? []).map(({ name }) => [`+${name}`, name]);
    replace(this.head, h("b", {}, `Call #${call.sequence_id}`), h("span", { class: "muted" }, `${number(call.prompt_tokens)} prompt, ${number(call.sampled_tokens)} sampled, ${number(call.trained_tokens)} trained`), h("span", { class: "grow" }),
      h("div", { class: "tabs", role: "group", "aria-label": "Colour" }, [...MODES, ...overlays].map(([name, text]) => h("button", { type: "button", class: name.startsWith("+") ? "overlay ellipsis" : null, "aria-pressed": String(name === this.mode), "aria-selected": String(name === this.mode), title: name.startsWith("+") ? `${text}: values that were added over the API` : null, on: { click: () => this.paint(name) } }, text))),
      h("span", {}, [["Prompt", () => 0], ["Answer", () => this.tokens?.promptLength ?? 0]].map(([text, place]) => h("button", { type: "button", class: "plain small", on: { click: () => this.scrollTo(place()) } }, text)),
        h("a", { class: "padded", href: `#/rollout/${encodeURIComponent(this.rollout)}?span=${encodeURIComponent(call.span_id)}` }, "Messages")));
    this.break.hidden = !call.break;
    if (!call.break) return;
    const { cause, position, expected, found, earlier } = call.break;
    const ids = (side) => (side.ids?.length ? h("span", { class: "mono muted" }, ` ${side.ids.join(" ")}`) : null);
    replace(this.break, h("div", {}, h("b", {}, CAUSES[cause] ?? cause.replaceAll("_", " ")), ` It differs from call #${this.calls[earlier]?.sequence_id} at token ${number(position)}. `, h("button", { type: "button", class: "small", on: { click: () => this.scrollTo(position) } }, "Show")),
      h("div", { class: "sides" }, h("span", { class: "muted" }, "before"), h("span", {}, expected.text || h("span", { class: "muted" }, "no text was recorded"), ids(expected)), h("span", { class: "muted" }, "now"), h("span", {}, found.text || h("span", { class: "muted" }, "no text was recorded"), ids(found))));
  }

  schedule() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => { this.frame = 0; this.draw(); });
  }

  // Boxes with ids, or small ones when there are very many.
  get box() {
    return this.tokens.ids.length > 30_000 ? { width: 9, height: 12, hasText: false } : { width: 58, height: 20, hasText: true };
  }

  draw() {
    const { tokens } = this;
    const width = this.scroll.clientWidth, height = this.scroll.clientHeight;
    if (!tokens || !width) return;
    const { ids } = tokens;
    if (!ids.length) {
      this.legendKey = "";
      replace(this.legend, h("span", {}, "No token ids were recorded for this call."));
      this.canvas.width = this.canvas.height = 0;
      this.canvas.style.height = this.spacer.style.height = "0";
      return;
    }
    const box = this.box, columns = Math.max(1, Math.floor((width - 8) / box.width)), rows = Math.ceil(ids.length / columns);
    this.columns = columns;
    const ratio = devicePixelRatio || 1;
    this.canvas.style.width = `${width}px`;
    this.canvas.style.height = `${height}px`;
    this.spacer.style.height = `${Math.max(0, rows * box.height + 8 - height)}px`;
    if (this.canvas.width !== Math.round(width * ratio) || this.canvas.height !== Math.round(height * ratio)) {
      this.canvas.width = Math.round(width * ratio);
      this.canvas.height = Math.round(height * ratio);
    }
    const context = this.canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    context.font = "11px ui-monospace, 'DejaVu Sans Mono', monospace";
    context.textAlign = "center";
    context.textBaseline = "middle";
    const color = colors(this.scroll), paint = painter(this.mode, tokens, color, this.overlays.get(overlayOf(this.mode)));
    const top = this.scroll.scrollTop - 4, first = Math.max(0, Math.floor(top / box.height)), last = Math.min(rows, Math.ceil((top + height) / box.height));
    for (let at = first * columns; at < Math.min(ids.length, last * columns); at += 1) {
      const x = 4 + (at % columns) * box.width, y = Math.floor(at / columns) * box.height - top;
      const [fill, ink] = paint(at);
      context.fillStyle = fill;
      context.fillRect(x + 0.5, y + 0.5, box.width - 2, box.height - 2);
      if (box.hasText) { context.fillStyle = ink; context.fillText(this.label(at), x + box.width / 2 - 1, y + box.height / 2); }
      if (at === tokens.breakAt) { context.strokeStyle = color.warn; context.lineWidth = 2; context.strokeRect(x, y, box.width - 1, box.height - 1); context.lineWidth = 1; }
    }
    this.drawLegend();
  }

  // What a box says: the text of its token, else its id.
  label(at) {
    const found = this.tokens.texts?.[at - this.tokens.promptLength];
    if (!found) return this.tokens.ids[at];
    const text = visible(marked(found.text));
    return text.length > BOX_CHARACTERS ? `${text.slice(0, BOX_CHARACTERS - 1)}…` : text;
  }

  drawLegend() {
    const found = this.overlays.get(overlayOf(this.mode)), key = JSON.stringify([this.mode, this.selected, this.tokens.noTexts, found?.problem ?? found?.name]);
    if (key === this.legendKey) return;
    this.legendKey = key;
    this.drawColors();
    if (this.tokens.noTexts) append(this.legend, [h("button", { type: "button", class: "plain small", title: this.tokens.noTexts, on: { click: (event) => replace(event.currentTarget, this.tokens?.noTexts) } }, "why no texts?")]);
  }

  drawColors() {
    const swatch = (background, text) => h("span", {}, h("i", { style: { background } }), text);
    const { tokens } = this;
    if (this.mode === "logprob") replace(this.legend, tokens.logprobs ? [h("span", {}, "log-probability −5 ", h("span", { class: "ramp" }), " 0"), h("span", {}, `mean ${decimal(mean(tokens.logprobs))}`)] : h("span", {}, "No log-probabilities were recorded."), swatch("var(--sunken)", "prompt"));
    else if (this.mode === "mask") replace(this.legend, swatch("var(--llm)", "trained here"), swatch("color-mix(in srgb, var(--llm) 35%, var(--panel))", "sampled in an earlier call"), swatch("var(--warn)", "sampled, not trained"), swatch("var(--sunken)", "observed"));
    else if (overlayOf(this.mode)) this.drawOverlayLegend(overlayOf(this.mode));
    else replace(this.legend, tokens.versions.length ? tokens.versions.map((version, at) => swatch(versionColor(at), `version ${version.name}`)) : h("span", {}, "No version of the weights was recorded."), swatch("var(--sunken)", "prompt"));
  }

  drawOverlayLegend(name) {
    const found = this.overlays.get(name), call = this.calls[this.selected];
    if (!call.annotations?.some((one) => one.name === name)) replace(this.legend, h("span", {}, `This call has no values of ${name}.`));
    else if (!found) replace(this.legend, h("span", {}, "Reading…"));
    else if (found.problem) replace(this.legend, h("span", { class: "warn" }, found.problem));
    else replace(this.legend, h("span", {}, h("b", {}, name), ` ${decimal(found.low)} `, h("span", { class: found.isSigned ? "ramp signed" : "ramp single" }), ` ${decimal(found.high)}`), h("span", {}, `mean ${decimal(mean(found.values))}`), h("span", { class: "muted" }, found.from ? "of the sampled tokens" : "of all tokens"));
  }

  scrollTo(position) {
    if (!this.tokens) return;
    const row = Math.floor(position / (this.columns || 1));
    this.scroll.scrollTop = Math.max(0, row * this.box.height - this.scroll.clientHeight / 3);
    this.draw();
  }

  hover(event) {
    const { tokens } = this;
    if (!tokens?.ids.length) return;
    const area = this.scroll.getBoundingClientRect(), box = this.box;
    const column = Math.floor((event.clientX - area.left - 4) / box.width), row = Math.floor((event.clientY - area.top + this.scroll.scrollTop - 4) / box.height);
    const at = row * this.columns + column;
    if (column < 0 || column >= this.columns || at < 0 || at >= tokens.ids.length) { this.hideTip(); return; }
    const sampledAt = at - tokens.promptLength, logprob = sampledAt >= 0 ? tokens.logprobs?.[sampledAt] : undefined;
    const version = tokens.versions.findLast((version) => sampledAt >= version.at)?.name;
    const text = tokens.texts?.[sampledAt];
    const others = text?.others.filter(([other]) => other !== text.text) ?? [], better = others.filter(([, one]) => one > logprob).length;
    const lines = [text ? marked(text.text) : "", `token ${number(at)} · id ${tokens.ids[at]}`, sampledAt >= 0 ? `sampled, number ${number(sampledAt)} of the answer` : tokens.earlier(at) ? "prompt; sampled in an earlier call" : "prompt; observed",
      logprob === undefined ? "" : `log-probability ${decimal(logprob)}, probability ${(Math.exp(logprob) * 100).toFixed(2)} %`, logprob !== undefined && text?.others.length ? `rank ${better + 1}${better === text.others.length ? " or more" : ""}` : "", ...others.map(([other, one]) => `  instead: ${marked(other)} (${(Math.exp(one) * 100).toFixed(2)} %)`), sampledAt >= 0 ? (tokens.isTrained(sampledAt) ? "trained" : "not trained") : "", sampledAt >= 0 && version ? `version ${version}` : ""];
    for (const overlay of this.overlays.values()) {
      const value = overlay?.values?.[at - overlay.from];
      if (value !== undefined) lines.push(`${overlay.name} ${decimal(value)}`);
    }
    replace(this.tip, lines.filter(Boolean).join("\n"));
    this.tip.hidden = false;
    const { width, height } = this.tip.getBoundingClientRect();
    this.tip.style.left = `${Math.max(0, Math.min(event.clientX + 12, innerWidth - width - 4))}px`;
    this.tip.style.top = `${event.clientY + 14 + height > innerHeight ? event.clientY - height - 10 : event.clientY + 14}px`;
  }

  hideTip() { this.tip.hidden = true; }

  key(event) {
    const steps = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1 };
    if (!(event.key in steps) || !this.calls || event.target === this.scroll) return false;
    this.select(Math.min(this.calls.length - 1, Math.max(0, (this.selected ?? 0) + steps[event.key])));
    return true;
  }
}

const CAUSES = {
  retokenized: "The same text has other ids.",
  template: "The chat template rendered the same messages differently.",
  thinking_dropped: "The reasoning of an earlier answer is missing.",
  rewritten: "A message was changed.",
  truncated: "Messages, or the end of one, were left out.",
  compacted: "Messages were replaced by a shorter account of them.",
  tools_changed: "The tools of the request changed.",
  new_conversation: "A new conversation begins.",
};

const nameOf = (call) => (call.choice ? `${call.span_id}.${call.choice}` : call.span_id);
const sum = (calls, name) => calls.reduce((total, call) => total + (call[name] ?? 0), 0);
const mean = (values) => values.reduce((total, value) => total + value, 0) / (values.length || 1);

// The rows of the graph: the lane of each call, which lanes pass it, and which begin below it.
function layout(calls) {
  const lanes = [], children = calls.map(() => []), rows = [];
  calls.forEach((call, at) => { if (call.parent !== null && call.parent !== undefined) children[call.parent].push(at); });
  const busy = [];
  const free = (at, end) => {
    let lane = 0;
    while (lane < LANES - 1 && (busy[lane] ?? -1) > at) lane += 1;
    busy[lane] = end;
    return lane;
  };
  const lastOf = (at) => children[at].at(-1) ?? at;
  calls.forEach((call, at) => {
    const parent = call.parent ?? null;
    const isContinued = parent !== null && children[parent][0] === at;
    if (parent === null) lanes[at] = free(at, lastOf(at));
    else if (isContinued) { lanes[at] = lanes[parent]; busy[lanes[at]] = Math.max(busy[lanes[at]] ?? 0, lastOf(at)); }
    else lanes[at] = free(parent, Math.max(at, lastOf(at)));
    rows.push({ at, lane: lanes[at], parentLane: parent === null ? null : lanes[parent], through: [], opens: [], isBranch: !isContinued });
  });
  calls.forEach((call, at) => {
    for (const child of children[at]) {
      rows[at].opens.push(lanes[child]);
      for (let between = at + 1; between < child; between += 1) {
        if (!rows[between].through.includes(lanes[child])) rows[between].through.push(lanes[child]);
      }
    }
  });
  return rows;
}
