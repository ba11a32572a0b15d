"""An OpenTelemetry SDK that knows nothing of us: an agent's span around a call through the proxy, exported by OTLP.
Arguments: http or grpc, where to export, the proxy, the endpoint, a rollout for the resource ("" for none)."""
import json, sys
import httpx
from opentelemetry import propagate, trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

kind, target, proxy, endpoint, rollout = sys.argv[1:]
if kind == "grpc":
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import Compression, OTLPSpanExporter
    exporter = OTLPSpanExporter(endpoint=target, insecure=True, compression=Compression.Gzip)
else:
    from opentelemetry.exporter.otlp.proto.http import Compression
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    exporter = OTLPSpanExporter(endpoint=target + "/v1/traces", compression=Compression.Gzip)
named = {"agentlightning.rollout_id": rollout, "agentlightning.attempt_id": "at-otel"} if rollout else {}
provider = TracerProvider(resource=Resource.create({"service.name": "agent", **named}))
provider.add_span_processor(BatchSpanProcessor(exporter))
tracer = provider.get_tracer("test")
with tracer.start_as_current_span("agent.step", attributes={"step": 1, "tags": ["a", "b"]}) as span:
    headers = {"x-rollout-id": rollout or "ro-by-trace", "x-attempt-id": "at-otel"}
    propagate.inject(headers)
    with httpx.Client(proxy=proxy) as client:
        client.post(endpoint + "/v1/chat/completions", headers=headers,
                    json={"model": "m", "messages": [{"role": "user", "content": "hi"}]}).raise_for_status()
    span.add_event("called")
context = span.get_span_context()
assert provider.force_flush()
provider.shutdown()
print(json.dumps({"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}))
