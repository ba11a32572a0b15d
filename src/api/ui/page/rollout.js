// One rollout: its calls and what it did in the world on one time axis, and beside them the conversation or a span.

import { ApiError, get, poll, rolloutPath, spanPath } from "./api.js";
import { clockFull, copyButton, decimal, duration, h, number, plural, replace, short } from "./dom.js";
import { amend, current, href } from "./route.js";
import { conversation, messagesOf } from "./conversation.js";
import { attributesPane, changesPane, requestPane, responsePane, timingPane } from "./detail.js";
import { costText, rewardOf, titleOf } from "./rollouts.js";
import { isWorld, keyOf, labelOf, SpanSet } from "./spans.js";
import { TokensPane } from "./tokens.js";
import { Minimap, SpanList, TimeScale } from "./waterfall.js";

const FINAL = new Set(["succeeded", "failed", "cancelled"]);
const MAX_KEPT = 24;
const POLL_SECONDS = 1.5;

export class RolloutView {
  keys = [["+, −, 0", "zoom in, zoom out, show all"], ["h, l", "move along the time"], ["e", "next error"], ["1 … 5", "the panes of a span"], ["w", "fold the world lane"], ["Space", "fold or unfold"]];

  constructor(root, { parts, params }) {
    this.root = root;
    this.id = parts[1] ?? "";
    this.spans = new SpanSet(this.id);
    this.folded = new Set();
    this.kept = new Map();
    this.limit = FIRST_SPANS;
    this.params = params;
    this.mode = parts[2] === "tokens" ? "tokens" : "timeline";
    document.title = `${this.id} · Tracewire`;
    this.build();
    this.showSelection();
    this.applyMode();
    this.showSeconds = 0;
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
    this.worldFold = h("button", { type: "button", class: "plain small", "aria-label": "Fold the world lane", on: { click: () => this.foldWorld() } }, "▾");
    this.worldLane = h("div", { class: "lane world" }, h("header", {}, h("b", {}, "World"), this.worldTitle, this.worldFold), this.world.element);
    this.callsTitle = h("span", { class: "grow muted" });
    this.errorButton = h("button", { type: "button", class: "small", hidden: true, on: { click: () => this.nextError() } });
    this.moreButton = h("button", { type: "button", class: "small", hidden: true, on: { click: () => { this.limit = Infinity; this.moreButton.hidden = true; } } });
    const zoom = [["−", "Zoom out", 2], ["+", "Zoom in", 0.5]].map(([text, label, factor]) => h("button", { type: "button", class: "plain small", "aria-label": label, title: label, on: { click: () => this.scale.by(factor) } }, text));
    this.resetButton = h("button", { type: "button", class: "small", hidden: true, on: { click: () => this.scale.reset() } }, "Show all");
    const callsLane = h("div", { class: "lane calls" }, h("header", {}, h("b", {}, "Calls"), this.callsTitle, this.moreButton, this.errorButton, this.resetButton, zoom), this.calls.element);
    this.paneHead = h("div", { class: "pane-head" });
    this.pane = h("div", { class: "pane", tabindex: 0, "aria-label": "Span" });
    this.split = h("div", { class: "split" }, h("section", {}, this.minimap.element, this.minimap.axis, callsLane, this.worldLane), h("section", {}, this.paneHead, this.pane));
    this.missing = h("div", { class: "empty", hidden: true });
    this.root.append(this.head, this.split, this.missing);
  }

  destroy() {
    this.stop?.();
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
    if (!this.paneKey) this.showSelection();
    this.tokens?.recovered();
  }

