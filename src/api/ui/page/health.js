// Whether what is recorded is whole: every number that reveals a silent failure, what it means, and what to do.

import { ApiError, get, getText, poll } from "./api.js";
import { bytes, clockFull, duration, h, number, plural, replace } from "./dom.js";
import { quantile, samples, total } from "./metrics.js";
import { href } from "./route.js";

// Name, metric, what it means while it is 0, what it means and what to do otherwise, how bad it is.
const CHECKS = [
  ["Capture", [
    ["Exchanges unrecorded", "tracewire_exchanges_dropped_total", "Every exchange was recorded.", "They passed while the queue was full. Raise capture.queue_exchanges, and check the disk.", "bad"],
    ["Exchanges that waited", "tracewire_exchanges_waited_total", "No request waited for the recorder.", "Requests of registered rollouts waited for room in the queue. Raise capture.queue_exchanges, and check the disk.", "warn"],
    ["Bodies cut short", "tracewire_bodies_truncated_total", "Every body was recorded whole.", "Their records lack their ends. Raise capture.max_body_bytes.", "warn"],
    ["Left out by settings", "tracewire_exchanges_filtered_total", "No setting leaves exchanges out.", "A setting says that these are not recorded.", "idle"],
    ["Certificates rejected", "tracewire_certificates_refused_total", "No client rejected the proxy's certificate.", "These clients do not trust the CA, so that their traffic can't be read. Their spans name the program and the variable to set.", "bad", "error:client_tls_error"],
    ["Rollouts in conflict", "tracewire_identity_conflicts_total", "Every exchange named one rollout.", "Two sources, such as a header and the proxy's user name, named different rollouts. The span has both.", "warn"],
    ["Defects", "tracewire_panics_total", "No part of Tracewire failed.", "A part of Tracewire failed; others went on. The log has the place: please report it.", "bad"],
  ]],
  ["Tokens", [
    ["Calls with doubtful ids", "tracewire_token_ids_unproved_total", "No call has ids that failed their check.", "Ids are incomplete or contradictory. docs/llm.md explains each reason.", "warn"],
    ["Engines that refused", "tracewire_token_ids_rejected_total", "Every engine accepted the request for ids.", "They reject the fields that request token ids, and are asked without. Update the engine, or set its kind.", "warn"],
  ]],
  ["Store", [
    ["Spans lost", "tracewire_spans_lost_total", "Every span was stored.", "They could not be stored. Look at the log.", "bad"],
    ["Failed writes", "tracewire_store_errors_total", "Every write succeeded at once.", "The store rejected writes, and they are tried again. Check the disk or the server.", "warn"],
    ["Rejected by the server", "tracewire_store_refused_spans_total", "The server took every span.", "The PostgreSQL server can't store them: they are lost. The log names each.", "bad"],
    ["Waiting in memory", "tracewire_spans_unstored", "Every span is in the store.", "The store takes no spans now. Make room on the disk, or start the server.", "bad"],
    ["Left out by limits", "tracewire_spans_not_stored_total", "No limit or sampling leaves spans out.", "[limits] or [sampling] counts these spans instead of storing them. Their rollouts say so.", "idle"],
    ["Waiting for the server", "tracewire_store_waiting_spans", "Nothing waits.", "The PostgreSQL server does not answer: spans wait in a file.", "warn"],
    ["Files lost", "tracewire_store_lost_files_total", "The store's file stayed in its place.", "The file was removed or replaced while it was in use: what it held is gone.", "bad"],
    ["Damaged records", "tracewire_store_damaged_reads_total", "Every record can be read.", "Records of the file are damaged. The log names their rollouts.", "bad"],
    ["Late commits", "tracewire_commits_missed_total", "No response was delivered before its commit.", "Responses were delivered before their spans were safe. Raise capture.commit_timeout_ms, or use a faster disk.", "warn"],
    ["Spill file", "tracewire_spill_errors_total", "Memory and disk were enough.", "Memory is short, and the disk takes no more: records are incomplete. Make room on the disk.", "bad"],
  ]],
  ["Telemetry", [
    ["Without a rollout", "tracewire_otlp_spans_unassigned_total", "Every exported span has a rollout.", "Spans that agents export name no rollout. docs/otlp.md says how they do.", "warn"],
    ["Left out of live exports", "tracewire_export_dropped_total", "Every live export sent all it had to.", "A receiver did not take them. docs/live-export.md explains each reason.", "warn"],
    ["Sent again by live exports", "tracewire_export_retried_total", "Every receiver answered at once.", "A receiver was slow or away. Look at its address, and at what waits.", "idle"],
    ["Rejected", "tracewire_otlp_spans_rejected_total", "Every exported span was accepted.", "Spans that agents export were rejected, for a wrong key or a wrong form.", "warn"],
  ]],
  ["Gateway", [
    ["Failed tries", "tracewire_gateway_failed_tries_total", "Every backend answered at once.", "Backends failed, and the calls were tried again.", "warn"],
    ["Calls refused", "tracewire_gateway_refused_total", "No call was refused.", "The gateway answered with an error of its own: no backend for the model, a rollout that ended, a budget that is used up.", "warn"],
  ]],
];

