"""A tiny random Qwen2.5-VL and Qwen3-VL with their tokenizer, and small contexts, for tests. Only
models and tokenizer import torch.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lfpc.boxes import WHOLE, Box
from lfpc.dialogue import Context, Crop, Reply, Turn
from lfpc.images import View
from lfpc.samples import Sample
from lfpc.training.config import TrainConfig

BOX = Box(0.25, 0.25, 0.5, 0.5)


@lru_cache(maxsize=1)
def tokenizer() -> Any:
    """The miniature's tokenizer."""
    from lfpc.mini.model import build_tokenizer

    return build_tokenizer()


def model(seed: int = 0) -> Any:
    """A fresh random miniature in evaluation mode, with layers strong enough that it does not just
    echo its last token."""
    import torch

    from lfpc.mini.model import build_model

    made = build_model(tokenizer(), seed=seed).eval()
    with torch.no_grad():
        for layer in made.model.language_model.layers:
            for weight in (p for p in layer.parameters() if p.ndim == 2):
                weight.mul_(5)
    return made


def picture(seed: int, width: int = 112, height: int = 84) -> Image.Image:
    """Random pixels."""
    return Image.fromarray(
        np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    )


def view(seed: int, width: int = 112, height: int = 84, region: Box = WHOLE) -> View:
    """A random view."""
    return View(picture(seed, width, height), region)


def reply(text: str, *, closed: bool = True) -> Reply:
    """A reply as a policy would have sampled it."""
    ids = tuple(
        tokenizer()(text + ("<|im_end|>" if closed else ""), add_special_tokens=False)["input_ids"]
    )
    return Reply(text, ids, tuple(-1.0 for _ in ids))


def crop_turn(seed: int, *, closed: bool = False, width: int = 56, height: int = 56) -> Turn:
    """A crop call and the crop it earned."""
    text = (
        '<tool_call>{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [28, 21, 56, '
        "42]}}</tool_call>"
    )
    return Turn(reply(text, closed=closed), Crop(BOX), view(seed, width, height, BOX))


def context(question: str, first: View, *turns: Turn) -> Context:
    """A conversation."""
    return Context(question, (), first, tuple(turns))


def sample(folder: Path, number: int, answer: str = "7", *, budget: int | None = 12) -> Sample:
    """A sample whose random picture is written to `folder`."""
    path = folder / f"{number}.png"
    if not path.exists():
        picture(number, 280, 224).save(path)
    return Sample(
        id=f"s{number}",
        image=path,
        question="What mark is on the red kite?",
        answer=answer,
        boxes=((BOX,),),
        budget=budget,
    )


def qwen3_model(seed: int = 0) -> Any:
    """A fresh random Qwen3-VL of the miniature's size, with the miniature's tokenizer."""
    import torch
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    vocabulary = tokenizer().get_vocab()
    text = {
        "vocab_size": model_vocabulary(),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "rope_parameters": {
            "rope_type": "default",
            "mrope_section": [4, 2, 2],
            "mrope_interleaved": True,
            "rope_theta": 1000.0,
        },
        "bos_token_id": None,
        "eos_token_id": vocabulary["<|im_end|>"],
        "pad_token_id": vocabulary["<|endoftext|>"],
        "tie_word_embeddings": True,
    }
    vision = {
        "depth": 3,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "out_hidden_size": 64,
        "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0, 2],
    }
    names = ("image_pad", "video_pad", "vision_start", "vision_end")
    keys = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    ids = {key: vocabulary[f"<|{name}|>"] for key, name in zip(keys, names, strict=True)}
    config = Qwen3VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True, **ids)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made: Any = Qwen3VLForConditionalGeneration(config).eval()
    with torch.no_grad():
        for part in (made.model.language_model.layers, made.model.visual):
            for weight in (p for p in part.parameters() if p.ndim >= 2):
                weight.mul_(5)
    return made


def qwen3_pictures() -> Any:
    """The published Qwen3-VL's picture processor."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    return Qwen2VLImageProcessorPil(
        patch_size=16,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
        size={"shortest_edge": 65536, "longest_edge": 16777216},
    )


def model_vocabulary() -> int:
    """Rows of the output layer, more than the tokenizer's tokens."""
    return -(-len(tokenizer()) // 64) * 64 + 64


def train_in_two_parts(config: TrainConfig, reward: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The last checkpoint of a run of two steps that is killed in the second, then continued."""
    from lfpc.training import local  # the environment of verl's tests lacks what it imports

    step = local.Trainer.step

    def die_at_two(self: Any, samples: Any, number: int) -> Any:
        if number == 2:
            raise KeyboardInterrupt
        return step(self, samples, number)

    with monkeypatch.context() as patched:
        patched.setattr(local.Trainer, "step", die_at_two)
        with pytest.raises(KeyboardInterrupt):
            local.train(config, progress=False, reward=reward)
    return local.train(config, progress=False, reward=reward)
