// Which rollouts to compare: those of one task, or of each task that has several, with their rewards.

import { get, poll, rolloutPath } from "./api.js";
import { clock, decimal, duration, h, plural, replace } from "./dom.js";
import { rewardColor, rewardOf, titleOf } from "./rollouts.js";

// What fits side by side.
export const MAX = 4;

export class Chooser {
  // `choose(ids)` is called with the rollouts that a person wants.
  constructor(choose) {
    this.choose = choose;
    this.element = h("div", { class: "chooser" });
  }

  destroy() { this.stop?.(); }

  // Offers the rollouts of the task of the first one; without any, all tasks with several.
  show(ids) {
    this.stop?.();
    this.chosen = ids;
    this.hasFailed = false;
    const isKnown = ids.length ? this.groups?.some((group) => group.some((row) => row.rollout_id === ids[0])) && (ids.length === 1 || this.groups.length === 1) : false;
    if (isKnown) this.draw();
    else if (!this.groups) replace(this.element, h("p", { class: "muted later" }, "Reading…"));
    if (isKnown && !this.isCounting) return;
    // Until the calls and rewards of all are counted, they are asked for again.
    const stop = this.stop = poll(async (signal) => {
      try {
        const groups = !ids.length || (isKnown && this.groups.length > 1) ? await ofAllTasks(signal) : [await ofTask(ids[0], signal)];
        const isNew = JSON.stringify(groups) !== JSON.stringify(this.groups);
        this.groups = groups;
        if (isNew || !isKnown) this.draw();
      } catch {
        if (signal.aborted) return;
        // The frame says that the server is away, the comparison that a rollout is missing.
        this.hasFailed = true;
        replace(this.element);
      }
      if (this.hasFailed || !this.isCounting) stop();
    }, COUNT_SECONDS);
  }

  get isCounting() { return this.groups.flat().some((row) => row.totals === null); }

  draw() {
    const { chosen, groups } = this, focused = this.element.contains(document.activeElement) ? document.activeElement.dataset.id : undefined;
    this.element.classList.toggle("list", chosen.length < 2);
    const known = new Set(groups.flat().map((row) => row.rollout_id)), others = chosen.filter((id) => !known.has(id));
    const leave = others.map((id) => this.chip(id, null, [id]));
    if (!groups.some((group) => group.length > 1) && chosen.length < 2) {
      replace(this.element, h("div", { class: "empty" }, h("h2", {}, chosen.length ? "No other rollout of this task was found" : "No task has several rollouts"), h("p", {}, chosen.length ? "It is the only one among the rollouts that were searched. Others can be named by their ids above." : "Rollouts with the same task are offered here, or of one name where they have no task. Others can be named by their ids above.")));
      return;
    }
    replace(this.element, groups.map((group) => {
      const shown = group.filter((row, at) => at < MAX_CHIPS || chosen.includes(row.rollout_id));
      const rewards = group.map(rewardOf).filter((reward) => reward !== undefined);
      return h("section", {}, h("h2", { class: "ellipsis", title: titleOf(group[0]) }, titleOf(group[0])),
        h("div", { class: "chips", role: "group", "aria-label": `Rollouts of ${titleOf(group[0])}` }, shown.map((row) => this.chip(row.rollout_id, row, rewards)), leave,
          group.length > shown.length ? h("span", { class: "muted" }, `and ${plural(group.length - shown.length, "older one")}`) : null, chosen.length ? h("a", { href: "#/compare", class: "small" }, "other tasks") : null));
    }));
    if (focused) this.element.querySelector(`[data-id="${CSS.escape(focused)}"]`)?.focus();
  }

  // The address follows later: what is chosen meanwhile counts at once.
  toggle(id, box) {
    const others = this.chosen.filter((one) => one !== id);
    if (box.checked && others.length >= MAX) { box.checked = false; return; }
    this.chosen = box.checked ? [...others, id] : others;
    this.choose(this.chosen);
  }

  chip(id, row, rewards) {
    const isChosen = this.chosen.includes(id), reward = row ? rewardOf(row) : undefined;
    const box = h("input", { type: "checkbox", checked: isChosen, disabled: !isChosen && this.chosen.length >= MAX, "data-id": id,
      on: { change: (event) => this.toggle(id, event.target) } });
    const title = row ? `${id}: ${row.status}, began ${clock(row.start_time)}, took ${duration((row.end_time ?? row.totals?.last_end ?? row.start_time) - row.start_time)}` : id;
    return h("label", { class: ["chip", isChosen && "chosen"], title }, box, row ? h("span", { class: `status ${row.status}` }) : null, h("span", { class: "mono ellipsis" }, id),
      row ? h("span", { class: "reward", style: { "border-color": rewardColor(reward, rewards) } }, row.totals === null ? "…" : reward === undefined ? "no reward" : `reward ${decimal(reward)}`) : null);
  }
}

// Rollouts without a task are tries of one thing if they have one name.
const groupOf = (row) => row.group || (row.name ? `\u0000${row.name}` : "");

async function ofTask(id, signal) {
  const first = await get(rolloutPath(id), { signal }), group = groupOf(first);
  if (!group) return [first];
  // What stands between the characters that have a meaning in queries finds the rollout, and few others.
  const text = [...titleOf(first)].slice(0, 120).join("").split(/["*\\\n]/).map((part) => part.trim()).sort((one, other) => other.length - one.length)[0];
  const { rollouts } = await get(`v1/tracewire/rollouts?${new URLSearchParams({ limit: LIMIT, ...(text && { q: `${first.task ? "task" : "name"}:"${text}"` }) })}`, { signal });
  const found = rollouts.filter((row) => groupOf(row) === group);
  return found.some((row) => row.rollout_id === id) ? found : [first, ...found];
}

async function ofAllTasks(signal) {
  const { rollouts } = await get(`v1/tracewire/rollouts?limit=${LIMIT}`, { signal }), groups = new Map();
  for (const row of rollouts) {
    const group = groupOf(row);
    if (group) groups.set(group, [...(groups.get(group) ?? []), row]);
  }
  return [...groups.values()].filter((group) => group.length > 1).slice(0, MAX_TASKS);
}

const LIMIT = 500, COUNT_SECONDS = 2, MAX_TASKS = 50, MAX_CHIPS = 24;
