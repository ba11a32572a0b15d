"""Trains a tiny policy without a GPU: agents run through `tracewire worker`, and learn from what was recorded of them.

Run:      python3 examples/train/train.py [--tracewire PATH] [--steps 50]     (needs numpy)
Expected: a line of JSON for each step. The reward rises from about 1/8 to almost 1. The importance ratio, of the policy that
          trains and the one that sampled, is exactly 1: the trainer has the very tokens and log-probabilities of the sampler.
"""
import argparse
import json
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
from pathlib import Path

import numpy
from policy import LETTERS, Policy, serve

TASKS = LETTERS[:2]
GROUP_SIZE = 4
LEARNING_RATE = 6.0


class Server:
    """The routes of Tracewire that a trainer needs."""

    def __init__(self, url):
        self.url = url

    def ask(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.read()

    def register(self, endpoint, version):
        self.ask("/api/models", [{"model": "policy", "endpoint": endpoint, "version": version}])

    def enqueue(self, tasks):
        rollouts = [{"input": {"task_id": letter, "letter": letter}, "mode": "train"} for letter in tasks]
        answer = json.loads(self.ask("/v1/agl/queues/rollouts/enqueue", {"rollouts": rollouts}))
        return [rollout["rollout_id"] for rollout in answer]

    def wait(self, rollouts):
        waiting = set(rollouts)
        while waiting:
            body = {"rollout_ids": sorted(waiting), "timeout": 5.0}
            ended = json.loads(self.ask("/v1/agl/waits/rollouts", body))
            failed = [one["rollout_id"] for one in ended if one["status"] != "succeeded"]
            assert not failed, failed
            waiting -= {one["rollout_id"] for one in ended}

    def rows(self, rollouts):
        query = urllib.parse.urlencode([("format", "trajectories")] + [("rollout", rollout) for rollout in rollouts])
        return [json.loads(line) for line in self.ask(f"/v1/tracewire/export?{query}").splitlines()]

    def update(self, endpoint, version, change):
        """Changes the weights while callers are held: no call sees half of an update."""
        self.ask("/proxy/pause", {"form": "hold", "reason": f"version {version}"})
        self.ask("/proxy/drain", {"timeout_seconds": 30})
        change()
        self.register(endpoint, version)
        self.ask("/proxy/resume", {})


def gradient(policy, rows):
    """The policy gradient over a batch of rows, and the importance ratio of each of their trained tokens."""
    # A mean over the rows of a group, by weight, is one over its rollouts.
    means = {}
    for group in {row["group_id"] for row in rows}:
        of_group = [row for row in rows if row["group_id"] == group]
        means[group] = numpy.average([row["reward"] for row in of_group], weights=[row["weight"] for row in of_group])
    total, ratios = numpy.zeros_like(policy.weights), []
    for row in rows:
        advantage = row["reward"] - means[row["group_id"]]
        trained = [at for at, mask in enumerate(row["mask"]) if mask]
        for at in trained:
            state, token = policy.state(row["token_ids"][:at]), row["token_ids"][at]
            logprobs = policy.logprobs(state)
            ratio = numpy.exp(logprobs[token] - numpy.float32(row["logprobs"][at]))
            ratios.append(ratio)
            step = -numpy.exp(logprobs)
            step[token] += 1
            total[state] += step * (ratio * advantage * row["weight"] / len(trained))
    return total / len({row["rollout_id"] for row in rows}) * len(TASKS), numpy.array(ratios)


def train(server, steps):
    policy = Policy()
    endpoint = serve(policy)
    server.register(endpoint, 0)
    for step in range(steps):
        rollouts = server.enqueue(TASKS * GROUP_SIZE)
        server.wait(rollouts)
        rows = [row for row in server.rows(rollouts) if row["sound"]]
        assert {row["rollout_id"] for row in rows} == set(rollouts), "a rollout is missing or not sound"
        versions = {version for row in rows for version, mask in zip(row["versions"], row["mask"]) if mask}
        change, ratios = gradient(policy, rows)
        reward = float(numpy.mean([row["reward"] for row in rows]))
        report = {"step": step, "reward": round(reward, 3), "versions": sorted(versions), "tokens": len(ratios),
                  "ratio_min": float(ratios.min()), "ratio_max": float(ratios.max())}
        print(json.dumps(report), flush=True)

        def apply():
            policy.weights += numpy.float32(LEARNING_RATE) * change

        server.update(endpoint, step + 1, apply)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tracewire", default="tracewire", help="the program")
    parser.add_argument("--steps", type=int, default=50)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder) / "traces.db")
        serve_command = [args.tracewire, "serve", "--json", "--proxy", "127.0.0.1:0", "--server", "127.0.0.1:0", "--store", store]
        processes = [subprocess.Popen(serve_command, stdout=subprocess.PIPE, text=True)]
        try:
            addresses = json.loads(processes[0].stdout.readline())
            url = "http://" + addresses["server"]
            agent = [sys.executable, "-S", str(Path(__file__).with_name("agent.py"))]
            worker = [args.tracewire, "worker", "--server", url, "--jobs", "4", "--poll", "0.05", "--base-url", "always"]
            processes.append(subprocess.Popen([*worker, "--", *agent], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            train(Server(url), args.steps)
        finally:
            for process in reversed(processes):
                process.terminate()
                process.wait()


if __name__ == "__main__":
    main()
