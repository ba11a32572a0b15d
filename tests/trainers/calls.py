"""The calls that every builder of training samples gets: conversations of known tokens, with one fault of an agent each.

A toy template puts the token of its role before each message and END after it; each word is a token.
"""
import dataclasses

BEGIN, END, OTHER_END, THINK_END = 1, 2, 3, 4
ROLES = {"system": 11, "user": 12, "assistant": 13, "tool": 14}


@dataclasses.dataclass
class Call:
    case: str
    messages: list[dict]
    answer: dict
    prompt: list[int]
    # Where each message is in the prompt.
    spans: list[tuple[int, int]]
    sampled: list[int]
    logprobs: list[float]
    tools: str = "bash"
    role: str = "main"
    outcome: str = "complete"
    response_id: str = ""
    # Whether its tokens are to be trained.
    trained: bool = True


class Case:
    """The calls of one rollout, in the order in which they were made."""

    words: dict[str, int] = {}

    def __init__(self, name):
        self.name, self.calls = name, []

    def ids(self, text):
        return [self.words.setdefault(word, 1000 + len(self.words)) for word in text.split()]

    def call(self, messages, answer, *, end=END, retokenized=None, **marks):
        """`messages` are pairs of role and text. `retokenized` has other ids for the text of one of them."""
        prompt, spans = [BEGIN], []
        for at, (role, text) in enumerate(messages):
            start = 0 if at == 0 else len(prompt)
            words = retokenized[at] if retokenized and at in retokenized else self.ids(text)
            prompt += [ROLES[role], *words, END]
            spans.append((start, len(prompt)))
        prompt.append(ROLES["assistant"])
        thought, _, text = answer.rpartition(" </think> ")
        thinking = [*self.ids(thought), THINK_END] if thought else []
        sampled = [*thinking, *self.ids(text), *([end] if end else [])]
        number = len(self.calls) + 1
        message = {"role": "assistant", "content": text} | ({"reasoning_content": thought} if thought else {})
        self.calls.append(Call(
            case=self.name, messages=[as_message(role, text) for role, text in messages], answer=message, prompt=prompt,
            spans=spans, sampled=sampled, logprobs=[-(number * 64 + at) / 1024 for at in range(len(sampled))],
            **{"response_id": f"{self.name}-{number}"} | marks,
        ))
        return [*messages, ("assistant", text)]


def as_message(role, text):
    return {"role": role, "content": text} | ({"tool_call_id": "call"} if role == "tool" else {})


def five_turns(case):
    said = case.call([("system", "you are an agent"), ("user", "mend it")], "look around")
    for turn in "abcd":
        said = case.call([*said, ("tool", f"output {turn}")], f"step {turn} next")


def interleaved_sub_agent(case):
    said = case.call([("system", "you are an agent"), ("user", "find it")], "send a scout")
    sub = case.call([("system", "you are a scout"), ("user", "search all")], "grep everything", role="subagent")
    said = case.call([*said, ("tool", "scout is away")], "wait now")
    case.call([*sub, ("tool", "three hits")], "found three", role="subagent")
    case.call([*said, ("tool", "scout found three")], "done indeed")


def nested_sub_agents(case):
    said = case.call([("system", "you are an agent"), ("user", "build it")], "delegate now")
    sub = case.call([("system", "you are a builder"), ("user", "build the house")], "delegate the roof", role="subagent")
    case.call([("system", "you are a roofer"), ("user", "build the roof")], "roof built", role="subagent")
    case.call([*sub, ("tool", "roof is there")], "house built", role="subagent")
    case.call([*said, ("tool", "house is there")], "all built")


def compaction(case):
    said = case.call([("system", "you are an agent"), ("user", "write it")], "first part")
    said = case.call([*said, ("tool", "written one")], "second part")
    case.call([*said, ("user", "summarize all")], "two parts exist", role="compaction")
    said = case.call([("system", "you are an agent"), ("user", "summary two parts exist")], "third part")
    case.call([*said, ("tool", "written three")], "finished writing")


def rewritten_history(case):
    said = case.call([("system", "you are an agent"), ("user", "count it")], "one two three")
    said = case.call([*said, ("tool", "go on")], "four five six")
    edited = [*said[:2], ("assistant", "one to three"), *said[3:]]
    case.call([*edited, ("tool", "go further")], "seven eight nine")


def retokenized_answer(case):
    said = case.call([("system", "you are an agent"), ("user", "spell it")], "alpha beta gamma")
    others = {2: [case.ids("alpha")[0], *case.ids("be~ ~ta"), case.ids("gamma")[0]]}
    said = case.call([*said, ("tool", "spell more")], "delta epsilon", retokenized=others)
    case.call([*said, ("tool", "spell all")], "zeta eta", retokenized=others)


def other_stop_token(case):
    said = case.call([("system", "you are an agent"), ("user", "stop it")], "stop here", end=OTHER_END)
    case.call([*said, ("tool", "stopped once")], "stop there", end=OTHER_END)


def thinking_dropped(case):
    said = case.call([("system", "you are an agent"), ("user", "think first")], "hm let me see </think> answer one")
    case.call([*said, ("tool", "think again")], "hm once more </think> answer two")


def best_of_three(case):
    start = [("system", "you are an agent"), ("user", "try it")]
    _, second, _ = (case.call(start, f"{name} attempt made") for name in ["red", "green", "blue"])
    case.call([*second, ("tool", "green won")], "take green")


def same_prompt_twice(case):
    start = [("system", "you are a worker"), ("user", "do your share")]
    left, right = (case.call(start, f"{side} share taken") for side in ["left", "right"])
    case.call([*right, ("tool", "right done")], "right share reported")
    case.call([*left, ("tool", "left done")], "left share reported")


def title(case):
    case.call([("system", "name this chat"), ("user", "mend the gate")], "gate repair", role="title", tools="", trained=False)
    said = case.call([("system", "you are an agent"), ("user", "mend the gate")], "open gate")
    case.call([*said, ("tool", "gate is open")], "gate mended")


def aborted_call(case):
    said = case.call([("system", "you are an agent"), ("user", "sing it")], "la la")
    second = [*said, ("tool", "louder please")]
    case.call(second, "li", end=None, outcome="aborted", trained=False)
    said = case.call(second, "lo lo lo")
    case.call([*said, ("tool", "very good")], "bow deeply")


def retried_request(case):
    said = case.call([("system", "you are an agent"), ("user", "fetch it")], "fetch now", response_id="same")
    # The response was lost on its way; the server gives the same one again.
    case.call(said[:-1], "fetch now", response_id="same", trained=False)
    case.calls[1].logprobs = case.calls[0].logprobs
    case.call([*said, ("tool", "fetched it")], "thanks then")


def tools_changed(case):
    said = case.call([("system", "you are an agent"), ("user", "open it")], "need a key")
    case.call([*said, ("tool", "key granted")], "turn key", tools="bash key")


CASES = [
    five_turns, interleaved_sub_agent, nested_sub_agents, compaction, rewritten_history, retokenized_answer, other_stop_token,
    thinking_dropped, best_of_three, same_prompt_twice, title, aborted_call, retried_request, tools_changed,
]


def all_cases():
    made = [Case(make.__name__) for make in CASES]
    for case, make in zip(made, CASES):
        make(case)
    return {case.name: case.calls for case in made}
