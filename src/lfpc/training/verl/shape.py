"""The shape of a Qwen2.5-VL, with its parameters and bytes of attention keys and values."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lfpc.errors import CheckpointError


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """Widths and depths of language model and vision tower."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocabulary: int
    tied: bool
    """Whether input and output embeddings share one matrix."""
    vision_hidden: int
    vision_depth: int
    vision_intermediate: int
    vision_heads: int = 16

    def indivisible(self, gpus: int) -> list[str]:
        """What vLLM cannot divide among `gpus` GPUs; empty: nothing. A GPU holds whole heads, and
        at least one of keys and values, of which several GPUs may hold copies.
        """
        found = [
            f"{count} {name}"
            for name, count in (
                ("attention heads", self.heads),
                ("channels of a layer", self.intermediate),
                ("vision heads", self.vision_heads),
                ("vision channels of a layer", self.vision_intermediate),
            )
            if count % gpus
        ]
        if self.kv_heads % gpus and gpus % self.kv_heads:
            found.append(f"{self.kv_heads} heads of keys and values")
        return found

    @property
    def kv_width(self) -> int:
        """Width of the keys (or values) of one token in one layer."""
        return self.hidden // self.heads * self.kv_heads

    @property
    def embedding_parameters(self) -> int:
        """Parameters of the input and output embeddings."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2)

    @property
    def layer_parameters(self) -> int:
        """Parameters of one layer of the language model.

        q, o: h^2 each; k, v: h * kv each; biases of q, k, v; three matrices h * i; two norms
        """
        h = self.hidden
        kv = self.kv_width
        return 2 * h * h + 2 * h * kv + h + 2 * kv + 3 * h * self.intermediate + 2 * h

    @property
    def vision_parameters(self) -> int:
        """Parameters of the vision tower: patch embedding, blocks with biases and two norms, merger
        of 2 x 2 patches.
        """
        v = self.vision_hidden
        i = self.vision_intermediate
        block = 4 * v * v + 4 * v + 3 * v * i + 2 * i + v + 2 * v
        merger = v + 16 * v * v + 4 * v + 4 * v * self.hidden + self.hidden
        return 3 * 2 * 14 * 14 * v + self.vision_depth * block + merger

    @property
    def parameters(self) -> int:
        """Parameters of the whole model."""
        return (
            self.embedding_parameters
            + self.layers * self.layer_parameters
            + self.hidden
            + self.vision_parameters
        )

    @property
    def cache_bytes(self) -> int:
        """Bytes of the keys and values of one token in all layers, in bfloat16."""
        return 2 * 2 * self.layers * self.kv_width


SHAPES = {
    "7B": ModelShape(
        hidden=3584,
        layers=28,
        heads=28,
        kv_heads=4,
        intermediate=18944,
        vocabulary=152064,
        tied=False,
        vision_hidden=1280,
        vision_depth=32,
        vision_intermediate=3420,
    ),
    "3B": ModelShape(
        hidden=2048,
        layers=36,
        heads=16,
        kv_heads=2,
        intermediate=11008,
        vocabulary=151936,
        tied=True,
        vision_hidden=1280,
        vision_depth=32,
        vision_intermediate=3420,
    ),
}
"""Qwen2.5-VL as released."""


def shape_of_checkpoint(folder: Path) -> ModelShape:
    """The shape of the checkpoint in `folder`.

    Raises:
        CheckpointError: not the configuration of a Qwen2.5-VL.
    """
    try:
        return _shape(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{folder / 'config.json'}: not the configuration of a Qwen2.5-VL "
            f"({type(error).__name__}: {error})"
        ) from error


def _shape(config: Mapping[str, Any]) -> ModelShape:
    # older folders have the text's keys at the top
    text = config.get("text_config", config)
    vision = config["vision_config"]
    return ModelShape(
        hidden=text["hidden_size"],
        layers=text["num_hidden_layers"],
        heads=text["num_attention_heads"],
        kv_heads=text["num_key_value_heads"],
        intermediate=text["intermediate_size"],
        vocabulary=text["vocab_size"],
        tied=bool(config.get("tie_word_embeddings", False)),
        vision_hidden=vision["hidden_size"],
        vision_depth=vision["depth"],
        vision_intermediate=vision["intermediate_size"],
        vision_heads=vision.get("num_heads", 16),
    )
