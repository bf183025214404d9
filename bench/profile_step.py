"""Where a training step of the miniature spends its seconds, and how often it does each kind of
work: `python -m bench profile`.

128 rollouts of 16 questions, 25 visual tokens, crops of 16 to 25, from the shipped base checkpoint.
Seconds are a part's own, without the parts that it calls. `least` is the work that no engine can
save: one decode per original, one resize and one tower pass per distinct view, one read of each
distinct prompt, one forward per further token.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Lock, local
from typing import Any
from unittest.mock import patch

import torch
from PIL import Image

import lfpc.images
from bench.results import Result
from bench.side_by_side import BenchError
from lfpc.images import CropRules
from lfpc.mini.folders import base_checkpoint, write_split
from lfpc.policies.qwen import language, sampling, vision
from lfpc.policies.qwen.encode import Encoder
from lfpc.policies.qwen.language import prefix_key
from lfpc.policies.qwen.vision import ViewEncoder
from lfpc.training.config import TrainConfig
from lfpc.training.draw import Openable
from lfpc.training.fitting import pick_device
from lfpc.training.groups import Group, episodes_of
from lfpc.training.rollouts import Rollout, rollouts_of
from lfpc.training.trainer import Trainer
from lfpc.training.update import Learner

QUESTIONS = 16
GROUP = 8

Units = Callable[[Sequence[Any], Any], float]
"""Units of work of a call, from its arguments and its result."""


class Meter:
    """Calls, units of work and own seconds of each part."""

    def __init__(self) -> None:
        self.calls: defaultdict[str, float] = defaultdict(float)
        self.units: defaultdict[str, float] = defaultdict(float)
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._lock = Lock()
        self._stacks = local()

    def measured(self, part: str, call: Callable[..., Any], units: Units) -> Callable[..., Any]:
        """`call`, counted and timed."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            inside = self._stacks.__dict__.setdefault("inside", [])
            began = time.perf_counter()
            inside.append(0.0)
            try:
                result = call(*args, **kwargs)
            finally:
                spent = time.perf_counter() - began
                own = spent - inside.pop()
                if inside:
                    inside[-1] += spent
            name = f"{part}, update" if torch.is_grad_enabled() and part in TWICE else part
            with self._lock:
                self.calls[name] += 1
                self.units[name] += units(args, result)
                self.seconds[name] += own
            return result

        return timed


TWICE = ("tower", "read")
"""Parts of playing that the update has as well."""
PARTS: tuple[tuple[str, Any, str, Units], ...] = (
    ("decode", lfpc.images, "upright_rgb", lambda args, _: 1),
    ("resize", Image.Image, "resize", lambda args, _: 1),
    ("patches", vision, "patchify", lambda args, _: 1),
    ("tower", ViewEncoder, "_encode", lambda args, _: len(args[1])),
    ("tokenise", Encoder, "_encode", lambda args, _: 1),
    ("read", language, "_run", lambda args, found: found[1].numel()),
    ("token", sampling, "_step", lambda args, _: len(args[1])),
    ("choose", sampling, "_draw", lambda args, _: len(args[0])),
    ("note", sampling, "_note", lambda args, _: len(args[1])),
    ("backward", torch.autograd, "backward", lambda args, _: 1),
    ("optimiser", Learner, "_step", lambda args, _: 1),
    ("the rest", Trainer, "step", lambda args, _: 1),
)


@contextmanager
def metered() -> Iterator[Meter]:
    """A meter of everything in this block."""
    meter = Meter()
    with ExitStack() as patches:
        for part, owner, name, units in PARTS:
            timed = meter.measured(part, getattr(owner, name), units)
            patches.enter_context(patch.object(owner, name, _method(timed, owner)))
        yield meter


def _method(timed: Callable[..., Any], owner: Any) -> Any:
    if not isinstance(owner, type):
        return timed

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return timed(self, *args, **kwargs)

    return method


