"""Reads exports of spans as other programs do: the protobuf package of OpenTelemetry, the models of ATIF, a HAR parser, and
checks of what the UIs of Jaeger, Zipkin and Chrome expect.

Argument: a folder with `export.FORMAT` of the same rollouts in each format.
"""

import csv
import json
import sys
from collections import Counter
from pathlib import Path

from atif import Trajectory
from google.protobuf import json_format
from haralyzer import HarParser
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

folder = Path(sys.argv[1])


def read(name):
    return (folder / f"export.{name}").read_bytes()


def lines(name):
    return [json.loads(line) for line in read(name).splitlines()]


recorded = [span for line in lines("json") for span in line["spans"]]


def spans_of(request):
    return [span for one in request.resource_spans for scope in one.scope_spans for span in scope.spans]


def attributes_of(span):
    return {pair.key: pair.value for pair in span.attributes}


def check_otlp():
    request = ExportTraceServiceRequest.FromString(read("otlp"))
    spans = spans_of(request)
    assert len(spans) == len(recorded), (len(spans), len(recorded))
    by_place = {}
    for span in spans:
        assert len(span.trace_id) == 16 and len(span.span_id) == 8 and len(span.parent_span_id) in (0, 8)
        attributes = attributes_of(span)
        original = attributes.get("tracewire.original.span_id")
        span_id = original.string_value if original else span.span_id.hex()
        by_place[attributes["agentlightning.rollout_id"].string_value, span_id] = span
    for span in recorded:
        found = by_place[span["rollout_id"], span["span_id"]]
        assert found.name == span["name"]
        start = span["start_time"]
        assert (found.start_time_unix_nano == 0) == (start is None)
        if start is not None:
            assert abs(found.start_time_unix_nano / 1e9 - start) < 1e-6
        kinds = {"INTERNAL": 1, "SERVER": 2, "CLIENT": 3, "PRODUCER": 4, "CONSUMER": 5}
        assert found.kind == kinds[span["kind"]]
        assert len(found.events) == len(span["events"]) and len(found.links) == len(span["links"])
    assert all(one.resource.attributes for one in request.resource_spans)


def check_otlp_json():
    spans = []
    for line in lines("otlp-json"):
        for one in line["resourceSpans"]:
            for scope in one["scopeSpans"]:
                for span in scope["spans"]:
                    # Ids are hexadecimal in OTLP's JSON and base64 in that of protobuf.
                    assert len(span.pop("traceId")) == 32 and len(span.pop("spanId")) == 16
                    assert len(span.pop("parentSpanId", "")) in (0, 16)
                    for link in span.get("links", []):
                        assert len(link.pop("traceId")) == 32 and len(link.pop("spanId")) == 16
        spans += spans_of(json_format.ParseDict(line, ExportTraceServiceRequest()))
    assert len(spans) == len(recorded)
    assert Counter(span.name for span in spans) == Counter(span["name"] for span in recorded)


def check_jaeger():
    """The fields that the UI reads (its types `TraceResponse` and `SpanData`), and its tree: no span may be lost."""
    data = json.loads(read("jaeger"))
    assert set(data) == {"data", "total", "limit", "offset", "errors"}
    number = 0
    for trace in data["data"]:
        assert isinstance(trace["traceID"], str) and trace["spans"]
        ids = {span["spanID"] for span in trace["spans"]}
        assert len(ids) == len(trace["spans"])
        parents = {}
        for span in trace["spans"]:
            number += 1
            assert span["traceID"] == trace["traceID"] and span["processID"] in trace["processes"]
            assert isinstance(span["operationName"], str)
            for name in ["startTime", "duration"]:
                assert isinstance(span[name], int) and span[name] >= 0
            for tag in span["tags"] + [field for log in span["logs"] for field in log["fields"]]:
                kinds = {"string": str, "bool": bool, "int64": (int, str), "float64": (int, float)}
                assert isinstance(tag["value"], kinds[tag["type"]]), tag
                assert tag["type"] != "int64" or isinstance(tag["value"], str) or abs(tag["value"]) < 2**53
            for reference in span["references"]:
                assert reference["refType"] in ("CHILD_OF", "FOLLOWS_FROM")
                if reference["refType"] == "CHILD_OF" and reference["spanID"] in ids:
                    parents[span["spanID"]] = reference["spanID"]
        for span_id in ids:
            seen = set()
            while span_id in parents:
                assert span_id not in seen, "a cycle: the UI would show none of its spans"
                seen.add(span_id)
                span_id = parents[span_id]
        for process in trace["processes"].values():
            assert process["serviceName"] and isinstance(process["tags"], list)
    assert number == len(recorded)


