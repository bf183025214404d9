import gc
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

# read when torch is loaded: more threads wait for each other's matrices of this size in busy loops
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
from browser import chromium, open_page
from PIL import Image

from lfpc.boxes import Box
from lfpc.samples import Sample

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

# No test outlives a power cut, and the suite would wait for the disk ten thousand times: a sixth of
# the fast part. Processes that a test starts wait as users' do.
os.fsync = lambda fd: None

ALL_TESTS = re.compile(r"^pytestmark = \[?\s*pytest\.mark\.(\w+)", re.MULTILINE)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """A file is not imported if none of its tests would run, as it may import torch: `-m "not
    slow"` and `pytestmark = pytest.mark.slow`.
    """
    if collection_path.suffix != ".py":
        return None
    mark = ALL_TESTS.search(collection_path.read_text(encoding="utf-8"))
    return (mark is not None and f"not {mark[1]}" in config.option.markexpr) or None


def pytest_collection_finish(session: pytest.Session) -> None:
    """The fast part loads no torch, as each of its processes would wait for it.

    Garbage collection leaves out what the imports made: tests of memory collect often, and with
    torch and transformers loaded each took half a second.
    """
    if "not slow" in session.config.option.markexpr and "torch" in sys.modules:
        raise pytest.UsageError("a file with tests that are not marked slow imports torch")
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Nor does a test of the fast part load torch, which takes as long as a hundred others."""
    yield
    if "not slow" in item.config.option.markexpr and "torch" in sys.modules:
        pytest.fail("this test, or one before it in this process, loaded torch: mark it slow")


@pytest.fixture(scope="module")  # while it is open, asyncio.run works in no test of this thread
def browser() -> "Iterator[Browser]":
    with chromium() as started:
        yield started


@pytest.fixture
def page(browser: "Browser") -> "Iterator[Page]":
    """An empty page, 1280 x 800; a complaint in its console fails the test."""
    with open_page(browser, viewport={"width": 1280, "height": 800}) as opened:
        yield opened


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The checkpoint of a family in its published layout, see `layout.published`: (family, tied) ->
    folder, made once for all tests and their processes. Read-only.
    """
    import layout  # these import torch
    from filelock import FileLock

    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def of(family: str, tied: bool = True) -> Path:
        layout.need_packages()
        folder = root / "published" / f"{family}{'' if tied else '-untied'}"
        folder.parent.mkdir(exist_ok=True)
        with FileLock(f"{folder}.lock"):
            return folder if folder.exists() else layout.published(folder, family, tied=tied)

    return of


@pytest.fixture
def picture(tmp_path: Path) -> Callable[..., Path]:
    """Writes a picture whose red channel grows with x and whose green channel grows with y; returns
    its path."""

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
    """A sample about a written picture, with one target of two nested boxes; keywords replace its
    fields."""

    def make(**fields: Any) -> Sample:
        boxes = ((Box(0.4, 0.4, 0.5, 0.5), Box(0.3, 0.3, 0.6, 0.6)),)
        values: dict[str, Any] = {
            "id": "s1",
            "question": "Which letter?",
            "answer": "K",
            "boxes": boxes,
        } | fields
        return Sample(image=values.pop("image", None) or picture(), **values)

    return make
