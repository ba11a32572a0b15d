// The list of rollouts: live, filtered by the server, and grouped by task.

import { ApiError, get, poll, rolloutPath } from "./api.js";
import { clock, clockFull, copyButton, decimal, duration, h, number, plural, replace, short } from "./dom.js";
import { amend, current, go, href, joined } from "./route.js";
import { histogram, sparkline } from "./charts.js";
import { WindowedList } from "./window.js";

const PAGE = 100;
const FINAL = new Set(["succeeded", "failed", "cancelled"]);
const EXAMPLES = [["status:failed since:1h", "both must hold"], ["model:qwen* -verdict:sound", "a term that must not hold"], ["tokens>20k reward<0.5", "numbers"], ["task:\"order 4711\"", "a value with spaces"], ["text:\"refund policy\"", "words of messages"]];
const FIELDS = "Fields: status, model, agent, role, tool, host, error, task, name, id, mode, text, verdict, tokens, in, out, cost, calls, http, spans, errors, attempts, reward, duration, since, until. A word alone is looked for in ids, names, tasks, models, agents and errors. A minus in front of a term negates the term.";
const narrow = matchMedia("(max-width: 760px)");

export class RolloutsView {
  keys = [["t", "group by task"]];
  help = () => [h("h2", {}, "Filter"), h("dl", { class: "keys" }, EXAMPLES.map(([query, meaning]) => [h("dt", {}, h("code", {}, query)), h("dd", {}, meaning)])), h("p", { class: "muted" }, FIELDS)];

  constructor(root, { params }) {
    this.root = root;
    this.rows = new Map();
    this.verdicts = new Map();
    this.selected = params.sel ?? "";
    this.q = params.q ?? "";
    this.isGrouped = params.group === "1";
    this.open = new Set();
    document.title = "Rollouts · Tracewire";
    this.build();
    this.restart();
  }

  build() {
    this.filter = h("input", { type: "search", placeholder: "Filter: model:qwen* status:failed tokens>4k reward<0.5 since:1h, or words", "aria-label": "Filter", spellcheck: "false", autocomplete: "off", on: { input: () => this.typed(), keydown: (event) => { if (event.key === "Enter" || event.key === "ArrowDown") { event.preventDefault(); this.list.element.focus(); this.move(0); } } } });
    this.filter.value = this.q;
    this.problem = h("div", { class: "problem", role: "alert", hidden: true });
    this.grouping = h("button", { type: "button", "aria-pressed": String(this.isGrouped), title: "Rollouts of one task together (t)", on: { click: () => this.toggleGroups() } }, "By task");
    this.strip = h("div", { class: "strip" });
    this.status = h("span", { role: "status" });
    this.pill = h("button", { type: "button", class: "pill", hidden: true, on: { click: () => { this.list.element.scrollTop = 0; this.pill.hidden = true; } } });
    this.list = new WindowedList({
      rowHeight: rowHeight(), label: "Rollouts", role: "table", key: (item) => item.key, version: (item) => item.version,
      render: (item) => this.row(item), onVisible: (from, to) => this.visible(from, to),
    });
    this.media = () => this.list.setRowHeight(rowHeight());
    narrow.addEventListener("change", this.media);
    this.list.element.addEventListener("click", (event) => this.clicked(event));
    this.head = h("div", { class: "rollouts-head", "aria-hidden": "true" }, h("span", {}, "Status"), h("span", {}, "Started"), h("span", {}, "Task"), h("span", {}, "Agent · model"),
      h("span", { class: "num wide" }, "Attempts"), h("span", { class: "num" }, "Calls"), h("span", { class: "num" }, "Tokens in → out"), h("span", { class: "num wide cost" }, "Cost"), h("span", { class: "num" }, "Reward"), h("span", { class: "num" }, "Duration"), h("span", { class: "wide", title: "Whether the rollout can be trained on" }, "Verdict"));
    this.empty = h("div", { class: "empty", hidden: true });
    this.body = h("div", { class: "lane", style: { flex: "1", position: "relative" } }, this.pill, this.list.element, this.empty);
    this.root.append(h("div", { class: "toolbar" }, h("label", { class: "filter" }, this.filter, h("kbd", { "aria-hidden": "true" }, "/")), this.grouping, h("span", { class: "grow" }), this.problem),
      this.strip, this.head, this.body, h("footer", { class: "footer" }, this.status));
  }

  destroy() {
    this.stop?.();
    clearTimeout(this.typing);
    narrow.removeEventListener("change", this.media);
    this.list.destroy();
  }

