"""`lfpc study`: the paper's claims in miniature with controls, over several training seeds.

Scenes have a wide range of sizes, so that every budget shows some marks and not others. The planned
comparisons are named before anything runs; the measure over budgets is the area under accuracy
against the logarithm of visual tokens, question by question.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lfpc.evaluation.differences import adjust, difference_row, field, score
from lfpc.evaluation.places import Known
from lfpc.evaluation.probes import NO_TOOL, OWN
from lfpc.evaluation.results import score_drop, with_drop
from lfpc.evaluation.stored import update_results
from lfpc.metrics.summary import Records
from lfpc.mini.arms import GROUPS, Data, described
from lfpc.mini.config import StudyConfig
from lfpc.mini.folders import base_checkpoint, write_split
from lfpc.mini.trials import SELECTED, Asked, Trials, arm_run, select_budgets
from lfpc.records import EpisodeRecord
from lfpc.report.cells import METRIC_NAMES, Cell, Table
from lfpc.report.markup import results_markdown, table_markdown
from lfpc.report.numbers import number, p_value, points
from lfpc.report.page import write_report
from lfpc.report.reading import read_runs
from lfpc.samples import SAMPLES_FILE, Sample, read_samples, write_samples
from lfpc.storage.files import FolderLock, write_json, write_text
from lfpc.training.config import TrainConfig
from lfpc.training.state import checkpoint_folder

BASE = "base"
"""Arm of the base, untrained."""
BASE_PROBES = (OWN, "noise", NO_TOOL, "truth", "random", "whole")
"""Of the base, which also ask what a user would pick in place of training."""
TRAINED_PROBES = (OWN, "noise")
"""Of trained arms; the first seed is also asked without the tool."""
LAZINESS = "laziness"
"""The group whose runs are evaluated at each quarter of their steps."""
SOME_FULL = 0.3


@dataclass(frozen=True, slots=True)
class Planned:
    """A comparison left - right that is named before the study runs."""

    metric: str
    """area: accuracy over budgets; accuracy, noise_drop, iou, crop_area: at one budget."""
    left: str
    right: str
    budget: str = ""


def planned(config: StudyConfig) -> list[Planned]:
    """The comparisons of a group: the paper's claims, each against its control."""
    arms, budgets = GROUPS[config.group], tuple(map(str, config.budgets))
    if config.group == LAZINESS:
        last = {arm: f"{arm}-{config.steps}" for arm in arms}
        pairs = [*((arm, BASE) for arm in last.values()), (last["stage1"], last["baseline"])]
        return [Planned("noise_drop", *pair, budget) for pair in pairs for budget in budgets[1:]]
    gap = _gap(arms, budgets) if "baseline" in arms else []
    return gap + (_grounding(arms, budgets[0]) if "stage2" in arms else [])


def _gap(arms: Collection[str], budgets: Sequence[str]) -> list[Planned]:
    matched = "stage1-continued", "baseline-matched"
    paid = "information", "baseline"
    dealt = [arm for arm in arms if arm not in (*matched, "stage1") and "stage2" not in arm]
    return [
        *(
            Planned("noise_drop", *pair, budget)
            for pair in (("baseline", BASE), ("stage1", "baseline"), matched, paid)
            if pair[0] in arms
            for budget in budgets[1:]
        ),
        *(Planned("accuracy", *matched, budget) for budget in budgets),
        *(Planned("area", "stage1", arm) for arm in dealt),
    ]


def _grounding(arms: Collection[str], small: str) -> list[Planned]:
    found = [Planned("crop_area", "stage1", BASE, small)]
    for arm in arms:
        if "stage2" in arm:
            control = "stage1-continued-easy" if "easy" in arm else "stage1-continued"
            found += [
                Planned("area", arm, control),
                Planned("iou", arm, control, small),
                Planned("crop_area", arm, control, small),
            ]
    return found


