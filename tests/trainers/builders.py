"""Runs the calls of `calls.py` through a trainer's own builder, in an environment that has its package.

    builders.py NAME    prints {case: [row]} as JSON; a row has `tokens`, `mask` and `logprobs` of equal length
"""
import json
import sys

from calls import all_cases


def rows_of(tokens, mask, logprobs):
    return {"tokens": list(tokens), "mask": [int(one) for one in mask], "logprobs": list(logprobs)}


def trl(calls):
    from trl.experimental.async_grpo.async_rollout_worker import TurnRecord, _chain_to_sequences

    turns = [TurnRecord(call.prompt, call.sampled, call.logprobs) for call in calls]
    sequences, _ = _chain_to_sequences(turns, "ro", 1024)
    return [rows_of(one.input_ids, one.completion_mask, one.old_log_probs) for one in sequences]


def slime(calls):
    from slime.agent.trajectory import TrajectoryManager, TurnRecord
    from slime.utils.types import Sample

    manager = TrajectoryManager()
    for call in calls:
        turn = TurnRecord(call.prompt, call.sampled, "stop", call.logprobs)
        manager.record_turn("ro", turn=turn, prompt_messages=call.messages, response_message=replayed(call))
    samples = manager.get_trajectory("ro", base_sample=Sample(index=0))
    rows = []
    for sample in samples:
        before = [0] * (len(sample.tokens) - sample.response_length)
        rows.append(rows_of(sample.tokens, before + sample.loss_mask, before + sample.rollout_log_probs))
    return rows


def nemo_gym(calls):
    from nemo_gym.token_id_capture.builder import prefix_merging
    from nemo_gym.token_id_capture.records import TokenEntry

    entries = [
        TokenEntry(rollout_id="ro", model_call_id=f"call-{at}", prompt_token_ids=call.prompt,
                   generation_token_ids=call.sampled, generation_log_probs=call.logprobs, created_at=float(at))
        for at, call in enumerate(calls)
    ]
    built = prefix_merging(entries)
    # As its consumer does: only the main chain is delivered, and an unresolved retry masks the rollout.
    if built.notes.unresolved_retries:
        return []
    rows = []
    for chain in (chain for chain in built.chains if chain.chain_id == "main"):
        tokens, mask, logprobs = list(chain.root_prompt), [0] * len(chain.root_prompt), [0.0] * len(chain.root_prompt)
        for link in chain.links:
            sampled = link.entry.generation_token_ids
            tokens += [*link.interstitial, *sampled]
            mask += [0] * len(link.interstitial) + [1] * len(sampled)
            logprobs += [0.0] * len(link.interstitial) + link.entry.generation_log_probs
        rows.append(rows_of(tokens, mask, logprobs))
    return rows


def verifiers(calls):
    from verifiers.v1 import AssistantMessage, Response, SystemMessage, Tool, ToolMessage, UserMessage, graph
    from verifiers.v1.trace import Trace
    from verifiers.v1.types import TurnTokens

    kinds = {"system": SystemMessage, "user": UserMessage, "assistant": AssistantMessage, "tool": ToolMessage}
    trace = Trace.model_construct()
    for at, call in enumerate(calls):
        prompt = [kinds[message["role"]](**message) for message in call.messages]
        tools = [Tool(name=name) for name in call.tools.split()]
        turn = graph.prepare_turn(trace, prompt, tools)
        tokens = TurnTokens(prompt_ids=call.prompt, completion_ids=call.sampled, completion_logprobs=call.logprobs,
                            message_spans=call.spans)
        answer = AssistantMessage(**replayed(call))
        turn.commit(Response(id=str(at), created=at, model="m", message=answer, finish_reason="stop", tokens=tokens))
    # A shared answer is trained in the first branch only, as prime-rl does it.
    rows, trained = [], set()
    for branch in trace.branches:
        tokens, mask, logprobs = [], [], []
        for node in branch.nodes:
            is_first = id(node) not in trained
            trained.add(id(node))
            sampled = iter(node.logprobs)
            tokens += node.token_ids
            mask += [one and is_first for one in node.mask]
            logprobs += [next(sampled) if one else 0.0 for one in node.mask]
        if any(mask):
            rows.append(rows_of(tokens, mask, logprobs))
    return rows


def agent_lightning(calls):
    import torch
    from agentlightning.verl.agl_rollout_manager import CompletedRollout, Triplet
    from agentlightning.verl.rollout_adapter import RolloutAdapter

    triplets = [
        Triplet(prompt={"token_ids": call.prompt}, response={"token_ids": call.sampled, "log_probs": list(call.logprobs)})
        for call in calls
    ]
    rollout = CompletedRollout(rollout_id="ro", data_id="d", step=0, sample_idx_in_step=0, enqueue_time=0.0,
                               final_reward=1.0, triplets=triplets)
    adapter = RolloutAdapter(max_prompt_length=256, max_response_length=256, device=torch.device("cpu"), pad_token_id=0,
                             trace_aggregator_level="trajectory")
    batch = adapter.get_train_data_batch([rollout])[0].batch
    rows = []
    for at in range(len(batch["prompts"])):
        prompt, response = batch["prompts"][at], batch["responses"][at]
        attended = batch["attention_mask"][at]
        kept = attended[: len(prompt)].bool(), attended[len(prompt):].bool()
        before = prompt[kept[0]].tolist()
        mask = batch["response_mask"][at][kept[1]].tolist()
        logprobs = batch["rollout_log_probs"][at][kept[1]].tolist()
        none = [0] * len(before)
        rows.append(rows_of(before + response[kept[1]].tolist(), none + mask, none + logprobs))
    return rows


def replayed(call):
    """The answer as an agent sends it back: without its reasoning."""
    return {"role": "assistant", "content": call.answer["content"]}


if __name__ == "__main__":
    builder = {"trl": trl, "slime": slime, "nemo-gym": nemo_gym, "verifiers": verifiers, "agent-lightning": agent_lightning}[sys.argv[1]]
    print("ROWS " + json.dumps({case: builder(calls) for case, calls in all_cases().items()}))