  update({ params }) {
    const q = params.q ?? "", isGrouped = params.group === "1";
    if (q !== this.q) { this.q = this.filter.value = q; this.restart(); }
    if (isGrouped !== this.isGrouped) { this.isGrouped = isGrouped; this.grouping.setAttribute("aria-pressed", isGrouped); this.show(); }
    this.select(params.sel ?? "");
  }

  typed() {
    clearTimeout(this.typing);
    this.typing = setTimeout(() => {
      this.q = this.filter.value.trim();
      amend({ q: this.q, sel: "" });
      this.restart();
    }, 150);
  }

  restart() {
    this.stop?.();
    this.rows.clear();
    this.next = null;
    this.hasPage = false;
    this.list.element.scrollTop = 0;
    this.stop = poll((signal) => this.refresh(signal), 2);
  }

  // Reads the first page again; rows of other pages that are on the screen and have not ended are read one by one.
  async refresh(signal) {
    let page;
    try {
      page = await this.page("", signal);
    } catch (error) {
      if (error instanceof ApiError && error.status === 422) { this.explain(error); return false; }
      throw error;
    }
    if (signal.aborted) return false;
    this.problem.hidden = true;
    this.filter.removeAttribute("aria-invalid");
    this.total = page.total;
    this.isSearching = page.is_searching ?? false;
    this.unsearched = page.unsearched_spans;
    this.isCut = page.is_cut ?? false;
    const isFirst = !this.hasPage, before = this.rows.size;
    if (isFirst) { this.next = page.next ?? null; this.searched = page.searched_to; this.hasPage = true; }
    const oldest = page.next ? page.rollouts.at(-1)?.start_time ?? Infinity : -Infinity;
    const there = new Set(page.rollouts.map((row) => row.rollout_id));
    for (const [id, row] of this.rows) {
      // Removed from the store, or no longer matching.
      if (row.start_time > oldest && !there.has(id)) this.rows.delete(id);
    }
    for (const row of page.rollouts) this.rows.set(row.rollout_id, row);
    const running = this.onScreen().filter((row) => !FINAL.has(row.status) && this.rows.has(row.rollout_id) && !there.has(row.rollout_id)).slice(0, 10);
    for (const row of running) {
      this.rows.set(row.rollout_id, await get(rolloutPath(row.rollout_id), { signal }).catch(() => row));
      if (signal.aborted) return false;
    }
    const added = this.rows.size - before;
    this.show();
    if (!isFirst && added > 0 && this.list.element.scrollTop > 40) {
      this.pill.textContent = `${plural(added, "new rollout")} ↑`;
      this.pill.hidden = false;
    }
    if (isFirst && this.next && this.rows.size < PAGE) this.more();
    return page.rollouts.some((row) => row.totals === null) || this.isSearching;
  }

  page(after, signal) {
    const query = new URLSearchParams({ limit: PAGE, ...(this.q && { q: this.q }), ...(after && { after }) });
    return get(`v1/tracewire/rollouts?${query}`, { signal });
  }

  // Reads the next page. Filters may look at many rollouts for few that match.
  async more() {
    if (!this.next || this.isReading) return;
    this.isReading = true;
    const q = this.q;
    try {
      const page = await this.page(this.next);
      if (q !== this.q || !this.list.element.isConnected) return;
      for (const row of page.rollouts) if (!this.rows.has(row.rollout_id)) this.rows.set(row.rollout_id, row);
      this.next = page.next ?? null;
      this.searched = page.searched_to ?? this.searched;
      this.show();
    } catch {
      // The frame says that the server is away; the next refresh and scrolling try again.
      return;
    } finally {
      this.isReading = false;
    }
    if (this.next && this.list.items.length * this.list.rowHeight < this.list.element.clientHeight + 400) this.more();
  }

  explain(error) {
    const problem = error.detail?.[0], [from, to] = problem?.loc?.slice(2) ?? [];
    const text = problem?.input ?? this.q;
    this.filter.setAttribute("aria-invalid", "true");
    replace(this.problem, typeof from === "number" ? [text.slice(0, from), h("mark", {}, text.slice(from, to)), text.slice(to), ": "] : null, error.message);
    this.problem.hidden = false;
  }

  onScreen() {
    const { scrollTop, clientHeight } = this.list.element;
    const from = Math.floor(scrollTop / this.list.rowHeight), to = Math.ceil((scrollTop + clientHeight) / this.list.rowHeight);
    return this.list.items.slice(from, to).map((item) => item.row).filter(Boolean);
  }

