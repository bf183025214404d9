"""What a model is, apart from its path: hashes of its weights, configuration and tokenizer."""

import json
from pathlib import Path

from lfpc.policies.backends import Backend, Server
from lfpc.policies.bases import adapter_settings, base_of
from lfpc.policies.settings import local_folder
from lfpc.storage.identity import file_hashes, value_hash

WEIGHTS = "weights"
MODEL = "model"
_WEIGHT_FILES = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.gguf")
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
)
PICTURE_FILES = ("preprocessor_config.json", "processor_config.json")
"""Files of which one holds the picture processor."""
PROCESSOR_FILES = (*PICTURE_FILES, "video_preprocessor_config.json", "chat_template.json")
"""Further files that servers need beside weights and tokenizer."""
_NO_MATTER = ("transformers_version", "_name_or_path")
"""Keys of a model configuration that change no reply."""


def checkpoint_identity(folder: Path) -> dict[str, str]:
    """Hashes of a checkpoint's weights, model configuration and tokenizer; empty without weights.
    Adapters count with what they change.

    Every weight file is read once, in parallel; loading reads it anyway.

    Args:
        folder: folder or hub id; see `weights_folder`.
    Raises:
        CheckpointError: a hub id without a folder, or adapters whose base is gone.
    """
    folder = local_folder(folder)
    base = base_of(folder)
    if base is not None:
        settings = dict(adapter_settings(folder), base_model_name_or_path=None)
        parts = {file.name: file_hashes([file])[file] for file in folder.glob("*.safetensors")}
        found = checkpoint_identity(base)
        return {**found, WEIGHTS: value_hash([found.get(WEIGHTS), parts, settings])}
    weights = sorted({file for form in _WEIGHT_FILES for file in folder.glob(form)})
    if not weights:
        return {}
    tokenizer = [folder / name for name in TOKENIZER_FILES if (folder / name).is_file()]
    hashes = file_hashes([*weights, *tokenizer])
    return {
        WEIGHTS: value_hash({file.name: hashes[file] for file in weights}),
        "model configuration": value_hash(_configuration(folder / "config.json")),
        "tokenizer": value_hash({file.name: hashes[file] for file in tokenizer}),
    }


def model_identity(model: str, backend: Backend = None) -> dict[str, str]:
    """`checkpoint_identity` of a model in this process; the name of a served one."""
    found = {} if isinstance(backend, Server) else checkpoint_identity(Path(model))
    return found or {MODEL: model}


def _configuration(file: Path) -> object:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(found, dict):
        return found
    return {key: value for key, value in found.items() if key not in _NO_MATTER}
