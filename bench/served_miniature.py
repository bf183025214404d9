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

from environments import SetupError, make
from environments.server import ServerError
from environments.vllm_server import MODEL, VllmServer
from lfpc.errors import LfpcError
from lfpc.evaluation.config import EvaluationConfig
from lfpc.evaluation.probes import paired
from lfpc.evaluation.results import AllRecords, Condition, all_results, comparisons, lost
from lfpc.evaluation.run import evaluate_probe
from lfpc.metrics.summary import Records
from lfpc.mini.arms import DEMO
from lfpc.policies.backends import Server
from lfpc.policies.loading import served_policy
from lfpc.records import EpisodeRecord, read_records
from lfpc.samples import Sample, read_samples
from lfpc.storage.files import write_json
from lfpc.storage.runs import read_run

SEED = 0
BUDGET = "small"
PROBES = ("own", "noise")


def served_records(
    demo: Path, arm: str, questions: list[Sample], out: Path
) -> dict[Condition, Records]:
    """Records of one arm, asked through its server; what is in `out` is not asked again."""
    there = demo / f"seed{SEED}" / "evaluate" / arm / BUDGET
    settings = {probe: read_run(there / probe).config_as(EvaluationConfig) for probe in PROBES}
    checkpoint = demo / f"seed{SEED}" / arm / "checkpoints" / Path(settings["own"].model).name
    records: dict[Condition, Records] = {}
    with VllmServer(checkpoint, log=out / f"{arm}.log") as server:
        for probe, recorded in settings.items():
            config = replace(recorded, model=MODEL)
            policy = served_policy(config, Server(base_url=server.base_url, concurrency=32))
            records[Condition(arm, BUDGET, probe, SEED)] = evaluate_probe(
                policy, questions, config, out / arm / probe
            )
    return records


def demo_records(demo: Path) -> AllRecords:
    """The records that the demo wrote."""
    return {
        Condition(arm, BUDGET, probe, SEED): list(
            read_records(
                read_run(demo / f"seed{SEED}" / "evaluate" / arm / BUDGET / probe)
            ).values()
        )
        for arm in DEMO
        for probe in PROBES
    }


def agreement(ours: AllRecords, theirs: AllRecords) -> dict[str, int]:
    """Of how many episodes every reply is the same word for word."""
    pairs = [pair for condition in ours for pair in paired(ours[condition], theirs[condition])]
    same = sum(_said(a) == _said(b) for a, b in pairs)
    return {"episodes": len(pairs), "same": same}


def _said(record: EpisodeRecord) -> list[str]:
    return [turn.text for turn in record.turns]


def lines(name: str, results: dict[str, Any], compared: list[dict[str, Any]]) -> list[str]:
    """The figures in points of accuracy, a line each."""
    found = [f"{name}:"]
    for arm, budgets in results["conditions"].items():
        accuracy = budgets[BUDGET]["summary"]["accuracy"]
        row = lost(budgets[BUDGET], "noise")
        interval = f"[{100 * row['low']:.1f}, {100 * row['high']:.1f}]"
        found.append(
            f"  {arm:10} accuracy {100 * accuracy:5.1f}, lost under noise "
            f"{100 * row['delta']:5.1f} {interval}"
        )
    for row in compared:
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
        help="where records, logs and figures go",
    )
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    try:
        make("vllm")
        questions = read_samples(given.demo / "data" / given.split)
        ours: dict[Condition, Records] = {}
        for arm in DEMO:
            ours |= served_records(given.demo, arm, questions, given.out)
    except (LfpcError, SetupError, ServerError) as error:
        print(error, file=sys.stderr)
        return 1
    theirs = demo_records(given.demo)
    found = {
        name: (all_results(records), comparisons(records))
        for name, records in (("served", ours), ("in process", theirs))
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
