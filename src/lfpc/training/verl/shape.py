"""The shape of a Qwen2.5-VL or Qwen3-VL: its parameters, and bytes of attention keys and values."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lfpc.errors import CheckpointError
from lfpc.training.config import LoraConfig, TrainConfig


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
    family: Literal["qwen2_5_vl", "qwen3_vl"] = "qwen2_5_vl"
    """`model_type` of its config.json."""
    head: int | None = None
    """Width of an attention head; None: hidden / heads."""
    patch: int = 14
    """Side of a patch in pixels."""
    vision_positions: int = 0
    """Learned positions of the tower (Qwen3-VL)."""
    deepstack: int = 0
    """Tower layers with a merger of their own (Qwen3-VL)."""

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
    def query_width(self) -> int:
        """Width of the queries of one token in one layer."""
        return self.heads * (self.head or self.hidden // self.heads)

    @property
    def kv_width(self) -> int:
        """Width of the keys (or values) of one token in one layer."""
        return self.query_width // self.heads * self.kv_heads

    @property
    def embedding_parameters(self) -> int:
        """Parameters of the input and output embeddings."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2)

    @property
    def layer_parameters(self) -> int:
        """Parameters of one layer of the language model.

        q, o: h * q each; k, v: h * kv each; three matrices h * i; two norms; biases of q, k, v
        (Qwen2.5-VL) or norms of a query and a key (Qwen3-VL)
        """
        h = self.hidden
        q = self.query_width
        kv = self.kv_width
        small = q + 2 * kv if self.family == "qwen2_5_vl" else 2 * (q // self.heads)
        return 2 * h * q + 2 * h * kv + 3 * h * self.intermediate + 2 * h + small

    @property
    def vision_matrices(self) -> int:
        """Matrices of a tower block's feed-forward layer."""
        return 3 if self.family == "qwen2_5_vl" else 2

    @property
    def vision_parameters(self) -> int:
        """Parameters of the vision tower: patch embedding (and learned positions), blocks with
        biases and two norms, mergers of 2 x 2 patches. Norms of Qwen3-VL have biases.
        """
        v = self.vision_hidden
        i = self.vision_intermediate
        gated = self.family == "qwen2_5_vl"
        matrices = self.vision_matrices
        norm = v if gated else 2 * v
        block = 4 * v * v + 4 * v + matrices * v * i + (matrices - 1) * i + v + 2 * norm
        perceptron = 16 * v * v + 4 * v + 4 * v * self.hidden + self.hidden
        mergers = norm + perceptron + self.deepstack * (8 * v + perceptron)
        patches = 3 * 2 * self.patch**2 * v + (0 if gated else v) + self.vision_positions * v
        return patches + self.vision_depth * block + mergers

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


def adapter_parameters(shape: ModelShape, lora: LoraConfig) -> int:
    """Parameters of the adapters: rank * (inputs + outputs) per layer."""
    h, q, k, i, v, w = (
        shape.hidden,
        shape.query_width,
        shape.kv_width,
        shape.intermediate,
        shape.vision_hidden,
        shape.vision_intermediate,
    )
    widths = {"q_proj": h + q, "o_proj": h + q, "k_proj": h + k, "v_proj": h + k}
    widths |= dict.fromkeys(("gate_proj", "up_proj", "down_proj"), h + i)
    language = shape.layers * sum(widths.get(target, 0) for target in lora.targets)
    block = 4 * v + 2 * v + shape.vision_matrices * (v + w)
    return lora.rank * (language + (shape.vision_depth * block if lora.vision else 0))


def trained_and_frozen(shape: ModelShape, config: TrainConfig) -> tuple[int, int]:
    """Parameters that the run trains, and those that it keeps as they are."""
    if config.lora is not None:
        return adapter_parameters(shape, config.lora), shape.parameters
    frozen = shape.vision_parameters if config.freeze_vision else 0
    return shape.parameters - frozen, frozen


def shape_of_checkpoint(folder: Path) -> ModelShape:
    """The shape of the checkpoint in `folder`.

    Raises:
        CheckpointError: not the configuration of a Qwen2.5-VL or Qwen3-VL.
    """
    try:
        return _shape(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{folder / 'config.json'}: not the configuration of a Qwen2.5-VL or Qwen3-VL "
            f"({type(error).__name__}: {error})"
        ) from error


def _shape(config: Mapping[str, Any]) -> ModelShape:
    family = config["model_type"]
    if family not in ("qwen2_5_vl", "qwen3_vl"):
        raise ValueError(f"model_type {family}")
    # older folders have the text's keys at the top
    text = config.get("text_config", config)
    vision = config["vision_config"]
    return ModelShape(
        family=family,
        hidden=text["hidden_size"],
        layers=text["num_hidden_layers"],
        heads=text["num_attention_heads"],
        kv_heads=text["num_key_value_heads"],
        head=text.get("head_dim"),
        intermediate=text["intermediate_size"],
        vocabulary=text["vocab_size"],
        tied=bool(config.get("tie_word_embeddings", False)),
        vision_hidden=vision["hidden_size"],
        vision_depth=vision["depth"],
        vision_intermediate=vision["intermediate_size"],
        vision_heads=vision.get("num_heads", 16),
        patch=vision["patch_size"],
        vision_positions=vision.get("num_position_embeddings", 0),
        deepstack=len(vision.get("deepstack_visual_indexes", ())),
    )
