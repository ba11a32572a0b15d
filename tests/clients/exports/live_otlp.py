"""Reads the gzipped protobuf requests of a live export with OpenTelemetry's own package, and prints the ids of their spans."""

import gzip
import json
import pathlib
import sys

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

ids = []
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    request = ExportTraceServiceRequest.FromString(gzip.decompress(path.read_bytes()))
    for resource in request.resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                assert len(span.trace_id) == 16 and span.name, span
                rollout = [a.value.string_value for a in span.attributes if a.key == "agentlightning.rollout_id"]
                assert rollout == ["ro-run"], rollout
                ids.append(span.span_id.hex())
print(json.dumps(ids))
