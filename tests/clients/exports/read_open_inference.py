"""Reads an export with the attributes of OpenInference by OpenInference's own package: the names are those of its conventions, and its
converter to the GenAI conventions gives what was recorded.

Arguments: the export of the format `otlp` with these attributes, and that of the format `json`.
"""

import json
import re
import sys
from pathlib import Path

from openinference.instrumentation._genai_conversion import get_genai_attributes
from openinference.semconv import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

request = ExportTraceServiceRequest.FromString(Path(sys.argv[1]).read_bytes())
recorded = [span for line in Path(sys.argv[2]).read_text().splitlines() for span in json.loads(line)["spans"]]
classes = [value for name, value in vars(trace).items() if name.endswith("Attributes")]
names = {value for one in classes for key, value in vars(one).items() if isinstance(value, str) and key.isupper()}


def plain(value):
    field = value.WhichOneof("value")
    return [plain(one) for one in value.array_value.values] if field == "array_value" else getattr(value, field)


def as_recorded(messages, instructions):
    """The recorded messages as OpenInference can hold them: instructions are a message, and each result of a tool is one."""
    messages = ([{"role": "system", "parts": instructions}] if instructions else []) + messages
    for message in messages:
        results = [part for part in message["parts"] if part["type"] == "tool_call_response"]
        for part in results:
            yield {"role": "tool", "parts": [part]}
        if not results:
            yield message


calls = 0
for scope in (scope for one in request.resource_spans for scope in one.scope_spans):
    for span in scope.spans:
        attributes = {pair.key: plain(pair.value) for pair in span.attributes}
        original = next(one["attributes"] for one in recorded if one["span_id"] == span.span_id.hex()) \
            if attributes["agentlightning.rollout_id"] == "ro-calls" else {}
        if original.get("gen_ai.operation.name") != "chat":
            continue
        calls += 1
        added = {name: value for name, value in attributes.items() if name not in original}
        added = {name: value for name, value in added.items() if not name.startswith("agentlightning.")}
        for name in added:
            # `llm.input_messages.0.message.role` is a name in a list of objects.
            for part in re.split(r"\.\d+\.", name):
                assert part in names or part == "message_content.image.image.url", (name, part)
        assert added["openinference.span.kind"] == "LLM" and added["input.value"] and added["output.value"]
        converted = get_genai_attributes(added)
        parsed = {key: json.loads(original[key]) for key in original if key in (
            "gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.system_instructions", "gen_ai.tool.definitions")}
        inputs = list(as_recorded(parsed["gen_ai.input.messages"], parsed.get("gen_ai.system_instructions")))
        assert json.loads(converted["gen_ai.input.messages"]) == inputs, (converted, inputs)
        outputs = json.loads(converted["gen_ai.output.messages"])
        assert [one["parts"] for one in outputs] == [one["parts"] for one in parsed["gen_ai.output.messages"]], outputs
        for name in ["gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens", "gen_ai.operation.name"]:
            assert converted[name] == original[name], (name, converted, original)
        assert attributes["llm.request.model_name"] == original["gen_ai.request.model"]
        assert ("gen_ai.tool.definitions" in converted) == ("gen_ai.tool.definitions" in original)
assert calls > 0
print(calls)
