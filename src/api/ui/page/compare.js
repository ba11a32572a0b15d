// Two or more rollouts side by side: where their conversations part, and what each did then.

import { ApiError, get, rolloutPath, spanPath } from "./api.js";
import { Chooser, MAX } from "./chooser.js";
import { decimal, duration, h, number, plural, replace, short } from "./dom.js";
import { commonMessages, conversation, messagesOf } from "./conversation.js";
import { href, joined, parted } from "./route.js";
import { rewardOf, titleOf } from "./rollouts.js";
import { keyOf, SpanSet } from "./spans.js";

export class CompareView {
  constructor(root, route) {
    document.title = "Compare · Tracewire";
    const go = (ids) => { location.hash = href(["compare"], { r: joined(ids) }); };
    this.field = h("input", { type: "text", "aria-label": "Ids of rollouts, with commas", placeholder: "ids of rollouts, with commas between them", spellcheck: "false" });
    this.form = h("form", { class: "toolbar ids", on: { submit: (event) => { event.preventDefault(); go(parted(this.field.value)); } } },
      h("label", { class: "filter" }, this.field), h("button", { type: "submit" }, "Compare"));
    this.chooser = new Chooser(go);
    this.note = h("div", { class: "pane-head", role: "status" });
    this.tokens = h("div", { class: "pane-head", role: "status", hidden: true });
    this.columns = h("div", { class: "compare" });
    root.append(this.form, this.chooser.element, this.note, this.tokens, this.columns);
    // What is compared, by id: a rollout is read once while it is chosen.
    this.sides = new Map();
    this.update(route);
  }

  destroy() {
    this.isGone = true;
    this.reading?.abort();
    this.chooser.destroy();
    this.forget([]);
  }

  // The server is back.
  recovered() { if (this.hasFailed || this.chooser.hasFailed) this.load(this.wanted); }

  update({ params }) {
    const ids = parted(params.r ?? "").slice(0, MAX);
    this.field.value = joined(ids).replaceAll(",", ", ");
    this.load(ids);
  }

  async load(ids) {
    this.reading?.abort();
    this.reading = new AbortController();
    this.wanted = ids;
    this.hasFailed = false;
    this.tokens.hidden = true;
    this.forget(ids);
    this.chooser.show(ids);
    this.columns.hidden = ids.length < 2;
    if (ids.length < 2) {
      replace(this.note, h("b", {}, ids.length ? "Choose another rollout" : "Choose two rollouts"), h("span", { class: "muted" }, ` to see where they part. Up to ${MAX} can stand side by side.`));
      replace(this.columns);
      return;
    }
    replace(this.note, "Reading…");
    try {
      const sides = await Promise.all(ids.map((id) => this.side(id)));
      if (this.wanted !== ids || this.isGone) return;
      this.draw(sides);
      this.drawTokens(sides);
    } catch (error) {
      if (this.wanted !== ids || this.isGone) return;
      this.hasFailed = true;
      replace(this.note, h("span", { class: "bad" }, error instanceof ApiError ? error.message : "The server does not answer."));
      replace(this.columns);
    }
  }

  // Ends what is read of other rollouts than these.
  forget(ids) {
    for (const [id, { reading }] of this.sides) {
      if (ids.includes(id)) continue;
      reading.abort();
      this.sides.delete(id);
    }
  }

  // A rollout that has not ended is read again the next time, as one that could not be read.
  side(id) {
    const known = this.sides.get(id);
    if (known) return known.read;
    const reading = new AbortController(), read = readSide(id, reading.signal), side = { reading, read };
    const forget = () => { if (this.sides.get(id) === side) this.sides.delete(id); };
    this.sides.set(id, side);
    read.then(({ row }) => { if (!FINAL.has(row.status)) forget(); }, forget);
    return read;
  }

