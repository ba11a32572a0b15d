// Requests to the server. The token is kept in this page's memory only: a reload asks for it again.

let token = "";
let isDown = false;
const listeners = { down: () => {}, token: () => {} };

export class ApiError extends Error {
  constructor(status, detail) {
    super(typeof detail === "string" ? detail : detail?.[0]?.msg ?? `the server answered ${status}`);
    this.status = status;
    this.detail = detail;
  }
}

// `down(isDown)` is called when the server stops or starts to answer, `token()` when it wants one.
export function listen(handlers) {
  Object.assign(listeners, handlers);
}

export function setToken(value) {
  token = value;
}

export function get(path, options) {
  return request(path, options).then((response) => response.json());
}

export function getText(path, options) {
  return request(path, options).then((response) => response.text());
}

// What early.js asked for serves the first view only: afterwards it is old.
export function endEarly() {
  early?.clear();
}
const { early } = globalThis;

async function request(path, { signal } = {}) {
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  let response;
  try {
    const asked = early?.get(path);
    early?.delete(path);
    const answer = await asked;
    signal?.throwIfAborted();
    response = answer ?? await fetch(`../${path}`, { headers, signal, credentials: "omit", cache: "no-store" });
  } catch (error) {
    if (error.name !== "AbortError") setDown(true);
    throw error;
  }
  setDown(false);
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  if (response.status === 401) listeners.token();
  throw new ApiError(response.status, body.detail ?? body.error);
}

function setDown(value) {
  if (value === isDown) return;
  isDown = value;
  listeners.down(value);
  if (isDown) probe();
}

// A view that asks for nothing itself learns that the server is back. Hidden pages do not ask.
function probe(pause = PROBE_MS) {
  clearTimeout(probing);
  probing = setTimeout(async () => {
    if (!isDown || document.hidden) return;
    await request("healthz").catch(() => {});
    if (isDown) probe(Math.min(MAX_PROBE_MS, pause * 2));
  }, pause);
}
let probing = 0;
const PROBE_MS = 2000, MAX_PROBE_MS = 10_000;
document.addEventListener("visibilitychange", () => { if (isDown) probe(); });

// Calls `job` again and again while the page is visible, `seconds` after its last end, and more rarely while it fails. `job`
// returns true to be called again at once, or the seconds to wait. Returns a function that ends it.
export function poll(job, seconds) {
  const abort = new AbortController();
  let timer = 0, failures = 0, isRunning = false;
  const run = async () => {
    if (abort.signal.aborted || isRunning || document.hidden) return;
    isRunning = true;
    let wanted = false;
    try {
      wanted = await job(abort.signal);
      failures = 0;
    } catch (error) {
      if (error.name !== "AbortError") failures += 1;
      if (!(error instanceof ApiError) && error.name !== "AbortError" && !(error instanceof TypeError)) console.error(error);
    }
    isRunning = false;
    const pause = failures ? Math.min(10, seconds * 2 ** Math.min(failures, 4)) : wanted === true ? 0 : wanted || seconds;
    clearTimeout(timer);
    if (!abort.signal.aborted) timer = setTimeout(run, pause * 1000);
  };
  document.addEventListener("visibilitychange", run, { signal: abort.signal });
  run();
  return () => { clearTimeout(timer); abort.abort(); };
}

export const rolloutPath = (id) => `v1/tracewire/rollouts/${encodeURIComponent(id)}`;
export const spanPath = (id, attempt, span) => `${rolloutPath(id)}/attempts/${encodeURIComponent(attempt)}/spans/${encodeURIComponent(span)}`;