// Token ids and breaks are counted in the newest rollouts, which takes a moment.
const QUALITY_MS = 30_000;

// What breaks and reasons against training mean, and what to do.
const BREAKS = {
  retokenized: "The same text has other ids in the next prompt. Send the conversation by token ids, or export with --merge realign.",
  template: "The chat template rendered the same messages differently. Compare the templates of the engine and of the trainer.",
  thinking_dropped: "The client leaves out earlier reasoning. Such calls are branches of their own; a template that keeps reasoning avoids them.",
  rewritten: "The client changed an earlier message. The call is a branch of its own.",
  truncated: "The client left earlier messages out. The call is a branch of its own.",
  compacted: "The client replaced earlier messages by a summary. The call is a branch of its own.",
  tools_changed: "The tools of the request changed. The call is a branch of its own.",
  new_conversation: "A new conversation begins, such as that of a sub-agent. Nothing to do.",
};
const REASONS = {
  running: "The attempt has not ended. End the rollout.",
  timeout: "The attempt ran out of time. Give it more, or look at its last call.",
  no_calls: "Nothing of the agent's calls was recorded. Connect has the settings of each runtime.",
  missing_token_ids: "Calls went to an engine that returns no ids, or were asked for without. See “Token ids” above.",
  unproved_token_ids: "The ids failed their check. docs/llm.md explains each reason.",
  missing_logprobs: "The engine returned no log-probabilities. Trainers that need them can't use the rollout.",
  retokenized: "A tokenizer made the ids; the engine may have had others.",
  last_call_incomplete: "The last call has no whole answer. Look at its error.",
  unlinked_call: "A call does not continue the one before it, although it says the same. See “Breaks”.",
  ambiguous_parent: "Two calls with the same answer may be continued.",
  version_spread: "The weights changed within the rollout by more than verdict.max_version_spread.",
  early_reward: "The reward was given before the last call ended.",
  invalid_reward: "A reward is no finite number.",
  capture_gap: "A record is cut or damaged. Raise capture.max_body_bytes, and check the disk.",
  bypassed_proxy: "The agent connected past the proxy. The span names where to.",
};

export class HealthView {
  constructor(root) {
    document.title = "Health · Tracewire";
    this.content = h("div", { class: "page", tabindex: 0 }, h("section", {}, h("p", { class: "muted" }, "Reading…")));
    root.append(this.content);
    this.stop = poll((signal) => this.refresh(signal), 2);
  }

  destroy() { this.stop(); }
  update() {}

