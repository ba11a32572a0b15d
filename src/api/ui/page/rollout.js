// One rollout: its calls and what it did in the world on one time axis, and beside them the conversation or a span.

import { ApiError, get, poll, rolloutPath } from "./api.js";
import { clockFull, copyButton, decimal, duration, h, number, plural, replace, short } from "./dom.js";
import { amend, current, href, joined } from "./route.js";
import { costText, isWithoutIds, rewardOf, titleOf } from "./rollouts.js";
import { panesOf, SpanPane } from "./span_pane.js";
import { isWorld, keyOf, SpanSet } from "./spans.js";
import { TokensPane } from "./tokens.js";
import { Minimap, SpanList, TimeScale } from "./waterfall.js";

const FINAL = new Set(["succeeded", "failed", "cancelled"]);
const POLL_SECONDS = 1.5;
const narrow = matchMedia("(max-width: 760px)");

export class RolloutView {
  keys = [["+, −, 0", "zoom in, zoom out, show all"], ["h, l", "move along the time"], ["e", "next error"], ["1 … 5", "the panes of a span"], ["w", "fold the world lane"], ["Space", "fold or unfold"]];

  constructor(root, { parts, params }) {
    this.root = root;
    this.id = parts[1] ?? "";
    this.spans = new SpanSet(this.id);
    this.folded = new Set();
    this.limit = FIRST_SPANS;
    this.params = params;
    this.mode = parts[2] === "tokens" ? "tokens" : "timeline";
    document.title = `${this.id} · Tracewire`;
    this.build();
    this.showSelection();
    this.applyMode();
    this.showSeconds = 0;
    this.amended = () => this.drawHead();
    addEventListener("amended", this.amended);
    this.stop = poll((signal) => this.refresh(signal), POLL_SECONDS);
  }

  build() {
    this.head = h("header", { class: "head" });
    this.scale = new TimeScale(() => this.redrawTime());
    this.minimap = new Minimap(this.scale);
    const select = (span) => this.select(span), fold = (span) => this.fold(span);
    this.calls = new SpanList({ scale: this.scale, label: "Calls of models and tools", select, fold });
    this.world = new SpanList({ scale: this.scale, label: "Other exchanges over HTTP", select, fold });
    this.worldTitle = h("span", { class: "grow muted" });
    this.worldFold = h("button", { type: "button", class: "plain small", "aria-label": "Fold the world lane", on: { click: () => this.foldWorld(!this.isWorldFolded) } }, "▾");
    this.worldLane = h("div", { class: "lane world" }, h("header", {}, h("b", {}, "World"), this.worldTitle, this.worldFold), this.world.element);
    this.callsTitle = h("span", { class: "grow muted" });
    this.errorButton = h("button", { type: "button", class: "small", hidden: true, on: { click: () => this.nextError() } });
    this.moreButton = h("button", { type: "button", class: "small", hidden: true, on: { click: () => { this.limit = Infinity; this.moreButton.hidden = true; } } });
    const zoom = [["−", "Zoom out", 2], ["+", "Zoom in", 0.5]].map(([text, label, factor]) => h("button", { type: "button", class: "plain small", "aria-label": label, title: label, on: { click: () => this.scale.by(factor) } }, text));
    this.resetButton = h("button", { type: "button", class: "small", hidden: true, on: { click: () => this.scale.reset() } }, "Show all");
    this.callsLane = h("div", { class: "lane calls" }, h("header", {}, h("b", {}, "Calls"), this.callsTitle, this.moreButton, this.errorButton, this.resetButton, zoom), this.calls.element);
    this.pane = new SpanPane({ rollout: this.id, spans: this.spans, select });
    this.split = h("div", { class: "split" }, h("section", {}, this.minimap.element, this.minimap.axis, this.callsLane, this.worldLane), this.pane.element);
    this.missing = h("div", { class: "empty", hidden: true });
    this.root.append(this.head, this.split, this.missing);
  }

  destroy() {
    this.stop?.();
    removeEventListener("amended", this.amended);
    this.tokens?.destroy();
    this.calls.destroy();
    this.world.destroy();
    this.minimap.destroy();
  }

  update({ parts, params }) {
    const mode = parts[2] === "tokens" ? "tokens" : "timeline";
    const before = this.params;
    this.params = params;
    if (mode !== this.mode) { this.mode = mode; this.applyMode(); }
    if ((params.attempt ?? "") !== (before.attempt ?? "")) this.show();
    else if (params.span !== before.span || params.tab !== before.tab) this.showSelection();
    this.tokens?.update(params);
    this.drawHead();
  }

