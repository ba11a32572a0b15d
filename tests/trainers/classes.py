"""Loads exported rows into a trainer's own classes, in an environment that has its package.

    classes.py NAME FOLDER    FOLDER has a file SHAPE.jsonl for each shape; prints what was loaded, or fails
"""
import base64
import json
import os
import runpy
import sys
from pathlib import Path


def rows(shape):
    return [json.loads(line) for line in Path(sys.argv[2], f"{shape}.jsonl").read_text().splitlines()]


def trl():
    import numpy
    from trl.experimental.async_grpo.async_rollout_worker import RolloutSample, TrainingSequence

    for row in rows("trl"):
        one = TrainingSequence(row["input_ids"], row["completion_mask"], row["old_log_probs"], row["rollout_id"])
        arrays = [numpy.asarray(one.input_ids, numpy.int64), numpy.asarray(one.completion_mask, numpy.int64),
                  numpy.asarray(one.old_log_probs, numpy.float32)]
        assert len({len(array) for array in arrays}) == 1
        assert all(isinstance(row[name], int) for name in ["model_version", "group_id"]), row
        RolloutSample([], [], *arrays, advantage=0.0, model_version=row["model_version"], group_id=row["group_id"], metrics={})
    return "TrainingSequence, RolloutSample"


def slime():
    from slime.utils.types import Sample

    for row in rows("slime"):
        sample = Sample.from_dict(row)
        assert isinstance(sample.rollout_id, int) and sample.status == Sample.Status.COMPLETED
        assert len(sample.loss_mask) == len(sample.rollout_log_probs) == sample.response_length
        # As slime checks a sample before it trains on it.
        assert len(sample.tokens) > sample.response_length and sum(sample.loss_mask) > 0
    return "Sample"


def nemo_gym():
    from nemo_gym.token_id_capture.builder import assert_prefix_contiguity, prefix_merging, project_main_chain_response
    from nemo_gym.token_id_capture.records import TokenEntry

    entries = {}
    for row in rows("nemo-gym"):
        entries.setdefault(row["rollout_id"], []).append(TokenEntry(**row))
    for rollout, of_rollout in entries.items():
        built = prefix_merging(of_rollout)
        if built.chains:
            assert_prefix_contiguity(project_main_chain_response(rollout, built))
    return "TokenEntry, through its builder"


def prime_rl():
    import msgspec

    # The package around this file needs a GPU's libraries.
    types = runpy.run_path(f"{os.environ['PYTHONPATH']}/src/prime_rl/transports/rollouts/types.py")
    RoutedExperts, TrainingSample = types["RoutedExperts"], types["TrainingSample"]
    for row in rows("prime-rl"):
        experts = row.pop("routed_experts")
        if experts is not None:
            experts = RoutedExperts(base64.b64decode(experts["data"]), experts["shape"], experts["dtype"])
            assert experts.shape[0] == len(row["token_ids"])
        sample = TrainingSample(**row, routed_experts=experts)
        # The trainer gets it as msgpack, which checks the types.
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(sample), type=TrainingSample) == sample
    return "TrainingSample, through msgpack"


def tinker():
    import numpy
    from tinker import Datum, ModelInput

    for row in rows("tinker"):
        arrays = {name: numpy.asarray(values, numpy.int64 if name == "target_tokens" else numpy.float32)
                  for name, values in row["loss_fn_inputs"].items()}
        datum = Datum(model_input=ModelInput.from_ints(row["model_input"]), loss_fn_inputs=arrays)
        assert {len(array) for array in arrays.values()} == {datum.model_input.length}
    return "Datum, ModelInput"


def agent_lightning():
    import torch
    from agentlightning.verl.agl_rollout_manager import CompletedRollout, Triplet
    from agentlightning.verl.rollout_adapter import RolloutAdapter
    from verl.experimental.agent_loop.agent_loop import AgentLoopOutput

    triplets = [Triplet(**row) for row in rows("agent-lightning-1.0")]
    rollout = CompletedRollout(rollout_id="ro", data_id="d", step=0, sample_idx_in_step=0, enqueue_time=0.0,
                               final_reward=1.0, triplets=triplets)
    adapter = RolloutAdapter(max_prompt_length=256, max_response_length=256, device=torch.device("cpu"), pad_token_id=0)
    assert len(adapter.get_train_data_batch([rollout])[0].batch) == len(triplets)
    for row in rows("verl"):
        output = AgentLoopOutput(**row).as_dict()
        assert len(output["responses"]) == len(output["response_mask"]) == len(output["rollout_log_probs"])
    return "Triplet, through its adapter; verl's AgentLoopOutput"


if __name__ == "__main__":
    loaders = {"trl": trl, "slime": slime, "nemo-gym": nemo_gym, "prime-rl": prime_rl, "tinker": tinker,
               "agent-lightning": agent_lightning}
    print("LOADED " + loaders[sys.argv[1]]())