  async refresh(signal) {
    if (!this.qualityTime || performance.now() - this.qualityTime > QUALITY_MS) {
      this.qualityTime = performance.now();
      this.quality = await get("v1/tracewire/quality", { signal }).catch(() => this.quality ?? null);
    }
    const [ready, text, backends] = await Promise.all([
      get("readyz", { signal }).catch((error) => (error instanceof ApiError ? { status: "error", message: error.message } : Promise.reject(error))),
      getText("metrics", { signal }), get("v1/tracewire/backends", { signal }).catch(() => null)]);
    const all = samples(text);
    const before = this.before ?? { all, time: performance.now() };
    const seconds = (performance.now() - before.time) / 1000;
    const rate = (name) => (seconds > 0.5 ? Math.max(0, ((total(all, name) ?? 0) - (total(before.all, name) ?? 0)) / seconds) : undefined);
    const top = this.content.scrollTop;
    const recorded = total(all, "tracewire_exchanges_total") ?? 0, dropped = total(all, "tracewire_exchanges_dropped_total") ?? 0;
    const share = recorded + dropped ? recorded / (recorded + dropped) : undefined;
    const warnings = [...(ready.warnings ?? []), ...alarms(all).map(({ name, count, what, query }) => [`${name}: ${number(count)}. ${what}`, found(query)]), ...(ready.status === "error" ? [ready.message ?? "the store does not answer"] : [])];
    replace(this.content, h("section", {}, h("h1", {}, warnings.length ? "Something needs attention" : "What is recorded is whole"), warnings.map((warning) => h("div", { class: "cause", role: "alert" }, warning))),
      h("section", {}, h("h2", {}, "Now"), h("div", { class: "checks" },
        fact("Capture rate", share === undefined ? "–" : `${(share * 100).toFixed(share === 1 ? 0 : 2)} %`, ["Exchanges that are recorded, of all since the start.", total(all, "tracewire_certificates_refused_total") ? " Connections of clients that reject the certificate are not among them." : null], share !== undefined && share < 1 ? "bad" : share === undefined ? "idle" : ""),
        fact("Exchanges", number(recorded), rate("tracewire_exchanges_total") === undefined ? "Since the start." : `Since the start; ${rate("tracewire_exchanges_total").toFixed(1)} a second now.`),
        fact("Spans stored", number(ready.store?.spans), `In ${number(ready.store?.rollouts)} rollouts; ${bytes(ready.store?.size_bytes)} on disk or in memory.`),
        fact("Waiting in the queue", number(total(all, "tracewire_exchanges_waiting") ?? 0), most(all, "tracewire_queue_wait_seconds", "exchanges wait", "If this rises, the disk is slower than the traffic."), (quantile(all, "tracewire_queue_wait_seconds", 0.99) ?? 0) > 1 ? "warn" : ""),
        fact("One write to the store", duration(quantile(all, "tracewire_store_append_seconds", 0.5)), most(all, "tracewire_store_append_seconds", "writes take", "")),
        fact("Memory of capture", bytes(total(all, "tracewire_memory_bytes")), `At most ${bytes(total(all, "tracewire_memory_peak_bytes"))} at once since the start; ${bytes(total(all, "tracewire_capture_memory_left_bytes"))} are left.`))),
      CHECKS.map(([title, checks]) => h("section", {}, h("h2", {}, title), h("div", { class: "checks" }, checks.map((check) => checkRow(all, check))))),
      this.quality ? qualitySections(this.quality) : null,
      backends ? h("section", {}, h("h2", {}, "Backends"), backendList(backends)) : null);
    this.content.scrollTop = top;
    this.before = { all, time: performance.now() };
    return false;
  }
}

// What is lost or unreadable, by the metrics.
export const alarms = (all) => CHECKS.flatMap(([, checks]) => checks).map(([name, metric, , what, level, query]) => ({ name, what, level, query, count: total(all, metric) ?? 0 })).filter(({ level, count }) => level === "bad" && count > 0);

// What nearly all of a histogram are below.
function most(all, metric, what, advice) {
  const bound = quantile(all, metric, 0.99);
  return bound === undefined ? "None since the start." : `99 of 100 ${what} at most ${duration(bound)}. ${advice}`;
}

// Leads to the rollouts of a query.
const found = (query) => (query ? [" ", h("a", { href: href(["rollouts"], { q: query }) }, "Show them")] : null);

