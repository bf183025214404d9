"""What a checkpoint folder says besides its weights: chat template and picture processor."""

import json
from pathlib import Path
from typing import Any

from transformers import AutoImageProcessor

from lfpc.errors import CheckpointError, first_line
from lfpc.policies.qwen.vision import Normalisation

TEMPLATE = "chat_template.jinja"
TEMPLATES_IN = ("chat_template.json", "processor_config.json")
"""JSON files with the processor's template under "chat_template", the first wins."""


def picture_template(folder: Path) -> Any:
    """The chat template of the folder's processor; None: only its tokenizer has one.

    It goes before the tokenizer's, which may be the text-only template of the language model (as in
    published Qwen2.5-VL folders).

    Raises:
        CheckpointError: an unreadable file.
    """
    file = folder / TEMPLATE
    try:
        if file.is_file():
            return file.read_text(encoding="utf-8")
        for name in TEMPLATES_IN:
            file = folder / name
            if file.is_file():
                found = json.loads(file.read_text(encoding="utf-8")).get("chat_template")
                if found:
                    return found
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{file}: not a chat template ({first_line(error)})") from error
    return None


def normalisation(folder: Path) -> Normalisation:
    """The channel normalisation of the folder's picture processor.

    Raises:
        CheckpointError: the folder has none, or it cannot be read.
    """
    try:
        processor: Any = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
        return Normalisation(tuple(processor.image_mean), tuple(processor.image_std))
    except Exception as error:  # each reader raises its own exception for a broken file
        raise CheckpointError(
            f"{folder}: its picture processor cannot be loaded ({first_line(error)}); take "
            f"preprocessor_config.json from the published folder"
        ) from error
