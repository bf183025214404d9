"""The tiny model that the engines start from: fresh weights, taught nothing but to call once and
then answer.

A random model would hardly ever write a call, and then the engines would not do two turns with
pictures. Boxes stay random, so rollouts of a question differ.
"""

import hashlib
import inspect
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from tqdm import trange

from bench.task import CROP, TURNS, first_view, protocol
from lfpc.dialogue import Context, Reply
from lfpc.episode import Game, episode, play
from lfpc.looks import original_look
from lfpc.mini import model as mini_model
from lfpc.policies.qwen.checkpoint import save_checkpoint
from lfpc.policies.qwen.encode import Encoder
from lfpc.policies.qwen.varlen import speed_up_vision
from lfpc.policies.transformers import TransformersPolicy, row_features
from lfpc.protocols import PROTOCOLS, qwen2_5_vl
from lfpc.protocols.qwen2_5_vl import TOOL
from lfpc.samples import Sample
from lfpc.training.config import TrainConfig
from lfpc.training.rollouts import Rollout, rollouts_of
from lfpc.training.update import Learner

STEPS = 150
BATCH = ((25, 10), (256, 2))
"""(budget, dialogues) of a step of teaching."""


def warm_checkpoint(out: Path, samples: Sequence[Sample]) -> Path:
    """The checkpoint's folder under `out`; made once for a given model, tokenizer and protocol."""
    sources = "".join(inspect.getsource(module) for module in (mini_model, qwen2_5_vl))
    folder = out / f"checkpoint-{hashlib.sha256(sources.encode()).hexdigest()[:8]}"
    if not (folder / "config.json").is_file():
        _teach(folder, samples)
    return folder


class Teacher:
    """Writes a call with a random box, then a random mark; every reply ends with the end-of-turn
    token.
    """

    def __init__(self, encoder: Encoder, rng: np.random.Generator) -> None:
        self.encoder = encoder
        self.rng = rng

    def reply(self, contexts: Sequence[Context]) -> list[Reply]:
        """One reply per context."""
        return [
            self._reply(
                f"<answer>{self.rng.choice(list('ACEH'))}</answer>" if c.turns else self._call()
            )
            for c in contexts
        ]

    def _call(self) -> str:
        corners = [*self.rng.integers(10, 40, 2), *self.rng.integers(100, 140, 2)]
        return (
            f'<tool_call>{{"name": "{TOOL}", "arguments": {{"bbox_2d": '
            f"[{', '.join(map(str, corners))}]}}}}</tool_call>"
        )

    def _reply(self, text: str) -> Reply:
        ids = (*self.encoder.reply_ids(Reply(text)).tolist(), self.encoder.end_of_turn)
        return Reply(text, ids, (0.0,) * len(ids))


def _teach(folder: Path, samples: Sequence[Sample]) -> None:
    tokenizer = mini_model.build_tokenizer()
    model = mini_model.build_model(tokenizer).eval()
    speed_up_vision(model)
    policy = TransformersPolicy(model, tokenizer, PROTOCOLS[protocol()])
    learner = Learner(policy, TrainConfig(protocol=protocol(), freeze_vision=True))
    rng = np.random.default_rng(0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(learner.optimizer, 3e-3, total_steps=STEPS)
    with policy.cached_views():
        for _ in trange(
            STEPS, desc="teaching the tiny model the format", unit="step", disable=None
        ):
            rows = _dialogues(samples, policy.encoder, rng)
            with torch.no_grad():
                features = row_features(policy.views, [row.encoded for row in rows])
            loss = -learner.logprobs(rows, features, None).mean()
            loss.backward()
            learner.optimizer.step()
            schedule.step()
            learner.optimizer.zero_grad()
    print(
        f"the tiny model writes the format with {loss.item():.2f} nats a token (random "
        f"boxes alone are about 1)"
    )
    save_checkpoint(model, tokenizer, folder, processor=mini_model.picture_processor())


def _dialogues(
    samples: Sequence[Sample], encoder: Encoder, rng: np.random.Generator
) -> list[Rollout]:
    chosen = chain.from_iterable((budget for _ in range(count)) for budget, count in BATCH)
    games: list[Game] = []
    for budget in chosen:
        sample = samples[int(rng.integers(len(samples)))]
        view = first_view(sample.image, budget)
        games.append(
            episode(
                sample,
                view,
                look=original_look(CROP),
                protocol=PROTOCOLS[protocol()],
                max_turns=TURNS,
            )
        )
    return rollouts_of(play(games, Teacher(encoder, rng)), encoder, max_rollout_tokens=4096)