def study(config: StudyConfig, *, progress: bool = True) -> Path:
    """Run the missing parts of the study. Returns the page; `study.json` has the comparisons.

    Groups in one folder share their runs; `study.json` and `study.md` are of the last.

    Raises:
        RunError: another process writes in `config.out`.
    """
    with FolderLock(config.out):
        return _study(config, progress=progress)


def _study(config: StudyConfig, *, progress: bool) -> Path:
    base = config.base or base_checkpoint()
    folders = data_folders(config)
    trials = _trials(config, base, folders)
    trials.check(config.split)
    questions = write_split(config.out / "data" / config.split, config.split, config.questions)
    _write_data(config, base, folders, progress=progress)
    known = trials.run(questions, config.parallel, label="lfpc study", progress=progress)
    results = update_results(config.out, known=known)
    rows = compared(trials, known, planned(config))
    write_json(config.out / "study.json", {"group": config.group, "comparisons": rows})
    table = comparison_table(rows)
    write_text(config.out / "study.md", table_markdown(table) + "\n" + results_markdown(results))
    return write_report(
        config.out / "report",
        read_runs([config.out]),
        title="LFPC, the study",
        first=[table],
        arms={BASE: "the checkpoint that every arm starts from", **described(GROUPS[config.group])},
    )


def data_folders(config: StudyConfig) -> dict[Data, Path]:
    """Folders of training samples."""
    easy, hard = (config.out / "data" / split / SELECTED for split in ("wide", "wide-hard"))
    beside: tuple[Data, ...] = ("lower", "higher", "some-full")
    return {"selected": easy, "hard": hard, **{name: easy.with_name(name) for name in beside}}


def _write_data(
    config: StudyConfig, base: Path, folders: Mapping[Data, Path], *, progress: bool
) -> None:
    """Write samples with the base's budgets, and with budgets one level off."""
    label = "lfpc study, selection"
    data = config.out / "data"
    select_budgets(data, config.counts, base, config, label=label, progress=progress)
    samples = read_samples(folders["selected"])
    ladder = config.ladder

    def moved(by: int) -> list[Sample]:
        return [
            replace(one, budget=ladder[min(max(ladder.index(one.budget) + by, 0), len(ladder) - 1)])
            if one.budget
            else one
            for one in samples
        ]

    full = np.random.default_rng(0).random(len(samples)) < SOME_FULL
    variants: dict[Data, list[Sample]] = {
        "lower": moved(1),
        "higher": moved(-1),
        "some-full": [
            replace(one, budget=ladder[0]) if at_full else one
            for one, at_full in zip(samples, full, strict=True)
        ],
    }
    for name, some in variants.items():
        if not (folders[name] / SAMPLES_FILE).is_file():
            write_samples(some, folders[name])


