//! The Python package from its source: its examples run with Agent Lightning's own package, and print what they promise.
//! `scripts/test-python` tests the rest of it, from its wheel.

use crate::support::{TRACEWIRE, installed, root, text};
use std::process::Command;

fn prints(example: &str, promised: &[&str]) {
    let home = tempfile::tempdir().unwrap();
    let output = Command::new(installed("agent-lightning/bin/python"))
        .arg(root().join("examples/python").join(example))
        .env("PYTHONPATH", root().join("python/src"))
        .env("TRACEWIRE_BINARY", TRACEWIRE)
        .env("TRACEWIRE_HOME", home.path())
        .env("AGENTOPS_API_KEY", "")
        .output()
        .unwrap();
    let said = text(&output);
    assert!(output.status.success(), "{said}");
    for part in promised {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn a_command_is_recorded_and_read_back() {
    prints("record_and_read_back.py", &["exit code 0", "chat mock 200", "row for training"]);
}

#[test]
fn the_http_tracer_records_a_child_process() {
    prints("http_tracer_with_a_child.py", &["the function returned 200", "/?question=why 200", "/?tool 200"]);
}

#[test]
fn its_tracer_records_what_agent_lightnings_runner_runs() {
    prints("agent_lightning_runner.py", &["/?task=a", "/?task=b", "agentlightning.annotation"]);
}
