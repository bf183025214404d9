"""Whether the demo's conclusions hold through a real vLLM server:
`python -m bench.served_miniature out/demo`.

Serves the last checkpoint of each arm in turn, asks the demo's held-out questions at its settings
and small budget, under the own crops and under noise, and sets the figures beside those that the
demo measured in its own process. Needs a demo that is done.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from lfpc.metrics.episodes import Row

from environments import SetupError, make
from environments.vllm_server import MODEL, ServerError, VllmServer
from lfpc.errors import LfpcError
from lfpc.evaluate.config import EvaluationConfig
from lfpc.evaluate.probes import paired_rows
from lfpc.evaluate.results import AllRows, comparisons, demo_results
from lfpc.evaluate.run import evaluate_probe
from lfpc.mini.config import ARMS
from lfpc.policies.backends import Server
from lfpc.policies.loading import served_policy
from lfpc.samples import Sample, read_samples
from lfpc.storage.files import write_json
from lfpc.storage.runs import RunFolder, read_run

SEED = 0
SIZE = "small"
PROBES = ("own", "noise")


def served_rows(demo: Path, arm: str, questions: list[Sample], out: Path) -> AllRows:
    """Rows of one arm, asked through its server; what is in `out` is not asked again."""
    there = demo / f"seed{SEED}" / "evaluate" / arm / SIZE
    settings = {probe: read_run(there / probe).config_as(EvaluationConfig) for probe in PROBES}
    checkpoint = demo / f"seed{SEED}" / arm / "checkpoints" / Path(settings["own"].model).name
    rows: dict[tuple[str, str, str, int], list[Row]] = {}
    with VllmServer(checkpoint, log=out / f"{arm}.log") as server:
        for probe, config in settings.items():
            policy = served_policy(
                replace(config, model=MODEL), Server(base_url=server.base_url, concurrency=32)
            )
            rows[arm, SIZE, probe, SEED] = list(
                evaluate_probe(policy, questions, replace(config, model=MODEL), out / arm / probe)
            )
    return rows


def demo_rows(demo: Path) -> AllRows:
    """The rows that the demo wrote."""
    return {
        (arm, SIZE, probe, SEED): list(
            RunFolder(demo / f"seed{SEED}" / "evaluate" / arm / SIZE / probe).episodes().values()
        )
        for arm in ARMS
        for probe in PROBES
    }


def agreement(ours: AllRows, theirs: AllRows) -> dict[str, int]:
    """Of how many episodes every reply is the same word for word."""
    pairs = [
        pair for key in ours for pair in paired_rows(_unseeded(ours[key]), _unseeded(theirs[key]))
    ]
    same = sum(_said(a) == _said(b) for a, b in pairs)
    return {"episodes": len(pairs), "same": same}


def _unseeded(rows: Any) -> list[Row]:
    return [{**row, "seed": None} for row in rows]


def _said(row: Row) -> list[str]:
    return [turn["text"] for turn in row["turns"]]


def lines(name: str, results: dict[str, Any], compared: dict[str, Any]) -> list[str]:
    """The figures in points of accuracy, a line each."""
    found = [f"{name}:"]
    for arm, sizes in results["arms"].items():
        own = sizes[SIZE]
        drop = own["noise_drop"]
        (low, high) = own["noise_drop_ci"]
        found.append(
            f"  {arm:10} accuracy {100 * own['accuracy']:5.1f}, lost under noise "
            f"{100 * drop:5.1f} [{100 * low:.1f}, {100 * high:.1f}]"
        )
    for row in compared["differences"]:
        interval = f"[{100 * row['low']:.1f}, {100 * row['high']:.1f}]"
        found.append(
            f"  {row['name']}, {row['metric']}: {100 * row['delta']:+.1f} {interval}, p "
            f"{row['p_holm']:.4f}"
        )
    return found


def main() -> int:
    """Run; 1 if it cannot be."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.served_miniature",
        description="The demo's arms through a real vLLM server.",
    )
    parser.add_argument("demo", type=Path, help="folder of a demo that is done")
    parser.add_argument(
        "--split", default="hard-test", help="the demo's held-out questions (default: hard-test)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("out/bench/served_miniature"),
        help="where rows, logs and figures go",
    )
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    try:
        make("vllm")
        questions = read_samples(given.demo / "data" / given.split)
        ours: AllRows = {}
        for arm in ARMS:
            ours = {**ours, **served_rows(given.demo, arm, questions, given.out)}
    except (LfpcError, SetupError, ServerError) as error:
        print(error, file=sys.stderr)
        return 1
    theirs = demo_rows(given.demo)
    found = {
        name: (demo_results(rows), comparisons(rows))
        for name, rows in (("served", ours), ("in process", theirs))
    }
    for name, (results, compared) in found.items():
        print(*lines(name, results, compared), sep="\n")
    same = agreement(ours, theirs)
    print(f"{same['same']} of {same['episodes']} episodes are the same word for word")
    figures = {
        name: {"results": results, "comparisons": compared}
        for name, (results, compared) in found.items()
    }
    write_json(given.out / "results.json", {**figures, "agreement": same})
    print(f"figures in {given.out / 'results.json'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
