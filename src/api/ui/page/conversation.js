// The messages of a call as a person reads them: tools below their calls, thinking folded, long texts cut.

import { bytes, copyButton, h, number, plural } from "./dom.js";

const CUT = 6000;

export const attribute = (span, name) => span?.attributes?.[name];

// A list in JSON, as attributes of messages have it. What can't be read is one text.
export function list(span, name) {
  const text = attribute(span, name);
  if (!text) return [];
  try {
    const read = JSON.parse(text);
    return Array.isArray(read) ? read : [read];
  } catch {
    return [{ role: "unreadable", parts: [{ type: "text", content: text }] }];
  }
}

// All messages of a call: the system's, those that were sent, and the answers.
export function messagesOf(span) {
  const system = list(span, "gen_ai.system_instructions");
  const answers = list(span, "gen_ai.output.messages").map((message) => ({ role: "assistant", ...message }));
  return [...(system.length ? [{ role: "system", parts: system }] : []), ...list(span, "gen_ai.input.messages"), ...answers].map(sound);
}

// A message with the fields that are read, whatever was recorded: other tracers write what they like.
function sound(message) {
  if (typeof message !== "object" || message === null) return { role: "unreadable", parts: [{ type: "text", content: String(message) }] };
  const parts = Array.isArray(message.parts) ? message.parts : message.content !== undefined ? [{ type: "text", content: message.content }] : [];
  return { ...message, role: String(message.role ?? "?"), parts: parts.map((part) => (typeof part === "object" && part !== null ? part : { type: "text", content: String(part) })) };
}

// How many messages at the start of a call are those that the call before had too.
export function commonMessages(messages, before) {
  let same = 0;
  while (same < messages.length && same < before.length && sameMessage(messages[same], before[same])) same += 1;
  return same;
}

const sameMessage = (one, other) => one.role === other.role && JSON.stringify(one.parts) === JSON.stringify(other.parts);

// The conversation. `before` has the messages of the previous call of the same agent.
export function conversation(span, before) {
  const messages = messagesOf(span);
  if (!messages.length) return [h("p", { class: "muted" }, "This call has no recorded messages.")];
  const tools = list(span, "gen_ai.tool.definitions");
  const results = resultsOf(messages), paired = new Set();
  const known = before ? commonMessages(messages, before) : 0;
  const parts = [];
  messages.forEach((message, at) => {
    if (before && at === known && at > 0) parts.push(h("div", { class: "divider" }, "new in this call"));
    const element = messageElement(message, results, paired);
    if (element) parts.push(element);
  });
  return [tools.length ? toolList(tools) : null, h("div", { class: "messages" }, parts)];
}

// The results of tools by the id of their call.
function resultsOf(messages) {
  const results = new Map();
  for (const message of messages) {
    for (const part of message.parts) if (part.type === "tool_call_response" && part.id) results.set(part.id, part);
  }
  return results;
}

function messageElement(message, results, paired) {
  const parts = message.parts.filter((part) => !(part.type === "tool_call_response" && paired.has(part.id)));
  if (!parts.length && message.parts.length) return null;
  const role = ["system", "user", "assistant", "tool", "developer"].includes(message.role) ? message.role : "other";
  const body = parts.length ? parts.map((part) => partElement(part, results, paired)) : [h("span", { class: "muted" }, "empty")];
  const finish = message.finish_reason && !NORMAL_ENDS.has(message.finish_reason) ? h("div", { class: "muted" }, `ended with ${message.finish_reason}`) : null;
  return h("article", { class: ["message", role] }, h("div", { class: "who ellipsis", title: message.role }, message.role), h("div", {}, body, finish));
}

const NORMAL_ENDS = new Set(["stop", "tool_calls", "tool_call", "tool_use", "end_turn"]);

