// One span: request, response, timing, all attributes, and what changed since the call before.

import { bytes, copyButton, duration, h, clockExact } from "./dom.js";
import { bars } from "./charts.js";
import { attribute, list, longText, pretty } from "./conversation.js";

const ARRAYS = /^(prompt_token_ids|response_token_ids|tracewire\.(response_logprobs|routed_experts|sampling_mask))/;
// Parts of the time between the first chunk and the last, in which chunks are counted.
const PARTS = 16;

export function requestPane(span) {
  if (isConnect(span)) return connectPane(span);
  const url = attribute(span, "url.full"), method = attribute(span, "http.request.method");
  return [url ? h("p", { class: "mono" }, h("b", {}, method ?? ""), " ", url, " ", copyButton(url, "Copy URL"), " ", copyButton(() => curl(span), "Copy as curl")) : null,
    headers(span, "http.request.header."), body(span, "request"), sampling(span)];
}

// A tunnel has neither headers of interest nor a body.
const isConnect = (span) => attribute(span, "http.request.method") === "CONNECT";

function connectPane(span) {
  const facts = [["program", "tracewire.client.program"], ["client address", "client.address"], ["to", "server.address"], ["port", "server.port"], ["policy", "tracewire.connect.policy"], ["TLS fingerprint", "tracewire.client.ja4"]];
  return [h("p", {}, "A client asked the proxy for a connection."), pairs(facts.map(([name, key]) => [name, attribute(span, key)]).filter(([, value]) => value !== undefined))];
}

export function responsePane(span) {
  const status = attribute(span, "http.response.status_code");
  return [status ? h("p", {}, "Status ", h("b", {}, status), " · ", bytes(attribute(span, "http.response.body.size"))) : null, isConnect(span) ? null : [headers(span, "http.response.header."), body(span, "response")]];
}

function headers(span, prefix) {
  const fields = Object.entries(span.attributes).filter(([name]) => name.startsWith(prefix));
  if (!fields.length) return h("p", { class: "muted" }, "Headers were not recorded: start with --include-headers to have them.");
  return section("Headers", pairs(fields.map(([name, value]) => [name.slice(prefix.length), [value].flat().join(", ")])));
}

function body(span, side) {
  const text = attribute(span, `http.${side}.body.content`), encoded = attribute(span, `tracewire.${side}.body.base64`);
  const cut = attribute(span, `tracewire.capture.${side}_truncated`);
  const note = cut ? h("div", { class: "note" }, `The record of this body is cut (${cut}).`) : null;
  if (encoded) return [note, h("p", { class: "muted" }, `The body is not text (${bytes(Math.floor(encoded.length * 0.75))}).`), copyButton(encoded, "Copy base64")];
  if (text === undefined) return [note, h("p", { class: "muted" }, "The body was not recorded: start with --include-bodies to have it. Messages of model calls are recorded without that.")];
  let isRaw = false;
  const show = h("div", {}, longText(pretty(text), "", "pre"));
  const toggle = h("button", { type: "button", class: "small", "aria-pressed": "false", on: { click: () => {
    isRaw = !isRaw;
    toggle.setAttribute("aria-pressed", isRaw);
    show.replaceChildren(...[longText(isRaw ? text : pretty(text), "", "pre")].flat().map((part) => (part instanceof Node ? part : document.createTextNode(part))));
  } } }, "Raw");
  return [note, h("div", { class: "block" }, h("header", {}, h("h3", {}, "Body"), toggle, copyButton(text)), show)];
}

// What the sampling depended on.
function sampling(span) {
  const text = attribute(span, "tracewire.sampling");
  if (!text) return null;
  try { return section("Sampling", pairs(Object.entries(JSON.parse(text)).map(([name, value]) => [name, typeof value === "string" ? value : JSON.stringify(value)]))); } catch { return null; }
}