  // Makes the items of the list anew.
  show() {
    const rows = [...this.rows.values()].sort((one, other) => other.start_time - one.start_time || (one.rollout_id < other.rollout_id ? 1 : -1));
    const item = (row, isMember) => {
      const verdict = this.verdicts.get(row.rollout_id);
      return { key: row.rollout_id, row, isMember, version: JSON.stringify([isMember, row.status, row.spans, row.attempts, row.totals?.rewards, row.totals === null, row.cost?.amount, verdict?.spans, row.rollout_id === this.selected, FINAL.has(row.status) ? 0 : Math.floor(Date.now() / 1000)]) };
    };
    const isPriced = rows.some((row) => row.cost);
    this.head.classList.toggle("priced", isPriced);
    this.body.classList.toggle("priced", isPriced);
    const items = this.isGrouped ? this.groups(rows, item) : rows.map((row) => item(row, false));
    this.list.setItems(items);
    this.drawStrip(rows);
    const isEmpty = rows.length === 0 && this.hasPage && !this.next && !this.isSearching;
    this.empty.hidden = !isEmpty;
    this.list.element.hidden = isEmpty;
    if (isEmpty) this.drawEmpty();
    const searched = this.next && this.q && this.searched ? ` · searched back to ${clock(this.searched)}` : "";
    const texts = this.isSearching ? ` · ${this.unsearched ? plural(this.unsearched, "span") : "some spans"} not searched yet` : this.isCut ? " · the text is in so many spans that only the newest count" : "";
    this.status.textContent = `${number(rows.length)}${this.next ? "+" : ""} ${this.q ? "match" : "shown"}${this.total !== undefined ? ` of ${plural(this.total, "rollout")}` : ""}${isPriced ? ` · cost ${costText(costOf(rows))}` : ""}${searched}${texts}`;
  }

  groups(rows, item) {
    const groups = new Map();
    for (const row of rows) {
      const key = row.group || `\u0000${row.rollout_id}`;
      if (!groups.has(key)) groups.set(key, []);
      groups.get(key).push(row);
    }
    return [...groups].flatMap(([key, members]) => {
      if (members.length === 1) return [item(members[0], false)];
      const isOpen = this.open.has(key);
      const group = { key: `group ${key}`, group: key, members, version: JSON.stringify([isOpen, members.map((row) => [row.status, rewardOf(row), row.cost?.amount])]) };
      return [group, ...(isOpen ? members.map((row) => item(row, true)) : [])];
    });
  }

  row(item) {
    return item.members ? this.groupRow(item) : this.rolloutRow(item);
  }

  groupRow({ group, members }) {
    const rewards = members.map(rewardOf).filter((reward) => reward !== undefined);
    const mean = rewards.length ? rewards.reduce((sum, one) => sum + one, 0) / rewards.length : undefined;
    const dot = (row) => h("span", { title: `${row.rollout_id}: ${row.status}, reward ${decimal(rewardOf(row))}`, style: { background: rewardColor(rewardOf(row), rewards) } });
    return h("div", { class: "group-row", role: "row", "aria-expanded": this.open.has(group), "data-group": group },
      h("span", { "aria-hidden": "true" }, this.open.has(group) ? "▾" : "▸"), h("b", { class: "ellipsis" }, titleOf(members[0])), h("span", { class: "muted count" }, number(members.length), h("span", { class: "word" }, " rollouts")),
      h("span", { class: "dots" }, members.slice(0, 32).map(dot)), h("span", { class: "grow" }), h("a", { href: href(["compare"], { r: joined(unlike(members).map((row) => row.rollout_id)) }), title: "Compare the best with the worst, or choose others" }, "Compare"),
      members.some((row) => row.cost) ? h("span", { class: "muted sum" }, "cost ", h("b", {}, costText(costOf(members)))) : null,
      h("span", { class: "muted mean" }, "mean", h("span", { class: "word" }, " reward"), " ", h("b", {}, mean === undefined ? "–" : mean.toFixed(2))));
  }

