"""Every example runs, and prints what it promises."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples/python"
PROMISES = {
    "record_and_read_back.py": ["exit code 0", "chat mock 200", "row for training"],
    "http_tracer_with_a_child.py": ["the function returned 200", "?question=why 200", "?tool 200"],
    "agent_lightning_runner.py": ["/?task=a", "/?task=b", "agentlightning.annotation"],
}


@pytest.mark.parametrize("name", [path.name for path in EXAMPLES.glob("*.py")])
def test_it_runs(name) -> None:
    if name != "record_and_read_back.py":
        agl = pytest.importorskip("agentlightning")
        if name == "agent_lightning_runner.py" and agl.__version__.startswith("0.2."):
            pytest.skip("for 0.3")
    done = subprocess.run([sys.executable, EXAMPLES / name], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for promise in PROMISES[name]:
        assert promise in done.stdout, done.stdout + done.stderr