  // Where the tokens of the calls part: of each rollout, compared with the first one.
  async drawTokens(sides) {
    const [first, ...others] = sides, { wanted, reading: { signal } } = this;
    const lacking = sides.filter((side) => !hasIds(side)), names = lacking.length === sides.length ? "" : ` of ${lacking.map((side) => side.row.rollout_id).join(", ")}`;
    const note = lacking.length ? h("span", { class: "muted" }, `Token ids${names} were not recorded, so that only messages can be compared.`) : null;
    if (!hasIds(first) || !others.some(hasIds)) {
      replace(this.tokens, note);
      this.tokens.hidden = false;
      return;
    }
    const found = await Promise.all(others.map((side) => get(`${rolloutPath(first.row.rollout_id)}/difference?other=${encodeURIComponent(side.row.rollout_id)}`, { signal }).catch(() => null)));
    if (this.wanted !== wanted || this.isGone) return;
    const link = (side, at, difference) => {
      const sequence = difference.tokens.calls[at], call = side.calls.find((one) => one.seq === sequence), id = difference.tokens.ids[at];
      const text = [`call #${sequence}`, ": ", id === null ? "its list ends" : `token ${id}`];
      return call ? h("a", { href: href(["rollout", side.row.rollout_id, "tokens"], { call: call.id }) }, text) : text;
    };
    replace(this.tokens, others.map((side, at) => {
      const difference = found[at], name = others.length > 1 ? `${side.row.rollout_id}: ` : "";
      if (!difference) return null;
      if (!difference.tokens) return hasIds(side) ? h("span", { class: "muted" }, name, "No token ids differ in the calls that both have.") : null;
      const { list, common_tokens: common } = difference.tokens;
      return h("span", {}, name, h("b", {}, `Their tokens part at ${list === "prompt" ? "prompt" : "sampled"} token ${number(common)}`), " · ", link(first, 0, difference), h("span", { class: "muted" }, " and "), link(side, 1, difference));
    }), note);
    this.tokens.hidden = !this.tokens.childElementCount;
  }

  draw(sides) {
    const [first, ...others] = sides;
    const common = Math.min(...others.map((side) => commonMessages(first.messages, side.messages)));
    const longest = Math.max(...sides.map((side) => side.messages.length));
    const isSame = common === longest;
    const ways = sides.map((side) => h("span", { class: "way" }, h("span", { class: "muted" }, side.row.rollout_id), ` ${describe(side.messages[common])}`));
    replace(this.note, isSame ? h("b", {}, "The conversations are the same.") : [h("b", {}, `They part at message ${common + 1}`), common ? ways : h("span", { class: "muted" }, "the first messages differ")],
      h("span", { class: "grow" }), isSame ? null : h("button", { type: "button", class: "small", on: { click: () => this.goThere() } }, "Go there"));
    replace(this.columns, sides.map(({ row, call, messages, span }) => {
      const fact = (name, value) => h("span", {}, h("span", { class: "muted" }, name), value);
      return h("section", {}, h("header", {}, h("span", { class: `status ${row.status}`, title: row.status }), h("b", { class: "mono ellipsis" }, row.rollout_id), h("span", { class: "grow" }), fact("reward ", h("b", {}, decimal(rewardOf(row))))),
        h("h2", { class: "ellipsis" }, h("a", { href: href(["rollout", row.rollout_id], call ? { span: keyOf(call) } : {}) }, titleOf(row))),
        h("div", { class: "facts" }, h("span", {}, row.status), fact("calls ", row.llm_calls), fact("tokens ", `${short(row.totals?.input_tokens)} → ${short(row.totals?.output_tokens)}`), fact("took ", duration((row.end_time ?? row.totals?.last_end ?? row.start_time) - row.start_time))),
        span ? marked(span, messages, common, isSame) : h("p", { class: "muted" }, "It made no calls of models."));
    }));
    if (common) this.goThere();
  }

  goThere() {
    for (const divider of this.columns.querySelectorAll(".divider")) divider.scrollIntoView({ block: "start" });
  }
}

// The conversation with a mark where the others differ.
function marked(span, messages, common, isSame) {
  const content = conversation(span, isSame ? undefined : messages.slice(0, common));
  const wrap = h("div", {}, content.flat().filter(Boolean));
  const divider = wrap.querySelector(".divider");
  if (divider) divider.textContent = "they part here";
  return wrap;
}

function describe(message) {
  if (!message) return "ends here";
  const call = message.parts.find((part) => part.type === "tool_call"), said = message.parts.find((part) => part.type === "text");
  if (call) return `calls ${call.name}`;
  return said ? `says “${cut(String(said.content))}”` : `has a message of ${message.role}`;
}

const FINAL = new Set(["succeeded", "failed", "cancelled"]);
const cut = (text) => (text.length > 60 ? `${text.slice(0, 59)}…` : text);
const hasIds = (side) => side.calls.some((call) => call.ids && call.ids !== "none");

// A rollout, and the last call of its main agent, which has the whole conversation.
async function readSide(id, signal) {
  const row = await get(rolloutPath(id), { signal });
  const spans = new SpanSet(id);
  while (await spans.read(signal)) { /* The next page. */ }
  const calls = spans.calls(spans.attempts.length > 1 ? row.attempt_id : "");
  const call = calls.findLast((one) => !one.error && (!one.role || one.role === "main")) ?? calls.at(-1);
  const span = call ? await get(spanPath(id, call.attempt, call.id), { signal }) : null;
  return { row, call, calls, span, messages: span ? messagesOf(span) : [] };
}
