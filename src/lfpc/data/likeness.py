"""Pictures that look the same: copies that were resized, recompressed or saved in another format.
Crops are not found.

phash: which of the 12 x 12 lowest frequencies of a 48 x 48 grey picture are above their median: 144
bits two pictures look the same if at most `MAX_DISTANCE` bits differ
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import ImageOps

from lfpc.data.config import MAX_DISTANCE
from lfpc.errors import ConfigError, LfpcError, SampleError
from lfpc.images import picture_file
from lfpc.playing.progress import progress_bar
from lfpc.playing.threads import THREADS, in_order
from lfpc.samples import SAMPLES_FILE, Sample, scan_samples
from lfpc.storage.journal import Journal
from lfpc.storage.runs import Kind, RunFolder

SIDE = 12
LEAST_CONTRAST = 3.0
"""Standard deviation of the grey values (0 to 255) below which a picture has no look of its own."""
HASHES_FILE = "hashes.jsonl"
ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
_ONES = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(1).astype(np.uint16)


@dataclass(frozen=True, slots=True, kw_only=True)
class LooksConfig:
    """How the looks in a folder of them were computed."""

    side: int = SIDE
    contrast: float = LEAST_CONTRAST


def picture_look(picture: Path) -> bytes | None:
    """The look of a picture, 144 bits in 18 bytes; None: it is nearly of one colour, and would look
    like any other such picture.

    Raises:
        PictureError: it is not usable.
        ConfigError: the package ImageHash is not there.
    """
    try:
        import imagehash
    except ImportError as error:
        raise ConfigError(
            "comparing pictures needs the package ImageHash: pip install 'lfpc[data]'"
        ) from error
    with picture_file(picture) as file:
        file.draft("L", (256, 256))  # a JPEG file is decoded no larger than needed
        grey = ImageOps.exif_transpose(
            file.convert("RGBA").convert("L") if file.mode == "P" else file.convert("L")
        )
        if float(np.asarray(grey.resize((64, 64))).std()) < LEAST_CONTRAST:
            return None
        return np.packbits(imagehash.phash(grey, hash_size=SIDE).hash).tobytes()


class Looks:
    """Known pictures by their looks."""

    def __init__(self, pictures: Sequence[Path], looks: Sequence[bytes]) -> None:
        self._pictures = list(pictures)
        self._looks = np.frombuffer(b"".join(looks), np.uint8).reshape(len(looks), SIDE * SIDE // 8)

    def __len__(self) -> int:
        return len(self._pictures)

    def like(self, look: bytes | None, max_distance: int = MAX_DISTANCE) -> tuple[Path, int] | None:
        """The known picture nearest to `look` and the bits in which they differ; None: none is near
        enough.
        """
        if look is None or not self._pictures:
            return None
        distances = _ONES[self._looks ^ np.frombuffer(look, np.uint8)].sum(1)
        nearest = int(distances.argmin())
        return (
            (self._pictures[nearest], int(distances[nearest]))
            if distances[nearest] <= max_distance
            else None
        )


def looks_of(
    pictures: Iterable[Path], kept: Path, *, label: str = "looks", progress: bool = True
) -> Iterator[tuple[Path, bytes | None]]:
    """(picture, look) of every picture that can be read, in order; looks are kept in the folder
    `kept` and not computed again.
    """
    run = RunFolder.open(kept, Kind.HASHES, LooksConfig())
    hashes = Journal.open(run.path / HASHES_FILE)
    known = {row["key"]: row["look"] for row in hashes.rows()}

    def look(picture: Path) -> tuple[Path, str, str | None] | None:
        try:
            key = _key(picture)
            if key in known:
                return picture, key, known[key]
            found = picture_look(picture)
            return picture, key, None if found is None else found.hex()
        except (OSError, LfpcError) as error:
            if isinstance(error, ConfigError):
                raise
            return None

    with (
        run,
        ThreadPoolExecutor(THREADS) as threads,
        progress_bar(None, 0, label, unit="picture", shown=progress) as advance,
    ):
        for found in in_order(threads, look, pictures, 4 * THREADS):
            advance(1)
            if found is not None:
                picture, key, text = found
                if key not in known:
                    hashes.append(key, {"look": text})
                yield picture, None if text is None else bytes.fromhex(text)


def known_looks(folders: Sequence[Path], kept: Path, *, progress: bool = True) -> Looks:
    """The looks of every picture in `folders`: those of its samples where it is a samples folder,
    else every picture file below it.

    Raises:
        SampleError: a folder is not there, or holds no picture.
    """
    pictures = [picture for folder in folders for picture in _pictures_in(folder)]
    found = [
        (p, look)
        for p, look in looks_of(pictures, kept, label="looks of known pictures", progress=progress)
        if look is not None
    ]
    return Looks([picture for picture, _ in found], [look for _, look in found])


def leak_finder(known: Looks) -> Callable[[Path], str | None]:
    """A function that says in words which known picture a picture is a copy of; None: of none."""

    @lru_cache(maxsize=1024)
    def leak(picture: Path) -> str | None:
        near = known.like(picture_look(picture))
        return near and f"{near[0]} ({near[1]} of {SIDE * SIDE} bits differ)"

    return leak


def _pictures_in(folder: Path) -> list[Path]:
    if (folder / SAMPLES_FILE).is_file():
        found = dict.fromkeys(
            sample.image for sample in scan_samples(folder) if isinstance(sample, Sample)
        )
    else:
        found = dict.fromkeys(
            file for file in sorted(folder.rglob("*")) if file.suffix.lower() in ENDINGS
        )
    if not found:
        raise SampleError(
            f"{folder}: no pictures there; a benchmark with its pictures inside a table is "
            f"imported first (lfpc data import)"
        )
    return list(found)


def _key(picture: Path) -> str:
    facts = picture.stat()
    return f"{picture.absolute()} {facts.st_size} {facts.st_mtime_ns}"
