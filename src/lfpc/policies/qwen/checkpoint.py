"""Checkpoints: plain Hugging Face folders that `AutoModelForImageTextToText` and vLLM load."""

import json
import shutil
from collections.abc import Callable, Collection, Iterator
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
from lfpc.policies.bases import base_of, model_type, weights_folder
from lfpc.policies.identity import PICTURE_FILES, PROCESSOR_FILES
from lfpc.policies.qwen.adapters import merge_adapters
from lfpc.policies.qwen.architectures import ARCHITECTURES
from lfpc.policies.qwen.folder import normalisation, picture_template
from lfpc.policies.qwen.sums import check_sums, write_sums
from lfpc.policies.qwen.varlen import speed_up_vision
from lfpc.policies.settings import CheckpointSettings, local_folder, write_settings
from lfpc.storage.files import atomic_folder


def load_checkpoint(
    path: Path, *, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
) -> tuple[Any, PreTrainedTokenizerBase]:
    """The model (in evaluation mode) and tokenizer in a Hugging Face folder. The tokenizer's chat
    template is the processor's; the model's `normalised` is the processor's normalisation. A folder
    of adapters gives the model that they change, with the adapters merged.

    Raises:
        CheckpointError: no such folder, unsupported architecture, missing, unreadable, damaged or
            infinite weights, no chat template.
    """
    adapted = local_folder(path)
    path = base_of(adapted) or adapted
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
    tokenizer.chat_template = picture_template(path) or tokenizer.chat_template
    model.normalised = normalisation(path)
    speed_up_vision(model)
    if adapted != path:
        merge_adapters(model, adapted)
        check_sums(adapted)
    check_sums(path)
    _check_finite(model, adapted)
    return model.to(device).eval(), tokenizer


def _check_finite(model: Any, path: Path) -> None:
    for name, weight in model.named_parameters():
        if not bool(weight.isfinite().all()):
            raise CheckpointError(
                f"{path}: the weight {name} holds NaN or infinity; use an earlier checkpoint"
            )


def check_folder(path: Path, supported: Collection[str] = tuple(ARCHITECTURES)) -> None:
    """Check that `path` is a checkpoint of a supported architecture, without loading it.

    Raises:
        CheckpointError: it is not.
    """
    found = model_type(path)
    if found not in supported:
        raise CheckpointError(
            f"{path}: architecture {found!r} is not supported; supported: {', '.join(supported)}"
        )


def dtype_of(folder: Path) -> torch.dtype:
    """Precision of the weights in `folder`, or of those that its adapters change; float32 if its
    configuration names none.

    Raises:
        CheckpointError: not a checkpoint of a supported architecture.
    """
    folder = weights_folder(folder)
    check_folder(folder)
    found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    name = found.get("dtype") or found.get("torch_dtype")
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def save_checkpoint(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    source: Path | None = None,
    processor: Any = None,
    settings: CheckpointSettings | None = None,
    dtype: torch.dtype | None = None,
    write: Callable[[Path], None] | None = None,
) -> Path:
    """Write model, tokenizer and picture processor to `folder` atomically.

    Args:
        source: folder of the original model, whose picture processor files are copied.
        processor: picture processor without a source; None: Qwen2.5-VL's defaults.
        settings: settings of its training for `lfpc.json`; None: no file.
        dtype: precision of the saved weights; None: the model's.
        write: writes something else than the model's weights into the folder, such as adapters.
    Raises:
        CheckpointError: the disk refuses; an earlier checkpoint of this name is kept.
    """
    source = source and local_folder(source)
    try:
        with atomic_folder(folder) as draft:
            with _without_progress_bars():
                if write is None:
                    _save_model(model, draft, dtype)
                else:
                    write(draft)
                tokenizer.save_pretrained(draft)
            for name in PROCESSOR_FILES:
                if source is not None and (source / name).is_file():
                    shutil.copyfile(source / name, draft / name)
            if not any((draft / name).is_file() for name in PICTURE_FILES):
                (processor or Qwen2VLImageProcessorPil()).save_pretrained(draft)
            if settings is not None:
                write_settings(settings, draft)
            write_sums(draft)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: cannot be written ({first_line(error)})") from error
    return folder


def _save_model(model: Any, draft: Path, dtype: torch.dtype | None) -> None:
    if dtype is None:
        model.save_pretrained(draft)
        return
    # on the CPU, so that no second copy is on the device
    state = {name: weight.to("cpu", dtype) for name, weight in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        state.pop("lm_head.weight", None)
    model.save_pretrained(draft, state_dict=state)
    file = draft / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    for part in (config, config.get("text_config", {}), config.get("vision_config", {})):
        if "dtype" in part:
            part["dtype"] = str(dtype).removeprefix("torch.")
    file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


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
