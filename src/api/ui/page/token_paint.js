// The tokens of a call with what is known of each, and their colours.

import { number, plural } from "./dom.js";

// The tokens of a call, and what is known of each.
export function tokensOf(span, call, calls) {
  const suffix = call.choice ? `.${call.choice}` : "";
  const numbers = (name) => { const value = span.attributes[name + suffix]; return Array.isArray(value) ? value : []; };
  const own = numbers("prompt_token_ids"), prompt = own.length ? own : span.attributes.prompt_token_ids ?? [];
  const sampled = numbers("response_token_ids"), logprobs = numbers("tracewire.response_logprobs");
  const names = span.attributes["tracewire.policy.versions"] ?? [span.attributes["tracewire.policy.version"]].filter(Boolean);
  const starts = span.attributes["tracewire.policy.version_starts"] ?? [0];
  const ranges = [];
  for (let parent = call.parent; parent !== null && parent !== undefined; parent = calls[parent].parent) ranges.push([calls[parent].prompt_tokens, calls[parent].prompt_tokens + calls[parent].sampled_tokens]);
  return {
    ids: [...prompt, ...sampled], promptLength: prompt.length, logprobs: logprobs.length === sampled.length && logprobs.length ? logprobs : null,
    versions: names.map((name, at) => ({ name, at: starts[at] ?? 0 })), breakAt: call.break?.position,
    earlier: (at) => ranges.some(([from, to]) => at >= from && at < to), isTrained: (at) => at < call.trained_tokens,
  };
}

// The fill and the ink of each box.
export function painter(mode, tokens, color, found) {
  const plain = [color.sunken, color.muted];
  if (mode === "logprob") return (at) => {
    const logprob = tokens.logprobs?.[at - tokens.promptLength];
    return logprob === undefined ? (at >= tokens.promptLength ? [color.internal, color.ink] : plain) : [ramp(logprob), "#10151f"];
  };
  if (mode === "mask") return (at) => {
    if (at >= tokens.promptLength) return tokens.isTrained(at - tokens.promptLength) ? [color.llm, "#ffffff"] : [color.warn, color.panel];
    return tokens.earlier(at) ? [`color-mix(in srgb, ${color.llm} 35%, ${color.panel})`, color.ink] : plain;
  };
  if (overlayOf(mode)) return (at) => {
    const value = found?.values?.[at - found.from];
    return value === undefined ? plain : [overlayColor(value, found), "#10151f"];
  };
  return (at) => {
    const place = at - tokens.promptLength;
    if (place < 0 || !tokens.versions.length) return plain;
    return [versionColor(tokens.versions.findLastIndex((version) => place >= version.at)), "#10151f"];
  };
}

// The name of the values in `+name`.
export const overlayOf = (mode) => (mode.startsWith("+") ? mode.slice(1) : "");

// Values for the sampled tokens, or for all. What else the API took by that name can't be shown, and the legend says why.
export function overlay(name, values, tokens) {
  const all = tokens.ids.length, sampled = all - tokens.promptLength;
  if (!Array.isArray(values)) return { name, problem: `The values of ${name} are no list of numbers.` };
  if (values.length !== sampled && values.length !== all) return { name, problem: `There are ${plural(values.length, "value")} of ${name}, for ${plural(sampled, "sampled token")} (${number(all)} with the prompt): which token each belongs to is unknown.` };
  const wrong = values.findIndex((value) => typeof value !== "number" || !Number.isFinite(value));
  if (wrong >= 0) return { name, problem: `Value ${number(wrong)} of ${name} is ${JSON.stringify(values[wrong])}, which is no finite number.` };
  let low = Infinity, high = -Infinity;
  for (const value of values) { low = Math.min(low, value); high = Math.max(high, value); }
  const isSigned = low < 0;
  if (isSigned) { high = Math.max(Math.abs(low), Math.abs(high)); low = -high; }
  return { name, values, low, high, isSigned, from: values.length === sampled ? tokens.promptLength : 0 };
}

// With both signs: red below zero, blue above, pale at zero. Else from pale to violet.
const SIGNED = [[200, 70, 60], [238, 232, 220], [70, 130, 200]], SINGLE = [[240, 236, 226], [137, 87, 200]];
function overlayColor(value, { low, high, isSigned }) {
  const stops = isSigned ? SIGNED : SINGLE, place = high > low ? ((value - low) / (high - low)) * (stops.length - 1) : 0;
  return between(stops, place);
}

// Red for unlikely tokens, green for certain ones: the colours of the ramp in the legend.
const STOPS = [[192, 57, 43], [230, 162, 60], [233, 227, 161], [106, 191, 138], [45, 138, 91]];
function ramp(logprob) {
  return between(STOPS, Math.min(1, Math.max(0, 1 + logprob / 5)) * (STOPS.length - 1));
}

function between(stops, place) {
  const low = Math.min(stops.length - 2, Math.max(0, Math.floor(place))), share = place - low;
  return `rgb(${stops[low].map((value, at) => Math.round(value + (stops[low + 1][at] - value) * share)).join(" ")})`;
}

const VERSION_HUES = [220, 30, 150, 300, 60, 190, 0, 270];
export const versionColor = (at) => `hsl(${VERSION_HUES[at % VERSION_HUES.length]} 55% 60%)`;
