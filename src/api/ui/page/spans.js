// The spans of a rollout as they arrive, as a tree and as lanes.

import { get, rolloutPath } from "./api.js";

const WORLD = new Set(["http", "tunnel", "connection"]);

export class SpanSet {
  constructor(rollout) {
    this.rollout = rollout;
    this.all = [];
    this.byId = new Map();
    // By attempt and id.
    this.ids = new Map();
    this.texts = new Map();
    this.last = 0;
    this.isWhole = false;
    this.ahead = null;
  }

  // Reads what was stored since, a page at a time. Resolves to true if there is more to read at once: the next page is asked for
  // already then, unless `limit` spans are there.
  async read(signal, limit) {
    const asked = this.ahead ?? this.page(signal);
    this.ahead = null;
    const page = await asked;
    this.last = page.last;
    if (page.more && this.all.length + page.spans.length < limit) {
      this.ahead = this.page(signal);
      // The error is for the one that reads the page.
      this.ahead.catch(() => {});
    }
    for (const span of page.spans) {
      this.share(span);
      const key = keyOf(span);
      if (this.byId.has(key)) continue;
      this.byId.set(key, span);
      if (!this.ids.has(span.attempt)) this.ids.set(span.attempt, new Map());
      this.ids.get(span.attempt).set(span.id, span);
      this.all.push(span);
    }
    this.isWhole = !page.more;
    return page.more;
  }

  page(signal) {
    return get(`${rolloutPath(this.rollout)}/spans?after=${this.last}&limit=${PAGE}`, { signal });
  }

  // Thousands of spans have the same names: one text serves all.
  share(span) {
    for (const field of SHARED) {
      const text = span[field];
      if (typeof text !== "string") continue;
      const known = this.texts.get(text);
      if (known !== undefined) span[field] = known;
      else if (this.texts.size < MAX_TEXTS) this.texts.set(text, text);
    }
  }

  get attempts() {
    return [...new Set(this.all.map((span) => span.attempt))];
  }

  // The tree of an attempt (all, if it is empty) as a list of rows with depths. Spans with an unknown parent are roots, and what
  // is in a cycle of parents is shown at the end.
  tree(attempt, folded, keeps) {
    const spans = this.all.filter((span) => !attempt || span.attempt === attempt);
    const children = new Map();
    const roots = [];
    for (const span of spans) {
      const parent = this.parentOf(span);
      if (!parent || parent === span) roots.push(span);
      else if (children.has(parent)) children.get(parent).push(span);
      else children.set(parent, [span]);
    }
    const rows = [], seen = new Set();
    const visit = (first) => {
      const stack = [[first, 0]];
      while (stack.length) {
        const [span, depth] = stack.pop();
        if (seen.has(span)) continue;
        seen.add(span);
        const below = (children.get(span) ?? []).filter((child) => keeps(child) || children.has(child)).sort(inOrder);
        const isShown = keeps(span);
        const isFolded = folded.has(keyOf(span));
        if (isShown) rows.push({ span, depth: Math.min(depth, MAX_DEPTH), children: below.length, isFolded });
        if (isFolded && isShown) { markAll(span, children, seen); continue; }
        for (let at = below.length - 1; at >= 0; at -= 1) stack.push([below[at], depth + (isShown ? 1 : 0)]);
      }
    };
    roots.sort(inOrder).forEach(visit);
    for (const span of spans) if (!seen.has(span) && keeps(span)) visit(span);
    return rows;
  }

  // What the agent did over HTTP besides calling models, by time.
  world(attempt) {
    return this.all.filter((span) => isWorld(span) && (span.class !== "connection" || span.error) && (!attempt || span.attempt === attempt)).sort((one, other) => (one.start ?? 0) - (other.start ?? 0) || one.seq - other.seq);
  }

  // From the first start to the last end.
  range(attempt) {
    let from = Infinity, to = -Infinity;
    for (const span of this.all) {
      if (attempt && span.attempt !== attempt) continue;
      if (span.start) { from = Math.min(from, span.start); to = Math.max(to, span.start); }
      if (span.end) to = Math.max(to, span.end);
    }
    return from < Infinity ? { from, to: Math.max(to, from + 0.001) } : { from: 0, to: 1 };
  }

  // The calls of models of an attempt in order.
  calls(attempt) {
    return this.all.filter((span) => span.class === "llm" && (!attempt || span.attempt === attempt)).sort(inOrder);
  }

  // What failed, in order. Spans that failed because of one below them come last.
  errors(attempt) {
    const { lowest, above } = this.failures(attempt);
    return [...lowest, ...above];
  }

  // What probably made a rollout fail: the last failed call of a model after which its agent had no answer, else the last failure.
  culprit(attempt) {
    const answered = new Map(), callerOf = (call) => JSON.stringify([call.agent, call.role]);
    for (const call of this.calls(attempt)) if (!call.error) answered.set(callerOf(call), call.seq);
    const { lowest, above } = this.failures(attempt);
    return lowest.findLast((span) => span.class === "llm" && span.seq > (answered.get(callerOf(span)) ?? -1)) ?? lowest.at(-1) ?? above.at(-1);
  }

  failures(attempt) {
    const failed = this.all.filter((span) => span.error && (!attempt || span.attempt === attempt)).sort(inOrder), parents = new Set();
    for (const span of failed) {
      for (let parent = this.parentOf(span); parent && !parents.has(parent); parent = this.parentOf(parent)) parents.add(parent);
    }
    return { lowest: failed.filter((span) => !parents.has(span)), above: failed.filter((span) => parents.has(span)) };
  }

  parentOf(span) {
    return span.parent ? this.ids.get(span.attempt)?.get(span.parent) : undefined;
  }

  // The call of the same agent before this one.
  before(call) {
    const calls = this.calls(call.attempt).filter((one) => one.agent === call.agent && one.role === call.role);
    return calls[calls.indexOf(call) - 1];
  }
}

export const keyOf = (span) => `${span.attempt}/${span.id}`;
export const isWorld = (span) => WORLD.has(span.class);
const inOrder = (one, other) => one.seq - other.seq || (one.start ?? 0) - (other.start ?? 0);

function markAll(span, children, seen) {
  const stack = [...(children.get(span) ?? [])];
  while (stack.length) {
    const next = stack.pop();
    if (seen.has(next)) continue;
    seen.add(next);
    stack.push(...(children.get(next) ?? []));
  }
}

// As many as are read and drawn in a blink. early.js asks for the first page.
const PAGE = 5000;
const MAX_DEPTH = 24;
const SHARED = ["attempt", "parent", "name", "class", "method", "host", "model", "agent", "role", "tool", "ids", "finish", "cause"];
const MAX_TEXTS = 10_000;

// What a row of a span says.
export function labelOf(span) {
  if (span.class === "llm") return span.model ? span.name.replace(/^(chat|generate_content|text_completion) /, "") : span.name;
  if (span.class === "tool") return span.tool ?? span.name;
  if (isWorld(span) && span.method) return `${span.method} ${shortUrl(span)}`;
  if (span.class === "reward" && span.reward !== undefined) return `reward ${span.reward}`;
  return span.name;
}

function shortUrl(span) {
  const rest = span.url?.split("://")[1] ?? span.host ?? "";
  return rest.split("?")[0].replace(/\/$/, "");
}
