"""AgentOps, OpenInference and OpenLLMetry, the real packages, beside the proxy: one tree, and each call once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

agl = pytest.importorskip("agentlightning", "0.3")
if agl.__version__.startswith("0.2."):
    pytest.skip("TracewireTracer is for 0.3", allow_module_level=True)


# The names of their spans of calls, and how many spans of calls there are.
INSTRUMENTATIONS = {
    "agentops": (["agentops"], "openai.chat.completion"),
    "openinference": (["openinference.instrumentation.openai"], "ChatCompletion"),
    "openllmetry": (["opentelemetry.instrumentation.openai"], "openai.chat"),
}


@pytest.mark.parametrize("names", [["agentops"], ["openinference"], ["openllmetry"], ["openinference", "openllmetry"]])
def test_an_instrumentations_spans_join_the_tree_with_our_ids(origin, names) -> None:
    for name in names:
        for package in INSTRUMENTATIONS[name][0]:
            pytest.importorskip(package)
    # In a process of its own: AgentOps needs the only tracer provider, and an instrumentation stays.
    script = Path(__file__).with_name("instrumentors_script.py")
    environment = {**os.environ, "ORIGIN": origin}
    done = subprocess.run(
        [sys.executable, script, *names], env=environment, capture_output=True, text=True, timeout=110, check=False
    )
    told = [json.loads(line[5:]) for line in done.stdout.splitlines() if line.startswith("TOLD ")]
    assert told, done.stdout + done.stderr
    (told,) = told
    assert (told["traces"], told["orphans"]) == (1, []), told
    of_calls = sorted(["openai.chat.completion", *(INSTRUMENTATIONS[name][1] for name in names)] * 2)
    assert [name for name, ids in told["spans"] if ids == [3, 4]] == of_calls
    assert told["triplets"] == [[[[1, 2], [3, 4], 0.5], [[1, 2], [3, 4], 1.0]]] * 2
    assert [one[-1]["content"] for one in told["messages"]] == ["hello"] * 2
    assert told["rows"] == [[1, 2, 3, 4]] * 2
