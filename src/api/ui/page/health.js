// Whether what is recorded is whole: every number that reveals a silent failure, what it means, and what to do.

import { ApiError, get, getText, poll } from "./api.js";
import { bytes, duration, h, number, replace } from "./dom.js";
import { quantile, samples, total } from "./metrics.js";

// Name, metric, what it means while it is 0, what it means and what to do otherwise, how bad it is.
const CHECKS = [
  ["Capture", [
    ["Exchanges unrecorded", "tracewire_exchanges_dropped_total", "Every exchange was recorded.", "They passed while the queue was full. Raise capture.queue_exchanges, and check the disk.", "bad"],
    ["Exchanges that waited", "tracewire_exchanges_waited_total", "No request waited for the recorder.", "Requests of registered rollouts waited for room in the queue. Raise capture.queue_exchanges, and check the disk.", "warn"],
    ["Bodies cut short", "tracewire_bodies_truncated_total", "Every body was recorded whole.", "Their records lack their ends. Raise capture.max_body_bytes.", "warn"],
    ["Left out by settings", "tracewire_exchanges_filtered_total", "No setting leaves exchanges out.", "A setting says that these are not recorded.", "idle"],
    ["Certificates rejected", "tracewire_certificates_refused_total", "No client rejected the proxy's certificate.", "These clients do not trust the CA, so that their traffic can't be read. Their spans (filter: error:certificate*) name the program and the variable to set.", "bad"],
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
    ["Waiting for the server", "tracewire_store_waiting_spans", "Nothing waits.", "The PostgreSQL server does not answer: spans wait in a file.", "warn"],
    ["Files lost", "tracewire_store_lost_files_total", "The store's file stayed in its place.", "The file was removed or replaced while it was in use: what it held is gone.", "bad"],
    ["Damaged records", "tracewire_store_damaged_reads_total", "Every record can be read.", "Records of the file are damaged. The log names their rollouts.", "bad"],
    ["Late commits", "tracewire_commits_missed_total", "No response was delivered before its commit.", "Responses were delivered before their spans were safe. Raise capture.commit_timeout_ms, or use a faster disk.", "warn"],
    ["Spill file", "tracewire_spill_errors_total", "Memory and disk were enough.", "Memory is short, and the disk takes no more: records are incomplete. Make room on the disk.", "bad"],
  ]],
  ["Telemetry", [
    ["Without a rollout", "tracewire_otlp_spans_unassigned_total", "Every exported span has a rollout.", "Spans that agents export name no rollout. docs/otlp.md says how they do.", "warn"],
    ["Rejected", "tracewire_otlp_spans_rejected_total", "Every exported span was accepted.", "Spans that agents export were rejected, for a wrong key or a wrong form.", "warn"],
  ]],
  ["Gateway", [
    ["Failed tries", "tracewire_gateway_failed_tries_total", "Every backend answered at once.", "Backends failed, and the calls were tried again.", "warn"],
    ["Calls refused", "tracewire_gateway_refused_total", "No call was refused.", "The gateway answered with an error of its own: no backend for the model, a rollout that ended, a budget that is used up.", "warn"],
  ]],
];

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
    const warnings = [...(ready.warnings ?? []), ...(ready.status === "error" ? [ready.message ?? "the store does not answer"] : [])];
    replace(this.content, h("section", {}, h("h1", {}, warnings.length ? "Something needs attention" : "What is recorded is whole"), warnings.map((warning) => h("div", { class: "cause", role: "alert" }, warning))),
      h("section", {}, h("h2", {}, "Now"), h("div", { class: "checks" },
        fact("Capture rate", share === undefined ? "–" : `${(share * 100).toFixed(share === 1 ? 0 : 2)} %`, "Exchanges that are recorded, of all since the start.", share !== undefined && share < 1 ? "bad" : share === undefined ? "idle" : ""),
        fact("Exchanges", number(recorded), rate("tracewire_exchanges_total") === undefined ? "Since the start." : `Since the start; ${rate("tracewire_exchanges_total").toFixed(1)} a second now.`),
        fact("Spans stored", number(ready.store?.spans), `In ${number(ready.store?.rollouts)} rollouts; ${bytes(ready.store?.size_bytes)} on disk or in memory.`),
        fact("Waiting in the queue", number(total(all, "tracewire_exchanges_waiting") ?? 0), most(all, "tracewire_queue_wait_seconds", "exchanges wait", "If this rises, the disk is slower than the traffic."), (quantile(all, "tracewire_queue_wait_seconds", 0.99) ?? 0) > 1 ? "warn" : ""),
        fact("One write to the store", duration(quantile(all, "tracewire_store_append_seconds", 0.5)), most(all, "tracewire_store_append_seconds", "writes take", "")),
        fact("Memory of capture", bytes(total(all, "tracewire_memory_bytes")), `At most ${bytes(total(all, "tracewire_memory_peak_bytes"))} at once since the start; ${bytes(total(all, "tracewire_capture_memory_left_bytes"))} are left.`))),
      CHECKS.map(([title, checks]) => h("section", {}, h("h2", {}, title), h("div", { class: "checks" }, checks.map((check) => checkRow(all, check))))),
      backends ? h("section", {}, h("h2", {}, "Backends"), backendList(backends)) : null);
    this.content.scrollTop = top;
    this.before = { all, time: performance.now() };
    return false;
  }
}

// What nearly all of a histogram are below.
function most(all, metric, what, advice) {
  const bound = quantile(all, metric, 0.99);
  return bound === undefined ? "None since the start." : `99 of 100 ${what} at most ${duration(bound)}. ${advice}`;
}

function checkRow(all, [name, metric, good, bad, level]) {
  const value = total(all, metric);
  if (value === undefined) return fact(name, "–", "This server does not count it.", "idle");
  const parts = all.filter((sample) => sample.name === metric && sample.value > 0 && Object.keys(sample.labels).length).map((sample) => `${Object.values(sample.labels).join(" ")}: ${number(sample.value)}`);
  return value > 0 ? fact(name, number(value), [bad, parts.length ? ` ${parts.join(", ")}.` : ""].join(""), level) : fact(name, "0", good);
}

const fact = (name, value, what, level = "") =>
  h("div", { class: ["check", level] }, h("span", { class: "lamp", role: "img", "aria-label": { bad: "bad", warn: "look at this", idle: "not in use" }[level] ?? "good" }), h("span", {}, name), h("b", { class: "num" }, value), h("span", { class: "what muted" }, what));

function backendList(backends) {
  const all = Array.isArray(backends) ? backends : backends.backends ?? [];
  if (!all.length) return h("p", { class: "muted" }, "No backend is registered; the gateway is not in use.");
  return h("div", { class: "checks" }, all.map((backend) => fact(backend.url ?? backend.base_url ?? backend.name ?? "?", backend.version ?? backend.engine ?? "", [backend.engine, (backend.models ?? [backend.model]).filter(Boolean).join(", "), backend.healthy === false ? "does not answer" : ""].filter(Boolean).join(" · "), backend.healthy === false ? "bad" : "")));
}
