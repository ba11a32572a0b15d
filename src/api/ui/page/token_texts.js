// The texts of sampled tokens, from a recorded response: engines send them beside log-probabilities. Spans do not have them.

// The texts of an answer's tokens as `{ text, others }`, or a sentence that says why there are none. Long bodies are read in slices.
export async function textsOf(span, choice, sampled) {
  const body = span.attributes["http.response.body.content"];
  if (typeof body !== "string") return "The texts of tokens are in the bodies of responses: record them with --include-bodies.";
  if (body.length > MAX_BODY) return "The response is too long to look for the texts of its tokens.";
  const found = [];
  for await (const part of parts(body)) collect(part, choice, found);
  if (!found.length) return span.attributes["tracewire.capture.response_truncated"] ? "The record of the response is cut: the texts of its tokens are not in it." : "The response has no texts of tokens: engines send them with log-probabilities.";
  if (found.length !== sampled) return `The response has the texts of ${found.length} tokens; ${sampled} were sampled: which belongs to which is unknown.`;
  return found;
}

// The JSON of a response: of a stream, that of each event.
async function* parts(body) {
  if (/^\s*[{[]/.test(body) && !/^\s*\{.*\}\s*\n\s*\{/.test(body)) {
    const whole = parsed(body);
    if (whole) yield whole;
    return;
  }
  let until = performance.now() + SLICE_MS;
  for (let at = 0; at < body.length;) {
    const line = body.indexOf("\n", at), end = line < 0 ? body.length : line;
    const text = body.slice(at, end).trim();
    at = end + 1;
    const part = text.startsWith("{") ? parsed(text) : text.startsWith("data:") ? parsed(text.slice(5)) : null;
    if (part) yield part;
    if (performance.now() > until) {
      await new Promise((done) => setTimeout(done));
      until = performance.now() + SLICE_MS;
    }
  }
}

function parsed(text) {
  try { return JSON.parse(text); } catch { return null; }
}

// Adds the tokens in a part of a response, in whichever shape it has them.
function collect(part, choice, found) {
  // Engines sort alternatives, but an object of them has keys such as "7" first.
  const likeliest = (others) => others.sort(([, one], [, other]) => other - one).slice(0, MAX_OTHERS);
  const add = (token, others) => { if (typeof token === "string" && !token.startsWith("token_id:")) found.push({ text: token, others: likeliest(others) }); };
  const named = (tokens) => list(tokens).forEach((one) => add(textOf(one), list(one?.top_logprobs ?? one?.top_probs).filter(Boolean).map((other) => [textOf(other), other.logprob ?? Math.log(other.prob)])));
  const paired = (meta) => list(meta?.output_token_logprobs).forEach((one, at) => add(one?.[2], list(meta.output_top_logprobs?.[at]).filter(Boolean).map((other) => [other[2], other[0]])));
  const chosen = list(part.choices).filter((one) => one && (one.index ?? 0) === choice);
  for (const { logprobs, meta_info: meta } of chosen) {
    named(logprobs?.content);
    list(logprobs?.tokens).forEach((token, at) => add(token, Object.entries(logprobs.top_logprobs?.[at] ?? {})));
    if (!logprobs) paired(meta);
  }
  if (chosen.length || choice > 0) return;
  paired(part.meta_info);
  named(part.completion_probabilities);
  // An event of the Responses API: the last one has all of them.
  if (!part.type) named(part.logprobs);
  const output = part.output ?? (part.type === "response.completed" ? part.response?.output : undefined);
  list(output).forEach((item) => list(item?.content).forEach((content) => named(content?.logprobs)));
}

// A token that is a part of a character has no text: its bytes stand for it.
function textOf(token) {
  const bytes = list(token?.bytes);
  return String(token?.token).includes("\ufffd") && bytes.length ? bytes.map((byte) => `⟨${Number(byte).toString(16).toUpperCase().padStart(2, "0")}⟩`).join("") : token?.token ?? token?.tok_str;
}

const list = (value) => (Array.isArray(value) ? value : []);

// White space as marks, so that every box has something to see.
export const marked = (text) => text.replaceAll(" ", "·").replaceAll("\n", "↵").replaceAll("\t", "⇥").replaceAll("\r", "␍") || "∅";

const MAX_BODY = 64 * 1024 * 1024;
// How many alternatives of a token are shown: the likeliest.
const MAX_OTHERS = 5;
const SLICE_MS = 20;
