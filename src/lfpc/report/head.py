"""What a report opens with: the verdict, three figures with their references, and an episode that
shows it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from lfpc.evaluation.results import RATIOS, ArmBudget, lost
from lfpc.evaluation.verdict import crop_verdict, verdict_lines
from lfpc.records import EpisodeRecord
from lfpc.report.browser import EpisodeSet, episodes_of
from lfpc.report.cards import UNCHANGED, Card, answer_change, card, kinds_of
from lfpc.report.cells import conditions, episodes_link, lost_kind
from lfpc.report.evidence import TRAINING, Evidence
from lfpc.report.names import Namer, results_namer, split_budget
from lfpc.report.numbers import NOTHING, bracketed, number, percent
from lfpc.report.pictures import PictureFiles

NOT_PROBED = (
    "Not probed, so whether the model uses its crops is unknown. `lfpc probe RUN` asks the "
    "questions again with noise for every crop."
)


@dataclass(frozen=True, slots=True)
class Tile:
    """A figure of the head with what it compares to."""

    title: str
    value: str
    interval: str
    reference: str
    href: str


@dataclass(frozen=True, slots=True)
class Example:
    """A question under its own crop and under noise."""

    card: Card
    own: Card
    """Columns of the card."""
    noise: Card
    changed: bool
    href: str


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a report with results."""

    name: str
    """Name of the condition that it shows."""
    verdict: str
    verdicts: tuple[tuple[str, str], ...]
    """Verdicts about every condition, with its name."""
    tiles: tuple[Tile, ...]


def head_of(results: Mapping[str, Any]) -> Head | None:
    """The head of results; None without conditions."""
    cells = [(arm, budget) for arm, budget, _ in conditions(results)]
    if not cells:
        return None
    cell = headline(results)
    name = results_namer(results)
    found = _at(results, cell)
    return Head(
        name(*cell),
        crop_verdict(found) or NOT_PROBED,
        tuple(
            (name(arm, budget), line)
            for arm, budget, one in conditions(results)
            for line in verdict_lines(one)
        ),
        tuple(_tiles(results, cell, name)),
    )


def headline(results: Mapping[str, Any]) -> ArmBudget:
    """The condition that a report opens with: in a study of Stage II that at the small budget or
    the first, else the first with noise, else the first.
    """
    cells = [(arm, budget) for arm, budget, _ in conditions(results)]
    probed = [cell for cell in cells if lost(_at(results, cell), "noise")]
    ours, theirs = RATIOS
    study = [cell for cell in probed if cell[0] == ours[0] and theirs[0] in results["conditions"]]
    return next((cell for cell in [ours, *study, *probed] if cell in cells), cells[0])


def _reference(results: Mapping[str, Any], cell: ArmBudget) -> ArmBudget | None:
    """What a condition compares to: the matched baseline at full budget for Stage II, else the
    largest budget of the same arm and task, else another arm at the same budget; never an
    incomplete one.
    """
    cells = [
        (arm, budget)
        for arm, budget, found in conditions(results)
        if (arm, budget) != cell and not found["summary"]["incomplete"]
    ]
    ours, theirs = RATIOS
    matched = [one for one in cells if one[0] == theirs[0]]
    if cell[0] == ours[0] and matched:
        return theirs if theirs in matched else matched[-1]
    task = split_budget(cell[1])[0]
    same = [one for one in cells if one[0] == cell[0] and split_budget(one[1])[0] == task]
    others = [one for one in cells if one[1] == cell[1]]
    return next(iter([*same[::-1], *others]), None)


def _at(results: Mapping[str, Any], cell: ArmBudget) -> Mapping[str, Any]:
    return results["conditions"][cell[0]][cell[1]]


def _tiles(results: Mapping[str, Any], cell: ArmBudget, name: Namer) -> Iterator[Tile]:
    found = _at(results, cell)
    other = _reference(results, cell)
    theirs = _at(results, other) if other else None
    beside = name(*other) if other else ""
    summary = found["summary"]
    chance = summary.get("chance")
    yield Tile(
        "Accuracy",
        percent(summary["accuracy"]),
        bracketed(summary["accuracy_ci"]),
        _joined(
            f"chance {percent(chance)}" if chance is not None else "",
            f"{beside}: {percent(theirs['summary']['accuracy'])}" if theirs else "",
        ),
        episodes_link(*cell, "right"),
    )
    if row := lost(found, "noise"):
        repeat = lost(found, "repeat")
        drop = lost(theirs, "noise") if theirs else {}
        yield Tile(
            "Lost under noise",
            _points(row),
            bracketed([row["low"], row["high"]]),
            _joined(
                f"own crop again: {_points(repeat)}" if repeat else "",
                f"{beside}: {_points(drop)}" if drop else "",
            ),
            episodes_link(*cell, lost_kind("noise")),
        )
    tokens, first = summary["visual_tokens"], summary["global_tokens"]
    if tokens is not None:
        yield Tile(
            "Visual tokens per question",
            number(tokens, 0),
            "",
            _joined(
                f"{number(first, 0)} in the first view" if first is not None else "",
                f"{beside}: {number(theirs['summary']['visual_tokens'], 0)}" if theirs else "",
            ),
            episodes_link(*cell, sort="tokens"),
        )


def _points(row: Mapping[str, Any]) -> str:
    return f"{number(100 * row['delta'])} points"


