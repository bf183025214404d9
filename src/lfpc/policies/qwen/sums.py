"""Checksums of a checkpoint's files, in the format of `sha256sum -c`: a flipped bit in a weight
loads without any error.
"""

from hashlib import file_digest
from pathlib import Path

from lfpc.errors import CheckpointError
from lfpc.policies.bases import ADAPTER_CONFIG

SUMS_FILE = "SHA256SUMS"
_UNLISTED = (SUMS_FILE, ADAPTER_CONFIG)
"""The settings of adapters name the place of their base, which may move."""


def write_sums(folder: Path) -> None:
    """Write the checksums of all files in `folder`."""
    files = sorted(
        path for path in folder.iterdir() if path.is_file() and path.name not in _UNLISTED
    )
    lines = "".join(f"{_digest(file)}  {file.name}\n" for file in files)
    (folder / SUMS_FILE).write_text(lines, encoding="utf-8")


def check_sums(folder: Path) -> None:
    """Compare the files in `folder` with its checksums; without any, nothing is checked.

    Raises:
        CheckpointError: a file differs or is missing.
    """
    sums = folder / SUMS_FILE
    if not sums.is_file():
        return
    for line in sums.read_text(encoding="utf-8", errors="replace").splitlines():
        digest, _, name = line.partition("  ")
        file = folder / name
        if not file.is_file():
            raise CheckpointError(f"{file} is missing, but {sums} lists it; copy the whole folder")
        if _digest(file) != digest:
            raise CheckpointError(
                f"{file} is damaged: it differs from its checksum in {SUMS_FILE}; copy it again "
                f"from where it came from (if you edited it, remove its line there)"
            )


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return file_digest(content, "sha256").hexdigest()
