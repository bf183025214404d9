"""Settings of a checkpoint from its training: `lfpc.json` beside the weights. Torch-free.

Training writes the file. Commands use it for options that are not given; without the file they use
the defaults of `CheckpointSettings`.
"""

import json
import logging
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from lfpc.errors import CheckpointError, ConfigError
from lfpc.images import CropRules
from lfpc.protocols import PROTOCOLS, ProtocolFile
from lfpc.storage.near import missing_folder
from lfpc.storage.typed import config_from_plain, plain

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
"""Exactly owner/name; anything else is a path."""
SETTINGS_FILE = "lfpc.json"
log = logging.getLogger(__name__)
FORMAT = 1
"""Version of the file; other versions are rejected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointSettings:
    """Protocol, crop rules, limits and budgets of a checkpoint's training."""

    format: int = FORMAT
    """Version of the file."""
    protocol: str | ProtocolFile = "qwen2_5_vl"
    """Protocol; a name in lfpc.protocols, or the content of a protocol file."""
    crop: CropRules | None = None
    """Resolution of a crop. None: the protocol's."""
    max_turns: int = 6
    """Turn limit of an episode."""
    max_new_tokens: int = 512
    """Token limit of a reply."""
    first_view: Literal["selected", "random", "original", "fixed"] | None = None
    """Kind of first-view budget in training. None: no reinforcement learning so far."""
    small_budget: int | None = 1024
    """Visual tokens of a reduced first view: the fixed budget, or the most frequent selected one.
    None: trained at the original's resolution only."""
    full_budget: int = 16384
    """Maximum visual tokens of a first view at the original's resolution."""

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise ConfigError(f"format {self.format} is unknown; this version reads {FORMAT}")
        if isinstance(self.protocol, str) and self.protocol not in PROTOCOLS:
            raise ConfigError(f"protocol must be one of {', '.join(PROTOCOLS)}")
        for name in ("max_turns", "max_new_tokens", "budget", "full_budget"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")

    @property
    def budget(self) -> int:
        """Default first-view budget."""
        return self.full_budget if self.small_budget is None else self.small_budget

    def crop_for(self, protocol: str | ProtocolFile) -> CropRules | None:
        """The crop rules, where the model is spoken to in the protocol it was trained with; None:
        the protocol's own.
        """
        return self.crop if protocol == self.protocol else None


def read_settings(folder: Path) -> CheckpointSettings | None:
    """The settings of the checkpoint in `folder`; None without `lfpc.json`.

    Raises:
        CheckpointError: the file is unreadable, or has another format.
    """
    file = folder / SETTINGS_FILE
    if not file.is_file():
        return None
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return config_from_plain(CheckpointSettings, found, "settings")
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{file}: not the settings of a checkpoint ({error}); copy it again from the "
            f"checkpoint, or move it elsewhere to use the defaults"
        ) from error


def local_folder(checkpoint: Path) -> Path:
    """The folder of a checkpoint: itself, or the cached snapshot of a hub id such as
    Qwen/Qwen3-VL-4B-Instruct. Nothing is downloaded.

    Raises:
        CheckpointError: neither a folder nor in the cache.
    """
    if checkpoint.exists() or not HUB_ID.fullmatch(checkpoint.as_posix()):
        return checkpoint
    from huggingface_hub import snapshot_download  # slow to import
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    name = checkpoint.as_posix()
    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, HfHubHTTPError, OSError) as error:
        if checkpoint.parent.is_dir():  # out/chekpoint
            raise CheckpointError(missing_folder(checkpoint)) from error
        raise CheckpointError(
            f"{missing_folder(checkpoint)} (as a hub id it is not in the Hugging Face cache; "
            f"download it with `hf download {name}`)"
        ) from error


def there(checkpoint: Path) -> Path:
    """`local_folder`, which exists.

    Raises:
        CheckpointError: it does not.
    """
    folder = local_folder(checkpoint)
    if not folder.is_dir():
        raise CheckpointError(
            f"{missing_folder(checkpoint)} (a checkpoint is a Hugging Face folder, or a hub id of "
            f"the form owner/name in the local cache)"
        )
    return folder


def checkpoint_name(checkpoint: Path) -> str:
    """The name of a checkpoint in records: its absolute path, or its hub id."""
    if checkpoint.exists() or not HUB_ID.fullmatch(checkpoint.as_posix()):
        return str(checkpoint.absolute())
    return checkpoint.as_posix()


def checkpoint_settings(checkpoint: Path) -> CheckpointSettings:
    """The settings of a checkpoint; without `lfpc.json` the defaults, with its family's protocol,
    which are logged once.

    Raises:
        CheckpointError: see `local_folder` and `read_settings`.
    """
    folder = there(checkpoint)
    found = read_settings(folder)
    if found is not None:
        return found
    used = CheckpointSettings(protocol=_family_protocol(folder))
    _warn_of_defaults(checkpoint, used)
    return used


@cache
def _warn_of_defaults(checkpoint: Path, used: CheckpointSettings) -> None:
    log.warning(
        "%s has no %s; what is not given has defaults: protocol %s, replies of at most %d tokens, "
        "at most %d turns",
        checkpoint,
        SETTINGS_FILE,
        used.protocol,
        used.max_new_tokens,
        used.max_turns,
    )


def _family_protocol(folder: Path) -> str:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        family = str(config["model_type"])
    except (OSError, ValueError, KeyError, TypeError):  # named when the checkpoint is loaded
        family = ""
    return "qwen3_vl" if family.startswith("qwen3") else "qwen2_5_vl"


def write_settings(settings: CheckpointSettings, folder: Path) -> None:
    """Write the settings beside the weights in `folder`.

    Raises:
        OSError: the disk refuses.
    """
    text = json.dumps(plain(settings), indent=2) + "\n"
    (folder / SETTINGS_FILE).write_text(text, encoding="utf-8")
