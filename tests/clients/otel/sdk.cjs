// The OpenTelemetry SDK of Node: an agent's span around a call through the proxy, exported by OTLP over HTTP (JSON).
// Arguments: where to export, the proxy, the endpoint, a rollout for the resource.
const { context, propagation, trace } = require("@opentelemetry/api");
const { OTLPTraceExporter } = require("@opentelemetry/exporter-trace-otlp-http");
const { resourceFromAttributes } = require("@opentelemetry/resources");
const { BatchSpanProcessor, NodeTracerProvider } = require("@opentelemetry/sdk-trace-node");
const { ProxyAgent, fetch } = require("undici");

const [target, proxy, endpoint, rollout] = process.argv.slice(2);
const named = { "agentlightning.rollout_id": rollout, "agentlightning.attempt_id": "at-otel" };
const provider = new NodeTracerProvider({
  resource: resourceFromAttributes({ "service.name": "agent", ...named }),
  spanProcessors: [new BatchSpanProcessor(new OTLPTraceExporter({ url: target + "/v1/traces" }))],
});
provider.register();
trace.getTracer("test").startActiveSpan("agent.step", { attributes: { step: 1, tags: ["a", "b"] } }, async (span) => {
  const headers = { "content-type": "application/json", "x-rollout-id": rollout, "x-attempt-id": "at-otel" };
  propagation.inject(context.active(), headers);
  const body = JSON.stringify({ model: "m", messages: [{ role: "user", content: "hi" }] });
  const answer = await fetch(endpoint + "/v1/chat/completions", { method: "POST", headers, body, dispatcher: new ProxyAgent(proxy) });
  if (!answer.ok) throw new Error(`status ${answer.status}`);
  await answer.text();
  span.addEvent("called");
  span.end();
  await provider.forceFlush();
  const { traceId, spanId } = span.spanContext();
  console.log(JSON.stringify({ trace_id: traceId, span_id: spanId }));
  process.exit(0);
});
