"""Agent Lightning's own client against the store at argv[1]: every operation, and what it says of it, as one JSON line."""
import asyncio, json, sys, time
from agentlightning.store.client_server import LightningStoreClient
from agentlightning.types import (EnqueueRolloutRequest, LLM, PromptTemplate, RolloutConfig, Span, OtelResource, TraceStatus)

def span(rollout, attempt, sequence_id, span_id, name="s", attributes=None):
    now = time.time()
    return Span(rollout_id=rollout, attempt_id=attempt, sequence_id=sequence_id, trace_id="t" * 32, span_id=span_id, parent_id=None,
                name=name, status=TraceStatus(status_code="OK"), attributes=attributes or {}, events=[], links=[], start_time=now, end_time=now + 1,
                context=None, parent=None, resource=OtelResource(attributes={}, schema_url=""))

async def main(url):
    store = LightningStoreClient(url)
    seen = {}
    assert (await store.statistics())["name"]
    resources = await store.add_resources({"llm": LLM(endpoint="http://x/v1", model="m")})
    assert (await store.get_latest_resources()).resources_id == resources.resources_id
    again = await store.update_resources(resources.resources_id, {"p": PromptTemplate(template="hi {x}", engine="f-string")})
    assert again.version == 2
    one = await store.enqueue_rollout(input={"q": 1}, mode="train", metadata={"a": 1})
    assert one.status == "queuing" and one.resources_id == resources.resources_id, one
    many = await store.enqueue_many_rollouts([EnqueueRolloutRequest(input=i, config=RolloutConfig(max_attempts=2, retry_condition=["failed"])) for i in range(3)])
    assert [r.input for r in many] == [0, 1, 2]
    got = await store.dequeue_rollout(worker_id="w1")
    assert got.rollout_id == one.rollout_id and got.status == "preparing" and got.attempt.sequence_id == 1
    worker = await store.get_worker_by_id("w1")
    assert worker.status == "busy" and worker.current_rollout_id == one.rollout_id, worker
    seq = await store.get_next_span_sequence_id(got.rollout_id, got.attempt.attempt_id)
    seq2 = await store.get_next_span_sequence_id(got.rollout_id, got.attempt.attempt_id)
    assert (seq, seq2) == (1, 2), (seq, seq2)
    kept = await store.add_span(span(got.rollout_id, got.attempt.attempt_id, 7, "a" * 16, attributes={"x": [1, 2], "y": "z"}))
    assert kept is not None and kept.attributes == {"x": [1, 2], "y": "z"}
    assert await store.add_span(span(got.rollout_id, got.attempt.attempt_id, 7, "a" * 16)) is None
    assert await store.get_next_span_sequence_id(got.rollout_id, got.attempt.attempt_id) == 8
    assert (await store.get_rollout_by_id(got.rollout_id)).status == "running"
    spans = await store.query_spans(got.rollout_id, attempt_id="latest")
    assert [s.span_id for s in spans] == ["a" * 16] and spans.total == 1
    done = await store.update_attempt(got.rollout_id, "latest", status="succeeded")
    assert done.end_time
    assert (await store.get_rollout_by_id(got.rollout_id)).status == "succeeded"
    assert (await store.get_worker_by_id("w1")).status == "idle"
    ended = await store.wait_for_rollouts(rollout_ids=[got.rollout_id, many[0].rollout_id], timeout=0.05)
    assert [r.rollout_id for r in ended] == [got.rollout_id]
    retried = await store.dequeue_rollout()
    await store.update_attempt(retried.rollout_id, retried.attempt.attempt_id, status="failed")
    assert (await store.get_rollout_by_id(retried.rollout_id)).status == "requeuing"
    rest = await store.dequeue_many_rollouts(limit=10, worker_id="w2")
    assert [r.rollout_id for r in rest] == [many[1].rollout_id, many[2].rollout_id, retried.rollout_id]
    assert rest[-1].attempt.sequence_id == 2
    assert await store.dequeue_rollout(worker_id="w2") is None
    started = await store.start_rollout(input="now", config=RolloutConfig(timeout_seconds=0.1))
    # The server's watchdog ends it.
    while (state := await store.get_rollout_by_id(started.rollout_id)).status != "failed":
        await asyncio.sleep(0.02)
    assert state.attempt.status == "timeout", state
    await store.start_attempt(retried.rollout_id, worker_id="w3")
    attempts = await store.query_attempts(retried.rollout_id)
    assert [a.sequence_id for a in attempts] == [1, 2, 3]
    page = await store.query_rollouts(status_in=["succeeded", "failed"], sort_by="start_time", sort_order="desc", limit=1)
    assert page.total == 2 and page[0].rollout_id == started.rollout_id
    updated = await store.update_rollout(many[1].rollout_id, status="cancelled", metadata={"b": 2})
    assert updated.status == "cancelled" and updated.end_time and updated.metadata == {"b": 2}
    await store.update_attempt(many[1].rollout_id, "latest", last_heartbeat_time=time.time())
    assert (await store.get_rollout_by_id(many[1].rollout_id)).status == "cancelled"
    await store.update_worker("w9", heartbeat_stats={"cpu": 1})
    assert {w.worker_id for w in await store.query_workers()} == {"w1", "w2", "w3", "w9"}
    for wrong in (store.query_rollouts(sort_by="nope"), store.add_span(span("ro-none", "at", 1, "b" * 16)), store.update_attempt("ro-none", "latest", status="failed")):
        try:
            await wrong
            raise SystemExit("not refused")
        except Exception as error:
            pass
    assert await store.get_rollout_by_id("ro-none") is None
    await store.close()
    print("ok")

asyncio.run(main(sys.argv[1]))
