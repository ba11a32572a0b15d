"""The requests of the test: for each API of an engine, what combinations of fields are sent, whole and streamed."""
import collections

Case = collections.namedtuple("Case", "api name path body aborts")
TOOL = {"type": "function", "function": {"name": "weather", "description": "tells the weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}
COUNT, SIGNS, OSLO, LODZ = "Count to nine.", "Say it with signs.", "How is Oslo?", "How is Łódź? 🚀"
GREEDY, RANDOM = {"temperature": 0}, {"temperature": 1.0, "seed": 7}


def said(text):
    return [{"role": "user", "content": text}]


def chat(engine):
    base = {"messages": said(COUNT), "max_tokens": 48, **GREEDY}
    cases = {
        "plain": {}, "signs": {"messages": said(SIGNS)}, "random": RANDOM, "n": {"n": 2, **RANDOM}, "one token": {"max_tokens": 1},
        "stop": {"stop": ["five", "six"]}, "stop id": {"ignore_eos": True, "max_tokens": 20},
        "tools": {"messages": said(OSLO), "tools": [TOOL]}, "tools, signs": {"messages": said(LODZ), "tools": [TOOL]},
        "tools, n": {"messages": said(LODZ), "tools": [TOOL], "n": 2, **RANDOM},
        "logprobs": {"logprobs": True}, "top_logprobs": {"logprobs": True, "top_logprobs": 2},
        "top_logprobs alone": {"top_logprobs": 2}, "usage": {"stream_options": {"include_usage": True}},
        "refused": {"max_tokens": -5}, "unknown field": {"no_such_field": 1},
    }
    if engine == "vllm":
        cases |= {"echo": {"echo": True}, "ids": {"return_token_ids": True}, "prompt_logprobs": {"prompt_logprobs": 1}}
    else:
        cases |= {"timings": {"timings_per_token": True}}
    return "/v1/chat/completions", base, cases


def completions(engine):
    base = {"prompt": "Count to", "max_tokens": 24, **GREEDY}
    cases = {
        "plain": {}, "random": RANDOM, "n": {"n": 2, **RANDOM}, "one token": {"max_tokens": 1}, "stop": {"stop": ["o"]},
        "logprobs": {"logprobs": 2}, "logprobs 0": {"logprobs": 0}, "refused": {"max_tokens": -5},
        "ids as prompt": {"prompt": [40, 41, 42, 43]}, "several prompts": {"prompt": ["Count to", "Say it"]},
    }
    if engine == "vllm":
        cases |= {"echo": {"echo": True}, "echo, n": {"echo": True, "n": 2, **RANDOM}, "echo, logprobs": {"echo": True, "logprobs": 1},
                  "several prompts, n": {"prompt": ["Count to", "Say it"], "n": 2, **RANDOM},
                  "ids": {"return_token_ids": True}, "echo, several prompts": {"prompt": ["Count to", "Say it"], "echo": True}}
    return "/v1/completions", base, cases


def native_completion(_):
    base = {"prompt": "Count to", "n_predict": 24, **GREEDY}
    cases = {
        "plain": {}, "random": RANDOM, "stop": {"stop": ["o"]}, "signs": {"prompt": "Say it with signs.<|im_end|>\n<|im_start|>assistant\n"},
        "n_probs": {"n_probs": 2}, "tokens": {"return_tokens": True}, "several prompts": {"prompt": ["Count to", "Say it"]},
        "ids as prompt": {"prompt": [40, 41, 42, 43]}, "n_cmpl": {"n_cmpl": 2, **RANDOM},
    }
    return "/completion", base, cases


def messages(_):
    base = {"messages": said(COUNT), "max_tokens": 48, **GREEDY}
    tool = {"name": "weather", "description": "tells the weather", "input_schema": TOOL["function"]["parameters"]}
    cases = {"plain": {}, "signs": {"messages": said(SIGNS)}, "stop": {"stop_sequences": ["five"]}, "one token": {"max_tokens": 1},
             "tools": {"messages": said(OSLO), "tools": [tool]}, "system": {"system": "Be kind."}}
    return "/v1/messages", base, cases


def responses(_):
    base = {"input": COUNT, "max_output_tokens": 48, **GREEDY}
    tool = {"type": "function", **TOOL["function"]}
    cases = {"plain": {}, "signs": {"input": SIGNS}, "one token": {"max_output_tokens": 1}, "tools": {"input": OSLO, "tools": [tool]},
             "items": {"input": said(COUNT)}, "refused": {"max_output_tokens": -5}}
    return "/v1/responses", base, cases


def generate(_):
    base = {"token_ids": [40, 41, 42, 43]}
    def sampling(**more):
        return {"sampling_params": {"max_tokens": 24, "temperature": 0, **more}}
    cases = {"plain": sampling(), "logprobs": sampling(logprobs=1), "n": sampling(n=2, temperature=1.0, seed=7)}
    return "/inference/v1/generate", base, cases


APIS = {
    "vllm": {"chat": chat, "completions": completions, "messages": messages, "responses": responses, "generate": generate},
    "llama.cpp": {"chat": chat, "completions": completions, "/completion": native_completion, "messages": messages, "responses": responses},
}


# A prompt that is half in the cache gives other logprobs than one that is not.
UNCACHED = {"llama.cpp": {"cache_prompt": False}, "vllm": {}}


def cases(engine):
    for api, make in APIS[engine].items():
        path, base, combinations = make(engine)
        base = base | UNCACHED[engine]
        for streams in (False, True):
            form = "stream" if streams else "whole"
            for name, more in combinations.items():
                body = {"model": "tiny", **base, **more, "stream": streams}
                if not streams:
                    body.pop("stream_options", None)
                yield Case(api, f"{form}, {name}", path, body, False)
        long = {"model": "tiny", **base, "stream": True, "ignore_eos": True}
        limit = next((name for name in ("max_tokens", "max_output_tokens", "n_predict") if name in base), None)
        if limit:
            yield Case(api, "abort", path, long | {limit: 400}, True)
