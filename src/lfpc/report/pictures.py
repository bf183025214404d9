"""Pictures of the pages: each view of a record, made again from the original and saved once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from PIL import Image

from lfpc.boxes import Box
from lfpc.errors import LfpcError
from lfpc.images import open_picture
from lfpc.report.evidence import NamedLook
from lfpc.samples import Sample

LONGEST_SIDE = 1024
"""Maximum side of saved originals and first views, in pixels."""
THUMBNAIL = 72
"""Maximum side of a thumbnail, in pixels."""

Saved = dict[str, Any]
"""A picture file of the page: "src" relative to the page, "width" and "height" of the full picture
in pixels, "shrunk" if the file has fewer pixels."""


@dataclass(slots=True)
class PictureFiles:
    """Saves pictures into `folder`, each once."""

    folder: Path
    saved: dict[tuple[object, ...], Saved | None] = field(
        default_factory=dict[tuple[object, ...], "Saved | None"]
    )

    def original(self, sample: Sample) -> Saved | None:
        """The original, reduced to `LONGEST_SIDE`; None if it cannot be opened."""
        return self._once(("original", sample.image), lambda: open_picture(sample.image))

    def thumbnail(self, sample: Sample) -> str:
        """Path of the original's thumbnail; "" if it cannot be opened."""

        def make() -> Image.Image:
            picture = open_picture(sample.image)
            return picture.resize(
                _fitted(picture.size, THUMBNAIL), Image.Resampling.BILINEAR, reducing_gap=2.0
            )

        return (self._once(("thumbnail", sample.image), make) or {"src": ""})["src"]

    def first_view(self, sample: Sample, size: Sequence[int]) -> Saved | None:
        """The original at `size` pixels (width, height): the first view as the policy was shown
        it.
        """

        def make() -> Image.Image:
            picture = open_picture(sample.image)
            (width, height) = size
            return (
                picture
                if picture.size == (width, height)
                else picture.resize((width, height), Image.Resampling.BICUBIC)
            )

        return self._once(("first", sample.image, *size), make)

    def crop(self, sample: Sample, box: Box, shown: NamedLook) -> Saved | None:
        """The view of a look for `box`; None without a view, or if the picture cannot be opened."""

        def make() -> Image.Image | None:
            view = shown.look(sample, box)
            return view and view.image

        return self._once(
            ("crop", shown.name.replace("repeat/", "own/"), sample.image, sample.id, box.corners),
            make,
        )

    def _once(
        self, key: tuple[object, ...], make: Callable[[], Image.Image | None]
    ) -> Saved | None:
        if key not in self.saved:
            try:
                picture = make()
            except LfpcError:
                picture = None
            self.saved[key] = None if picture is None else self._save(key, picture)
        return self.saved[key]

    def _save(self, key: tuple[object, ...], picture: Image.Image) -> Saved:
        width, height = picture.size
        shrunk = max(picture.size) > LONGEST_SIDE
        if shrunk:
            picture = picture.resize(
                _fitted(picture.size, LONGEST_SIDE), Image.Resampling.LANCZOS, reducing_gap=3.0
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"{key[0]}-{sha256(repr(key).encode('utf-8', 'replace')).hexdigest()[:16]}.jpg"
        sharp = key[0] == "first"  # a small picture, looked at closely
        picture.save(self.folder / name, quality=92 if sharp else 85, subsampling=0 if sharp else 2)
        return {
            "src": f"{self.folder.name}/{name}",
            "width": width,
            "height": height,
            "shrunk": shrunk,
        }


def _fitted(size: tuple[int, int], longest: int) -> tuple[int, int]:
    scale = min(1.0, longest / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
