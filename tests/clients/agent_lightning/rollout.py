"""A rollout from the queue to its triplets with Agent Lightning's own client and adapters; the model is called through the
proxy, which is the only tracer. Arguments: the store, the proxy, the endpoint. Prints what the endpoint sent and what the
adapters made of it, as one JSON line."""
import asyncio, json, sys, time
import httpx
from openai import OpenAI
from agentlightning.adapter import LlmProxyTraceToTriplet, TraceToMessages, TracerTraceToTriplet
from agentlightning.store.client_server import LightningStoreClient
from agentlightning.types import OtelResource, Span, TraceStatus

TOOLS = [{"type": "function", "function": {"name": "add", "description": "adds", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}}]


def agent(proxy, endpoint, rollout, attempt):
    """Calls the model in four ways; gives the ids that the endpoint sent."""
    door = f"http://{rollout}.{attempt}:x@{proxy.removeprefix('http://')}"
    client = OpenAI(base_url=endpoint + "/v1", api_key="sk-test-0000000000000000000000", http_client=httpx.Client(proxy=door))
    asked = dict(model="m", logprobs=True, extra_body={"return_token_ids": True})
    system = {"role": "system", "content": "be brief"}
    sent = []

    def plain(messages, **more):
        answer = client.chat.completions.create(messages=messages, **asked, **more)
        choice = answer.choices[0]
        logprobs = [token.logprob for token in choice.logprobs.content]
        sent.append({"prompt": answer.model_extra["prompt_token_ids"], "response": choice.model_extra["token_ids"], "logprobs": logprobs})
        return choice.message

    first = plain([system, {"role": "user", "content": "say something"}])
    called = plain([{"role": "user", "content": "add 1"}], tools=TOOLS)
    call = called.tool_calls[0]
    plain([{"role": "user", "content": "add 1"}, called.model_dump(exclude_none=True),
           {"role": "tool", "tool_call_id": call.id, "content": "2"}])
    prompt, ids, logprobs = None, [], []
    for chunk in client.chat.completions.create(messages=[{"role": "user", "content": "stream to me"}], stream=True, **asked):
        prompt = prompt or chunk.model_extra.get("prompt_token_ids")
        for choice in chunk.choices:
            ids += choice.model_extra.get("token_ids") or []
            logprobs += [token.logprob for token in choice.logprobs.content] if choice.logprobs else []
    sent.append({"prompt": prompt, "response": ids, "logprobs": logprobs})
    return sent, first.content


def reward(rollout, attempt, sequence_id, value):
    now = time.time()
    return Span(rollout_id=rollout, attempt_id=attempt, sequence_id=sequence_id, trace_id="f" * 32, span_id=f"{sequence_id:016x}", parent_id=None,
                name="agentlightning.annotation", status=TraceStatus(status_code="OK"),
                attributes={"agentlightning.reward.0.name": "primary", "agentlightning.reward.0.value": value}, events=[], links=[],
                start_time=now, end_time=now, context=None, parent=None, resource=OtelResource(attributes={}, schema_url=""))


async def main(url, proxy, endpoint):
    store = LightningStoreClient(url)
    await store.enqueue_rollout(input={"question": "1+1"}, mode="train")
    rollout = await store.dequeue_rollout(worker_id="runner-1")
    ids = (rollout.rollout_id, rollout.attempt.attempt_id)
    sent, text = await asyncio.to_thread(agent, proxy, endpoint, *ids)
    await store.add_span(reward(*ids, await store.get_next_span_sequence_id(*ids), 0.75))
    await store.update_attempt(*ids, status="succeeded")
    ended = await store.wait_for_rollouts(rollout_ids=[ids[0]], timeout=0)
    spans = list(await store.query_spans(ids[0], attempt_id="latest"))
    await store.close()
    print(json.dumps({
        "rollout": ids[0],
        "sent": sent,
        "text": text,
        "status": ended[0].status,
        "tracer": [triplet.model_dump() for triplet in TracerTraceToTriplet().adapt(spans)],
        "proxy": [triplet.model_dump() for triplet in LlmProxyTraceToTriplet().adapt(spans)],
        "messages": TraceToMessages().adapt(spans),
    }, default=str))


asyncio.run(main(*sys.argv[1:]))
