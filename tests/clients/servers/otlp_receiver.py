"""An OTLP receiver over gRPC, by the package grpcio and OpenTelemetry's messages. It answers as a script says.

Argument: a JSON object. `log`: a file that gets a JSON line for each accepted request. `answers`: what becomes of each
request by its number, from the first: "ok", {"code", "message", "retry"} (seconds, in a RetryInfo) or {"partial": [count,
message]}; later ones are "ok". `port`; `max_bytes` of a request; `certificate` and `key` as files. All are optional but `log`.
"""

import itertools
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from google.protobuf import json_format
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

options = json.loads(sys.argv[1])
answers = iter(options.get("answers", []))
numbers = itertools.count()


def keep(context, **fields):
    fields["metadata"] = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
    with Path(options["log"]).open("a") as log:
        log.write(json.dumps(fields) + "\n")


def refuse(context, answer):
    code = grpc.StatusCode[answer["code"]]
    if "retry" in answer:
        detail = Any()
        detail.Pack(RetryInfo(retry_delay=Duration(nanos=int(answer["retry"] * 1e9))))
        status = Status(code=code.value[0], message=answer["message"], details=[detail])
        context.set_trailing_metadata([("grpc-status-details-bin", status.SerializeToString())])
    context.abort(code, answer["message"])


class Traces(trace_service_pb2_grpc.TraceServiceServicer):
    def Export(self, request, context):
        answer = next(answers, "ok")
        if "code" in answer:
            refuse(context, answer)
        scopes = (scope for resource in request.resource_spans for scope in resource.scope_spans)
        spans = [span.span_id.hex() for scope in scopes for span in scope.spans]
        keep(context, number=next(numbers), spans=spans, bytes=request.ByteSize())
        response = trace_service_pb2.ExportTraceServiceResponse()
        if "partial" in answer:
            rejected, message = answer["partial"]
            response.partial_success.rejected_spans = rejected
            response.partial_success.error_message = message
        return response


class Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
    def Export(self, request, context):
        keep(context, metrics=json_format.MessageToDict(request))
        return metrics_service_pb2.ExportMetricsServiceResponse()


limit = [("grpc.max_receive_message_length", options["max_bytes"])] if "max_bytes" in options else []
server = grpc.server(ThreadPoolExecutor(max_workers=4), options=limit, compression=grpc.Compression.Gzip)
trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Traces(), server)
metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(Metrics(), server)
address = f"127.0.0.1:{options.get('port', 0)}"
if "certificate" in options:
    pair = (Path(options["key"]).read_bytes(), Path(options["certificate"]).read_bytes())
    port = server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
else:
    port = server.add_insecure_port(address)
server.start()
print(json.dumps({"address": f"127.0.0.1:{port}"}), flush=True)
server.wait_for_termination()