def _trials(config: StudyConfig, base: Path, folders: Mapping[Data, Path]) -> Trials:
    arms = GROUPS[config.group]
    lazy = config.group == LAZINESS
    seeds = range(config.first_seed, config.first_seed + config.seeds)
    runs: dict[tuple[str, int], TrainConfig] = {}
    for seed in seeds:
        for name, arm in arms.items():
            place = config.out / f"seed{seed}" / name
            run = arm_run(arm, place, config, base=base, folders=folders, seed=seed)
            every = max(1, config.steps // 4) if lazy else run.save_every
            runs[name, seed] = replace(run, save_every=every)
    probes = {str(budget): TRAINED_PROBES for budget in config.budgets}
    asked = [
        Asked(
            arm=BASE,
            seed=config.first_seed,
            checkpoint=base,
            probes={str(budget): BASE_PROBES for budget in config.budgets},
        )
    ]
    for (name, seed), run in runs.items():
        quarters = range(run.save_every, run.steps, run.save_every) if lazy else ()
        asked += [
            Asked(
                arm=f"{name}-{step}" if lazy else name,
                seed=seed,
                checkpoint=checkpoint_folder(run.out, step),
                probes={budget: (*some, NO_TOOL) for budget, some in probes.items()}
                if seed == config.first_seed
                else probes,
                after=name,
            )
            for step in (*quarters, run.steps)
        ]
    parents = {name: arm.parent for name, arm in arms.items() if arm.parent}
    budgets = {str(budget): budget for budget in config.budgets}
    return Trials(out=config.out, budgets=budgets, runs=runs, parents=parents, asked=asked)


def compared(trials: Trials, known: Known, plans: Sequence[Planned]) -> list[dict[str, Any]]:
    """A row for each planned comparison, p adjusted for their number.

    Args:
        trials: the study.
        known: records by folder.
        plans: what to compare; a side that was evaluated with one seed has that of the other.
    """

    def records(arm: str, budget: str, probe: str = OWN) -> list[EpisodeRecord]:
        some = [one for one in trials.asked if one.arm == arm]
        places = [(one.seed, trials.place(one, budget) / probe) for one in some]
        return [replace(r, seed=seed) for seed, place in places for r in known[place]]

    def side(arm: str, plan: Planned) -> Records:
        if plan.metric == "area":
            return area_records([records(arm, name) for name in trials.budgets], trials.budgets)
        own = records(arm, plan.budget)
        return (
            with_drop(own, records(arm, plan.budget, "noise"))
            if plan.metric == "noise_drop"
            else own
        )

    rows: list[dict[str, Any]] = []
    for plan in plans:
        left, right = side(plan.left, plan), side(plan.right, plan)
        if plan.right == BASE:  # one evaluation stands against every seed's
            right = [
                replace(r, seed=seed) for seed in sorted({r.seed or 0 for r in left}) for r in right
            ]
        measure = {"accuracy": score, "area": score, "noise_drop": score_drop}.get(plan.metric)
        if row := difference_row(left, right, measure or field(plan.metric)):
            rows.append(
                {"metric": plan.metric, "left_arm": plan.left, "right_arm": plan.right}
                | {"budget": plan.budget}
                | row
            )
    adjust(rows)
    return rows


def area_records(by_budget: Sequence[Records], budgets: Mapping[str, int]) -> list[EpisodeRecord]:
    """A record per question and seed, whose `correct` is the area under its scores against the
    logarithm of the budget, as a share of the widest area: 1 is right at every budget.

    Args:
        by_budget: records at each budget, in the order of `budgets`.
        budgets: visual tokens of each.
    Source: trapezoids.
    """
    order = np.argsort(list(budgets.values()))
    x = np.log(np.array(list(budgets.values()), float)[order])
    scores: dict[tuple[str, int | None], dict[int, float]] = {}
    first: dict[tuple[str, int | None], EpisodeRecord] = {}
    for place, records in enumerate(by_budget):
        for record in records:
            if record.failed:  # a missing answer is no wrong one
                continue
            key = record.sample.id, record.seed
            scores.setdefault(key, {})[place] = record.score
            first.setdefault(key, record)
    found: list[EpisodeRecord] = []
    for key, values in scores.items():
        if len(values) == len(by_budget):
            y = np.array([values[int(place)] for place in order])
            area = float(np.trapezoid(y, x) / (x[-1] - x[0]))
            found.append(replace(first[key], correct=area))
    return found


def comparison_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The planned comparisons."""
    return Table(
        "planned",
        "Planned comparisons",
        "In points, paired by question and seed; 95 % interval and p over questions and training "
        "seeds, p adjusted for the number of rows (Holm). area: accuracy over all budgets, "
        "as the share of the largest area under its curve against the logarithm of the budget.",
        (
            "left \u2212 right",
            "metric",
            "budget",
            "left",
            "right",
            "difference",
            "p, adjusted",
            "pairs",
        ),
        tuple(tuple(map(Cell, _texts(row))) for row in rows),
    )


def _texts(row: Mapping[str, Any]) -> Iterator[str]:
    yield f"{row['left_arm']} \u2212 {row['right_arm']}"
    yield METRIC_NAMES.get(row["metric"], str(row["metric"]))
    yield str(row["budget"] or "all")
    yield number(100 * row["left"])
    yield number(100 * row["right"])
    yield points(row)
    yield p_value(row["p_holm"])
    yield number(row["n"], 0)
