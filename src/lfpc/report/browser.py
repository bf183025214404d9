"""The episodes of a report as data files that a page loads from disk on demand.

`data/index.js` names the sets of episodes, `data/columns.js` holds the fields for filters, sorting
and search, `data/SET-N.js` `CHUNK` whole episodes. Each is a script with one call and JSON values,
in ASCII, because a page from disk may load scripts and no other data.
"""

import json
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lfpc.evaluation.results import Condition
from lfpc.metrics.summary import Records
from lfpc.records import EpisodeRecord
from lfpc.report.cards import KINDS, card, facts, kinds_of
from lfpc.report.cells import PROBE_NAMES
from lfpc.report.evidence import TRAINING, Evidence, Gains, NamedLook
from lfpc.report.names import budget_text, namer
from lfpc.report.pictures import PictureFiles

CHUNK = 100
"""Episodes per data file."""
_SHORT = 160
"""Maximum characters of a question or answer in the lists."""


@dataclass(frozen=True, slots=True)
class EpisodeSet:
    """The episodes of one arm at one budget with one seed: records by probe, "own" first."""

    arm: str
    budget: str
    seed: int
    probes: Mapping[str, Records]

    @property
    def own(self) -> Records:
        """The records with the policy's own crops."""
        return self.probes["own"]

    def condition(self, probe: str) -> Condition:
        """The condition of one probe's records."""
        return Condition(self.arm, self.budget, probe, self.seed)


def episode_sets(evidence: Evidence) -> list[EpisodeSet]:
    """Every set of episodes: evaluations first, then training episodes."""
    found: defaultdict[tuple[str, str, int], dict[str, Records]] = defaultdict(dict)
    for (arm, budget, probe, seed), some in evidence.records.items():
        found[arm, budget, seed][probe] = some
    order = ["own", *PROBE_NAMES]
    by_order = {
        key: dict(
            sorted(
                some.items(),
                key=lambda item: order.index(item[0]) if item[0] in order else len(order),
            )
        )
        for key, some in found.items()
    }
    sets = [EpisodeSet(*key, probes) for key, probes in by_order.items() if "own" in probes]
    return sets + [
        EpisodeSet(arm, TRAINING, seed, {"own": some})
        for (arm, seed), some in evidence.training.items()
    ]


def pick_questions(sets: Sequence[EpisodeSet], shown: int, seed: int = 0) -> set[str]:
    """Ids of up to `shown` questions, taken in turn from each set's kinds, so that every filter
    finds episodes with pictures.
    """
    piles: defaultdict[tuple[str, str, int, str], list[str]] = defaultdict(list)
    for one in sets:
        for own, others in episodes_of(one):
            for kind in kinds_of(own, others):
                piles[one.arm, one.budget, one.seed, kind].append(own.sample.id)
    for key, pile in piles.items():
        random.Random(f"{seed}/{key}").shuffle(pile)
    picked: set[str] = set()
    while len(picked) < shown and any(piles.values()):
        for pile in piles.values():
            while pile and pile[-1] in picked:
                pile.pop()
            if pile and len(picked) < shown:
                picked.add(pile.pop())
    return picked


def episodes_of(one: EpisodeSet) -> Iterator[tuple[EpisodeRecord, Mapping[str, EpisodeRecord]]]:
    """Each record with the own crops, and the records of the same question by probe."""
    by_probe = {
        probe: {record.sample.id: record for record in some}
        for probe, some in one.probes.items()
        if probe != "own"
    }
    for own in one.own:
        name = own.sample.id
        yield own, {probe: some[name] for probe, some in by_probe.items() if name in some}


def write_browser(out: Path, evidence: Evidence, pictures: PictureFiles, picked: set[str]) -> None:
    """Write the data files of every episode into `out`/data, with the pictures of the questions
    `picked`.

    Raises:
        OSError: the disk refuses.
    """
    write_episode_sets(
        out, episode_sets(evidence), evidence.shown, pictures, picked, evidence.gains
    )