function partElement(part, results, paired) {
  switch (part.type) {
    case "text": return prose(asText(part.content));
    case "reasoning": return h("details", { class: "thinking" }, h("summary", {}, `Thinking · ${plural(asText(part.content).length, "character")}`), longText(asText(part.content), "text"));
    case "tool_call": {
      const result = part.id ? results.get(part.id) : undefined;
      if (result) paired.add(part.id);
      return h("div", { class: "call" }, h("header", {}, h("b", {}, pretty(part.name) || "tool"), h("span", { class: "muted mono ellipsis" }, pretty(part.id))),
        longText(pretty(part.arguments), "", "pre"), result ? [h("header", { class: "muted" }, "result"), longText(pretty(result.response ?? result.result), "", "pre")] : null);
    }
    case "tool_call_response": return h("div", { class: "call" }, h("header", { class: "muted" }, `result ${pretty(part.id)}`), longText(pretty(part.response ?? part.result), "", "pre"));
    case "blob": return blob(part);
    case "uri": return h("div", { class: "text" }, `${part.modality ?? "file"}: `, h("span", { class: "mono" }, pretty(part.uri)));
    default: return longText(pretty(part), "", "pre");
  }
}

// An image of a message. Only formats that can't contain scripts or links are shown.
function blob(part) {
  const type = part.mime_type ?? (part.modality === "image" ? "image/png" : ""), content = asText(part.content);
  const size = bytes(Math.floor(content.length * 0.75));
  if (!/^image\/(png|jpeg|gif|webp)$/.test(type) || !/^[A-Za-z0-9+/=\s]*$/.test(content)) return h("div", { class: "muted" }, `${part.modality ?? "data"} ${type}, ${size}`);
  const note = h("div", { class: "muted" }, `image, ${size}`);
  const image = h("img", { alt: `Image of the conversation, ${size}`, on: { error: () => { image.remove(); note.textContent = `an image that can't be shown, ${size}`; } } });
  image.src = `data:${type};base64,${content}`;
  return h("div", {}, image, note);
}

function toolList(tools) {
  const rows = tools.map((tool) => {
    const { name, description, parameters } = tool?.function ?? tool ?? {};
    return h("details", {}, h("summary", {}, h("b", { class: "mono" }, name ?? tool?.type ?? "tool"), " ", h("span", { class: "muted" }, String(description ?? "").slice(0, 120))), longText(pretty(parameters ?? tool), "", "pre"));
  });
  return h("details", { class: "muted" }, h("summary", {}, plural(tools.length, "tool")), rows);
}

// A text with its blocks of code between fences. Nothing else of Markdown is interpreted.
function prose(text) {
  if (text.length > CUT || !text.includes("```")) return longText(text, "text");
  const parts = text.split(/```[^\n`]*\n?/);
  return h("div", { class: "text" }, parts.map((part, at) => (at % 2 ? h("pre", { class: "code" }, part.replace(/\n$/, "")) : part.replace(/^\n+|\n+$/g, (lines) => (lines.length > 1 ? "\n" : "")))));
}

// A text that is cut until a person wants all of it.
export function longText(text, className, tag = "div") {
  const element = h(tag, { class: className }, text.length > CUT ? text.slice(0, CUT) : text);
  if (text.length <= CUT) return element;
  const more = h("button", { type: "button", class: "small", on: { click: () => { element.replaceChildren(); element.append(h("span", {}, text)); more.remove(); } } }, `Show all ${number(text.length)} characters`);
  return [element, more, " ", copyButton(text)];
}

const asText = (content) => (typeof content === "string" ? content : content === undefined ? "" : pretty(content));

// JSON indented; a text that is JSON too.
export function pretty(value) {
  if (value === undefined || value === null) return "";
  if (typeof value !== "string") return JSON.stringify(value, null, 2);
  const start = value.trimStart()[0];
  if (start !== "{" && start !== "[") return value;
  try { return JSON.stringify(JSON.parse(value), null, 2); } catch { return value; }
}
