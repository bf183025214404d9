from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lfpc.boxes import Box
from lfpc.samples import Sample


@pytest.fixture
def picture(tmp_path: Path) -> Callable[..., Path]:
    """Writes a picture whose red channel grows with x and whose green channel grows with y; returns its path."""

    def write(name: str = "picture.png", size: tuple[int, int] = (400, 300)) -> Path:
        width, height = size
        pixels = np.zeros((height, width, 3), np.uint8)
        pixels[..., 0] = np.linspace(0, 255, width).astype(np.uint8)[None, :]
        pixels[..., 1] = np.linspace(0, 255, height).astype(np.uint8)[:, None]
        path = tmp_path / name
        Image.fromarray(pixels).save(path)
        return path

    return write


@pytest.fixture
def sample(picture: Callable[..., Path]) -> Callable[..., Sample]:
    """A sample about a written picture, with one target of two nested boxes; keywords replace its fields."""

    def make(**fields: Any) -> Sample:
        boxes = ((Box(0.4, 0.4, 0.5, 0.5), Box(0.3, 0.3, 0.6, 0.6)),)
        values: dict[str, Any] = {"id": "s1", "question": "Which letter?", "answer": "K", "boxes": boxes} | fields
        return Sample(image=values.pop("image", None) or picture(), **values)

    return make