def least_work(groups: Sequence[Group], rollouts: Sequence[Rollout]) -> dict[str, float]:
    """Units of each part that a step cannot save."""
    trained = [
        rollout
        for rollout, advantage in zip(
            rollouts, (a for group in groups for a in group.advantages), strict=True
        )
        if advantage and len(rollout.logprobs)
    ]
    views = _views(rollouts)
    sampled = sum(len(turn.reply.token_ids) for e in episodes_of(groups) for turn in e.turns)
    turns = sum(len(e.turns) for e in episodes_of(groups))
    return {
        "decode": len({group.sample.image for group in groups}),
        "resize": len(views),
        "patches": len(views),
        "tower": len(views),
        # the last token of a reply is not read, and that of a prompt is
        "read": _tokens(rollouts) - sampled,
        "token": sampled - turns,
        "choose": sampled,
        "tower, update": len(_views(trained)),
        "read, update": _tokens(trained) if trained else 0,
    }


def _views(rollouts: Sequence[Rollout]) -> set[int]:
    return {id(view.image) for rollout in rollouts for view in rollout.views}


def _tokens(rollouts: Sequence[Rollout]) -> int:
    """Tokens of the rollouts, those of a shared prefix once."""
    prefixes = {prefix_key(one.encoded): one.encoded.prefix for one in rollouts}
    suffixes = sum(len(one.encoded.ids) - one.encoded.prefix for one in rollouts)
    return sum(prefixes.values()) + suffixes


def measure(out: Path, steps: int, threads: int) -> Result:
    """Calls, units, least units and seconds per step of each part, over `steps` after a first."""
    data = out / f"profile-{steps}"
    samples = write_split(data, "train", QUESTIONS * (steps + 1), relations=0.0)
    config = TrainConfig(
        data=data,
        init=base_checkpoint(),
        first_view="fixed",
        fixed_budget=25,
        crop=CropRules(min_tokens=16, max_tokens=25),
        max_turns=3,
        max_new_tokens=24,
        prompts_per_step=QUESTIONS,
        group_size=GROUP,
        temperature=0.6,
        learning_rate=3e-4,
        device="cpu",
        threads=threads,
    )
    trainer = Trainer(config, pick_device(config), 0)
    drawn = Openable(samples, trainer.first_view)
    least: defaultdict[str, float] = defaultdict(float)
    seconds = 0.0
    meter = Meter()
    for step in range(steps + 1):
        places = range(step * QUESTIONS, (step + 1) * QUESTIONS)
        with metered() as found:
            numbers, groups = trainer.step(drawn.at(places), step + 1)
        if not step:
            continue
        seconds += numbers["seconds"] or 0.0
        rollouts = rollouts_of(
            episodes_of(groups),
            trainer.policy.encoder,
            max_rollout_tokens=config.max_rollout_tokens,
        )
        for part, units in least_work(groups, rollouts).items():
            least[part] += units / steps
        for total, new in (
            (meter.calls, found.calls),
            (meter.units, found.units),
            (meter.seconds, found.seconds),
        ):
            for part, value in new.items():
                total[part] += value
    if not seconds:
        raise BenchError("--steps must be at least 1")
    return {
        "seconds_per_step": seconds / steps,
        "threads": threads,
        "parts": {
            part: {
                "calls": meter.calls[part] / steps,
                "units": meter.units[part] / steps,
                "least": least.get(part),
                "seconds": meter.seconds[part] / steps,
                "share": meter.seconds[part] / sum(meter.seconds.values()),
            }
            for part in sorted(meter.seconds, key=meter.seconds.__getitem__, reverse=True)
        },
    }


def lines(found: Result) -> str:
    """The figures as a table."""
    rows = [f"{'a step':16}{'calls':>8}{'units':>9}{'least':>9}{'ms':>9}{'share':>8}"]
    for part, figures in found["parts"].items():
        least = "" if figures["least"] is None else f"{figures['least']:.0f}"
        rows.append(
            f"{part:16}{figures['calls']:8.0f}{figures['units']:9.0f}{least:>9}"
            f"{1000 * figures['seconds']:9.1f}{100 * figures['share']:7.1f}%"
        )
    return "\n".join(rows)
