"""Small random-weight checkpoints in the layout of the published Qwen2.5-VL and Qwen3-VL folders.

The vocabulary comes from the package qwen-agent and the chat templates from trl, both read where
`environments/published.txt` puts them. Widths and depths are small; the rest is as published:
special tokens, processor and generation configs, a padded vocabulary, two end tokens, head
width, M-RoPE sections, patch sizes, names of weights, bfloat16 shards with an index.
"""

import base64
import copy
import itertools
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
)
from transformers import AutoConfig, AutoModelForImageTextToText

from lfpc.samples import Sample

PACKAGES = Path(os.environ.get("PUBLISHED_PACKAGES") or Path(sys.prefix) / "published")
VOCABULARY = PACKAGES / "qwen_agent" / "utils" / "qwen.tiktoken"
TEMPLATES = PACKAGES / "trl" / "chat_templates"
FAMILIES = ("qwen2_5_vl", "qwen3_vl")
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
TOOLS = (
    "<tool_call>",
    "</tool_call>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
)
ADDED = {
    "qwen2_5_vl": SPECIAL + TOOLS,
    "qwen3_vl": (*SPECIAL, *TOOLS, "<tool_response>", "</tool_response>", "<think>", "</think>"),
}
IDS = {
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
    "image_token_id": 151655,
    "video_token_id": 151656,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "qwen2_5_vl": {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "model_type": "qwen2_5_vl",
        **IDS,
        "bos_token_id": 151643,
        "eos_token_id": 151645,
        "hidden_act": "silu",
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "num_hidden_layers": 3,
        "max_position_embeddings": 128000,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
        "sliding_window": 32768,
        "use_sliding_window": False,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.41.2",
        "vocab_size": 151936,
        "vision_config": {
            "depth": 4,
            "hidden_act": "silu",
            "hidden_size": 160,
            "intermediate_size": 320,
            "num_heads": 2,
            "in_chans": 3,
            "out_hidden_size": 256,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "spatial_patch_size": 14,
            "window_size": 112,
            "fullatt_block_indexes": [1, 3],
            "tokens_per_second": 2,
            "temporal_patch_size": 2,
        },
    },
    "qwen3_vl": {
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "model_type": "qwen3_vl",
        **IDS,
        "tie_word_embeddings": True,
        "transformers_version": "4.57.0.dev0",
        "text_config": {
            "attention_bias": False,
            "bos_token_id": 151643,
            "dtype": "bfloat16",
            "eos_token_id": 151645,
            "head_dim": 128,
            "hidden_act": "silu",
            "hidden_size": 256,
            "intermediate_size": 512,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "num_hidden_layers": 4,
            "max_position_embeddings": 262144,
            "model_type": "qwen3_vl_text",
            "rms_norm_eps": 1e-06,
            "rope_scaling": {
                "mrope_interleaved": True,
                "mrope_section": [24, 20, 20],
                "rope_type": "default",
            },
            "rope_theta": 5000000,
            "tie_word_embeddings": True,
            "vocab_size": 151936,
        },
        "vision_config": {
            "deepstack_visual_indexes": [0, 1, 2],
            "depth": 4,
            "hidden_act": "gelu_pytorch_tanh",
            "hidden_size": 128,
            "in_channels": 3,
            "intermediate_size": 256,
            "model_type": "qwen3_vl",
            "num_heads": 2,
            "num_position_embeddings": 2304,
            "out_hidden_size": 256,
            "patch_size": 16,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        },
    },
}
GENERATION: dict[str, dict[str, Any]] = {
    "qwen2_5_vl": {"repetition_penalty": 1.05, "temperature": 0.000001},
    "qwen3_vl": {"top_p": 0.8, "top_k": 20, "temperature": 0.7, "repetition_penalty": 1.0},
}
HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
PATCHES_3 = {"patch_size": 16, "temporal_patch_size": 2, "merge_size": 2, **HALF}
PROCESSORS: dict[str, dict[str, dict[str, Any]]] = {
    "qwen2_5_vl": {
        "preprocessor_config.json": {
            "min_pixels": 3136,
            "max_pixels": 12845056,
            "patch_size": 14,
            "temporal_patch_size": 2,
            "merge_size": 2,
            "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_std": [0.26862954, 0.26130258, 0.27577711],
            "image_processor_type": "Qwen2VLImageProcessor",
            "processor_class": "Qwen2_5_VLProcessor",
        }
    },
    "qwen3_vl": {
        "preprocessor_config.json": {
            "size": {"longest_edge": 16777216, "shortest_edge": 65536},
            **PATCHES_3,
            "image_processor_type": "Qwen2VLImageProcessorFast",
            "processor_class": "Qwen3VLProcessor",
        },
        "video_preprocessor_config.json": {
            "size": {"longest_edge": 25165824, "shortest_edge": 4096},
            **PATCHES_3,
            "video_processor_type": "Qwen3VLVideoProcessor",
            "processor_class": "Qwen3VLProcessor",
        },
    },
}


def need_packages() -> None:
    """Skip the test without the packages of `environments/published.txt`."""
    if not VOCABULARY.is_file() or not TEMPLATES.is_dir():
        pytest.skip(f"no published vocabulary and templates in {PACKAGES}; `make setup` adds them")


