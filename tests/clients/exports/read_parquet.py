"""Reads exports as pyarrow and Hugging Face's datasets do, and compares them with the same exports as JSON lines.

Arguments: a folder with trajectories and messages, each as .parquet and .jsonl.
"""
import base64
import json
import sys
from pathlib import Path

import datasets
import numpy
import pyarrow
import pyarrow.parquet

folder = Path(sys.argv[1])


def lines(name):
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


def check_trajectories():
    table = pyarrow.parquet.read_table(folder / "trajectories.parquet")
    rows = lines("trajectories")
    assert table.column_names == list(rows[0]), (table.column_names, list(rows[0]))
    metadata = table.schema.metadata
    assert metadata[b"tracewire.format"] == b"trajectories" and metadata[b"tracewire.schema_version"] == b"1"
    types = {
        "token_ids": pyarrow.list_(pyarrow.field("element", pyarrow.int32())),
        "logprobs": pyarrow.list_(pyarrow.field("element", pyarrow.float32())),
        **dict.fromkeys(["mask", "routed_experts", "sampling_mask_lengths", "sampling_mask"], pyarrow.binary()),
    }
    for name, expected in types.items():
        assert table.schema.field(name).type == expected, table.schema.field(name)
    read = table.to_pylist()
    assert len(read) == len(rows)
    for found, expected in zip(read, rows):
        found["mask"] = numpy.frombuffer(found["mask"], numpy.uint8).tolist()
        for name in ["sampling_mask_lengths", "sampling_mask"]:
            if found[name] is not None:
                found[name] = numpy.frombuffer(found[name], "<u4").tolist()
        if found["routed_experts"] is not None:
            found["routed_experts"] = base64.b64encode(found["routed_experts"]).decode()
        for name in ["logprobs", "temperatures"]:
            if expected[name] is not None:
                expected[name] = numpy.float32(expected[name]).tolist()
        assert found == expected, {name: (found[name], expected[name]) for name in found if found[name] != expected[name]}
    loaded = datasets.load_dataset("parquet", data_files=str(folder / "trajectories.parquet"), split="train")
    assert loaded.num_rows == len(rows) and loaded[0]["token_ids"] == rows[0]["token_ids"]


def check_messages():
    loaded = datasets.load_dataset("parquet", data_files=str(folder / "messages.parquet"), split="train")
    assert loaded.column_names == ["messages", "tools"]
    rows = lines("messages")
    assert loaded.num_rows == len(rows)
    for found, expected in zip(loaded, rows):
        # A column has all fields: those that a message has not are null.
        known = [{name: value for name, value in message.items() if value is not None} for message in found["messages"]]
        said = [{name: value for name, value in message.items() if value is not None} for message in expected["messages"]]
        assert known == said, (known, said)
        assert (found["tools"] and json.loads(found["tools"])) == expected["tools"]


check_trajectories()
check_messages()
