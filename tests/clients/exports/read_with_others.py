"""Reads exports with Inspect and with mitmproxy, and compares what they find with the export `json` of the same rollouts.

Argument: a folder with `export.eval`, `export.har` and `export.json`.
"""

import json
import sys
import zipfile
from pathlib import Path

from inspect_ai.log import read_eval_log, read_eval_log_sample, read_eval_log_sample_summaries
from mitmproxy.io import FlowReader

folder = Path(sys.argv[1])
rollouts = [json.loads(line) for line in (folder / "export.json").read_text().splitlines()]


def calls_of(rollout):
    return [span["attributes"] for span in rollout["spans"] if span["attributes"].get("gen_ai.operation.name") == "chat"]


def check_inspect():
    path = str(folder / "export.eval")
    assert zipfile.ZipFile(path).testzip() is None
    log = read_eval_log(path)
    header = read_eval_log(path, header_only=True)
    assert log.version == 2 and log.status == "success" and header.eval.model == log.eval.model == "gpt-4o", log.eval
    with_calls = {rollout["rollout"]["rollout_id"]: rollout for rollout in rollouts if calls_of(rollout)}
    samples = {sample.id: sample for sample in log.samples}
    assert set(samples) == set(with_calls) and log.results.total_samples == len(samples)
    assert {summary.id for summary in read_eval_log_sample_summaries(path)} == set(samples)
    for id, rollout in with_calls.items():
        sample, calls = samples[id], calls_of(rollout)
        assert read_eval_log_sample(path, id, 1).messages == sample.messages
        usage = sample.model_usage["gpt-4o"]
        assert usage.output_tokens == sum(call["gen_ai.usage.output_tokens"] for call in calls)
        assert usage.total_tokens == usage.output_tokens + sum(call["gen_ai.usage.input_tokens"] for call in calls)
        answers = [part["content"] for call in calls for answer in json.loads(call["gen_ai.output.messages"])
                   for part in answer["parts"] if part["type"] == "text"]
        assert sample.output.completion in answers and sample.output.choices[0].message == sample.messages[-1]
        assert sample.input[0].role in ("system", "user") and sample.messages[: len(sample.input)] == sample.input
        assert sum(message.role == "assistant" for message in sample.messages) >= 1
        assert sample.total_time >= 0 and sample.error is None


def check_mitmproxy():
    entries = json.loads((folder / "export.har").read_text())["log"]["entries"]
    with (folder / "export.har").open("rb") as file:
        flows = list(FlowReader(file).stream())
    assert len(flows) == len(entries) > 0
    for flow, entry in zip(flows, entries):
        assert flow.request.method == entry["request"]["method"] and flow.request.pretty_url == entry["request"]["url"]
        assert flow.response.status_code == entry["response"]["status"]
    texts = [entry["response"]["content"].get("text") for entry in entries]
    assert any(text and flow.response.content for flow, text in zip(flows, texts))


check_inspect()
check_mitmproxy()