  rolloutRow({ row, isMember }) {
    const { totals } = row, id = row.rollout_id, verdict = this.verdicts.get(id);
    const end = row.end_time ?? totals?.last_end ?? (FINAL.has(row.status) ? row.start_time : Date.now() / 1000);
    const agents = [...(totals?.agents ?? []), ...(totals?.models ?? [])].join(" · ");
    const errors = totals?.errors.join(", ") ?? "";
    const verdictText = !verdict ? "" : verdict.failed ? "–" : verdict.sound ? "sound" : verdict.reasons[0]?.name?.replaceAll("_", " ") ?? "not sound";
    return h("div", { class: ["rollout-row", isMember && "member"], role: "row", "aria-selected": id === this.selected, "data-id": id },
      h("span", { class: "state", role: "cell" }, h("span", { class: `status ${row.status}` }, row.status)),
      h("span", { class: "muted", role: "cell", title: clockFull(row.start_time) }, clock(row.start_time)),
      h("span", { class: "title", role: "cell" }, h("a", { class: "ellipsis", href: href(["rollout", id]), title: titleOf(row), tabindex: -1 }, titleOf(row)), titleOf(row) === id ? null : h("span", { class: "id ellipsis" }, id)),
      agents || !errors ? h("span", { class: "ellipsis muted", role: "cell", title: agents }, agents || "–") : h("span", { class: "ellipsis bad", role: "cell", title: errors }, errors),
      h("span", { class: "num wide", role: "cell" }, row.attempts),
      h("span", { class: "num calls", role: "cell", title: `${plural(row.llm_calls, "call")}, ${plural(row.spans, "span")}, ${plural(row.errors, "error")}${errors ? `: ${errors}` : ""}` }, row.errors ? h("span", { class: "bad" }, `${row.errors}✗ `, agents ? null : h("span", { class: "names" }, errors)) : null, h("span", { class: "count" }, short(row.llm_calls))),
      h("span", { class: "num tokens", role: "cell", title: totals ? `${number(totals.input_tokens)} in, ${number(totals.output_tokens)} out` : "counting" }, totals ? [short(totals.input_tokens), h("i", {}, " → "), short(totals.output_tokens)] : "…"),
      h("span", { class: "num wide cost", role: "cell", title: row.cost?.is_partial ? "A model has no price: its calls are not in the sum." : null }, row.cost ? costText(row.cost) : "–"),
      h("span", { class: ["num", "reward", rewardOf(row) !== undefined && "some"], role: "cell", title: (totals?.rewards ?? []).map(([name, value]) => `${name} ${value}`).join("\n") }, decimal(rewardOf(row))),
      h("span", { class: "num time", role: "cell" }, duration(end - row.start_time)),
      h("span", { class: ["wide", "ellipsis", verdict?.sound ? "good" : verdict && !verdict.failed && !isWithoutIds(verdict, row) ? "warn" : "muted"], role: "cell", title: verdict?.reasons?.map((reason) => `${reason.name}: ${reason.detail}`).join("\n") ?? null }, verdictText));
  }

  // Verdicts need all spans of a rollout: they are read for what is on the screen, once for each state of a rollout.
  visible(from, to) {
    if (this.next && to >= this.list.items.length - 20) this.more();
    this.readVerdicts();
  }

  async readVerdicts() {
    if (this.isJudging) return;
    this.isJudging = true;
    try {
      for (;;) {
        const row = this.onScreen().find((row) => FINAL.has(row.status) && row.llm_calls > 0 && row.spans <= MAX_JUDGED_SPANS && this.verdicts.get(row.rollout_id)?.spans !== row.spans);
        if (!row || document.hidden || !this.root.isConnected || !this.list.element.isConnected) break;
        const verdict = await get(`${rolloutPath(row.rollout_id)}/verdict`).catch((error) => (error instanceof ApiError ? { failed: true } : null));
        if (!verdict) break;
        this.verdicts.set(row.rollout_id, { ...verdict, spans: row.spans });
        this.show();
      }
    } finally {
      this.isJudging = false;
    }
  }

  drawStrip(rows) {
    const key = JSON.stringify([rows.length, rows[0]?.rollout_id, rows.filter((row) => row.totals).length]);
    if (key === this.stripKey) return;
    this.stripKey = key;
    const ended = rows.filter((row) => row.end_time).map((row) => row.end_time - row.start_time);
    const rewards = rows.map(rewardOf).filter((reward) => reward !== undefined);
    replace(this.strip, rows.length < 3 ? null : [sparkline("Rollouts over time", rows.map((row) => ({ at: row.start_time, isBad: row.status === "failed" }))),
      ended.length > 2 ? histogram("Duration", ended, duration) : null, rewards.length > 2 ? histogram("Reward", rewards, decimal) : null]);
  }

