// What the first view reads is asked for before the modules of the page are there; api.js takes it. Hidden pages do not ask.

globalThis.early = new Map();
if (!document.hidden) {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?"), [view = "rollouts", rollout, part] = path.split("/").filter(Boolean);
  const params = new URLSearchParams(query), token = params.get("token"), q = params.get("q");
  const ask = (url) => globalThis.early.set(url, fetch(`../${url}`, { headers: token ? { authorization: `Bearer ${token}` } : {}, credentials: "omit", cache: "no-store" }).catch(() => null));
  if (view === "rollouts") ask(`v1/tracewire/rollouts?${new URLSearchParams({ limit: 100, ...(q && { q }) })}`);
  if (view === "rollout" && rollout) {
    ask(`v1/tracewire/rollouts/${rollout}`);
    ask(`v1/tracewire/rollouts/${rollout}/spans?after=0&limit=5000`);
    if (part === "tokens") ask(`v1/tracewire/rollouts/${rollout}/calls`);
  }
}
