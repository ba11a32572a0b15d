// Two or more rollouts side by side: where their conversations part, and what each did then.

import { ApiError, get, rolloutPath, spanPath } from "./api.js";
import { decimal, duration, h, number, plural, replace, short } from "./dom.js";
import { commonMessages, conversation, messagesOf } from "./conversation.js";
import { href } from "./route.js";
import { rewardOf, titleOf } from "./rollouts.js";
import { keyOf, SpanSet } from "./spans.js";

const MAX = 4;

export class CompareView {
  constructor(root, route) {
    document.title = "Compare · Tracewire";
    this.field = h("input", { type: "text", "aria-label": "Ids of rollouts, with commas", placeholder: "two rollout ids, with a comma between them", spellcheck: "false" });
    this.form = h("form", { class: "toolbar", on: { submit: (event) => { event.preventDefault(); location.hash = href(["compare"], { r: this.field.value.split(/[\s,]+/).filter(Boolean).join(",") }); } } },
      h("label", { class: "filter" }, this.field), h("button", { type: "submit" }, "Compare"));
    this.note = h("div", { class: "pane-head", role: "status" });
    this.tokens = h("div", { class: "pane-head", role: "status", hidden: true });
    this.columns = h("div", { class: "compare" });
    root.append(this.form, this.note, this.tokens, this.columns);
    this.update(route);
  }

  destroy() { this.isGone = true; }

  // The server is back.
  recovered() { if (this.hasFailed) this.load(this.wanted); }

  update({ params }) {
    const ids = (params.r ?? "").split(",").filter(Boolean).slice(0, MAX);
    this.field.value = ids.join(", ");
    this.load(ids);
  }

  async load(ids) {
    this.wanted = ids;
    this.hasFailed = false;
    if (ids.length < 2) {
      replace(this.note, h("span", { class: "muted" }, "Name two rollouts of one task, or choose “Compare” at a task in the list of rollouts, by task."));
      replace(this.columns);
      return;
    }
    replace(this.note, "Reading…");
    try {
      const sides = await Promise.all(ids.map(readSide));
      if (this.wanted !== ids || this.isGone) return;
      this.draw(sides);
      this.drawTokens(sides);
    } catch (error) {
      this.hasFailed = true;
      replace(this.note, h("span", { class: "bad" }, error instanceof ApiError ? error.message : "The server does not answer."));
      replace(this.columns);
    }
  }

  // Where the tokens of the calls part: of each rollout, compared with the first one.
  async drawTokens([first, ...others]) {
    const wanted = this.wanted;
    const found = await Promise.all(others.map((side) => get(`${rolloutPath(first.row.rollout_id)}/difference?other=${encodeURIComponent(side.row.rollout_id)}`).catch(() => null)));
    if (this.wanted !== wanted || this.isGone) return;
    const link = (side, at, difference) => {
      const sequence = difference.tokens.calls[at], call = side.calls.find((one) => one.seq === sequence), id = difference.tokens.ids[at];
      const text = [`call #${sequence}`, ": ", id === null ? "its list ends" : `token ${id}`];
      return call ? h("a", { href: href(["rollout", side.row.rollout_id, "tokens"], { call: call.id }) }, text) : text;
    };
    replace(this.tokens, others.map((side, at) => {
      const difference = found[at], name = others.length > 1 ? `${side.row.rollout_id}: ` : "";
      if (!difference) return null;
      if (!difference.tokens) return h("span", { class: "muted" }, name, "No token ids differ in the calls that both have.");
      const { list, common_tokens: common } = difference.tokens;
      return h("span", {}, name, h("b", {}, `Their tokens part at ${list === "prompt" ? "prompt" : "sampled"} token ${number(common)}`), " · ", link(first, 0, difference), h("span", { class: "muted" }, " and "), link(side, 1, difference));
    }));
    this.tokens.hidden = !this.tokens.childElementCount;
  }

  draw(sides) {
    this.tokens.hidden = true;
    const [first, ...others] = sides;
    const common = Math.min(...others.map((side) => commonMessages(first.messages, side.messages)));
    const longest = Math.max(...sides.map((side) => side.messages.length));
    const isSame = common === longest;
    replace(this.note, isSame ? h("b", {}, "The conversations are the same.") : [h("b", {}, `They part at message ${common + 1}`), h("span", { class: "muted" }, common ? ` after ${plural(common, "common message")}: ${describe(first.messages[common])}` : ": the first messages differ")],
      h("span", { class: "grow" }), isSame ? null : h("button", { type: "button", class: "small", on: { click: () => this.columns.querySelectorAll(".divider").forEach((divider) => divider.scrollIntoView({ block: "start" })) } }, "Go there"));
    replace(this.columns, sides.map(({ row, call, messages, span }) => {
      const fact = (name, value) => h("span", {}, h("span", { class: "muted" }, name), value);
      return h("section", {}, h("h2", { class: "ellipsis" }, h("a", { href: href(["rollout", row.rollout_id], call ? { span: keyOf(call) } : {}) }, titleOf(row))),
        h("div", { class: "facts" }, h("span", { class: `status ${row.status}` }, row.status), fact("reward ", decimal(rewardOf(row))), fact("calls ", row.llm_calls), fact("tokens ", `${short(row.totals?.input_tokens)} → ${short(row.totals?.output_tokens)}`), fact("took ", duration((row.end_time ?? row.totals?.last_end ?? row.start_time) - row.start_time))),
        span ? marked(span, messages, common, isSame) : h("p", { class: "muted" }, "It made no calls of models."));
    }));
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
  if (!message) return "one ends here";
  const call = message.parts?.find((part) => part.type === "tool_call");
  return call ? `${message.role} calls ${call.name}` : `${message.role} says something else`;
}

// A rollout, and the last call of its main agent, which has the whole conversation.
async function readSide(id) {
  const row = await get(rolloutPath(id));
  const spans = new SpanSet(id);
  while (await spans.read()) { /* The next page. */ }
  const calls = spans.calls(spans.attempts.length > 1 ? row.attempt_id : "");
  const call = calls.findLast((one) => !one.error && (!one.role || one.role === "main")) ?? calls.at(-1);
  const span = call ? await get(spanPath(id, call.attempt, call.id)) : null;
  return { row, call, calls, span, messages: span ? messagesOf(span) : [] };
}