def check_zipkin():
    spans = json.loads(read("zipkin"))
    assert len(spans) == len(recorded)
    for span in spans:
        assert len(span["traceId"]) == 32 and len(span["id"]) == 16
        int(span["traceId"], 16), int(span["id"], 16)
        assert span["id"] != span.get("parentId")
        assert span.get("kind") in (None, "CLIENT", "SERVER", "PRODUCER", "CONSUMER")
        assert span.get("duration", 1) >= 1
        assert all(isinstance(value, str) for value in span["tags"].values())


def check_perfetto():
    """Complete events on one thread must be nested or apart, or the importer drops some."""
    events = json.loads(read("perfetto"))["traceEvents"]
    complete = [event for event in events if event["ph"] == "X"]
    assert len(complete) == len(recorded)
    threads = {}
    for event in complete:
        threads.setdefault((event["pid"], event["tid"]), []).append((event["ts"], event["ts"] + event["dur"]))
    for spans in threads.values():
        open_ends = []
        for start, end in sorted(spans, key=lambda span: (span[0], -span[1])):
            while open_ends and open_ends[-1] <= start:
                open_ends.pop()
            assert not open_ends or end <= open_ends[-1], spans
            open_ends.append(end)
    named = {event["pid"] for event in events if event["ph"] == "M"}
    assert named == {event["pid"] for event in complete}


def check_har():
    har = json.loads(read("har"))
    parser = HarParser(har)
    exchanges = [span for span in recorded if "http.request.method" in span["attributes"]]
    assert len(har["log"]["entries"]) == len(exchanges) > 0
    assert parser.har_data["version"] == "1.2" and parser.har_data["creator"]["name"] == "tracewire"
    for entry in har["log"]["entries"]:
        request, response = entry["request"], entry["response"]
        for name in ["method", "url", "httpVersion", "cookies", "headers", "queryString", "headersSize", "bodySize"]:
            assert name in request, (name, request)
        for name in ["status", "statusText", "httpVersion", "cookies", "headers", "content", "redirectURL", "headersSize", "bodySize"]:
            assert name in response, (name, response)
        assert {"size", "mimeType"} <= set(response["content"])
        assert {"send", "wait", "receive"} <= set(entry["timings"]) and entry["cache"] == {}
        assert "postData" not in request or {"mimeType", "text"} <= set(request["postData"])
    statuses = Counter(entry.response.status for page in parser.pages for entry in page.entries)
    assert sum(statuses.values()) == len(exchanges), statuses


def check_atif():
    trajectories = [Trajectory.model_validate(line) for line in lines("atif")]
    assert len(trajectories) == 1
    assert trajectories[0].schema_version == "ATIF-v1.8" and len(trajectories[0].subagent_trajectories) == 1
    assert sum(step.source == "agent" for step in trajectories[0].steps) == 2


def check_csv():
    rows = list(csv.DictReader(read("csv").decode().splitlines()))
    calls = [span for span in recorded if span["attributes"].get("gen_ai.operation.name") == "chat"]
    assert [row["span_id"] for row in rows] == [span["span_id"] for span in calls]
    assert all(row["request_model"] == "gpt-4o" and int(row["output_tokens"]) > 0 for row in rows)


for check in [
    check_otlp, check_otlp_json, check_jaeger, check_zipkin, check_perfetto, check_har, check_atif, check_csv,
]:
    check()
