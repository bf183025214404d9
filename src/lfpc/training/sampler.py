"""Rollouts by vLLM in this process, with the current weights of the model that is trained.

vLLM reads and returns token ids: the encoder's conversations and their sampled continuations. So
nothing is tokenised twice, and what it samples is what is trained. Log-probabilities are those that
it sampled from, against which the update forms its ratio.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, Self
from weakref import WeakKeyDictionary

import numpy as np
import torch

from lfpc.dialogue import TRUNCATED, Context, Reply, Usage
from lfpc.errors import ConfigError, RunError
from lfpc.images import View
from lfpc.policies.config import reply_seed
from lfpc.policies.devices import precision, release_memory
from lfpc.policies.qwen.adapters import merged_weights
from lfpc.policies.qwen.encode import Encoded
from lfpc.policies.sampling import Sampling
from lfpc.policies.transformers import TransformersPolicy
from lfpc.policies.vllm import PICTURES, imported, sampled_logprobs, started
from lfpc.training.config import TrainConfig

UNASKED = Reply("", finish=TRUNCATED)
"""Reply to a conversation that leaves vLLM no room for a token."""


def check_sampler(config: TrainConfig, device: torch.device) -> None:
    """Check that rollouts can be sampled on `device`, before anything is read or written.

    Raises:
        ConfigError: vLLM is not installed, or cannot use the device.
    """
    if config.sampler != "vllm":
        return
    if device.index:
        raise ConfigError(
            f"`sampler` vllm uses the first GPU; give CUDA_VISIBLE_DEVICES={device.index} in place "
            f"of `device` {config.device}"
        )
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # in this process, which has the weights
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")  # it has lines about each hand-over
    imported("use `sampler` transformers")


class VllmSampler:
    """A policy whose replies vLLM computes with the weights of `policy`, within `synced()`.

    Each reply has its own random numbers, by seed, question and turn. On a GPU vLLM gives its
    memory back outside `synced()`.

    Args:
        policy: the policy that is trained.
        config: the run.
        folder: a checkpoint with all weights, of any step.
    Raises:
        CheckpointError: vLLM does not start with this checkpoint and these options.
    """

    def __init__(self, policy: TransformersPolicy, config: TrainConfig, folder: Path) -> None:
        self.policy = policy
        self.sampling = policy.sampling
        self.limit = conversation_limit(policy.model, config)
        device = policy.model.device
        half = precision(config, device) == torch.bfloat16
        self._sleeps = device.type == "cuda"
        self._llm = started(
            folder,
            {
                "dtype": "bfloat16" if half else "float32",
                "enable_sleep_mode": self._sleeps,
                "seed": config.seed,
                "limit_mm_per_prompt": {"image": max(PICTURES, config.max_turns), "video": 0},
                **replace(config.vllm, max_model_len=self.limit).arguments,
            },
        )
        banned = policy.writer.banned.to(device)

        def ban(model: Any) -> None:
            logits_of = model.compute_logits
            model.compute_logits = lambda *states: _without(logits_of(*states), banned)

        self._llm.apply_model(ban)
        self._names: WeakKeyDictionary[View, str] = WeakKeyDictionary()
        self._numbers = count()
        self._sleep()

    def resampled(self, sampling: Sampling) -> Self:
        """The same engine with other sampling."""
        other = copy(self)
        other.sampling = sampling
        return other

    def reseed(self, seed: int) -> None:
        """Sample further replies with `seed`."""
        self.sampling = replace(self.sampling, sampling_seed=seed)

    @contextmanager
    def synced(self) -> Iterator[None]:
        """Inside the block vLLM has the current weights, with adapters merged, and nothing that it
        computed with others.
        """
        llm = self._llm
        try:
            if self._sleeps:
                release_memory()
                llm.wake_up(["weights"])
            llm.collective_rpc(
                "reload_weights", kwargs={"weights_iterator": merged_weights(self.policy.model)}
            )
            llm.apply_model(_tie_heads)
            if self._sleeps:
                llm.wake_up(["kv_cache"])
            llm.reset_mm_cache()
            llm.reset_prefix_cache()
            llm.llm_engine.reset_encoder_cache()
            yield
        finally:
            self._sleep()

    def _sleep(self) -> None:
        if self._sleeps:
            self._llm.sleep(level=2)

    def reply(self, contexts: Sequence[Context]) -> list[Reply]:
        """One reply per context, in the same order; `UNASKED` for a conversation as long as the
        limit.

        Raises:
            RunError: vLLM reads other tokens than this engine.
        """
        rows = [self.policy.encoder.context(context) for context in contexts]
        asked = [number for number, row in enumerate(rows) if len(row.ids) < self.limit]
        found = self._llm.generate(
            [self._prompt(rows[number]) for number in asked],
            [self._rules(contexts[number]) for number in asked],
            use_tqdm=False,
        )
        replies = {
            number: self._reply(rows[number], one) for number, one in zip(asked, found, strict=True)
        }
        return [replies.get(number, UNASKED) for number in range(len(rows))]

    def _prompt(self, row: Encoded) -> dict[str, Any]:
        """The conversation with one placeholder per picture, which vLLM expands."""
        pads = row.ids == self.policy.encoder.image_pad
        repeated = pads & np.concatenate([[False], pads[:-1]])
        return {
            "prompt_token_ids": row.ids[~repeated].tolist(),
            "multi_modal_data": {"image": [view.image for view in row.views]},
            # a picture that rollouts share is prepared once, and not hashed
            "multi_modal_uuids": {"image": [self._name(view) for view in row.views]},
        }

    def _name(self, view: View) -> str:
        if view not in self._names:
            self._names[view] = f"view {next(self._numbers)}"
        return self._names[view]

    def _rules(self, context: Context) -> Any:
        import vllm  # pyright: ignore[reportMissingImports]

        writer = self.policy.writer
        return vllm.SamplingParams(
            temperature=self.sampling.temperature,
            max_tokens=self.sampling.max_new_tokens,
            stop=list(writer.stops) or None,
            stop_token_ids=sorted(writer.ends),
            include_stop_str_in_output=True,
            skip_special_tokens=False,
            logprobs=0,
            seed=reply_seed(self.sampling.sampling_seed or 0, context),
        )

    def _reply(self, row: Encoded, found: Any) -> Reply:
        read = found.prompt_token_ids or ()
        if list(read) != row.ids.tolist():
            raise RunError(
                f"vLLM reads {len(read)} tokens where this engine reads {len(row.ids)}: its "
                f"processor resizes pictures of this run; use `sampler` transformers"
            )
        (output,) = found.outputs
        ids = tuple(output.token_ids)
        writer = self.policy.writer
        return Reply(
            writer.text(ids),
            ids,
            sampled_logprobs(output),
            Usage(len(read), len(ids)),
            writer.finish(ids),
        )


def conversation_limit(model: Any, config: TrainConfig) -> int:
    """Longest conversation of vLLM in tokens: as given, else what a trained rollout may need, if
    the checkpoint has as many positions.
    """
    needed = config.max_rollout_tokens + config.max_new_tokens
    return config.vllm.max_model_len or min(
        needed, model.config.get_text_config().max_position_embeddings
    )


def _tie_heads(model: Any) -> None:
    """Bring tied output layers up to date, which vLLM's reloading passes over: its CPU kernels keep
    a copy in a layout of their own.
    """
    from vllm.model_executor.layers import (  # pyright: ignore[reportMissingImports]
        vocab_parallel_embedding,
    )

    for layer in model.modules():
        if isinstance(layer, vocab_parallel_embedding.ParallelLMHead):
            layer.quant_method.process_weights_after_loading(layer)


def _without(logits: Any, banned: torch.Tensor) -> Any:
    """`logits` without the tokens that may not be written."""
    return logits.masked_fill(banned[: logits.shape[-1]], float("-inf"))