  applyMode() {
    this.split.hidden = this.mode !== "timeline";
    if (this.mode === "tokens" && !this.tokens) {
      this.tokens = new TokensPane(this.id, this.params);
      this.root.append(this.tokens.element);
    }
    if (this.tokens) this.tokens.element.hidden = this.mode !== "tokens";
    if (this.mode === "timeline") this.redrawTime();
  }

  async refresh(signal) {
    if (this.isOver && this.spans.isWhole && this.row && this.quiet > 3) {
      // Ended: seldom looked at again, for rewards that come late.
      this.quiet += 1;
      if (this.quiet % 10 !== 0) return false;
    }
    const before = this.spans.all.length;
    // The sums of a rollout with many spans take the server a while: the spans do not wait for them.
    const row = this.isReading ? null : this.readRow(signal);
    const isFull = this.spans.all.length >= this.limit;
    const more = isFull ? false : await this.spans.read(signal, this.limit);
    this.isReading = more;
    // A tree of many spans takes its time: it is made anew when it has grown by half.
    const isDue = !more || this.spans.all.length >= this.limit || this.spans.all.length > 1.5 * (this.drawn ?? 0);
    if (isDue && this.spans.all.length && (this.spans.all.length !== before || this.drawn !== before)) { this.quiet = 0; this.drawn = this.spans.all.length; this.timedShow(); } else this.quiet = (this.quiet ?? 0) + 1;
    if (!more) await row;
    if (!this.row) return more;
    // What is shown of a rollout without spans depends on whether any are still to be read.
    if (this.spans.isWhole !== this.shownWhole) this.show();
    this.isOver = FINAL.has(this.row.status);
    if (this.isOver && !this.verdict && this.spans.isWhole && this.row.llm_calls && this.row.spans <= 5000) {
      this.verdict = await get(`${rolloutPath(this.id)}/verdict`, { signal }).catch(() => null);
      this.drawHead();
    }
    // Very many spans take long to arrange: the page is for its reader most of the time.
    return more && this.spans.all.length < this.limit ? true : Math.max(POLL_SECONDS, this.showSeconds * 8);
  }

  timedShow() {
    const begin = performance.now();
    this.show();
    this.showSeconds = (performance.now() - begin) / 1000;
  }

  // The server is back: what could not be read is read now.
  recovered() {
    if (this.pane.isEmpty) this.showSelection();
    this.tokens?.recovered();
  }

  async readRow(signal) {
    try {
      const isFirst = !this.row;
      this.row = await get(rolloutPath(this.id), { signal });
      this.missing.hidden = true;
      // What is drawn already depends on the rollout only if there is a choice of attempts, or of more spans.
      if (isFirst && !(this.spans.isWhole && this.drawn && this.spans.attempts.length === 1)) this.show();
      else { this.drawHead(); if (isFirst) this.showSelection(); }
    } catch (error) {
      if (error instanceof ApiError && error.status === 404) this.explainMissing();
      else if (error.name !== "AbortError" && !(error instanceof ApiError || error instanceof TypeError)) throw error;
    }
  }

  explainMissing() {
    this.split.hidden = true;
    this.missing.hidden = false;
    replace(this.missing, h("h2", {}, "There is no such rollout"), h("p", {}, `The store has no rollout ${this.id}: it was deleted, or the link is for another server.`), h("a", { href: "#/rollouts" }, "All rollouts"));
  }

  get attempt() {
    return this.params.attempt ?? (this.spans.attempts.length > 1 ? this.row?.attempt_id ?? "" : "");
  }

  // Makes the lanes anew.
  show() {
    this.shownWhole = this.spans.isWhole;
    const { attempt } = this;
    this.scale.whole = this.spans.range(attempt === "all" ? "" : attempt);
    const only = attempt === "all" ? "" : attempt;
    const rows = this.spans.tree(only, this.folded, (span) => !isWorld(span));
    const world = this.spans.world(only).map((span) => ({ span, depth: 0, children: 0, isFolded: false }));
    this.calls.setRows(rows);
    this.world.setRows(world);
    this.worldLane.hidden = world.length === 0;
    this.callsLane.classList.toggle("folded", rows.length === 0 && world.length > 0);
    if (this.isWorldFolded === undefined && world.length) this.foldWorld(narrow.matches && rows.length > 0);
    const isFull = !this.spans.isWhole && this.spans.all.length >= this.limit;
    this.moreButton.hidden = !isFull;
    this.moreButton.textContent = `Read all ${number(this.row?.spans)}`;
    const calls = rows.filter(({ span }) => span.class === "llm").length, tools = rows.filter(({ span }) => span.class === "tool").length;
    this.callsTitle.textContent = [plural(calls, "model call"), tools ? plural(tools, "tool call") : "", this.spans.isWhole ? "" : isFull ? `the first ${number(this.spans.all.length)} spans` : `reading ${number(this.spans.all.length)} of ${number(this.row?.spans)} spans…`].filter(Boolean).join(" · ");
    const hosts = new Set(world.map(({ span }) => span.host).filter(Boolean));
    this.worldTitle.textContent = `${plural(world.length, "exchange")} with ${plural(hosts.size, "host")}`;
    const errors = this.errors();
    this.errorButton.hidden = errors.length === 0;
    this.errorButton.textContent = plural(errors.length, "error");
    this.errorButton.classList.add("bad");
    this.minimap.spans = this.spans.all.filter((span) => !only || span.attempt === only).sort((one, other) => (one.start ?? 0) - (other.start ?? 0));
    this.minimap.draw();
    this.showSelection();
    this.drawHead();
  }