def write_episode_sets(
    out: Path,
    sets: Sequence[EpisodeSet],
    shown: Callable[[Condition], NamedLook | None],
    pictures: PictureFiles,
    picked: set[str],
    gains: Mapping[tuple[str, str, int], Gains] = MappingProxyType({}),
) -> None:
    """`write_browser` of these sets."""
    folder = out / "data"
    folder.mkdir(parents=True, exist_ok=True)
    questions: dict[str, list[str]] = {}
    evaluated = namer((one.arm, one.budget) for one in sets if one.budget != TRAINING)
    groups: list[dict[str, Any]] = []
    columns: list[Mapping[str, list[Any]]] = []
    for n, one in enumerate(sets):
        some = gains.get((one.arm, one.budget, one.seed), {})
        columns.append(_write_set(folder, n, one, shown, pictures, picked, questions, some))
        training = f"{one.arm}, {budget_text(one.budget)}"
        name = training if one.budget == TRAINING else evaluated(one.arm, one.budget)
        groups.append(
            {
                "name": name,
                "arm": one.arm,
                "budget": one.budget,
                "seed": one.seed,
                "probes": list(one.probes),
                "episodes": len(one.own),
            }
        )
    by_question = {
        "id": list(questions),
        **{
            key: [values[n] for values in questions.values()]
            for n, key in enumerate(("text", "category", "thumbnail"))
        },
    }
    index = {"chunk": CHUNK, "kinds": list(KINDS.items()), "groups": groups}
    (folder / "index.js").write_text(_call("index", index), encoding="ascii")
    (folder / "columns.js").write_text(_call("columns", by_question, columns), encoding="ascii")


def _write_set(
    folder: Path,
    n: int,
    one: EpisodeSet,
    shown: Callable[[Condition], NamedLook | None],
    pictures: PictureFiles,
    picked: set[str],
    questions: dict[str, list[str]],
    gains: Gains,
) -> Mapping[str, list[Any]]:
    """Write the data files of a set, and add its questions; returns its fields for filters, sorting
    and search.
    """
    looks = {probe: shown(one.condition(probe)) for probe in one.probes}
    numbers = {name: i for i, name in enumerate(questions)}
    columns: defaultdict[str, list[Any]] = defaultdict(list)
    cards: list[Any] = []
    for own, others in episodes_of(one):
        sample = own.sample
        here = pictures if sample.id in picked else None
        if sample.id not in numbers:
            numbers[sample.id] = len(numbers)
            questions[sample.id] = [
                sample.question[:_SHORT],
                sample.category,
                here.thumbnail(sample) if here else "",
            ]
        columns["question"].append(numbers[sample.id])
        gained = gains.get(sample.id, {})
        for key, value in _fields(own, others, gained).items():
            columns[key].append(value)
        cards.append(card({"own": own, **others}, here, looks, gained))
        if len(cards) == CHUNK or len(columns["question"]) == len(one.own):
            name = f"{n}-{(len(columns['question']) - 1) // CHUNK}"
            (folder / f"{name}.js").write_text(_call("chunk", name, cards), encoding="ascii")
            cards = []
    return columns


def _fields(
    own: EpisodeRecord, others: Mapping[str, EpisodeRecord], gained: Mapping[str, float]
) -> dict[str, Any]:
    """The fields of an episode for filters, sorting and search; "kinds" has a bit for each of
    `KINDS`.
    """
    kinds = kinds_of(own, others)
    known = facts(own)
    return {
        "kinds": sum(1 << n for n, kind in enumerate(KINDS) if kind in kinds),
        "correct": None if own.correct is None else round(float(own.correct), 3),
        "said": (own.said or "")[:_SHORT],
        "iou": known.get("iou"),
        "area": known.get("crop_area"),
        "tokens": known.get("visual_tokens"),
        "turns": len(own.turns),
        "seconds": known.get("seconds"),
        "reward": own.reward and own.reward.total,
        "gain": gained.get("noise", next(iter(gained.values()), None)),
        "step": own.step,
    }


def _call(name: str, *values: Any) -> str:
    return (
        f"lfpc.{name}({', '.join(json.dumps(value, separators=(',', ':')) for value in values)});\n"
    )
