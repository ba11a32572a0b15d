"""Reads what an engine sent, without Tracewire: the events that an agent sees, and the ids and logprobs of each choice."""
import collections, json

# How much logprobs of the same token differ where an engine computes it beside other requests.
NOISE = 1e-3
Choice = collections.namedtuple("Choice", "ids logprobs")
Truth = collections.namedtuple("Truth", "prompt choices finished")
# What differs from one request to the next, whatever is sampled: ids, times, and what was cached.
VOLATILE = {"id", "created", "created_at", "completed_at", "timings", "item_id", "call_id", "system_fingerprint", "request_id",
            "sequence_number", "id_slot", "cached_tokens", "tokens_cached", "cache_read_input_tokens", "cache_creation_input_tokens"}


def events(body):
    """The events of a stream, or the whole body as the only one."""
    text = body.decode("utf-8", "replace")
    if not text.startswith(("data:", "event:", ":")):
        return [loaded(text)]
    found = []
    for block in text.replace("\r\n", "\n").split("\n\n"):
        data = "\n".join(line[5:].strip() for line in block.split("\n") if line.startswith("data:"))
        if data:
            found.append(loaded(data))
    return found


def loaded(text):
    try:
        return json.loads(text)
    except ValueError:
        return text


def stable(value):
    """Without what differs from one request to the next."""
    if isinstance(value, dict):
        if "cache_read_input_tokens" in value:
            # Those that were cached are not counted among the others.
            value = value | {"input_tokens": value["input_tokens"] + (value["cache_read_input_tokens"] or 0)}
        return {name: stable(inner) for name, inner in value.items() if name not in VOLATILE}
    return [stable(inner) for inner in value] if isinstance(value, list) else value


def seen(body):
    """What an agent sees of each choice: its texts and lists in whole, and the events without them. An event that has nothing
    else is left out: engines send the same text in more or fewer of them, as time allows."""
    choices = {}
    for event in map(stable, events(body)):
        if not isinstance(event, dict):
            choices.setdefault(None, {"events": []})["events"].append(event)
            continue
        several = event.get("choices") or []
        choice = choices.setdefault(several[0].get("index") if several else event.get("index"), {"events": []})
        is_content = take_content(event, choice)
        if not (is_content and is_empty(event)):
            choice["events"].append(event)
    return choices


def take_content(event, into):
    """Takes texts and lists out of an event, and adds them to those before. True if there were any."""
    found = False

    def take(holder, name, place):
        nonlocal found
        value = holder.get(name) if isinstance(holder, dict) else None
        if isinstance(value, (str, list)) and value:
            into[place] = into[place] + value if place in into else value
            found = True
        if found or (isinstance(holder, dict) and not value):
            # The end of an answer comes with its last text, or with an empty one behind it.
            holder.pop(name, None) if isinstance(holder, dict) else None

    for choice in event.get("choices") or []:
        at = choice.get("index", 0)
        for holder, names in ((choice, ["text", "token_ids"]), (choice.get("delta"), ["content", "reasoning", "reasoning_content"])):
            for name in names:
                take(holder, name, f"{at}.{name}")
        delta = choice.get("delta") or {}
        for call in delta.get("tool_calls") or []:
            take(call.get("function"), "arguments", f"{at}.arguments.{call.get('index')}")
        if found and is_empty(delta.get("tool_calls")):
            delta.pop("tool_calls", None)
        for name in list(choice.get("logprobs") or {}):
            take(choice["logprobs"], name, f"{at}.logprobs.{name}")
        choice["logprobs"] = choice.get("logprobs") or None
    delta = event.get("delta")
    for name in ("text", "partial_json") if isinstance(delta, dict) else ():
        take(delta, name, f"{event.get('index')}.{name}")
    if isinstance(delta, str):
        take(event, "delta", f"{event.get('type')}.{event.get('output_index')}")
    if "stop" in event:
        for name in ("content", "tokens", "completion_probabilities"):
            take(event, name, name)
    return found


# What events of content alone have besides it.
BESIDES = {"object", "model", "index", "type", "sequence_number", "output_index", "content_index", "tokens_predicted", "tokens_evaluated",
           "output_mode"}


def is_empty(value):
    """True if nothing is left of an event, or of a part of it."""
    if isinstance(value, dict):
        return all(name in BESIDES or is_empty(inner) for name, inner in value.items())
    return all(map(is_empty, value)) if isinstance(value, list) else value in (None, "", False)


def difference(one, other, place=""):
    """The place of the first difference, and both values there; None if there is none."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in {**one, **other}:
            found = difference(one.get(name, "absent"), other.get(name, "absent"), f"{place}.{name}")
            if found:
                return found
        return None
    if isinstance(one, list) and isinstance(other, list):
        for at, (left, right) in enumerate(zip(one, other)):
            found = difference(left, right, f"{place}[{at}]")
            if found:
                return found
        return None if len(one) == len(other) else f"{place}: {len(one)} elements, not {len(other)}: {(one + other)[-1]}"
    if isinstance(one, float) and isinstance(other, float) and abs(one - other) < NOISE:
        return None
    return None if one == other and type(one) is type(other) else f"{place}: {one!r}, not {other!r}"


def truth(body):
    """The ids and logprobs in what an engine sent, for each choice."""
    prompt, choices, finished = None, {}, {}
    for event in events(body):
        if not isinstance(event, dict):
            continue
        prompt = prompt or event.get("prompt_token_ids")
        if "content" in event and "stop" in event:
            of_llama(event, choices, finished)
        for choice in event.get("choices") or []:
            at = choice.get("index", 0)
            ids, logprobs = choices.setdefault(at, ([], []))
            # Of several prompts it is that of the first answer.
            prompt = choice.get("prompt_token_ids") or prompt if at == 0 else prompt
            of_choice(choice, ids, logprobs)
            finished[at] = choice.get("finish_reason") or finished.get(at)
        response = event.get("response") if isinstance(event.get("response"), dict) else event
        if response.get("input_messages") or response.get("output_messages"):
            prompt = [token for message in response["input_messages"] for token in message["tokens"]]
            choices[0] = ([token for message in response["output_messages"] for token in message["tokens"]], [])
        if response.get("object") == "response" and response.get("status") in ("completed", "incomplete"):
            finished[0] = response["status"]
    return Truth(prompt, {at: Choice(*lists) for at, lists in choices.items()}, finished)


def of_choice(choice, ids, logprobs):
    told = choice.get("logprobs") or {}
    if "token_ids" in choice and choice["token_ids"] is not None:
        ids += choice["token_ids"]
    elif told.get("content") and "id" in told["content"][0]:
        ids += [token["id"] for token in told["content"]]
    if told.get("content"):
        logprobs += [token["logprob"] for token in told["content"]]
    elif told.get("token_logprobs"):
        logprobs += told["token_logprobs"]


def of_llama(event, choices, finished):
    at = event.get("index", 0)
    ids, logprobs = choices.setdefault(at, ([], []))
    told = event.get("completion_probabilities") or []
    ids += event.get("tokens") or [token["id"] for token in told]
    logprobs += [token.get("logprob") for token in told]
    if event["stop"]:
        finished[at] = event.get("stop_type", "stop")
