"""Agent Lightning's Trainer in client-server mode, its store being the one at argv[1]: an algorithm that enqueues, runners in
processes of their own, an agent whose calls go through the proxy at argv[2] to the endpoint at argv[3]. Prints each rollout's
state and triplets as one JSON line."""
import asyncio, json, sys
import agentlightning as agl
import httpx
from agentlightning.adapter import TracerTraceToTriplet
from agentlightning.store.client_server import LightningStoreClient
from openai import OpenAI

URL, PROXY, ENDPOINT = sys.argv[1:]


@agl.rollout
def agent(task, llm: agl.LLM, rollout: agl.Rollout) -> float:
    door = f"http://{rollout.rollout_id}.{rollout.attempt.attempt_id}:x@{PROXY.removeprefix('http://')}"
    client = OpenAI(base_url=llm.endpoint, api_key="sk-test-0000000000000000000000", http_client=httpx.Client(proxy=door))
    answer = client.chat.completions.create(model=llm.model, messages=[{"role": "user", "content": task["question"]}],
                                            logprobs=True, extra_body={"return_token_ids": True})
    assert answer.choices[0].message.content
    return float(task["worth"])


@agl.algo
async def algorithm(*, store, train_dataset):
    await store.add_resources({"main_llm": agl.LLM(endpoint=ENDPOINT + "/v1", model="m")})
    rollouts = [await store.enqueue_rollout(input=task, mode="train") for task in train_dataset]
    ids = [rollout.rollout_id for rollout in rollouts]
    for _ in range(600):
        ended = await store.wait_for_rollouts(rollout_ids=ids, timeout=0.05)
        if len(ended) == len(ids):
            break
        await asyncio.sleep(0.05)
    told = []
    for rollout in ended:
        spans = list(await store.query_spans(rollout.rollout_id, attempt_id="latest"))
        told.append({"rollout_id": rollout.rollout_id, "status": rollout.status, "worth": rollout.input["worth"],
                     "triplets": [triplet.model_dump() for triplet in TracerTraceToTriplet().adapt(spans)]})
    print("TOLD " + json.dumps(told, default=str), flush=True)


if __name__ == "__main__":
    trainer = agl.Trainer(
        algorithm=algorithm, n_runners=2, tracer=agl.OtelTracer(), store=LightningStoreClient(URL),
        strategy={"type": "cs", "managed_store": False, "graceful_timeout": 2.0, "terminate_timeout": 2.0},
    )
    trainer.fit(agent, train_dataset=[{"question": f"question {number}", "worth": number / 10} for number in range(4)])