export function timingPane(span) {
  const ms = (name) => attribute(span, `tracewire.timing.${name}`);
  const whole = span.start_time && span.end_time ? (span.end_time - span.start_time) * 1000 : undefined;
  const connect = ms("connect_ms") ?? 0, tls = ms("tls_ms") ?? 0, head = ms("response_headers_ms"), first = ms("first_body_byte_ms");
  const firstChunk = attribute(span, "gen_ai.response.time_to_first_chunk");
  const phases = [["DNS and connect", 0, ms("connect_ms")], ["TLS", connect, ms("tls_ms")],
    ["waiting for the response", connect + tls, head === undefined ? undefined : Math.max(0, head - connect - tls)],
    ["until the first byte", head ?? 0, first === undefined || head === undefined ? undefined : first - head],
    ["transfer", first ?? head ?? 0, whole === undefined || (first ?? head) === undefined ? undefined : whole - (first ?? head)]].filter(([, , took]) => took !== undefined);
  const length = Math.max(whole ?? 0, ...phases.map(([, from, took]) => from + took), 0.001);
  const rows = phases.map(([name, from, took]) => [h("span", {}, name), h("span", { class: "track" }, h("i", { style: { left: `${(from / length) * 100}%`, width: `${(took / length) * 100}%` } })), h("span", { class: "num" }, duration(took / 1000))]);
  const facts = [["started", clockExact(span.start_time)], ["ended", span.end_time ? clockExact(span.end_time) : "not yet"], ["duration", duration(whole === undefined ? undefined : whole / 1000)],
    ["first chunk with content", firstChunk === undefined ? undefined : duration(firstChunk)], ["chunks", attribute(span, "tracewire.response.chunks")],
    ["time between chunks", attribute(span, "tracewire.response.chunk_gap_p50_ms") === undefined ? undefined : `median ${duration(attribute(span, "tracewire.response.chunk_gap_p50_ms") / 1000)}, longest ${duration(attribute(span, "tracewire.response.chunk_gap_max_ms") / 1000)}`],
    ["connection", attribute(span, "tracewire.connection.reused") === undefined ? undefined : attribute(span, "tracewire.connection.reused") ? "reused" : "new"],
    ["protocol", attribute(span, "network.protocol.version")], ["TLS", attribute(span, "tls.protocol.version")]].filter(([, value]) => value !== undefined);
  // Spans may come from anyone.
  const counts = attribute(span, "tracewire.response.chunk_counts"), areCounts = Array.isArray(counts) && counts.length === PARTS && counts.every(Number.isFinite);
  const chunks = areCounts ? h("div", { class: "block chunks" }, h("header", {}, h("h3", {}, "Chunks over time")), bars("Chunks over time", counts),
    h("div", { class: "muted ends" }, h("span", {}, firstChunk === undefined ? "first chunk" : `first chunk, after ${duration(firstChunk)}`), h("span", {}, "last chunk"))) : null;
  const clock = whole !== undefined && whole < 0 ? h("div", { class: "note" }, "The span ends before it starts: the clock of the machine was set back.") : null;
  return [clock, rows.length ? h("div", { class: "timing" }, rows) : null, chunks, pairs(facts)];
}

export function attributesPane(span) {
  const rows = Object.entries(span.attributes).map(([name, value]) => [name, shown(name, value)]);
  const events = span.events?.length ? section("Events", pairs(span.events.map((event) => [event.name, JSON.stringify(event.attributes)]))) : null;
  const links = span.links?.length ? section("Links", pairs(span.links.map((link) => [link.attributes?.["tracewire.link"] ?? "link", link.context.span_id]))) : null;
  const identity = ["rollout_id", "attempt_id", "sequence_id", "trace_id", "span_id", "parent_id", "kind"].map((name) => [name, span[name] ?? "–"]);
  return [section("Identity", pairs(identity)), section("Attributes", pairs(rows)), events, links, h("p", {}, copyButton(() => JSON.stringify(span, null, 2), "Copy as JSON"))];
}