  errors() {
    const only = this.attempt === "all" ? "" : this.attempt;
    return this.spans.errors(only);
  }

  redrawTime() {
    this.minimap.draw();
    this.calls.refresh();
    this.world.refresh();
    if (this.resetButton) this.resetButton.hidden = !this.scale.zoom;
  }

  themed() {
    this.minimap.draw();
    this.tokens?.draw();
  }

  drawHead() {
    const { row } = this;
    if (!row) return;
    const { parts, params } = current();
    const fact = (name, value, className) => h("span", {}, h("span", { class: "muted" }, name), h("b", { class: className }, value));
    const reward = rewardOf(row), end = row.end_time ?? row.totals?.last_end ?? Date.now() / 1000;
    const tab = (name, path, text) => h("a", { href: href(["rollout", this.id, ...path], params), "aria-current": this.mode === name ? "page" : null }, text);
    const attempts = this.spans.attempts;
    const chooser = attempts.length > 1 ? h("select", { "aria-label": "Attempt", on: { change: (event) => { location.hash = href(parts, { ...params, attempt: event.target.value, span: "" }); } } },
      [h("option", { value: "all", selected: this.attempt === "all" }, "all attempts"), attempts.map((id) => h("option", { value: id, selected: id === this.attempt }, id))]) : null;
    const verdict = this.verdict ? fact("verdict", this.verdict.sound ? "sound" : [...new Set(this.verdict.reasons.map((reason) => reason.name.replaceAll("_", " ")))].slice(0, 2).join(", ") || "not sound", this.verdict.sound ? "good" : isWithoutIds(this.verdict, row) ? "muted" : "warn") : null;
    if (verdict) verdict.title = this.verdict.reasons.map((reason) => `${reason.name}: ${reason.detail}`).join("\n");
    const place = JSON.stringify([this.mode, this.attempt, params]), key = JSON.stringify([place, row, this.verdict, attempts, Math.floor(end)]);
    const focused = this.head.contains(document.activeElement) ? document.activeElement : null;
    // While a person is in it, only another place makes it anew.
    if (key === this.headKey || (focused && place === this.headPlace)) return;
    this.headKey = key;
    this.headPlace = place;
    replace(this.head, h("a", { href: "#/rollouts", title: "All rollouts", "aria-label": "All rollouts" }, "←"),
      h("h1", { class: "ellipsis", title: titleOf(row) }, titleOf(row)), h("span", { class: `status ${row.status}` }, row.status),
      h("span", { class: "mono muted" }, this.id, " ", copyButton(this.id)),
      h("div", { class: "facts" }, fact("calls", short(row.llm_calls)), row.totals ? fact("tokens", `${short(row.totals.input_tokens)} → ${short(row.totals.output_tokens)}`) : null,
        row.cost ? fact("cost", costText(row.cost)) : null, fact("took", duration(end - row.start_time)), reward === undefined ? null : fact("reward", decimal(reward)), verdict, row.errors ? fact("errors", row.errors, "bad") : null,
        h("span", { class: "muted ellipsis models", style: { "max-width": "320px" }, title: clockFull(row.start_time) }, row.totals?.models.join(", ") ?? "")),
      h("span", { class: "grow" }), chooser, h("nav", { class: "tabs", "aria-label": "Parts of the rollout" }, tab("timeline", [], "Timeline"), tab("tokens", ["tokens"], "Tokens"),
        row.group || row.name ? h("a", { href: href(["compare"], { r: joined([this.id]) }), title: "Compare with other rollouts of this task" }, "Compare") : null));
    if (focused) [...this.head.querySelectorAll(focused.localName)].find((one) => one.textContent === focused.textContent)?.focus();
  }

