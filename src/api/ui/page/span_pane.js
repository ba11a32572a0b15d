// What is known of one span: the conversation of a call of a model, its changes, request, response, timing and attributes.

import { ApiError, get, spanPath } from "./api.js";
import { h, replace } from "./dom.js";
import { current, href } from "./route.js";
import { conversation, messagesOf } from "./conversation.js";
import { attributesPane, changesPane, requestPane, responsePane, timingPane } from "./detail.js";
import { keyOf, labelOf } from "./spans.js";

const MAX_KEPT = 24;

// `select(span)` is called for the buttons that lead to another call.
export class SpanPane {
  constructor({ rollout, spans, select }) {
    Object.assign(this, { rollout, spans, select });
    this.kept = new Map();
    this.shown = "";
    this.head = h("div", { class: "pane-head" });
    this.cause = h("div", { class: "cause", role: "alert", hidden: true });
    this.body = h("div", { class: "pane", tabindex: 0, "aria-label": "Span" });
    this.element = h("section", {}, this.head, this.cause, this.body);
  }

  // Whether there is something that could be read.
  get isEmpty() { return !this.shown; }

  showNothing(isWhole) {
    this.shown = "";
    this.cause.hidden = true;
    replace(this.head);
    replace(this.body, h("div", { class: ["empty", !isWhole && "later"] }, h("h2", {}, isWhole ? "Nothing was recorded" : "Reading…"), isWhole ? h("p", {}, "This rollout has no spans yet. ", h("a", { href: "#/connect" }, "Why is nothing recorded?")) : null));
  }

  // Shows a span; `wanted` is the pane of the address.
  async show(span, wanted) {
    const panes = panesOf(span), tab = panes.some(([name]) => name === wanted) ? wanted : panes[0][0];
    const shown = `${keyOf(span)} ${tab} ${span.end}`;
    if (this.shown === shown) return;
    this.shown = shown;
    this.drawHead(span, panes, tab);
    try {
      const whole = await this.whole(span);
      const previous = span.class === "llm" ? this.spans.before(span) : undefined;
      const before = previous && (tab === "conversation" || tab === "changes") ? await this.whole(previous) : undefined;
      if (this.shown !== shown) return;
      const cause = span.error ? causeOf(span, whole) : "";
      this.cause.hidden = !cause;
      replace(this.cause, cause, whole.attributes["error.type"] === "client_tls_error" ? [" ", h("a", { href: "#/connect" }, "How to connect an agent")] : null);
      replace(this.body, content(tab, whole, before), tab === "conversation" && cause ? failedMessage(cause) : null);
      this.body.scrollTop = 0;
      if (tab === "conversation") this.body.querySelector(".divider")?.scrollIntoView({ block: "start" });
    } catch (error) {
      if (this.shown !== shown) return;
      this.shown = "";
      this.cause.hidden = true;
      if (!(error instanceof ApiError) && !(error instanceof TypeError && /fetch/i.test(error.message))) console.error(error);
      replace(this.body, h("p", { class: "bad" }, error instanceof ApiError ? error.message : "This can't be shown now. The server may be away."));
    }
  }

  drawHead(span, panes, tab) {
    const { parts, params } = current();
    const calls = span.class === "llm" ? this.spans.calls(span.attempt) : [];
    const at = calls.indexOf(span);
    const step = (by, label, text) => h("button", { type: "button", class: "plain small", disabled: !calls[at + by], "aria-label": label, title: label, on: { click: () => this.select(calls[at + by]) } }, text);
    // The cause of another span does not stand under this head.
    if (this.headOf !== keyOf(span)) this.cause.hidden = true;
    this.headOf = keyOf(span);
    this.head.className = ["pane-head", span.class, span.error ? "error" : ""].join(" ");
    replace(this.head, h("span", { class: "mark", "aria-hidden": "true" }), h("b", { class: "ellipsis", style: { "max-width": "320px" }, title: labelOf(span) }, labelOf(span)),
      calls.length ? h("span", { class: "muted" }, `call ${at + 1} of ${calls.length}`) : null, calls.length > 1 ? [step(-1, "Previous call", "‹"), step(1, "Next call", "›")] : null,
      h("span", { class: "grow" }), h("div", { class: "tabs", role: "tablist" }, panes.map(([name, text]) => h("a", { role: "tab", "aria-selected": String(name === tab), href: href(parts, { ...params, span: keyOf(span), tab: name }) }, text))));
  }

  // A span with all its attributes.
  async whole(span) {
    const key = `${keyOf(span)} ${span.end}`;
    if (!this.kept.has(key)) {
      this.kept.set(key, get(spanPath(this.rollout, span.attempt, span.id)));
      if (this.kept.size > MAX_KEPT) this.kept.delete(this.kept.keys().next().value);
    }
    try { return await this.kept.get(key); } catch (error) { this.kept.delete(key); throw error; }
  }
}

export function panesOf(span) {
  const panes = [["request", "Request"], ["response", "Response"], ["timing", "Timing"], ["attributes", "Attributes"]];
  if (span.class === "llm") return [["conversation", "Conversation"], ["changes", "Changes"], ...panes];
  return span.method ? panes : [["attributes", "Attributes"], ["timing", "Timing"]];
}

function content(tab, span, before) {
  switch (tab) {
    case "conversation": return conversation(span, before && messagesOf(before));
    case "changes": return changesPane(span, before);
    case "request": return requestPane(span);
    case "response": return responsePane(span);
    case "timing": return timingPane(span);
    default: return attributesPane(span);
  }
}

// Why a span failed: the status, the type of the error, and its message.
function causeOf(span, { attributes }) {
  const type = attributes["error.type"] ?? "", status = span.status >= 400 ? String(span.status) : "", cause = span.cause ?? "";
  const parts = [status && `HTTP ${status}`, type !== status && !cause.startsWith(type) ? type : "", cause === status ? "" : cause];
  return parts.filter(Boolean).join(" · ") || "It failed; no cause was recorded.";
}

const failedMessage = (cause) => h("article", { class: "message failed" }, h("div", { class: "who" }, "failed"), h("div", { class: "text" }, cause));