function shown(name, value) {
  if (ARRAYS.test(name) && (Array.isArray(value) || value.length > 200)) return `${value.length} ${Array.isArray(value) ? "numbers" : "characters of base64"}`;
  return longText(Array.isArray(value) ? value.join(", ") : String(value), "", "span");
}

// What differs between this call and the one before of the same agent, besides added messages.
export function changesPane(span, before) {
  if (!before) return [h("p", { class: "muted" }, "This is the first call of its agent.")];
  const skip = /^(gen_ai\.(input|output)\.messages|gen_ai\.usage|gen_ai\.response|prompt_token_ids|response_token_ids|tracewire\.(timing|response|connection|tokens|identity|sampling_mask|routed)|http\.|network\.|client\.|tls\.)/;
  const names = [...new Set([...Object.keys(before.attributes), ...Object.keys(span.attributes)])].filter((name) => !skip.test(name)).sort();
  const rows = names.filter((name) => JSON.stringify(before.attributes[name]) !== JSON.stringify(span.attributes[name])).map((name) => [name, difference(asLine(before.attributes[name]), asLine(span.attributes[name]))]);
  const was = list(before, "gen_ai.input.messages").length, now = list(span, "gen_ai.input.messages").length;
  return [pairs([["messages sent", `${was} → ${now}`], ["input tokens", `${before.attributes["gen_ai.usage.input_tokens"] ?? "–"} → ${span.attributes["gen_ai.usage.input_tokens"] ?? "–"}`],
    ["time since the call before", span.start_time && before.end_time ? duration(span.start_time - before.end_time) : "–"]]),
  h("h3", {}, rows.length ? "Different attributes" : "No other attribute of the request differs."), pairs(rows)];
}

const asLine = (value) => (value === undefined ? "" : Array.isArray(value) ? value.join(", ") : String(value));

// Two texts as one: what they share at both ends, and what stands between.
export function difference(before, after) {
  let start = 0;
  while (start < before.length && start < after.length && before[start] === after[start]) start += 1;
  let end = 0;
  while (end < before.length - start && end < after.length - start && before.at(-1 - end) === after.at(-1 - end)) end += 1;
  const context = (text) => (text.length > 160 ? [text.slice(0, 80), "…", text.slice(-80)].join("") : text);
  const middle = (text) => { const part = text.slice(start, text.length - end); return part.length > 600 ? `${part.slice(0, 600)}…` : part; };
  return h("span", { class: "diff" }, context(before.slice(0, start)), middle(before) ? h("del", {}, middle(before)) : null, middle(after) ? h("ins", {}, middle(after)) : null, context(before.slice(before.length - end)));
}

// The request as a command of curl. What was not recorded is left out; secrets are redacted as everywhere.
export function curl(span) {
  const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const prefix = "http.request.header.";
  const skip = new Set(["host", "content-length", "connection", "accept-encoding"]);
  const fields = Object.entries(span.attributes).filter(([name]) => name.startsWith(prefix) && !skip.has(name.slice(prefix.length)));
  const lines = [`curl ${quote(attribute(span, "url.full") ?? "")}`, `-X ${attribute(span, "http.request.method") ?? "GET"}`,
    ...fields.map(([name, value]) => `-H ${quote(`${name.slice(prefix.length)}: ${[value].flat().join(", ")}`)}`)];
  const content = attribute(span, "http.request.body.content");
  if (content !== undefined) {
    if (!fields.some(([name]) => name.endsWith(".content-type"))) lines.push("-H 'content-type: application/json'");
    lines.push(`--data-raw ${quote(content)}`);
  }
  return lines.join(" \\\n  ");
}

export const section = (title, ...content) => h("div", { class: "block" }, h("header", {}, h("h3", {}, title)), content);

export const pairs = (rows) => (rows.length ? h("table", { class: "pairs" }, h("tbody", {}, rows.map(([name, value]) => h("tr", {}, h("th", { scope: "row", title: name }, name), h("td", {}, value))))) : null);