  // The span of the address; else what made the rollout fail, or the last call of the main agent.
  selection() {
    const wanted = this.params.span;
    if (wanted) {
      const direct = this.spans.byId.get(wanted);
      if (direct) return direct;
      return this.spans.all.find((span) => span.id === wanted);
    }
    const only = this.attempt === "all" ? "" : this.attempt;
    const isFailed = this.row?.status === "failed", failed = isFailed ? this.spans.culprit(only) : undefined;
    if (failed) return failed;
    const calls = this.spans.calls(only), isMain = (span) => !span.role || span.role === "main";
    return calls.findLast((span) => !span.error && isMain(span)) ?? calls.at(-1) ?? this.errors()[0] ?? this.spans.all[0];
  }

  showSelection() {
    const span = this.selection(), key = span ? keyOf(span) : "";
    this.reveal(span, key);
    if (span) this.pane.show(span, this.params.tab); else this.pane.showNothing(this.spans.isWhole);
  }

  // Marks the row of a span. It is scrolled to, unless the reader has scrolled away from the one before.
  reveal(span, key) {
    const list = span && isWorld(span) ? this.world : this.calls, before = this.revealed;
    this.calls.select(key);
    this.world.select(key);
    if (!key || key === before) return;
    const isFollowed = !before || this.calls.hasRow(before) || this.world.hasRow(before), at = list.indexOf(key);
    if (at < 0) return;
    this.revealed = key;
    if (isFollowed) list.list.center(at);
  }

  select(span) {
    const { parts, params } = current();
    this.params = { ...params, span: keyOf(span) };
    amend({ span: keyOf(span), tab: params.tab });
    const list = isWorld(span) ? this.world : this.calls, at = list.indexOf(keyOf(span));
    // Its row does not move if it is on the screen: a person may have clicked it.
    if (at >= 0) { list.list.show(at); this.revealed = keyOf(span); }
    this.showSelection();
    return parts;
  }

  fold(span) {
    const key = keyOf(span);
    if (!this.folded.delete(key)) this.folded.add(key);
    this.show();
  }

  foldWorld(isFolded) {
    this.isWorldFolded = isFolded;
    this.worldLane.classList.toggle("folded", isFolded);
    this.world.element.hidden = isFolded;
    this.worldFold.textContent = isFolded ? "▸" : "▾";
  }

  nextError() {
    const errors = this.errors(), now = errors.indexOf(this.selection());
    if (!errors.length) return;
    const next = errors[(now + 1) % errors.length], list = isWorld(next) ? this.world : this.calls, at = list.indexOf(keyOf(next));
    this.select(next);
    if (at >= 0) list.list.center(at);
  }

  move(by) {
    const now = this.selection();
    const list = now && isWorld(now) ? this.world : this.calls;
    const items = list.list.items, at = now ? list.indexOf(keyOf(now)) : -1;
    const to = items[Math.min(items.length - 1, Math.max(0, at + by))];
    if (to) this.select(to.span);
  }

  key(event) {
    if (this.mode === "tokens") return this.tokens.key(event) || this.leave(event);
    const steps = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1 };
    if (event.key in steps && event.target !== this.pane.body) { this.move(steps[event.key]); return true; }
    const span = this.selection();
    switch (event.key) {
      case "+": case "=": this.scale.by(0.5); return true;
      case "-": this.scale.by(2); return true;
      case "0": this.scale.reset(); return true;
      case "h": this.scale.move(-0.25); return true;
      case "l": this.scale.move(0.25); return true;
      case "e": this.nextError(); return true;
      case "w": this.foldWorld(!this.isWorldFolded); return true;
      case " ": if (span && event.target.closest?.(".windowed")) { this.fold(span); return true; } return false;
      case "Enter": case "o": if (event.target.closest?.("a, button")) return false; this.pane.body.focus(); return true;
      default:
    }
    if (/^[1-6]$/.test(event.key) && span) {
      const pane = panesOf(span)[Number(event.key) - 1];
      if (!pane) return false;
      this.params = { ...this.params, tab: pane[0], span: keyOf(span) };
      amend({ tab: pane[0], span: keyOf(span) });
      this.showSelection();
      return true;
    }
    return this.leave(event);
  }

  leave(event) {
    if (event.key !== "Escape") return false;
    location.hash = "#/rollouts";
    return true;
  }
}

// Spans that are read at first. A person rarely looks at more, and asks for the rest with a button.
const FIRST_SPANS = 20_000;
