"""Evaluates a served model in processes that are killed at random moments, then once to the end;
run by test_served.

python kill_and_resume.py DATA OUT BASE_URL KILLS SEED

It prints the number of records on disk after each kill.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

from lfpc.evaluation.config import EvaluationConfig
from lfpc.evaluation.run import evaluate_probe
from lfpc.policies.backends import Server
from lfpc.policies.loading import served_policy
from lfpc.samples import read_samples


def records_in(file: Path) -> int:
    return file.read_bytes().count(b"\n") if file.exists() else 0


def main(data: Path, out: Path, base_url: str, kills: int, seed: int) -> None:
    rng = random.Random(seed)
    samples = read_samples(data)

    def evaluate_in_child() -> int:
        if child := os.fork():
            return child
        config = EvaluationConfig(model="scripted", budget=16, probe="own")
        policy = served_policy(config, Server(base_url=base_url, concurrency=4))
        evaluate_probe(policy, samples, config, out, progress=False)
        os._exit(0)

    for _ in range(kills):
        before = records_in(out / "episodes.jsonl")
        goal = before + rng.randrange(4)
        child = evaluate_in_child()
        while records_in(out / "episodes.jsonl") < goal:
            if os.waitpid(child, os.WNOHANG) != (0, 0):
                sys.exit("the evaluation ended before it could be killed")
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.03))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        print(records_in(out / "episodes.jsonl"), flush=True)
    _, status = os.waitpid(evaluate_in_child(), 0)
    sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