  async readRow(signal) {
    try {
      const isFirst = !this.row;
      this.row = await get(rolloutPath(this.id), { signal });
      this.missing.hidden = true;
      if (isFirst) this.show(); else this.drawHead();
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
    this.redrawTime();
    this.showSelection();
    this.drawHead();
  }

  errors() {
    const only = this.attempt === "all" ? "" : this.attempt;
    return this.spans.all.filter((span) => span.error && (!only || span.attempt === only)).sort((one, other) => one.seq - other.seq);
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
    const verdict = this.verdict ? fact("verdict", this.verdict.sound ? "sound" : [...new Set(this.verdict.reasons.map((reason) => reason.name.replaceAll("_", " ")))].slice(0, 2).join(", ") || "not sound", this.verdict.sound ? "good" : "warn") : null;
    if (verdict) verdict.title = this.verdict.reasons.map((reason) => `${reason.name}: ${reason.detail}`).join("\n");
    const key = JSON.stringify([row, this.verdict, this.mode, this.attempt, attempts, Math.floor(end)]);
    if (key === this.headKey || this.head.contains(document.activeElement)) return;
    this.headKey = key;
    replace(this.head, h("a", { href: "#/rollouts", title: "All rollouts", "aria-label": "All rollouts" }, "←"),
      h("h1", { class: "ellipsis", title: titleOf(row) }, titleOf(row)), h("span", { class: `status ${row.status}` }, row.status),
      h("span", { class: "mono muted" }, this.id, " ", copyButton(this.id)),
      h("div", { class: "facts" }, fact("calls", short(row.llm_calls)), row.totals ? fact("tokens", `${short(row.totals.input_tokens)} → ${short(row.totals.output_tokens)}`) : null,
        row.cost ? fact("cost", costText(row.cost)) : null, fact("took", duration(end - row.start_time)), reward === undefined ? null : fact("reward", decimal(reward)), verdict, row.errors ? fact("errors", row.errors, "bad") : null,
        h("span", { class: "muted ellipsis models", style: { "max-width": "320px" }, title: clockFull(row.start_time) }, row.totals?.models.join(", ") ?? "")),
      h("span", { class: "grow" }), chooser, h("nav", { class: "tabs", "aria-label": "Parts of the rollout" }, tab("timeline", [], "Timeline"), tab("tokens", ["tokens"], "Tokens")));
  }

  // The span of the address, else the last call of the main agent.
  selection() {
    const wanted = this.params.span;
    if (wanted) {
      const direct = this.spans.byId.get(wanted);
      if (direct) return direct;
      return this.spans.all.find((span) => span.id === wanted);
    }
    const only = this.attempt === "all" ? "" : this.attempt;
    const calls = this.spans.calls(only);
    return calls.findLast((span) => !span.error && (!span.role || span.role === "main")) ?? calls.at(-1) ?? this.errors()[0] ?? this.spans.all[0];
  }

  async showSelection() {
    const span = this.selection();
    const key = span ? keyOf(span) : "";
    this.calls.select(key);
    this.world.select(key);
    if (!span) {
      this.paneKey = "";
      replace(this.paneHead);
      replace(this.pane, h("div", { class: ["empty", !this.spans.isWhole && "later"] }, h("h2", {}, this.spans.isWhole ? "Nothing was recorded" : "Reading…"), this.spans.isWhole ? h("p", {}, "This rollout has no spans yet. ", h("a", { href: "#/connect" }, "Why is nothing recorded?")) : null));
      return;
    }
    const panes = this.panesOf(span);
    const tab = panes.some(([name]) => name === this.params.tab) ? this.params.tab : panes[0][0];
    if (this.paneKey === `${key} ${tab} ${span.end}`) return;
    this.paneKey = `${key} ${tab} ${span.end}`;
    this.drawPaneHead(span, panes, tab);
    try {
      const whole = await this.whole(span);
      const previous = span.class === "llm" ? this.spans.before(span) : undefined;
      const before = previous && (tab === "conversation" || tab === "changes") ? await this.whole(previous) : undefined;
      if (this.paneKey !== `${key} ${tab} ${span.end}`) return;
      const cause = span.cause && span.error ? h("div", { class: "cause", role: "alert" }, span.cause) : null;
      replace(this.pane, cause, this.paneContent(tab, whole, before));
      this.pane.scrollTop = 0;
      if (tab === "conversation") this.pane.querySelector(".divider")?.scrollIntoView({ block: "start" });
    } catch (error) {
      this.paneKey = "";
      if (!(error instanceof ApiError) && !(error instanceof TypeError && /fetch/i.test(error.message))) console.error(error);
      replace(this.pane, h("p", { class: "bad" }, error instanceof ApiError ? error.message : "This can't be shown now. The server may be away."));
    }
  }

  panesOf(span) {
    const panes = [["request", "Request"], ["response", "Response"], ["timing", "Timing"], ["attributes", "Attributes"]];
    if (span.class === "llm") return [["conversation", "Conversation"], ["changes", "Changes"], ...panes];
    return span.method ? panes : [["attributes", "Attributes"], ["timing", "Timing"]];
  }

  paneContent(tab, span, before) {
    switch (tab) {
      case "conversation": return conversation(span, before && messagesOf(before));
      case "changes": return changesPane(span, before);
      case "request": return requestPane(span);
      case "response": return responsePane(span);
      case "timing": return timingPane(span);
      default: return attributesPane(span);
    }
  }

  drawPaneHead(span, panes, tab) {
    const { parts, params } = current();
    const calls = span.class === "llm" ? this.spans.calls(span.attempt) : [];
    const at = calls.indexOf(span);
    const step = (by, label, text) => h("button", { type: "button", class: "plain small", disabled: !calls[at + by], "aria-label": label, title: label, on: { click: () => this.select(calls[at + by]) } }, text);
    replace(this.paneHead, h("span", { class: ["mark", span.class], "aria-hidden": "true" }), h("b", { class: "ellipsis", style: { "max-width": "320px" }, title: labelOf(span) }, labelOf(span)),
      calls.length ? h("span", { class: "muted" }, `call ${at + 1} of ${calls.length}`) : null, calls.length > 1 ? [step(-1, "Previous call", "‹"), step(1, "Next call", "›")] : null,
      h("span", { class: "grow" }), h("div", { class: "tabs", role: "tablist" }, panes.map(([name, text]) => h("a", { role: "tab", "aria-selected": String(name === tab), href: href(parts, { ...params, span: keyOf(span), tab: name }) }, text))));
    this.paneHead.firstChild.parentNode.classList.toggle(span.class, true);
  }

  // A span with all its attributes.
  async whole(span) {
    const key = `${keyOf(span)} ${span.end}`;
    if (!this.kept.has(key)) {
      this.kept.set(key, get(spanPath(this.id, span.attempt, span.id)));
      if (this.kept.size > MAX_KEPT) this.kept.delete(this.kept.keys().next().value);
    }
    try { return await this.kept.get(key); } catch (error) { this.kept.delete(key); throw error; }
  }

  select(span) {
    const { parts, params } = current();
    this.params = { ...params, span: keyOf(span) };
    amend({ span: keyOf(span), tab: params.tab });
    const list = isWorld(span) ? this.world : this.calls, at = list.indexOf(keyOf(span));
    if (at >= 0) list.list.show(at);
    this.showSelection();
    return parts;
  }

  fold(span) {
    const key = keyOf(span);
    if (!this.folded.delete(key)) this.folded.add(key);
    this.show();
  }

  foldWorld() {
    const isFolded = this.worldLane.classList.toggle("folded");
    this.world.element.hidden = isFolded;
    this.worldFold.textContent = isFolded ? "▸" : "▾";
  }

  nextError() {
    const errors = this.errors(), now = this.selection();
    const next = errors.find((span) => span.seq > (now?.error ? now.seq : -1)) ?? errors[0];
    if (next) this.select(next);
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
    if (event.key in steps && event.target !== this.pane) { this.move(steps[event.key]); return true; }
    const span = this.selection();
    switch (event.key) {
      case "+": case "=": this.scale.by(0.5); return true;
      case "-": this.scale.by(2); return true;
      case "0": this.scale.reset(); return true;
      case "h": this.scale.move(-0.25); return true;
      case "l": this.scale.move(0.25); return true;
      case "e": this.nextError(); return true;
      case "w": this.foldWorld(); return true;
      case " ": if (span && event.target.closest?.(".windowed")) { this.fold(span); return true; } return false;
      case "Enter": case "o": if (event.target.closest?.("a, button")) return false; this.pane.focus(); return true;
      default:
    }
    if (/^[1-6]$/.test(event.key) && span) {
      const pane = this.panesOf(span)[Number(event.key) - 1];
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
