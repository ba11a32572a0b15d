"""A tiny softmax policy, and a server for it with OpenAI's chat completions, token ids and log-probabilities."""
import json
import random
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy

LETTERS = "abcdefgh"
USER, ASSISTANT, END = len(LETTERS), len(LETTERS) + 1, len(LETTERS) + 2
ANSWER_TOKENS = 3


def tokenize(messages):
    """The chat template: the role, a token for each letter, and the end of the message; then the assistant's turn."""
    ids = []
    for message in messages:
        ids.append(ASSISTANT if message["role"] == "assistant" else USER)
        ids += [LETTERS.index(letter) for letter in message["content"]]
        ids.append(END)
    return ids + [ASSISTANT]


class Policy:
    """One row of weights for each letter that a user may ask for. The state of a token is the last letter asked for."""

    def __init__(self):
        self.weights = numpy.zeros((len(LETTERS), len(LETTERS)), numpy.float32)

    @staticmethod
    def state(prefix):
        last_user = max(at for at, token in enumerate(prefix) if token == USER)
        return prefix[last_user + 1]

    def logprobs(self, state):
        logits = self.weights[state]
        logits = logits - logits.max()
        return logits - numpy.log(numpy.exp(logits).sum())

    def sample(self, prompt, chance):
        """The ids of an answer, and the log-probability of each."""
        ids, logprobs = [], []
        for _ in range(ANSWER_TOKENS):
            known = self.logprobs(self.state(prompt + ids))
            token = chance.choices(range(len(LETTERS)), numpy.exp(known))[0]
            ids.append(token)
            # The same 32 bits in JSON.
            logprobs.append(float(known[token]))
        return ids, logprobs


def serve(policy):
    """Starts the server; returns its base URL."""
    chance, lock = random.Random(7), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            # The owner tells which engine this is, and with that which fields it returns.
            self.reply({"object": "list", "data": [{"id": "policy", "object": "model", "owned_by": "vllm"}]})

        def do_POST(self):
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            prompt = tokenize(request["messages"])
            with lock:
                ids, logprobs = policy.sample(prompt, chance)
                number = chance.getrandbits(64)
            text = "".join(LETTERS[token] for token in ids)
            entries = [{"token": letter, "logprob": logprob} for letter, logprob in zip(text, logprobs)]
            self.reply({
                "id": f"chatcmpl-{number:x}",
                "object": "chat.completion",
                "model": "policy",
                "prompt_token_ids": prompt,
                "choices": [{
                    "index": 0,
                    "finish_reason": "stop",
                    "message": {"role": "assistant", "content": text},
                    "token_ids": ids,
                    "logprobs": {"content": entries},
                }],
                "usage": {"prompt_tokens": len(prompt), "completion_tokens": len(ids)},
            })

        def reply(self, answer):
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/v1"