function checkRow(all, [name, metric, good, bad, level, query]) {
  const value = total(all, metric);
  if (value === undefined) return fact(name, "–", "This server does not count it.", "idle");
  const parts = all.filter((sample) => sample.name === metric && sample.value > 0 && Object.keys(sample.labels).length).map((sample) => `${Object.values(sample.labels).join(" ")}: ${number(sample.value)}`);
  return value > 0 ? fact(name, number(value), [bad, parts.length ? ` ${parts.join(", ")}.` : "", found(query)], level) : fact(name, "0", good);
}

const fact = (name, value, what, level = "") =>
  h("div", { class: ["check", level] }, h("span", { class: "lamp", role: "img", "aria-label": { bad: "bad", warn: "look at this", idle: "not in use" }[level] ?? "good" }), h("span", {}, name), h("b", { class: "num" }, value), h("span", { class: "what muted" }, what));

// Token ids by client, model and engine; breaks and reasons by name.
function qualitySections({ rollouts, since, calls, breaks, reasons }) {
  if (!rollouts) return h("section", {}, h("h2", {}, "Training data"), h("p", { class: "muted" }, "No rollout with calls of models has ended yet."));
  const where = ({ rollout_id: rollout, span_id: span }) => h("a", { href: href(["rollout", rollout], span ? { span } : {}) }, "an example");
  const findings = (all, known, level, unit) => all.map((one) => fact(one.name.replaceAll("_", " "), `${number(one.count)} ${unit}${one.count === 1 ? "" : "s"}`, [known[one.name] ?? "docs/trajectories.md explains it.", " ", where(one)], level(one.name)));
  const group = ({ client, model, engine, exact, partial, none }) => {
    const all = exact + partial + none, name = [client || "unknown client", model || "unknown model"].join(" · ");
    const what = exact === all ? "Every call has exact ids." : none === all ? "No call has ids: the endpoint returns none, or [tokens] does not request them. docs/engines.md lists the engines that do." : [`${number(exact)} exact, ${number(partial)} partial, ${number(none)} none. `, model ? h("a", { href: href(["rollouts"], { q: `model:${/[\s"]/.test(model) ? `"${model.replaceAll('"', "")}"` : model} verdict:unsound` }) }, "Rollouts that are not sound") : null];
    return fact(name, `${Math.floor((exact / all) * 100)} % exact`, [engine ? h("b", {}, `${engine}: `) : null, `${plural(all, "call")}. `, what], exact === all ? "" : partial ? "warn" : none === all ? "idle" : "warn");
  };
  return [h("section", {}, h("h2", {}, "Token ids by client, model and engine"), h("p", { class: "muted" }, `In the newest ${number(rollouts)} rollouts with calls that have ended, since ${clockFull(since)}.`), h("div", { class: "checks" }, calls.map(group))),
    h("section", {}, h("h2", {}, "Breaks by cause"), breaks.length ? h("div", { class: "checks" }, findings(breaks, BREAKS, (name) => (name === "retokenized" || name === "template" ? "warn" : "idle"), "call")) : h("p", { class: "muted" }, "Every call continues the one before it.")),
    h("section", {}, h("h2", {}, "Reasons against training"), reasons.length ? h("div", { class: "checks" }, findings(reasons, REASONS, () => "warn", "rollout")) : h("p", { class: "muted" }, "Every rollout is sound."))];
}

function backendList(backends) {
  const all = Array.isArray(backends) ? backends : backends.backends ?? [];
  if (!all.length) return h("p", { class: "muted" }, "No backend is registered; the gateway is not in use.");
  const newest = (model) => Math.max(...all.filter((one) => one.model === model).map((one) => one.version ?? 0));
  return h("div", { class: "checks" }, all.map((backend) => {
    const { url, engine, model, version, in_flight: inFlight } = backend, behind = newest(model) - (version ?? 0);
    const problem = backend.healthy === false ? "It does not answer: calls go to others. Start it, or remove it." : behind ? `It is ${behind} behind the newest weights of the model: its answers are stale. Update it.` : "";
    return fact(url, `version ${version ?? "–"}`, [h("b", {}, engine), ` · ${model || "any model"} · ${number(inFlight ?? 0)} in flight. `, problem], backend.healthy === false ? "bad" : behind ? "warn" : "");
  }));
}
