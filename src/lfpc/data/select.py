"""Resolution selection: how far each sample's global picture is reduced before Stage I (offline).

From the original downwards, level by level, the model that is going to be trained answers at once, without the tool. The first
level at which its answer is no longer the one it gave at the original becomes the sample's budget: there the picture has lost
what the answer needs, and a crop has something to add.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from lfpc.answers import check_answer, normalise
from lfpc.episode import Policy, episode, play
from lfpc.errors import ConfigError
from lfpc.images import global_view, open_picture
from lfpc.looks import no_look
from lfpc.protocols import ChatProtocol
from lfpc.runs import RunFolder, write_json
from lfpc.samples import Sample

SUMMARY_FILE = "selection.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectConfig:
    """What resolution selection tries, and what it keeps. The paper leaves all of it open."""

    ladder: tuple[int, ...] = (16384, 4096, 1024, 256)
    """Budgets in visual tokens, from the original's level downwards."""
    never: Literal["keep", "drop"] = "keep"
    """Samples whose answer never changes: keep them at the lowest level, or drop them."""
    wrong: Literal["keep", "drop"] = "keep"
    """Samples that are answered wrongly at the original: treat them like the others, or drop them."""
    model: str = ""
    """Checkpoint that answers; part of the cache's identity."""
    batch: int = 64
    """Questions asked together."""

    def __post_init__(self) -> None:
        if len(self.ladder) < 2 or any(b <= a for a, b in zip(self.ladder[1:], self.ladder, strict=False)) or self.ladder[-1] < 1:
            raise ConfigError(f"the ladder must hold at least two falling positive budgets, got {self.ladder}")


@dataclass(frozen=True, slots=True)
class Selection:
    """The samples with their budgets, and how many went where."""

    samples: list[Sample]
    levels: dict[int, int]
    """Budget -> samples whose answer first changed there."""
    never: int
    """Samples whose answer never changed."""
    wrong: int
    """Samples answered wrongly at the original."""
    dropped: int


def select(
    samples: Sequence[Sample], policy: Policy, *, protocol: ChatProtocol, config: SelectConfig, out: Path, progress: bool = True
) -> Selection:
    """Choose every sample's budget. All samples of a level are asked together; answers are kept in `out`, so a run can go on.

    Args:
        samples: what to choose budgets for.
        policy: answers greedily and without the tool.
        protocol: how it is spoken to.
        config: ladder and options.
        out: run folder of the answers and of `selection.json`.
        progress: whether to show a bar.
    Returns:
        Samples in their order, each with its budget, without the dropped ones.
    """
    run = RunFolder.open(out, config)
    first = _answers(samples, config.ladder[0], policy, protocol, run, config.batch, progress)
    budgets: dict[str, int] = {}
    for level in config.ladder[1:]:
        same = [(sample, at_first) for sample, at_first in zip(samples, first, strict=True) if sample.id not in budgets]
        answers = _answers([sample for sample, _ in same], level, policy, protocol, run, config.batch, progress)
        for (sample, at_first), answer in zip(same, answers, strict=True):
            if normalise(answer) != normalise(at_first):
                budgets[sample.id] = level
    right = {sample.id: check_answer(answer, sample).correct for sample, answer in zip(samples, first, strict=True)}
    kept = [
        replace(sample, budget=budgets.get(sample.id, config.ladder[-1]))
        for sample in samples
        if (sample.id in budgets or config.never == "keep") and (right[sample.id] or config.wrong == "keep")
    ]
    selection = Selection(
        samples=kept,
        levels=dict(sorted(Counter(budgets.values()).items(), reverse=True)),
        never=len(samples) - len(budgets),
        wrong=sum(not ok for ok in right.values()),
        dropped=len(samples) - len(kept),
    )
    write_json(out / SUMMARY_FILE, {"samples": len(samples), "levels": selection.levels, "never": selection.never,
                                    "wrong": selection.wrong, "dropped": selection.dropped})  # fmt: skip
    return selection


def _answers(
    samples: Sequence[Sample], level: int, policy: Policy, protocol: ChatProtocol, run: RunFolder, batch: int, progress: bool
) -> list[str]:
    """The answers at one level, from the cache where they are there; a reply that is no answer counts as its own text."""
    known = {key: row["said"] for key, row in run.episodes().items()}
    todo = [sample for sample in samples if f"{sample.id}@{level}" not in known]
    for start in tqdm(range(0, len(todo), batch), desc=f"select {level}", total=math.ceil(len(todo) / batch), disable=not progress):
        part = todo[start : start + batch]
        games = [
            episode(
                sample, global_view(open_picture(sample.image), level, factor=protocol.factor), look=no_look, protocol=protocol, max_turns=1
            )
            for sample in part
        ]
        for sample, played in zip(part, play(games, policy), strict=True):
            said = played.answer if played.answer is not None else played.turns[0].reply.text
            known[f"{sample.id}@{level}"] = said
            run.log_episode(f"{sample.id}@{level}", {"said": said})
    return [known[f"{sample.id}@{level}"] for sample in samples]
