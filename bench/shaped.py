"""Models with random weights in the shape of a published one, and rollouts for them."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from lfpc.boxes import WHOLE, Box
from lfpc.dialogue import Context, Crop, Reply, Turn
from lfpc.images import View
from lfpc.mini.model import SPECIAL
from lfpc.policies.qwen.encode import Encoder
from lfpc.policies.qwen.varlen import speed_up_vision
from lfpc.training.rollouts import Rollout
from lfpc.training.verl.shape import ModelShape

BOX = Box(0.25, 0.25, 0.5, 0.5)
SIDE = 28
"""Pixels of a visual token."""


def shaped_model(
    shape: ModelShape, tokenizer: Any, *, dtype: torch.dtype, device: str | torch.device
) -> Any:
    """A Qwen2.5-VL of this shape with random weights, made on `device`, for a tokenizer of at most
    `shape.vocabulary` tokens.
    """
    vocabulary = tokenizer.get_vocab()
    ids = {text: vocabulary[text] for text in SPECIAL}
    half = shape.hidden // shape.heads // 2
    sections = [half - 2 * (half * 3 // 8), half * 3 // 8, half * 3 // 8]
    blocks = shape.vision_depth
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": shape.vocabulary,
            "hidden_size": shape.hidden,
            "intermediate_size": shape.intermediate,
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.kv_heads,
            "max_position_embeddings": 32768,
            "rope_parameters": {
                "rope_type": "default",
                "mrope_section": sections,
                "rope_theta": 1e6,
            },
            "bos_token_id": None,
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
        },
        vision_config={
            "depth": blocks,
            "hidden_size": shape.vision_hidden,
            "intermediate_size": shape.vision_intermediate,
            "num_heads": max(1, shape.vision_hidden // 80),
            "out_hidden_size": shape.hidden,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 112,
            "fullatt_block_indexes": sorted({blocks * n // 4 - 1 for n in (1, 2, 3, 4)} - {-1}),
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=shape.tied,
    )
    config._attn_implementation = "sdpa"
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(dtype)
        with torch.device(device):
            model = Qwen2_5_VLForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(before)
    speed_up_vision(model)
    return model.eval()


def random_view(number: int, tokens: int) -> View:
    """A view of random pixels with about so many visual tokens; `number` is the seed."""
    rows = max(1, int(tokens**0.5))
    size = (SIDE * rows, SIDE * max(1, tokens // rows), 3)
    pixels = np.random.default_rng(number).integers(0, 256, size, dtype=np.uint8)
    return View(Image.fromarray(pixels), WHOLE)


def random_rollouts(
    encoder: Encoder,
    *,
    questions: int,
    group: int,
    view: int,
    crop: int,
    written: int,
) -> list[Rollout]:
    """Rollouts of random tokens with one crop each: `view` and `crop` are visual tokens, `written`
    tokens of both replies together.
    """
    rng = np.random.default_rng(0)
    rollouts: list[Rollout] = []
    for question in range(questions):
        first = random_view(question, view)
        for number in range(group):
            replies = [_reply(rng, count) for count in (written // 2, written - written // 2)]
            seen = replace(random_view(10_000 + question * group + number, crop), region=BOX)
            turn = Turn(replies[0], Crop(BOX), seen)
            context = Context("What is in the picture?", (), first, (turn,))
            encoded = encoder.episode(context, replies[1])
            logprobs = np.full(written, -5.0, dtype=np.float32)
            rollouts.append(Rollout(encoded, logprobs, overlong=False))
    return rollouts


def _reply(rng: np.random.Generator, count: int) -> Reply:
    ids = tuple(int(number) for number in rng.integers(0, 200, count))
    return Reply("a", ids, (-5.0,) * count)
