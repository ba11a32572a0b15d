"""What Agent Lightning's own adapter makes of rollouts, by its own client. Arguments: the store, rollouts. Prints a list
of triplets for each, as one JSON line."""
import asyncio
import json
import sys

from agentlightning.adapter import TracerTraceToTriplet
from agentlightning.store.client_server import LightningStoreClient


async def main(url, *rollouts):
    store = LightningStoreClient(url)
    spans = [list(await store.query_spans(rollout, attempt_id="latest")) for rollout in rollouts]
    await store.close()
    print(json.dumps([[triplet.model_dump() for triplet in TracerTraceToTriplet().adapt(one)] for one in spans], default=str))


asyncio.run(main(*sys.argv[1:]))
