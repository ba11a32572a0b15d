// Which rollouts to compare: those of one task, or of each task that has several, with their rewards.

import { get, rolloutPath } from "./api.js";
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

  // Offers the rollouts of the task of the first one; without any, all tasks with several.
  async show(ids) {
    this.chosen = ids;
    this.hasFailed = false;
    if (ids.length && this.groups?.length === 1 && this.groups[0].some((row) => row.rollout_id === ids[0])) return this.draw();
    if (ids.length === 1 && this.groups?.some((group) => group.some((row) => row.rollout_id === ids[0]))) return this.draw();
    if (!this.groups) replace(this.element, h("p", { class: "muted later" }, "Reading…"));
    try {
      const groups = ids.length ? [await ofTask(ids[0])] : await ofAllTasks();
      if (this.chosen !== ids) return undefined;
      this.groups = groups;
    } catch {
      // The frame says that the server is away, the comparison that a rollout is missing.
      this.hasFailed = true;
      return replace(this.element);
    }
    return this.draw();
  }

  draw() {
    const { chosen, groups } = this, focused = this.element.contains(document.activeElement) ? document.activeElement.dataset.id : undefined;
    this.element.classList.toggle("list", chosen.length < 2);
    const known = new Set(groups.flat().map((row) => row.rollout_id)), others = chosen.filter((id) => !known.has(id));
    const leave = others.map((id) => this.chip(id, null, [id]));
    if (!groups.some((group) => group.length > 1) && chosen.length < 2) {
      replace(this.element, h("div", { class: "empty" }, h("h2", {}, "No task has several rollouts"), h("p", {}, chosen.length ? "This is the only rollout of its task. Rollouts of other tasks can be named by their ids above." : "Rollouts with the same task are offered here, or of one name where they have no task. Others can be named by their ids above.")));
      return;
    }
    replace(this.element, groups.map((group) => {
      const rewards = group.map(rewardOf).filter((reward) => reward !== undefined);
      return h("section", {}, h("h2", { class: "ellipsis", title: titleOf(group[0]) }, titleOf(group[0])),
        h("div", { class: "chips", role: "group", "aria-label": `Rollouts of ${titleOf(group[0])}` }, group.slice(0, MAX_CHIPS).map((row) => this.chip(row.rollout_id, row, rewards)), leave,
          group.length > MAX_CHIPS ? h("span", { class: "muted" }, `and ${plural(group.length - MAX_CHIPS, "older one")}`) : null, chosen.length ? h("a", { href: "#/compare", class: "small" }, "other tasks") : null));
    }));
    if (focused) this.element.querySelector(`[data-id="${CSS.escape(focused)}"]`)?.focus();
  }

  chip(id, row, rewards) {
    const isChosen = this.chosen.includes(id), reward = row ? rewardOf(row) : undefined;
    const box = h("input", { type: "checkbox", checked: isChosen, disabled: !isChosen && this.chosen.length >= MAX, "data-id": id,
      on: { change: () => this.choose(isChosen ? this.chosen.filter((one) => one !== id) : [...this.chosen, id]) } });
    const title = row ? `${id}: ${row.status}, began ${clock(row.start_time)}, took ${duration((row.end_time ?? row.totals?.last_end ?? row.start_time) - row.start_time)}` : id;
    return h("label", { class: ["chip", isChosen && "chosen"], title }, box, row ? h("span", { class: `status ${row.status}` }) : null, h("span", { class: "mono ellipsis" }, id),
      row ? h("span", { class: "reward", style: { "border-color": rewardColor(reward, rewards) } }, reward === undefined ? "no reward" : `reward ${decimal(reward)}`) : null);
  }
}

// Rollouts without a task are tries of one thing if they have one name.
const groupOf = (row) => row.group || (row.name ? `\u0000${row.name}` : "");

async function ofTask(id) {
  const first = await get(rolloutPath(id)), group = groupOf(first);
  if (!group) return [first];
  // What stands between the characters that have a meaning in queries finds the rollout, and few others.
  const text = titleOf(first).slice(0, 120).split(/["*\\\n]/).map((part) => part.trim()).sort((one, other) => other.length - one.length)[0];
  const { rollouts } = await get(`v1/tracewire/rollouts?${new URLSearchParams({ limit: LIMIT, ...(text && { q: `${first.task ? "task" : "name"}:"${text}"` }) })}`);
  const found = rollouts.filter((row) => groupOf(row) === group);
  return found.some((row) => row.rollout_id === id) ? found : [first, ...found];
}

async function ofAllTasks() {
  const { rollouts } = await get(`v1/tracewire/rollouts?limit=${LIMIT}`), groups = new Map();
  for (const row of rollouts) {
    const group = groupOf(row);
    if (group) groups.set(group, [...(groups.get(group) ?? []), row]);
  }
  return [...groups.values()].filter((group) => group.length > 1).slice(0, MAX_TASKS);
}

const LIMIT = 500, MAX_TASKS = 50, MAX_CHIPS = 24;
