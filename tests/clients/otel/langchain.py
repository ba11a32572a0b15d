"""A LangChain agent instrumented by OpenInference, its HTTP client by OpenTelemetry; exported by OTLP over HTTP.
Arguments: where to export, the proxy, the endpoint, a rollout for the resource."""
import json, os, sys

target, proxy, endpoint, rollout = sys.argv[1:]
os.environ["HTTP_PROXY"] = f"http://{rollout}.at-otel:x@{proxy.removeprefix('http://')}"
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI
from openinference.instrumentation.langchain import LangChainInstrumentor
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.httpx import HTTPX2ClientInstrumentor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

named = {"agentlightning.rollout_id": rollout, "agentlightning.attempt_id": "at-otel"}
provider = TracerProvider(resource=Resource.create({"service.name": "langchain", **named}))
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=target + "/v1/traces")))
LangChainInstrumentor().instrument(tracer_provider=provider)
HTTPX2ClientInstrumentor().instrument(tracer_provider=provider)
model = ChatOpenAI(model="m", base_url=endpoint + "/v1", api_key="sk-test-0000000000000000000000")
chain = ChatPromptTemplate.from_messages([("user", "say {what}")]) | model | StrOutputParser()
with provider.get_tracer("test").start_as_current_span("agent"):
    said = chain.invoke({"what": "something"})
assert provider.force_flush()
provider.shutdown()
print(json.dumps({"said": said}))