  drawEmpty() {
    if (this.q) {
      replace(this.empty, h("h2", {}, "No rollout matches"), h("p", {}, FIELDS),
        h("button", { type: "button", on: { click: () => { this.filter.value = ""; this.typed(); } } }, "Clear the filter"));
    } else {
      const command = "tracewire run -- YOUR-COMMAND", doctor = "tracewire doctor -- YOUR-COMMAND";
      replace(this.empty, h("h2", {}, "Nothing is recorded yet"), h("p", {}, "Run an agent behind Tracewire with the store of this server, or send it through the proxy:"), h("pre", {}, command), copyButton(command), " ", h("a", { href: "#/connect" }, "How to connect an agent"),
        h("p", { class: "later-part" }, "Does an agent run already, and nothing appears? This reports traffic that bypasses the proxy, clients that reject its certificate, and how to fix both:"), h("pre", {}, doctor), copyButton(doctor));
    }
  }

  toggleGroups() {
    const { params } = current();
    location.hash = href(["rollouts"], { ...params, group: this.isGrouped ? "" : "1" });
  }

  clicked(event) {
    if (event.target.closest("a") || event.ctrlKey || event.metaKey) return;
    const row = event.target.closest(".row");
    if (row?.dataset.group !== undefined) this.toggle(row.dataset.group);
    else if (row) this.openRow(row.dataset.id);
  }

  toggle(group) {
    if (!this.open.delete(group)) this.open.add(group);
    this.show();
  }

  openRow(id) {
    amend({ sel: id });
    go(["rollout", id]);
  }

  select(key) {
    if (key === this.selected) return;
    const old = this.selected;
    this.selected = key;
    for (const row of this.list.rows.values()) {
      const name = row.element.dataset.id ?? `group ${row.element.dataset.group}`;
      if (name === old || name === key) row.element.setAttribute("aria-selected", name === key);
    }
  }

  move(by) {
    const { items } = this.list;
    if (!items.length) return;
    const at = items.findIndex((item) => item.key === this.selected);
    const to = at < 0 ? 0 : Math.min(items.length - 1, Math.max(0, at + by));
    this.select(items[to].key);
    amend({ sel: items[to].key });
    this.list.show(to);
  }

  key(event) {
    const page = Math.floor(this.list.element.clientHeight / this.list.rowHeight) - 1;
    const steps = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -1e9, End: 1e9, G: 1e9 };
    if (event.key === "/") { this.filter.focus(); this.filter.select(); return true; }
    if (event.key === "t") { this.toggleGroups(); return true; }
    if (event.key in steps) { this.move(steps[event.key]); return true; }
    if ((event.key === "Enter" && event.target.tagName !== "A" && event.target.tagName !== "BUTTON") || event.key === "o") {
      const item = this.list.items.find((item) => item.key === this.selected);
      if (item?.members) this.toggle(item.group); else if (item) this.openRow(item.key);
      return Boolean(item);
    }
    return false;
  }
}

const MAX_JUDGED_SPANS = 2000;

// Most endpoints return no token ids: that no call has any says what was called, rather than what went wrong.
export const isWithoutIds = (verdict, row) => !verdict.sound && verdict.reasons.every(({ name }) => name === "missing_token_ids") && verdict.reasons.length >= row.llm_calls;

// The cost of several rollouts, and whether a model has no price.
export const costOf = (rows) => rows.reduce((sum, { cost, llm_calls: calls }) => ({ amount: sum.amount + (cost?.amount ?? 0), is_partial: sum.is_partial || (cost ? cost.is_partial : calls > 0) }), { amount: 0, is_partial: false });
export const costText = ({ amount, is_partial: isPartial }) => `${isPartial ? "≥ " : ""}${amount && amount < 0.01 ? amount.toPrecision(2) : amount.toFixed(2)}`;

export function rewardOf(row) {
  const rewards = row.totals?.rewards ?? [];
  return (rewards.find(([name]) => name === "primary") ?? rewards[0])?.[1];
}

// The two of a group that say most: those with the highest and the lowest reward, or the newest.
function unlike(members) {
  const rewarded = members.filter((row) => rewardOf(row) !== undefined).sort((one, other) => rewardOf(other) - rewardOf(one));
  const [best, worst] = [rewarded[0], rewarded.at(-1)];
  return best && rewardOf(best) !== rewardOf(worst) ? [best, worst] : members.slice(0, 2);
}

export const titleOf = (row) => row.task || row.name || row.rollout_id;

const rowHeight = () => (narrow.matches ? 54 : 34);

export function rewardColor(reward, rewards) {
  if (reward === undefined) return "var(--line-strong)";
  const low = Math.min(...rewards, 0), high = Math.max(...rewards, 1);
  const share = (reward - low) / (high - low || 1);
  return share > 0.66 ? "var(--good)" : share > 0.33 ? "var(--reward)" : "var(--bad)";
}