def template(name: str) -> str:
    """A published chat template, such as "qwen3_vl"."""
    return (TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8")


def published(folder: Path, family: str, *, tied: bool = True, seed: int = 0) -> Path:
    """Write the checkpoint of `family` to `folder`. Untied: with an output layer of its own and
    the larger padded vocabulary of the 7B.
    """
    need_packages()
    folder.mkdir(parents=True)
    write_tokenizer(folder, family)
    config = copy.deepcopy(CONFIGS[family])
    if not tied:
        config["tie_word_embeddings"] = False
        text = config.get("text_config", config)
        text |= {"tie_word_embeddings": False, "vocab_size": 152064}
    ends = {"bos_token_id": 151643, "pad_token_id": 151643, "eos_token_id": [151645, 151643]}
    files = {
        "config.json": config,
        "generation_config.json": {"do_sample": True, **ends, **GENERATION[family]},
        **PROCESSORS[family],
    }
    for name, value in files.items():
        write_json(folder / name, value)
    (folder / "README.md").write_text("# model card\n", encoding="utf-8")
    _write_weights(folder, family, tied, seed)
    return folder


def variant(source: Path, folder: Path, change: Callable[[Path], None]) -> Path:
    """A copy of `source` with its weights linked, changed by `change`."""
    folder.mkdir(parents=True)
    for file in source.iterdir():
        if file.suffix == ".safetensors":
            (folder / file.name).symlink_to(file)
        else:
            shutil.copyfile(file, folder / file.name)
    change(folder)
    return folder


def edit(file: Path, **values: Any) -> None:
    """Replace values of a JSON file; None removes one."""
    found = json.loads(file.read_text(encoding="utf-8")) | values
    write_json(file, {key: value for key, value in found.items() if value is not None})


def write_json(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value, indent=2, ensure_ascii=False), encoding="utf-8")


def _write_weights(folder: Path, family: str, tied: bool, seed: int) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = AutoConfig.from_pretrained(folder)
        model: Any = AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
    state: dict[str, torch.Tensor] = {}
    for key, value in model.state_dict().items():
        if key == "lm_head.weight" and tied:
            continue
        # layers strong enough that attention, pictures and their levels matter
        outside = "embed_tokens" in key or "lm_head" in key or "pos_embed" in key
        scaled = value * (30 if "pos_embed" in key else 1) if outside else value * 4
        if family == "qwen2_5_vl":
            key = key.replace("model.visual.", "visual.").replace("model.language_model.", "model.")
        state[key] = (value if value.ndim < 2 else scaled).to(torch.bfloat16).contiguous()
    names = sorted(state)
    half = len(names) // 2
    shards = {
        "model-00001-of-00002.safetensors": names[:half],
        "model-00002-of-00002.safetensors": names[half:],
    }
    for file, keys in shards.items():
        save_file({key: state[key] for key in keys}, folder / file, metadata={"format": "pt"})
    index = {
        "metadata": {"total_size": sum(2 * value.numel() for value in state.values())},
        "weight_map": {key: file for file, keys in shards.items() for key in keys},
    }
    write_json(folder / "model.safetensors.index.json", index)


def write_tokenizer(folder: Path, family: str) -> None:
    """The tokenizer's files and the processor's template."""
    vocabulary, merges = _vocabulary()
    added = ADDED[family]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens(
        [AddedToken(text, normalized=False, special=text in SPECIAL) for text in added]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "vocab.json", vocabulary)
    pairs = "\n".join(" ".join(pair) for pair in merges)
    (folder / "merges.txt").write_text(f"#version: 0.2\n{pairs}\n", encoding="utf-8")
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    config = {
        "added_tokens_decoder": {
            str(tokenizer.token_to_id(text)): {"content": text, "special": text in SPECIAL, **flags}
            for text in added
        },
        "additional_special_tokens": list(SPECIAL[1:]),
        "bos_token": None,
        "chat_template": template(family),
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 131072,
        "pad_token": "<|endoftext|>",
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    write_json(folder / "tokenizer_config.json", config)
    write_json(folder / "chat_template.json", {"chat_template": template(family)})


@lru_cache(maxsize=1)
def _vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Tokens in the byte-level alphabet with their numbers, and the merges that made them."""
    lines = VOCABULARY.read_bytes().split()
    ranks = {
        base64.b64decode(text): int(rank) for text, rank in zip(*[iter(lines)] * 2, strict=False)
    }
    letters = _byte_letters()

    def written(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    merges = [
        (written(left), written(right))
        for token, rank in sorted(ranks.items(), key=lambda item: item[1])
        if len(token) > 1
        for left, right in [_halves(token, rank, ranks)]
    ]
    return {written(token): rank for token, rank in ranks.items()}, merges


def _halves(token: bytes, rank: int, ranks: dict[bytes, int]) -> list[bytes]:
    """The two parts whose merge is `token`: what the earlier merges make of its bytes."""
    parts = [bytes([byte]) for byte in token]
    while len(parts) > 2:
        found = [
            (ranks[left + right], place)
            for place, (left, right) in enumerate(itertools.pairwise(parts))
            if ranks.get(left + right, rank) < rank
        ]
        _, place = min(found)
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return parts


def _byte_letters() -> dict[int, str]:
    """The letters that byte-level tokenizers write for bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]

    def letters() -> Iterator[tuple[int, str]]:
        others = 0
        for byte in range(256):
            yield byte, chr(byte if byte in plain else 256 + others)
            others += byte not in plain

    return dict(letters())


def enlarged(samples: Sequence[Sample], folder: Path) -> list[Sample]:
    """The samples, with the first two pictures enlarged to 12 and 48 megapixels in `folder`."""
    found = list(samples)
    for n, size in enumerate(((4000, 3000), (8000, 6000))):
        file = folder / f"{size[0] * size[1] // 10**6}-megapixels.jpg"
        with Image.open(samples[n].image) as picture:
            picture.convert("RGB").resize(size, Image.Resampling.BOX).save(file)
        found[n] = replace(samples[n], image=file)
    return found
