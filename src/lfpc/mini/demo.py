"""The demo: data, selection, five runs of reinforcement learning, evaluation, probes, one page.

Every part stores its result and is not repeated, so an interrupted demo can resume.
"""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tqdm import tqdm

from lfpc.episode import Game, Policy, episode
from lfpc.evaluation.opened import first_view
from lfpc.evaluation.places import Known
from lfpc.evaluation.probes import NO_TOOL, OWN, PROBES
from lfpc.evaluation.stored import update_results
from lfpc.evaluation.timing import read_timings, time_by_turns, write_timings
from lfpc.looks import original_look
from lfpc.metrics.summary import Records
from lfpc.mini.arms import DEMO, Data
from lfpc.mini.config import DemoConfig
from lfpc.mini.folders import BASE_SETTINGS, CROPS, base_checkpoint, write_split
from lfpc.mini.trials import (
    PROTOCOL,
    SELECTED,
    Asked,
    Probes,
    Trials,
    arm_run,
    select_budgets,
)
from lfpc.playing.driver import Start
from lfpc.policies.loading import load_policy
from lfpc.report.markup import results_markdown
from lfpc.report.page import write_report
from lfpc.report.reading import read_runs
from lfpc.report.strip import episode_strip
from lfpc.samples import Sample
from lfpc.storage.files import FolderLock, write_text
from lfpc.training.state import checkpoint_folder

BUDGETS = {"small": 25, "middle": 64, "full": 256}
"""Visual tokens of the first view: few marks can be read, about half, nearly all."""
PROBES_BY_BUDGET: Probes = {
    "small": (OWN, "noise", "truth", NO_TOOL),
    "middle": (OWN, "noise"),
    "full": (OWN, "noise"),
}
TABLE_FILE = "table.md"


def demo(config: DemoConfig, *, progress: bool = True) -> Path:
    """Run the missing parts of the demo. Returns the page; `results.json` is two folders up.

    Raises:
        RunError: another process writes in `config.out`.
    """
    with FolderLock(config.out):
        return _demo(config, progress=progress)


def _demo(config: DemoConfig, *, progress: bool) -> Path:
    base, data = config.base or base_checkpoint(), config.out / "data"
    trials = _trials(config, base)
    trials.check(config.split)
    questions = write_split(data / config.split, config.split, config.questions)
    _print("data and resolution selection", progress)
    select_budgets(data, config.counts, base, config, label="lfpc demo", progress=progress)
    _print(f"train and evaluate {', '.join(DEMO)}", progress)
    known = trials.run(questions, config.parallel, label="lfpc demo", progress=progress)
    _print("seconds per question, one at a time", progress)
    _time(trials, questions)
    stage2 = next(one for one in trials.asked if one.arm == "stage2")
    return _write(config, known, known[trials.place(stage2, "small") / OWN])


def _trials(config: DemoConfig, base: Path) -> Trials:
    data = config.out / "data"
    folders: dict[Data, Path] = {
        "selected": data / "wide" / SELECTED,
        "hard": data / "wide-hard" / SELECTED,
    }
    runs = {
        (name, config.seed): arm_run(
            arm,
            config.out / f"seed{config.seed}" / name,
            config,
            base=base,
            folders=folders,
            seed=config.seed,
        )
        for name, arm in DEMO.items()
    }
    return Trials(
        out=config.out,
        budgets=BUDGETS,
        runs=runs,
        parents={name: arm.parent for name, arm in DEMO.items() if arm.parent},
        asked=[
            Asked(
                arm=name,
                seed=seed,
                checkpoint=checkpoint_folder(run.out, run.steps),
                probes=PROBES_BY_BUDGET,
                after=name,
            )
            for (name, seed), run in runs.items()
        ],
    )


def _time(trials: Trials, questions: Sequence[Sample]) -> None:
    """Measure seconds per question, one at a time and the models by turns. All are measured again
    if one is missing.
    """
    places = {
        (one.arm, budget): trials.place(one, budget)
        for one in trials.asked
        for budget in trials.budgets
    }
    if all(map(read_timings, places.values())):
        return
    look = PROBES[OWN](questions, CROPS, 0)

    def start(budget: int | None, sample: Sample) -> Game:
        view = first_view(sample, budget, factor=PROTOCOL.factor)
        return episode(
            sample, view, look=look, protocol=PROTOCOL, max_turns=BASE_SETTINGS.max_turns
        )

    asked = dict[tuple[str, str], tuple[Policy, Start]]()
    for one in trials.asked:
        policy = load_policy(trials.evaluation(one, "small", OWN))
        for budget, tokens in trials.budgets.items():
            asked[one.arm, budget] = policy, partial(start, tokens)
    for cell, timing in time_by_turns(questions, asked, questions=15).items():
        write_timings(places[cell], [timing])


def _write(config: DemoConfig, known: Known, pictured: Records) -> Path:
    results = update_results(config.out, known=known)
    write_text(config.out / TABLE_FILE, results_markdown(results))
    _picture(pictured, config.out / "episode.png")
    sizes = ", ".join(f"{name} {tokens}" for name, tokens in BUDGETS.items())
    return write_report(
        config.out / "report",
        read_runs([config.out]),
        title="LFPC in miniature",
        notes=[
            "An arm is a trained policy; every arm starts from the same base checkpoint. "
            "baseline-matched and stage1-continued have Stage II's steps and samples, without the "
            f"information gap and without its reward. A budget is the visual tokens of the first "
            f"view: {sizes}. Crops always come from the original."
        ],
    )


def _picture(records: Records, file: Path) -> None:
    """Draw the first question about a mark with a right answer after a crop."""
    for record in records:
        if record.correct and record.crops and record.sample.category == "attribute":
            episode_strip(record, original_look(CROPS)).save(file)
            return


def _print(what: str, progress: bool) -> None:
    if progress:
        tqdm.write(f"[lfpc demo] {what}", file=sys.stderr)