def _joined(*parts: str) -> str:
    return "; ".join(filter(None, parts))


def example_of(
    evidence: Evidence,
    results: Mapping[str, Any],
    sets: Sequence[EpisodeSet],
    picked: set[str],
    pictures: PictureFiles,
) -> Example | None:
    """A question of `picked` that shows the head's verdict: its answer changes under noise if the
    policy loses accuracy there, else it stays. None without one.
    """
    if not any(conditions(results)):
        return None
    cell = headline(results)
    row = lost(_at(results, cell), "noise")
    used = (row.get("low") or 0) > 0 and row["p"] < 0.05
    ranked = [
        (rank, own, others, one)
        for one in sets
        if (one.arm, one.budget) == cell
        for own, others in episodes_of(one)
        if own.sample.id in picked and (rank := _shows(own, others.get("noise"), used))
    ]
    if not ranked:
        return None
    _, own, others, one = max(ranked, key=lambda found: found[0])
    records = {"own": own, "noise": others["noise"]}
    looks = {probe: evidence.shown(one.condition(probe)) for probe in records}
    found = card(records, pictures, looks)
    mine, noise = found["columns"]
    link = episodes_link(*cell, at=own.sample.id)
    return Example(found, mine, noise, answer_change(own, records["noise"]) != UNCHANGED, link)


def _shows(own: EpisodeRecord, noise: EpisodeRecord | None, used: bool) -> int:
    """How well a question shows that crops are used, or that they are not; 0: not at all."""
    if noise is None or not own.tool or own.said is None or noise.said is None:
        return 0
    kinds = kinds_of(own, {"noise": noise})
    fits = lost_kind("noise") in kinds if used else answer_change(own, noise) == UNCHANGED
    return fits and 1 + ("covers" in kinds) + ("right" in kinds)


def facts_of(evidence: Evidence, results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was run: (name, value), one line."""
    evaluated = {one: some for one, some in evidence.origins.items() if one.budget != TRAINING}
    origins = list((evaluated or evidence.origins).values())
    study = any(origin.config.get("arm") for origin in origins)

    def values(key: str) -> str:
        found = dict.fromkeys(_short(origin.config.get(key)) for origin in origins)
        return ", ".join(filter(None, found))

    configs = results.get("configs", {}).values()
    data = dict.fromkeys(_short(one.get("data", {}).get("source")) for one in configs)
    tasks = values("task")
    seeds = results.get("seeds", [])
    budgets = {
        one.budget: " ".join(dict.fromkeys((one.budget, str(origin.config["budget"]))))
        for one, origin in evaluated.items()
        if origin.config.get("arm") and origin.config.get("budget")
    }
    dates = sorted({origin.date for origin in origins if origin.date})
    some = {
        "Model": "" if study else values("model") or values("init"),
        "Data": tasks or ", ".join(filter(None, data)),
        "Questions": number(results.get("questions"), 0) if evaluated else "",
        "Training seeds": ", ".join(map(str, seeds)) if study and len(seeds) > 1 else "",
        "Budgets": f"{', '.join(budgets.values())} visual tokens" if budgets else "",
        "Protocol": values("protocol"),
        "Date": " to ".join(dict.fromkeys([*dates[:1], *dates[-1:]])),
    }
    return [(key, value) for key, value in some.items() if value and value != NOTHING]


def _short(value: object) -> str:
    """A value as text; a local path as its last two parts, a protocol file as its name."""
    if isinstance(value, Mapping):  # a protocol file
        return str(value.get("name"))
    text = "" if value is None else str(value)
    path = PurePath(text)
    return "/".join(path.parts[-2:]) if path.is_absolute() else text


def progress_of(evidence: Evidence) -> list[str]:
    """A line per unfinished training run: its step, and the time left at its last steps' speed."""
    lines: list[str] = []
    for arm, rows in evidence.curves.items():
        configs = [
            origin.config
            for one, origin in evidence.origins.items()
            if one.arm == arm and one.budget == TRAINING
        ]
        steps = int(configs[0].get("steps") or 0) if configs else 0
        done = max((int(row.get("step", 0)) for row in rows), default=0)
        if done >= steps:
            continue
        took = [float(row["seconds"]) for row in rows[-10:] if row.get("seconds") is not None]
        left = (steps - done) * sum(took) / len(took) if took else None
        lines.append(
            f"{arm}: step {done:,} of {steps:,}" + (f", {_time(left)} left" if left else "")
        )
    return lines


def _time(seconds: float) -> str:
    minutes = max(1, round(seconds / 60))
    return f"about {minutes} min" if minutes < 120 else f"about {minutes / 60:.1f} h"


def resolution_note(evidence: Evidence) -> str:
    """A warning if the runs train at different first views; empty: all alike."""
    words = {
        "original": "the original's resolution",
        "selected": "each sample's selected budget",
        "random": "the selected budgets, dealt at random",
        "fixed": "one fixed budget",
    }
    views: dict[str, list[str]] = {}
    for one, origin in evidence.origins.items():
        if one.budget == TRAINING and one.arm in evidence.curves:
            view = str(origin.config.get("first_view", ""))
            arms = views.setdefault(words.get(view, view), [])
            if one.arm not in arms:
                arms.append(one.arm)
    if len(views) < 2:
        return ""
    shown = "; ".join(f"{', '.join(arms)}: {view}" for view, arms in views.items())
    return f"First views in training differ, and with them the curves. {shown}."
