"""Steps of the local engine, one whenever the parent asks:
`python -m bench.lfpc_side SETUP.json`.
"""

import sys
from pathlib import Path
from statistics import fmean

import torch

from bench.limit import step_limit
from bench.side_by_side import Channel
from bench.task import CROP, MAX_NEW_TOKENS, TEMPERATURE, TURNS, Setup, protocol, score
from lfpc.episode import Episode
from lfpc.images import visual_tokens
from lfpc.rewards import RewardTerms
from lfpc.samples import read_samples
from lfpc.training.config import TrainConfig
from lfpc.training.fitting import pick_device
from lfpc.training.groups import episodes_of
from lfpc.training.rollouts import rollouts_of
from lfpc.training.trainer import Trainer


def main() -> None:
    """Serve steps."""
    setup = Setup.load(sys.argv[1])
    channel = Channel()
    torch.set_num_interop_threads(1)
    samples = read_samples(Path(setup.data))
    config = _config(setup)
    trainer = Trainer(config, pick_device(config), 0, _reward)
    channel.tell()
    for step in range(1, setup.steps + 1):
        chosen = samples[(step - 1) * setup.prompts : step * setup.prompts]
        count = trainer.policy.views.count
        before = trainer.policy.views.count.tokens
        clock = channel.wait()
        numbers, groups = trainer.step(chosen, step)
        spent = clock.read()
        seen = count.tokens - before
        rows = rollouts_of(
            episodes_of(groups),
            trainer.policy.encoder,
            max_rollout_tokens=config.max_rollout_tokens,
        )
        channel.tell(
            **spent,
            turns=numbers["turns"] or 0.0,
            tool_rate=numbers["tool_rate"] or 0.0,
            trained=(numbers["trained_rollouts"] or 0.0) / setup.rollouts,
            policy_tokens=fmean(len(row.logprobs) for row in rows),
            context_tokens=fmean(len(row.encoded.ids) for row in rows),
            visual_tokens=fmean(
                sum(visual_tokens(view.size) for view in row.views) for row in rows
            ),
            vision_passes=numbers["vision_passes"] or 0.0,
            vision_tokens=seen,
            limit=step_limit(trainer.policy, groups, rows),
        )


def _config(setup: Setup) -> TrainConfig:
    return TrainConfig(
        data=Path(setup.data),
        init=Path(setup.checkpoint),
        first_view="fixed",
        fixed_budget=setup.budget,
        crop=CROP,
        protocol=protocol(),
        max_turns=TURNS,
        prompts_per_step=setup.prompts,
        group_size=setup.group,
        micro_batch=setup.micro_batch,
        sample_batch=setup.rollouts,
        temperature=TEMPERATURE,
        max_new_tokens=MAX_NEW_TOKENS,
        learning_rate=setup.learning_rate,
        share=setup.share,
        device="cpu",
        threads=setup.threads,
    )


def _reward(played: Episode) -> RewardTerms:
    return RewardTerms(
        accuracy=score(played.boxes[0] if played.boxes else None, played.answer, played.sample)
    )


if __name__ == "__main__":
    main()
