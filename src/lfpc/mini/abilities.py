"""Measurements of a miniature checkpoint: reading, localisation, tool calls, crop dependence."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory

from lfpc.boxes import target_iou
from lfpc.episode import Episode, Policy, episode, play
from lfpc.evaluation.config import EvaluationConfig
from lfpc.evaluation.probes import accuracy_drop
from lfpc.evaluation.run import ProbeRun, evaluate_probes
from lfpc.images import View, crop_view, global_view, open_picture
from lfpc.looks import no_look, original_look
from lfpc.metrics.summary import summarise
from lfpc.mini.folders import BASE_SETTINGS, CROPS, write_split
from lfpc.mini.trials import PROTOCOL
from lfpc.policies.loading import load_policy
from lfpc.policies.qwen.checkpoint import load_checkpoint
from lfpc.policies.sampling import Sampling
from lfpc.policies.transformers import TransformersPolicy
from lfpc.samples import Sample

BUDGETS = (256, 64, 36, 25)
"""First-view budgets, from readable to hardly readable."""


def measure(checkpoint: Path, questions: int, *, split: str = "wide-validation") -> str:
    """A table as text: direct answers by budget, reading of tight crops, and the tool at the small
    and the full budget.
    """
    config = EvaluationConfig(
        model=str(checkpoint),
        budget=25,
        probe="own",
        crop=CROPS,
        max_turns=BASE_SETTINGS.max_turns,
        max_new_tokens=BASE_SETTINGS.max_new_tokens,
    )
    lines = [f"{checkpoint}, {questions} scenes of the {split} split"]
    with TemporaryDirectory() as folder:
        marks = write_split(Path(folder) / "marks", split, questions, relations=0.0)
        relations = write_split(Path(folder) / "relations", split, questions, relations=1.0)
        direct = load_policy(config, tools=False)
        for budget in BUDGETS:
            right = [
                _share_right(direct, some, partial(_at_budget, budget))
                for some in (marks, relations)
            ]
            lines.append(
                f"answers at once, {budget:>3} visual tokens: marks {right[0]:.2f}, "
                f"relations {right[1]:.2f}"
            )
        lines.append(
            f"reads a mark in a crop of its object:    "
            f"{_share_right(direct, marks, _object_view):.2f}"
        )
        for budget in BUDGETS:
            lines.append(f"samples, {budget:>3} visual tokens: {_sampled(config, marks, budget)}")
        policy = load_policy(config)
        for budget in (25, 256):
            probes = ("own", "noise", "repeat", "truth", "none")
            runs = [
                ProbeRun(
                    marks,
                    replace(config, budget=budget, probe=probe),
                    Path(folder) / f"{budget}" / probe,
                )
                for probe in probes
            ]
            found = evaluate_probes(policy, runs, progress=False)
            records = dict(zip(probes, found, strict=True))
            own = summarise(records["own"])
            drop = accuracy_drop(records["own"], records["noise"])
            lines.append(
                f"with the tool, {budget:>3} visual tokens: accuracy "
                f"{own['accuracy']:.2f}, tool rate {own['tool_rate']:.2f}, "
                f"IoU {own['iou'] or 0:.2f}, median crop area {own['crop_area'] or 0:.3f}, "
                f"coverage {own['coverage'] or 0:.2f}, "
                f"lost under noise {drop.delta:+.3f} [{drop.low:+.3f}, {drop.high:+.3f}], "
                + ", ".join(
                    f"{probe} {summarise(records[probe])['accuracy']:.2f}" for probe in probes[1:]
                )
            )
    return "\n".join(lines)


def _sampled(config: EvaluationConfig, samples: Sequence[Sample], budget: int) -> str:
    """Statistics of sampled episodes, as at the start of reinforcement learning: temperature 1,
    four per question.
    """
    policy = TransformersPolicy(
        *load_checkpoint(Path(config.model)),
        PROTOCOL,
        sampling=Sampling(temperature=1.0, max_new_tokens=BASE_SETTINGS.max_new_tokens),
    )
    look = original_look(CROPS)
    games = [
        episode(
            sample,
            _at_budget(budget, sample),
            look=look,
            protocol=PROTOCOL,
            max_turns=BASE_SETTINGS.max_turns,
            draw=draw,
        )
        for sample in samples
        for draw in range(4)
    ]
    played = play(games, policy)
    found = (target_iou(done.boxes[-1:], done.sample.boxes) for done in played)
    hits = [value for value in found if value is not None]
    return (
        f"right {fmean(done.verdict.correct for done in played):.2f}, "
        f"a crop {fmean(done.shown_crops > 0 for done in played):.2f}, malformed "
        f"{fmean(bool(done.malformed) for done in played):.2f}, "
        f"IoU {fmean(hits) if hits else 0:.2f}"
    )


def _at_budget(budget: int, sample: Sample) -> View:
    return global_view(open_picture(sample.image), budget)


def _object_view(sample: Sample) -> View:
    return crop_view(open_picture(sample.image), sample.boxes[0][-1].grown(0.15), CROPS)


def _share_right(
    policy: Policy, samples: Sequence[Sample], view: Callable[[Sample], View]
) -> float:
    games = [
        episode(sample, view(sample), look=no_look, protocol=PROTOCOL, max_turns=1)
        for sample in samples
    ]
    played: list[Episode] = play(games, policy)
    return fmean(done.verdict.correct for done in played)
