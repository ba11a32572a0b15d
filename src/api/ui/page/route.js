// The state of the page is its address: `#/rollout/ID/tokens?call=…`.

// The path as a list, and the parameters.
export function current() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const parts = path.split("/").filter(Boolean).map(decode);
  return { parts: parts.length ? parts : ["rollouts"], params: Object.fromEntries(new URLSearchParams(query)) };
}

function decode(part) {
  try { return decodeURIComponent(part); } catch { return part; }
}

export function href(parts, params = {}) {
  const query = new URLSearchParams(Object.entries(params).filter(([, value]) => value !== "" && value !== null && value !== undefined && value !== false)).toString();
  return `#/${parts.map(encodeURIComponent).join("/")}${query ? `?${query}` : ""}`;
}

// Ids as one text, with commas between them, and back.
export const joined = (ids) => ids.map((id) => id.replace(/[%,\s]/g, encodeURIComponent)).join(",");
export const parted = (text) => [...new Set(text.split(/[\s,]+/).filter(Boolean).map(decode))];

// Goes to another state, which "back" leaves again.
export function go(parts, params) {
  location.hash = href(parts, params);
}

// Changes parameters of this state without a new entry in the history. Links that keep the parameters follow it by an event.
export function amend(changes) {
  const { parts, params } = current();
  history.replaceState(null, "", href(parts, { ...params, ...changes }));
  dispatchEvent(new Event("amended"));
}
