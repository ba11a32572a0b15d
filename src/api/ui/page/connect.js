// How to send an agent through Tracewire, and whether it arrives.

import { get, getText, poll } from "./api.js";
import { clock, copyButton, h, plural, replace } from "./dom.js";
import { href } from "./route.js";
import { samples, total } from "./metrics.js";

export class ConnectView {
  constructor(root) {
    document.title = "Connect · Tracewire";
    this.lamp = h("div", { class: "lamp-row", role: "status" }, h("span", { class: "big" }), h("span", {}, "Waiting for the first exchange…"));
    this.steps = h("div", { class: "steps" });
    this.why = h("div", {});
    this.page = h("div", { class: "page", tabindex: 0 }, h("section", {}, h("h1", {}, "Connect an agent"), h("p", { class: "muted" }, "Start an agent in one of these ways. The lamp turns green at its first exchange."), this.lamp, this.why),
      h("section", {}, this.steps));
    root.append(this.page);
    this.stop = poll((signal) => this.refresh(signal), 1);
  }

  destroy() { this.stop(); }
  update() {}

  async refresh(signal) {
    if (!this.facts) {
      this.facts = await get("v1/tracewire/connect", { signal });
      this.drawSteps();
    }
    const page = await get("v1/tracewire/rollouts?limit=1", { signal });
    const metrics = samples(await getText("metrics", { signal }).catch(() => ""));
    const counted = total(metrics, "tracewire_exchanges_total");
    if (this.first === undefined) this.first = { counted, newest: page.rollouts[0]?.rollout_id ?? "" };
    const newest = page.rollouts[0];
    const isNew = newest && (newest.rollout_id !== this.first.newest || newest.spans > (this.first.spans ?? newest.spans));
    this.first.spans ??= newest?.spans;
    if (isNew || (counted !== undefined && counted > this.first.counted)) {
      this.lamp.classList.add("on");
      replace(this.lamp, h("span", { class: "big" }), h("span", {}, "An exchange was recorded. ", newest ? h("a", { href: href(["rollout", newest.rollout_id]) }, `Open ${newest.rollout_id}`) : null));
    } else if (newest) {
      replace(this.lamp, h("span", { class: "big" }), h("span", {}, "Waiting for an exchange… ", h("span", { class: "muted" }, "the last rollout began at ", h("a", { href: href(["rollout", newest.rollout_id]) }, clock(newest.start_time)))));
    }
    this.explain(metrics);
    return false;
  }

  // Why nothing may be recorded although an agent runs.
  explain(metrics) {
    const rejected = total(metrics, "tracewire_certificates_refused_total") ?? 0, filtered = total(metrics, "tracewire_exchanges_filtered_total") ?? 0;
    const dropped = total(metrics, "tracewire_exchanges_dropped_total") ?? 0;
    const notes = [];
    if (rejected) notes.push(h("div", { class: "note" }, `${plural(rejected, "connection")} ended because a client rejected the proxy's certificate: it does not trust the CA. Their spans name the program and the variable to set. `, h("a", { href: href(["rollouts"], { q: "error:client_tls_error" }) }, "Show them")));
    if (filtered) notes.push(h("div", { class: "note" }, `${plural(filtered, "exchange")} passed unrecorded, because a setting says so.`));
    if (dropped) notes.push(h("div", { class: "note" }, `${plural(dropped, "exchange")} passed unrecorded, because the queue was full.`));
    const key = `${rejected} ${filtered} ${dropped}`;
    if (key !== this.whyKey) { this.whyKey = key; replace(this.why, notes); }
  }

  drawSteps() {
    const { proxy, needs_token: needsToken } = this.facts, server = location.host;
    const proxyUrl = needsToken ? `http://ROLLOUT.ATTEMPT:TOKEN@${proxy}` : `http://${proxy}`;
    const step = (title, text, command, extra) => h("div", { class: "step" }, h("header", {}, h("h2", {}, title), h("span", { class: "grow" }), command ? copyButton(command) : null), text ? h("p", { class: "muted" }, text) : null, command ? h("pre", {}, command) : null, extra);
    replace(this.steps,
      step("One command", "The simplest: Tracewire sets the proxy and the CA for the command alone, and removes both with it. It uses the same store unless --store names another.", "tracewire run -- python3 agent.py"),
      step("A shell", "Sets the variables that Python, Node, Go, Java, curl and others read.", `eval "$(tracewire env --proxy ${proxyUrl})"`),
      step("Any program", "For programs with settings of their own for a proxy.", `export HTTPS_PROXY=${proxyUrl} HTTP_PROXY=${proxyUrl}`, h("p", {}, h("button", { type: "button", class: "small", on: { click: (event) => this.download(event.currentTarget) } }, "Download the CA certificate"), h("span", { class: "muted" }, " for programs with a trust store of their own"))),
      step("A base URL instead of a proxy", "The gateway takes calls of models directly; register the model server with POST /v1/tracewire/backends first.", `export OPENAI_BASE_URL=http://${server}/rollout/ro-1/attempt/0/v1`),
      step("Still nothing?", "Runs the command, and reports traffic that bypasses the proxy, clients that reject its certificate, and how to fix both.", "tracewire doctor -- python3 agent.py"));
  }

  // The certificate is at the proxy, which browsers can't read from here: its address is opened.
  async download(button) {
    const link = h("a", { href: `http://${this.facts.proxy}/ca.pem`, download: "tracewire-ca.pem", rel: "noreferrer" });
    button.after(link);
    link.click();
    link.remove();
  }
}

