// The frame: views by address, keys, login, light and dark.

import * as api from "./api.js";
import { h, replace } from "./dom.js";
import { current, href } from "./route.js";
import { CompareView } from "./compare.js";
import { ConnectView } from "./connect.js";
import { alarms, HealthView } from "./health.js";
import { samples } from "./metrics.js";
import { RolloutView } from "./rollout.js";
import { RolloutsView } from "./rollouts.js";

const HEALTH_SECONDS = 15;
const VIEWS = { rollouts: RolloutsView, rollout: RolloutView, compare: CompareView, health: HealthView, connect: ConnectView };
const main = document.getElementById("main");
const live = document.getElementById("live");
const dialog = document.getElementById("dialog");
let view = null, shown = "";

// Shows the view of the address. A view that is shown already takes the new address itself.
function show() {
  const route = current();
  const name = Object.hasOwn(VIEWS, route.parts[0]) ? route.parts[0] : "rollouts";
  const identity = name === "rollout" ? `${name}/${route.parts[1]}` : name;
  for (const link of document.querySelectorAll("#nav a")) {
    if (link.dataset.view === (name === "rollout" ? "rollouts" : name)) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (identity === shown) return view.update(route);
  view?.destroy();
  main.replaceChildren();
  shown = identity;
  document.title = "Tracewire";
  view = new VIEWS[name](main, route);
}

addEventListener("hashchange", show);

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const isTyping = event.target.matches?.("input, textarea, select");
  if (isTyping) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  if (dialog.open) return;
  if (event.key === "?") { event.preventDefault(); showHelp(); return; }
  const jump = { r: "#/rollouts", h: "#/health", c: "#/connect" }[event.key];
  if (pending === "g" && jump) { location.hash = jump; pending = ""; return; }
  pending = event.key === "g" ? "g" : "";
  if (view?.key?.(event)) event.preventDefault();
});
let pending = "";

function showHelp() {
  const rows = [["/", "filter"], ["j, k, ↓, ↑", "next, previous"], ["Enter, o", "open"], ["Esc", "back, or leave a field"], ["?", "this help"],
    ["g r, g h, g c", "rollouts, health, connect"], ...(view?.keys ?? [])];
  replace(dialog, h("h2", {}, "Keyboard"), h("dl", { class: "keys" }, rows.map(([key, meaning]) => [h("dt", {}, h("kbd", {}, key)), h("dd", {}, meaning)])),
    view?.help?.() ?? null, h("form", { method: "dialog" }, h("button", { class: "primary" }, "Close")));
  dialog.showModal();
}

function askToken() {
  if (dialog.open) return;
  const field = h("input", { type: "password", autocomplete: "off", "aria-label": "Token", required: true, autofocus: true });
  const form = h("form", { method: "dialog", on: { submit: () => {
    api.setToken(field.value.trim());
    const was = view;
    shown = "";
    was?.destroy();
    view = null;
    show();
  } } }, h("h2", {}, "This server wants a token"),
  h("p", {}, "Paste one of server.tokens, or what the file api-token in the data folder contains. The page keeps it in memory only: after a reload it asks again."),
  field, h("button", { class: "primary" }, "Continue"));
  replace(dialog, form);
  dialog.showModal();
}

api.listen({
  down(isDown) {
    live.classList.toggle("down", isDown);
    live.textContent = isDown ? "The server does not answer; trying again" : "";
    if (!isDown) view?.recovered?.();
  },
  token: askToken,
});

const theme = document.getElementById("theme");
const dark = matchMedia("(prefers-color-scheme: dark)");
function setTheme(name) {
  document.documentElement.dataset.theme = name ?? (dark.matches ? "dark" : "light");
  view?.themed?.();
}
function storedTheme() {
  try { return localStorage.getItem("theme"); } catch { return null; }
}
theme.addEventListener("click", () => {
  const next = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  try { localStorage.setItem("theme", next); } catch { /* Private windows have no storage. */ }
  setTheme(next);
});
dark.addEventListener("change", () => setTheme(storedTheme()));
// `tracewire ui` gives the token in the address; it does not stay there, nor in the history.
const { params: { token, ...others }, parts } = current();
if (token) {
  api.setToken(token);
  history.replaceState(null, "", href(parts, others));
}
document.getElementById("help").addEventListener("click", showHelp);
setTheme(storedTheme());
show();
api.endEarly();

// A mark at "Health" for what was lost since a person looked there. Numbers fall when the server starts anew, and some when what
// they count is over: what comes after that is new. Tokens for some rollouts may not read the metrics.
const health = document.querySelector("[data-view=health]");
let lost = new Map(), seen = new Map();
function markHealth() {
  if (shown === "health") seen = lost;
  for (const [name, count] of seen) if (count > (lost.get(name) ?? 0)) seen.set(name, lost.get(name) ?? 0);
  const isNew = [...lost].some(([name, count]) => count > (seen.get(name) ?? 0));
  health.classList.toggle("alarm", isNew);
  health.title = isNew ? "Something is lost, or can't be read" : "";
}
const stopAlarms = api.poll(async (signal) => {
  try {
    lost = new Map(alarms(samples(await api.getText("metrics", { signal }))).map(({ name, count }) => [name, count]));
  } catch (error) {
    if (error.status !== 403) throw error;
    stopAlarms();
  }
  markHealth();
}, HEALTH_SECONDS);
addEventListener("hashchange", markHealth);
