"""Where the weights of a checkpoint lie: in its folder, in the cache of a hub id, or in the folder
that its adapters change. Torch-free.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lfpc.errors import CheckpointError, first_line
from lfpc.policies.settings import local_folder, there

ADAPTER_CONFIG = "adapter_config.json"
_UNKNOWN = ("use_dora", "use_rslora", "rank_pattern", "alpha_pattern", "modules_to_save")
"""Settings of peft under which a merged weight is another one."""


def weights_folder(checkpoint: Path) -> Path:
    """The folder with the weights of `checkpoint`, or with those that its adapters change.

    Raises:
        CheckpointError: see `local_folder` and `base_of`.
    """
    folder = local_folder(checkpoint)
    return base_of(folder) or folder


def model_type(path: Path) -> str:
    """The architecture in the folder's config.json, or of what its adapters change.

    Raises:
        CheckpointError: no such folder, or no such file.
    """
    folder = there(path)
    file = (base_of(folder) or folder) / "config.json"
    if not file.is_file():
        raise CheckpointError(
            f"{path}: no config.json in it; a checkpoint is a Hugging Face folder "
            f"(download one with `hf download`)"
        )
    try:
        return str(json.loads(file.read_text(encoding="utf-8")).get("model_type"))
    except (ValueError, AttributeError, OSError) as error:
        raise CheckpointError(f"{file}: not a model configuration ({first_line(error)})") from error


def base_of(folder: Path) -> Path | None:
    """The folder of the weights that the adapters in `folder` change; None: it holds no adapters.

    Raises:
        CheckpointError: the adapters are unreadable, or that folder is gone.
    """
    if not (folder / ADAPTER_CONFIG).is_file() or (folder / "config.json").is_file():
        return None
    base = local_folder(Path(str(adapter_settings(folder).get("base_model_name_or_path"))))
    if not (base / "config.json").is_file():
        raise CheckpointError(
            f"{folder}: its adapters change the checkpoint {base}, which is not there; write its "
            f"place into {ADAPTER_CONFIG} (base_model_name_or_path)"
        )
    return base


def check_whole(checkpoint: Path, refused: str) -> None:
    """Check that `checkpoint` holds weights of its own.

    Args:
        refused: what cannot be done with adapters, for the message.
    Raises:
        CheckpointError: it holds adapters.
    """
    if base_of(local_folder(checkpoint)) is not None:
        raise CheckpointError(
            f"{checkpoint} holds adapters, {refused}; merge them first: "
            f"lfpc merge {checkpoint} --out FOLDER"
        )


def adapter_settings(folder: Path) -> Mapping[str, Any]:
    """The settings of the adapters in `folder`, as peft writes them.

    Raises:
        CheckpointError: unreadable, or adapters of another kind.
    """
    file = folder / ADAPTER_CONFIG
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file}: unreadable ({first_line(error)})") from error
    if not isinstance(found, dict) or found.get("peft_type") != "LORA":
        raise CheckpointError(f"{file}: not the settings of low-rank adapters")
    if unknown := [name for name in _UNKNOWN if found.get(name)]:
        raise CheckpointError(
            f"{file}: adapters with {unknown[0]} are not supported; merge them with peft"
        )
    return found
