"""A Qwen2.5-VL of about 2 million parameters, and a tokenizer with the miniature's vocabulary.

The classes are transformers' own; only the configuration is small. The fixed sentences of the
protocol, the names of things and whole numbers are single tokens, so that a tool call is a dozen
tokens and a corner coordinate is one decision. Any other text is read byte by byte.
"""

import math
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from lfpc.mini.scenes import COLORS, SHAPES
from lfpc.protocols.qwen2_5_vl import DIRECT_SYSTEM, SYSTEM, TOOL

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
NUMBERS = 1000
"""Whole numbers below this are single tokens."""
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
    "{% if c['type'] in ('image', 'image_url') %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in c %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% "
    "endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WORDS = (
    SYSTEM,
    DIRECT_SYSTEM,
    f'{{"name": "{TOOL}", "arguments": {{"bbox_2d": [',
    "]}}",
    ", ",
    "[",
    "]",
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
    "<answer>",
    "</answer>",
    "system\n",
    "user\n",
    "assistant\n",
    "What mark is on the ",
    "Where is the ",
    "What is at ",
    "What is in the picture",
    "Is the ",
    " left or right of the ",
    " above or below the ",
    "left",
    "right",
    "above",
    "below",
    *COLORS,
    *(f" {shape}" for shape in SHAPES),
)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level tokenizer with `SPECIAL`, `WORDS` and the whole numbers below `NUMBERS` as single
    tokens.
    """
    alphabet = {symbol: i for i, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(text, special=True, normalized=False) for text in SPECIAL]
    )
    words = [*WORDS, *(str(n) for n in range(10, NUMBERS))]  # single digits are bytes already
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in words])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        additional_special_tokens=list(SPECIAL[3:]),
        chat_template=CHAT_TEMPLATE,
        model_max_length=4096,
        clean_up_tokenization_spaces=False,
    )


def build_model(
    tokenizer: PreTrainedTokenizerFast, seed: int = 0
) -> Qwen2_5_VLForConditionalGeneration:
    """A freshly initialised miniature in float32. Near numbers have near embeddings."""
    width = 128
    vocabulary = tokenizer.get_vocab()
    ids = {text: vocabulary[text] for text in SPECIAL}
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": math.ceil(len(tokenizer) / 64) * 64,
            "hidden_size": width,
            "intermediate_size": 384,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "max_position_embeddings": 4096,
            "rope_parameters": {
                "rope_type": "default",
                "mrope_section": [4, 6, 6],
                "rope_theta": 1000.0,
            },
            "bos_token_id": None,
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
        },
        vision_config={
            "depth": 3,
            "hidden_size": 96,
            "intermediate_size": 256,
            "num_heads": 3,
            "out_hidden_size": width,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 112,
            "fullatt_block_indexes": [1, 2],
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2_5_VLForConditionalGeneration(config)
    with torch.no_grad():
        table: Any = model.get_input_embeddings().weight
        table.normal_(0, 0.05, generator=generator)
        table[[vocabulary[str(n)] for n in range(10, NUMBERS)]] = (
            0.05 * _wave_features(width, generator)[10:]
        )
    return model


def _wave_features(width: int, generator: torch.Generator) -> torch.Tensor:
    """(NUMBERS, width) features with unit variance, in which near numbers are near: random mixtures
    of sines with periods from 8 to 2,048.
    """
    lengths = 2.0 ** torch.arange(3, 11.5, 0.5)
    phase = 2 * math.pi * torch.arange(NUMBERS)[:, None] / lengths
    waves = torch.cat([phase.sin(), phase.cos()], dim=1)
    mix = torch.randn(waves.shape[1], width, generator=generator) * (2 / waves.shape[1]) ** 0.5
    return waves @ mix


def picture_processor() -> Qwen2VLImageProcessorPil:
    """The miniature's picture processor for servers: 1 to 1,024 visual tokens."""
    return Qwen2VLImageProcessorPil(min_pixels=28 * 28, max_pixels=28 * 28 * 1024)
