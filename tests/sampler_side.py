"""Steps of training with vLLM in this process, and what both engines say greedily before and after
each, as JSON. `test_vllm_sampler.py` runs it with vLLM's interpreter.

    python sampler_side.py CHECKPOINT SAMPLES BUDGET RANK      RANK 0: all weights
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from lfpc.episode import Episode
from lfpc.images import CropRules
from lfpc.policies.settings import checkpoint_settings
from lfpc.protocols import PROTOCOLS
from lfpc.rewards import RewardTerms
from lfpc.samples import read_samples
from lfpc.training.config import LoraConfig, SamplerLimits, TrainConfig
from lfpc.training.fitting import pick_device
from lfpc.training.sampler import VllmSampler, check_sampler
from lfpc.training.trainer import Trainer


def even_tokens(episode: Episode) -> RewardTerms:
    """A reward that differs between rollouts of any model."""
    ids = [token for turn in episode.turns for token in turn.reply.token_ids]
    return RewardTerms(accuracy=sum(token % 2 == 0 for token in ids) / len(ids))


def main(checkpoint: Path, data: Path, budget: int, rank: int) -> None:
    """Write a line of JSON per step."""
    settings = checkpoint_settings(checkpoint)
    factor = PROTOCOLS[settings.protocol].factor
    config = TrainConfig(
        init=checkpoint,
        out=data / "none",
        data=data,
        device="cpu",
        sampler="vllm",
        vllm=SamplerLimits(options={"enforce_eager": True}),
        protocol=settings.protocol,
        crop=CropRules(factor=factor, min_tokens=min(16, budget), max_tokens=budget),
        first_view="fixed",
        fixed_budget=budget,
        max_turns=3,
        max_new_tokens=24,
        prompts_per_step=4,
        group_size=4,
        learning_rate=1e-2 if rank else 1e-3,
        lora=LoraConfig(rank=rank, alpha=2 * rank) if rank else None,
    )
    device = pick_device(config)
    check_sampler(config, device)
    trainer = Trainer(config, device, 0, even_tokens)
    samples = read_samples(data)
    ours = trainer.policy.resampled(trainer.greedy.sampling)

    def said(policy) -> list[list[tuple[Sequence[int], Sequence[float]]]]:
        return [
            [(turn.reply.token_ids, turn.reply.logprobs) for turn in episode.turns]
            for episode in trainer.play(policy, samples)
        ]

    assert isinstance(trainer.greedy, VllmSampler)
    for step in range(3):
        numbers = trainer.step(samples[:4], step)[0] if step else {}
        row = {"numbers": numbers, "vllm": said(trainer.greedy), "ours": said(ours)}
        sys.stdout.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
