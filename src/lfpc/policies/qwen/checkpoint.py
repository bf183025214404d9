"""Checkpoints: plain Hugging Face folders that `AutoModelForImageTextToText` and vLLM load."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars
from safetensors import SafetensorError
from transformers import AutoModelForImageTextToText, AutoTokenizer, PreTrainedTokenizerBase
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.utils import logging as transformers_logging

from lfpc.errors import CheckpointError, first_line
from lfpc.policies.identity import PROCESSOR_FILES
from lfpc.policies.qwen.sums import check_sums, write_sums
from lfpc.policies.qwen.varlen import speed_up_vision
from lfpc.policies.settings import CheckpointSettings, write_settings
from lfpc.storage.files import atomic_folder

SUPPORTED = ("qwen2_5_vl",)
"""Supported values of `model_type`, whose vision tower and positions this package computes."""


def load_checkpoint(
    path: Path, *, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
) -> tuple[Any, PreTrainedTokenizerBase]:
    """The model (in evaluation mode) and tokenizer in a Hugging Face folder.

    Raises:
        CheckpointError: no such folder, unsupported architecture, missing, unreadable, damaged or
            infinite weights, no chat template.
    """
    check_folder(path)
    try:
        with _without_progress_bars():
            tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
            loaded: Any = AutoModelForImageTextToText.from_pretrained(
                path,
                dtype=dtype,
                attn_implementation="sdpa",
                local_files_only=True,
                output_loading_info=True,
            )
    except Exception as error:  # each reader raises its own exception for a broken file
        raise CheckpointError(f"{path}: cannot be loaded ({first_line(error)})") from error
    model, report = loaded
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise CheckpointError(
            f"{path}: {len(missing)} weights are missing from the folder, among them {missing[0]}"
        )
    check_sums(path)
    _check_finite(model, path)
    legacy = path / "chat_template.json"
    if not tokenizer.chat_template and legacy.is_file():
        tokenizer.chat_template = json.loads(legacy.read_text(encoding="utf-8"))["chat_template"]
    speed_up_vision(model.model.visual)
    return model.to(device).eval(), tokenizer


def _check_finite(model: Any, path: Path) -> None:
    for name, weight in model.named_parameters():
        if not bool(weight.isfinite().all()):
            raise CheckpointError(
                f"{path}: the weight {name} holds NaN or infinity; use an earlier checkpoint"
            )


def check_folder(path: Path) -> None:
    """Check that `path` is a checkpoint of a supported architecture, without loading it.

    Raises:
        CheckpointError: it is not.
    """
    file = path / "config.json"
    if not file.is_file():
        raise CheckpointError(
            f"{path}: no config.json in it; a checkpoint is a Hugging Face folder "
            f"(download one with `hf download`)"
        )
    try:
        found = json.loads(file.read_text(encoding="utf-8")).get("model_type")
    except (ValueError, AttributeError, OSError) as error:
        raise CheckpointError(f"{file}: not a model configuration ({first_line(error)})") from error
    if found not in SUPPORTED:
        raise CheckpointError(
            f"{path}: architecture {found!r} is not supported; supported: {', '.join(SUPPORTED)}"
        )


def save_checkpoint(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    source: Path | None = None,
    processor: Any = None,
    settings: CheckpointSettings | None = None,
) -> Path:
    """Write model, tokenizer and picture processor to `folder` atomically.

    Args:
        source: folder of the original model, whose picture processor files are copied.
        processor: picture processor without a source; None: Qwen2.5-VL's defaults.
        settings: settings of its training for `lfpc.json`; None: no file.
    Raises:
        CheckpointError: the disk refuses; an earlier checkpoint of this name is kept.
    """
    try:
        with atomic_folder(folder) as draft:
            with _without_progress_bars():
                model.save_pretrained(draft)
                tokenizer.save_pretrained(draft)
            for name in PROCESSOR_FILES:
                if source is not None and (source / name).is_file():
                    shutil.copyfile(source / name, draft / name)
            if not (draft / PROCESSOR_FILES[0]).is_file():
                (processor or Qwen2VLImageProcessorPil()).save_pretrained(draft)
            if settings is not None:
                write_settings(settings, draft)
            write_sums(draft)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: cannot be written ({first_line(error)})") from error
    return folder


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    """Disable transformers' progress bars, a process-wide option that also switches those of
    huggingface_hub, and restore it afterwards.
    """
    enabled = transformers_logging.is_progress_bar_enabled()
    hub_disabled = are_progress_bars_disabled()
    if enabled:
        transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            transformers_logging.enable_progress_bar()
            if hub_disabled:
                disable_progress_bars()
