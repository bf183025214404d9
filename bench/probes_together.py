"""An evaluation with its own crops and with noise for them: both probes of a question together
(ours) or one probe after the other (theirs).

CPU seconds per question and probe of the miniature's base checkpoint, greedy, at both of its
budgets: medians of rounds that take turns after one that is not counted. The records are equal. At
best each picture is decoded once, each distinct view is encoded once, and each distinct token of
both probes is read or written once; see `bench.limit`.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from shutil import rmtree
from statistics import median
from time import process_time
from typing import Any

import lfpc
from bench.eval_overhead import cpu_of
from bench.limit import costs_of, picture_seconds, views_by_file
from bench.side_by_side import BenchError
from lfpc.dialogue import Context, Reply
from lfpc.episode import Episode, episode, play
from lfpc.evaluation.config import EvaluationConfig
from lfpc.evaluation.opened import first_view
from lfpc.evaluation.probes import PROBES
from lfpc.evaluation.run import ProbeRun, evaluate_probes
from lfpc.mini.folders import BASE_SETTINGS, CROPS, write_split
from lfpc.policies.loading import load_policy
from lfpc.policies.transformers import TransformersPolicy
from lfpc.records import EpisodeRecord
from lfpc.samples import Sample

QUESTIONS = 60
BUDGETS = (25, 256)
ASKED = ("own", "noise")
CHECKPOINT = Path(lfpc.__file__).parent / "mini" / "checkpoint"


def measure(out: Path, rounds: int) -> dict[str, Any]:
    """Figures by budget, in CPU seconds per question and probe."""
    samples = write_split(out / "probes_together" / "data", "test", QUESTIONS)
    config = EvaluationConfig(
        model=str(CHECKPOINT),
        budget=BUDGETS[0],
        probe="own",
        crop=CROPS,
        max_turns=BASE_SETTINGS.max_turns,
        max_new_tokens=BASE_SETTINGS.max_new_tokens,
    )
    policy = load_policy(config)
    if not isinstance(policy, TransformersPolicy):
        raise BenchError(f"{CHECKPOINT} has no batched engine")
    return {
        f"{budget} visual tokens": _at_budget(
            policy, samples, replace(config, budget=budget), out / "probes_together", rounds
        )
        for budget in BUDGETS
    }


def _at_budget(
    policy: TransformersPolicy,
    samples: Sequence[Sample],
    config: EvaluationConfig,
    out: Path,
    rounds: int,
) -> dict[str, Any]:
    runs = [ProbeRun(samples, replace(config, probe=probe), out / "run" / probe) for probe in ASKED]
    sides = {"ours": [runs], "theirs": [[run] for run in runs]}
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    said: dict[str, list[EpisodeRecord]] = {}
    for _ in range(rounds + 1):
        for side, parts in sides.items():
            rmtree(out / "run", ignore_errors=True)
            found: list[EpisodeRecord] = []

            def evaluated(
                parts: Sequence[Sequence[ProbeRun]] = parts, found: list[EpisodeRecord] = found
            ) -> None:
                for part in parts:
                    found += chain(*evaluate_probes(policy, part, progress=False))

            seconds[side].append(cpu_of(evaluated) / QUESTIONS / len(ASKED))
            said[side] = [replace(record, seconds=None) for record in found]
    texts = [[[turn.text for turn in record.turns] for record in some] for some in said.values()]
    if texts[0] != texts[1]:
        raise BenchError("probes played together and apart have other replies")
    return {
        **{side: median(some[1:]) for side, some in seconds.items()},
        "at_best": _limit(policy, samples, config) / QUESTIONS / len(ASKED),
        "unit": "CPU s/question",
        **{f"all_{side}": some[1:] for side, some in seconds.items()},
    }


class _Remembering:
    """`policy`, and what it was asked."""

    def __init__(self, policy: TransformersPolicy) -> None:
        self.policy = policy
        self.asked: dict[Context, Reply] = {}

    def reply(self, contexts: Sequence[Context]) -> list[Reply]:
        replies = self.policy.reply(contexts)
        self.asked.update(zip(contexts, replies, strict=True))
        return replies


def _limit(
    policy: TransformersPolicy, samples: Sequence[Sample], config: EvaluationConfig
) -> float:
    """CPU seconds of both probes at best."""
    remembering = _Remembering(policy)
    played: list[Episode] = []
    for probe in ASKED:
        look = PROBES[probe](samples, config.crop_rules, config.seed)
        games = [
            episode(
                sample,
                first_view(sample, config.budget, factor=config.chat.factor),
                look=look,
                protocol=config.chat,
                max_turns=config.max_turns,
            )
            for sample in samples
        ]
        played += play(games, remembering)
    asked = remembering.asked
    views = views_by_file(played)
    rows = {context: policy.encoder.context(context) for context in asked}
    costs = costs_of(policy, list(chain(*views.values())), list(rows.values()), process_time)
    read = 0
    for context, row in rows.items():
        read += len(row.ids)
        if context.turns:  # the conversation before, and its reply, have been read and written
            before = replace(context, turns=context.turns[:-1])
            read -= len(rows[before].ids) + len(asked[before].token_ids)
    written = sum(len(reply.token_ids) - 1 for reply in asked.values())
    return picture_seconds(views, process_time) + (
        costs.view * sum(map(len, views.values())) + costs.read * read + costs.token * written
    )
