"""Play every sample once and keep a row an episode. Runs continue where they stopped; one bad
question loses only itself.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from lfpc.caches import byte_cache
from lfpc.episode import AsyncPolicy, Episode, Game, Policy, episode
from lfpc.errors import RunError
from lfpc.evaluate.config import EvaluationConfig
from lfpc.evaluate.probes import PROBES
from lfpc.evaluate.replay import begin_replay, replayed, replies_of, with_counts
from lfpc.images import View, global_view, open_picture, view_bytes
from lfpc.looks import Look
from lfpc.metrics.episodes import Row, episode_facts
from lfpc.playing.driver import Failure, Played, one_game, play_samples
from lfpc.playing.progress import progress_bar
from lfpc.protocols import ChatProtocol
from lfpc.rewards import RewardConfig, RewardFunction, episode_reward
from lfpc.samples import Sample
from lfpc.storage.runs import RunFolder, episode_row

SHOWN_REWARD = RewardConfig(grounding=1.0)
"""Whose terms an evaluation row keeps for a reader, whatever the model was trained with: Stage
II's, which has all of them."""
UNLIMITED = 16_384
"""Budget of the first view where neither the caller nor the sample names one: Qwen2.5-VL's own
upper limit, in visual tokens."""
VIEW_BYTES = 2**28
"""Memory for first views, which several questions about one picture share."""


def first_view(sample: Sample, budget: int | None, *, factor: int = 28) -> View:
    """The sample's picture at `budget` visual tokens; None: at the budget that the sample itself
    names.

    Raises:
        PictureError: the file is not a usable picture.
    """
    return _view(sample.image, budget or sample.budget or UNLIMITED, factor)


@byte_cache(VIEW_BYTES, view_bytes)
def _view(path: Path, budget: int, factor: int) -> View:
    return global_view(open_picture(path), budget, factor=factor)


def evaluate(
    samples: Sequence[Sample],
    policy: Policy | AsyncPolicy,
    *,
    protocol: ChatProtocol,
    budget: int | None,
    look: Look,
    run: RunFolder,
    max_turns: int = 6,
    reward: RewardFunction | None = None,
    extra: Mapping[str, Any] | None = None,
    batch: int = 64,
    max_failures: int = 20,
    before: Mapping[str, Sequence[Row]] | None = None,
    progress: bool = True,
    label: str = "evaluate",
) -> list[dict[str, Any]]:
    """One row per sample, in the order of `samples`: `episode_row`, `episode_facts`, "seconds",
    "budget" and `extra`.

    Rows are written to `run` under the sample's id as they are made. Samples with a row there are
    not played again, those with an error row are. A sample whose picture, policy call or look fails
    gets an error row: "error", wrong, in the denominator.

    Args:
        samples: what to ask.
        policy: who replies. An AsyncPolicy plays `policy.concurrency` episodes at a time, each at
            its own pace, another one batches in step; "seconds" is then the episode's own time (and
            rows name the "concurrency"), or its share of the batch's.
        protocol: how it is spoken to.
        budget: visual tokens of the first view; None: each sample's own.
        look: what the crop tool shows; a probe is another look.
        run: where rows go; one folder holds one arm, budget and probe.
        max_turns: replies an episode may have.
        reward: whose terms each row keeps; None: none.
        extra: further keys of every row: arm, probe, seed, ...
        batch: episodes that a policy of this process plays together.
        max_failures: so many samples may fail in the policy or the look before the run is given up.
        before: recorded turns by sample id; their replies are given again before the policy is
            asked.
        progress: whether to show a bar on a terminal, a line now and then elsewhere.
        label: what the bar is called.
    Raises:
        RunError: more than `max_failures` samples failed, or all there are (it names the last
            failure), or the disk refuses.
    """
    done = {row.pop("key"): row for row in run.episodes().values() if "error" not in row}
    todo = [sample for sample in samples if sample.id not in done]
    before = before or {}
    facts = {
        **({"concurrency": policy.concurrency} if isinstance(policy, AsyncPolicy) else {}),
        **(extra or {}),
    }
    failed: list[str] = []
    played = 0

    def start(sample: Sample) -> Game:
        view = first_view(sample, budget, factor=protocol.factor)
        game = episode(sample, view, look=look, protocol=protocol, max_turns=max_turns)
        return replayed(game, replies_of(before.get(sample.id, ())))

    def record(some: Sequence[Played[Episode]]) -> None:
        nonlocal played
        for sample, result, seconds in some:
            row = _result_row(sample, result, protocol.factor, reward)
            if turns := before.get(sample.id):
                row = with_counts(row, turns)
            done[sample.id] = row | {"seconds": seconds, "budget": budget or sample.budget} | facts
            run.log_episode(sample.id, done[sample.id])
            if isinstance(result, Failure) and result.counts:
                failed.append(result.why)
        played += len(some)
        if len(failed) > max_failures or len(failed) == len(samples) > 0:
            raise RunError(
                f"{run.path}: {len(failed)} of {played} questions failed, the last with: "
                f"{failed[-1]}"
            )
        advance(len(some))

    with progress_bar(
        len(samples), len(samples) - len(todo), label, unit="question", shown=progress
    ) as advance:
        play_samples(todo, one_game(start), policy, record, batch=batch)
    return [done[sample.id] for sample in samples]


def _result_row(
    sample: Sample, result: Episode | Failure, factor: int, reward: RewardFunction | None
) -> dict[str, Any]:
    if isinstance(result, Episode):
        return episode_row(
            result, reward and reward(result), **episode_facts(result, factor=factor)
        )
    return {
        "sample": sample.id,
        "question": sample.question,
        "options": list(sample.options),
        "answer": sample.answer,
        "image": str(sample.image),
        "category": sample.category,
        "meta": dict(sample.meta),
        "boxes": [[list(box.corners) for box in nested] for nested in sample.boxes],
        "turns": [],
        "correct": False,
        "error": result.why,
    }


def evaluate_probe(
    policy: Policy | AsyncPolicy,
    samples: Sequence[Sample],
    config: EvaluationConfig,
    out: Path,
    *,
    own: Sequence[Row] = (),
    extra: Mapping[str, Any] | None = None,
    device: str = "",
    progress: bool = True,
) -> list[dict[str, Any]]:
    """One row per sample under one probe, in the run folder `out`; rows that are there are not
    asked again.

    A replay is of `own`, the rows under the policy's own crops: questions that failed there are
    left out.
    """
    run = RunFolder.open(out, config, device=device)
    facts = {**(extra or {}), "probe": config.probe, "seed": config.seed}
    before = begin_replay(run, own, facts) if config.replay else {}
    recorded = {row["sample"] for row in own if "error" not in row}
    with getattr(policy, "cached_views", nullcontext)():
        return evaluate(
            [sample for sample in samples if sample.id in recorded] if config.replay else samples,
            policy,
            protocol=config.chat,
            budget=config.budget,
            look=PROBES[config.probe](samples, config.crop_rules, config.seed),
            run=run,
            max_turns=config.max_turns,
            before=before,
            reward=lambda played: episode_reward(played, SHOWN_REWARD),
            extra=facts,
            progress=progress,
            label=" ".join([*map(str, (extra or {}).values()), config.probe]),
        )
