"""Perceptual hashes of pictures, which find copies that were resized, recompressed or converted.
Crops are not found.

    pHash: which of the 12 x 12 lowest frequencies of a 48 x 48 grey picture lie above their median
           (144 bits); two pictures are copies if at most `MAX_DISTANCE` bits differ
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from lfpc.data.config import MAX_DISTANCE
from lfpc.errors import ConfigError, LfpcError, SampleError
from lfpc.picture_files import ENDINGS, picture_file, upright_grey
from lfpc.playing.progress import progress_bar
from lfpc.playing.threads import THREADS, in_order
from lfpc.samples import SAMPLES_FILE, Sample, scan_samples
from lfpc.storage.journal import Journal
from lfpc.storage.runs import Kind, RunFolder

SIDE = 12
LEAST_CONTRAST = 3.0
"""Standard deviation of the grey values (0 to 255) below which a picture has no usable hash."""
HASHES_FILE = "hashes.jsonl"
_ONES = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(1).astype(np.uint16)


@dataclass(frozen=True, slots=True, kw_only=True)
class HashConfig:
    """How the hashes in a folder were computed."""

    side: int = SIDE
    contrast: float = LEAST_CONTRAST


def picture_hash(picture: Path) -> bytes | None:
    """The hash of a picture, 144 bits in 18 bytes; None: the picture is nearly of one colour, and
    all such hashes are alike.

    Raises:
        PictureError: it is not usable.
        ConfigError: the package ImageHash is not installed.
    """
    try:
        import imagehash
    except ImportError as error:
        raise ConfigError(
            "comparing pictures needs the package ImageHash: pip install 'lfpc[data]'"
        ) from error
    with picture_file(picture) as file:
        file.draft("L", (256, 256))  # a JPEG file is decoded no larger than needed
        grey = upright_grey(file)
        if float(np.asarray(grey.resize((64, 64))).std()) < LEAST_CONTRAST:
            return None
        return np.packbits(imagehash.phash(grey, hash_size=SIDE).hash).tobytes()


class KnownHashes:
    """Known pictures by their hashes."""

    def __init__(self, pictures: Sequence[Path], hashes: Sequence[bytes]) -> None:
        self._pictures = list(pictures)
        self._hashes = np.frombuffer(b"".join(hashes), np.uint8).reshape(
            len(hashes), SIDE * SIDE // 8
        )

    def __len__(self) -> int:
        return len(self._pictures)

    def nearest(
        self, picture_hash: bytes | None, max_distance: int = MAX_DISTANCE
    ) -> tuple[Path, int] | None:
        """The known picture with the nearest hash, and the bits in which they differ; None: no
        picture within `max_distance`.
        """
        if picture_hash is None or not self._pictures:
            return None
        distances = _ONES[self._hashes ^ np.frombuffer(picture_hash, np.uint8)].sum(1)
        nearest = int(distances.argmin())
        return (
            (self._pictures[nearest], int(distances[nearest]))
            if distances[nearest] <= max_distance
            else None
        )


def hashes_of(
    pictures: Iterable[Path], kept: Path, *, label: str = "hashes", progress: bool = True
) -> Iterator[tuple[Path, bytes | None]]:
    """(picture, hash) of every readable picture, in order. Hashes are stored in the folder `kept`
    and computed once.
    """
    run = RunFolder.open(kept, Kind.HASHES, HashConfig())
    hashes = Journal.open(run.path / HASHES_FILE)
    known = {row["key"]: row["hash"] for row in hashes.rows()}

    def hashed(picture: Path) -> tuple[Path, str, str | None] | None:
        try:
            key = _key(picture)
            if key in known:
                return picture, key, known[key]
            found = picture_hash(picture)
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
        for found in in_order(threads, hashed, pictures, 4 * THREADS):
            advance(1)
            if found is not None:
                picture, key, text = found
                if key not in known:
                    hashes.append(key, {"hash": text})
                yield picture, None if text is None else bytes.fromhex(text)


def known_hashes(folders: Sequence[Path], kept: Path, *, progress: bool = True) -> KnownHashes:
    """Hashes of every picture in `folders`: of a samples folder the pictures of its samples, of any
    other folder every picture file below it.

    Raises:
        SampleError: a folder does not exist, or holds no picture.
    """
    pictures = [picture for folder in folders for picture in _pictures_in(folder)]
    found = [
        (picture, its_hash)
        for picture, its_hash in hashes_of(
            pictures, kept, label="hashes of known pictures", progress=progress
        )
        if its_hash is not None
    ]
    return KnownHashes([picture for picture, _ in found], [its_hash for _, its_hash in found])


def leak_finder(known: KnownHashes) -> Callable[[Path], str | None]:
    """A function from a picture to the known picture that it copies, in words; None: it copies
    none.
    """

    @lru_cache(maxsize=1024)
    def leak(picture: Path) -> str | None:
        near = known.nearest(picture_hash(picture))
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
            f"{folder}: no pictures in it; if they are inside a table, import it first "
            f"(lfpc data import)"
        )
    return list(found)


def _key(picture: Path) -> str:
    facts = picture.stat()
    return f"{picture.absolute()} {facts.st_size} {facts.st_mtime_ns}"
