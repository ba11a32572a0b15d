"""Reads requests for metrics, as gzipped protobuf or JSON, with OpenTelemetry's own package, and prints the last one as JSON."""

import gzip
import json
import pathlib
import sys

from google.protobuf import json_format
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

bodies = [path.read_bytes() for path in sorted(pathlib.Path(sys.argv[1]).iterdir(), key=lambda path: int(path.name))]
for body in bodies:
    if body.startswith(b"{"):
        request = json_format.Parse(body, ExportMetricsServiceRequest())
    else:
        request = ExportMetricsServiceRequest.FromString(gzip.decompress(body))
print(json.dumps(json_format.MessageToDict(request)))
