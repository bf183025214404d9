"""Label Studio's JSON tasks: rectangles in per cent of the picture, labelled B1, B2, ..., with the
target in a rectangle's note.

Boxes checked by a person are annotations, others are predictions, which Label Studio shows as
proposals. Set up the project with `CONFIG`, and `LocalStorage` as its local storage.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from lfpc.boxes import Box
from lfpc.boxing.decisions import State, boxing_of
from lfpc.boxing.files.entries import BoxEntry, Placed, Reading, nested
from lfpc.errors import BoxError, SampleError
from lfpc.images import upright_size
from lfpc.samples import Sample

CONFIG = """<View>
  <Header value="$question"/>
  <Text name="answer" value="$answer"/>
  <RectangleLabels name="box" toName="image">
    <Label value="B1"/><Label value="B2"/><Label value="B3"/><Label value="B4"/>
  </RectangleLabels>
  <Image name="image" value="$image" zoom="true" zoomControl="true"/>
</View>
"""
"""Labelling interface of the project."""
_LOCAL = "/data/local-files/?d="


@dataclass(frozen=True)
class LocalStorage:
    """What Label Studio must know to serve pictures of this machine. It serves files in or below a
    storage only, storages are below its document root, and no path has a `..`.
    """

    storage: Path
    """The folder to add as local storage: the nearest one that holds all pictures."""

    @property
    def document_root(self) -> Path:
        """The setting `LOCAL_FILES_DOCUMENT_ROOT`: where paths of pictures begin."""
        return self.storage.parent

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> "LocalStorage":
        """The storage of the samples' pictures.

        Raises:
            SampleError: no folder but the file system's root holds them all.
        """
        storage = Path(os.path.commonpath([_folder(sample) for sample in samples]))
        if storage == storage.parent:
            raise SampleError(
                "the pictures have no folder in common, so Label Studio cannot serve them; copy "
                "them into one folder"
            )
        return cls(storage)


def _folder(sample: Sample) -> Path:
    """The folder of a picture, without `..` and links."""
    return sample.image.parent.resolve()


def exported(samples: Sequence[Sample], folder: Path) -> list[dict[str, Any]]:
    """The content of the file, with picture paths relative to the document root."""
    root = LocalStorage.of(samples).document_root
    return [_task(sample, root) for sample in samples]


def _task(sample: Sample, root: Path) -> dict[str, Any]:
    name = (_folder(sample) / sample.image.name).relative_to(root).as_posix()
    state = boxing_of(sample).state
    size = upright_size(sample.image)
    regions = [
        _region(t, b, box, size)
        for t, target in enumerate(sample.boxes)
        for b, box in enumerate(target)
    ]
    data = {
        "image": _LOCAL + quote(name, errors="surrogateescape"),
        "sample": sample.id,
        "question": sample.question,
        "answer": sample.answer,
        "options": list(sample.options),
    }
    drawn: dict[str, Any] = {"annotations": [], "predictions": []}
    if state != "todo":
        drawn["annotations"] = [{"result": regions, "was_cancelled": state == "skipped"}]
    elif regions:
        drawn["predictions"] = [{"result": regions, "model_version": "not checked"}]
    return {"data": data, **drawn}


def _region(t: int, b: int, box: Box, size: tuple[int, int]) -> dict[str, Any]:
    x = 100 * box.x0
    y = 100 * box.y0
    width = 100 * (box.x1 - box.x0)
    height = 100 * (box.y1 - box.y0)
    value = {
        "x": x,
        "y": y,
        "width": width,
        "height": height,
        "rotation": 0,
        "rectanglelabels": [f"B{b + 1}"],
    }
    return {
        "id": f"t{t + 1}b{b + 1}",
        "type": "rectanglelabels",
        "from_name": "box",
        "to_name": "image",
        "original_width": size[0],
        "original_height": size[1],
        "image_rotation": 0,
        "value": value,
        "meta": {"text": [f"target {t + 1}"]},
    }


def imported(content: Any, reading: Reading | None = None) -> list[BoxEntry]:
    """The entries of the file, one per task: its last valid annotation, else its last prediction.
    The forms JSON and JSON-MIN, and the field `completions` of old versions, are known.

    Args:
        content: the file.
        reading: what to do with a task that is not usable.
    Raises:
        SampleError: not a list of tasks, or, unless `reading` skips it, an invalid rectangle, whose
            task the message names.
    """
    reading = reading or Reading()
    if not isinstance(content, list):
        raise SampleError("not a Label Studio export, which is a JSON list of tasks")
    entries: list[BoxEntry] = []
    for number, task in enumerate(content, 1):
        try:
            entries.append(_entry(task) if "data" in task else _min_entry(task))
        except (BoxError, SampleError) as error:
            reading.skip(SampleError(f"task {number}: {error}"))
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
            wrong = f"not as Label Studio exports it ({type(error).__name__}: {error})"
            reading.skip(SampleError(f"task {number}: {wrong}"))
    return entries


def _entry(task: Mapping[str, Any]) -> BoxEntry:
    data, state, result = task["data"], *_drawn(task)
    placed = [
        _placed(region, region["value"])
        for region in result
        if region.get("type") in ("rectanglelabels", "rectangle")
    ]
    return BoxEntry(
        str(data.get("sample", "")), _picture(str(data.get("image", ""))), nested(placed), state
    )


def _min_entry(task: Mapping[str, Any]) -> BoxEntry:
    """The entry of a task in JSON-MIN: the data and the rectangles side by side."""
    regions = [
        region
        for value in task.values()
        if isinstance(value, list)
        for region in value
        if isinstance(region, Mapping) and {"x", "y", "width", "height"} <= set(region)
    ]
    placed = [_placed(region, region) for region in regions]
    return BoxEntry(str(task.get("sample", "")), _picture(task["image"]), nested(placed), "done")


def _drawn(task: Mapping[str, Any]) -> tuple[State, Sequence[Mapping[str, Any]]]:
    annotations = _objects(task.get("annotations") or task.get("completions"))
    predictions = _objects(task.get("predictions"))
    kept = [annotation for annotation in annotations if not annotation.get("was_cancelled")]
    if kept:
        return "done", _objects(kept[-1]["result"])
    if annotations:
        return "skipped", _objects(annotations[-1]["result"])
    return "todo", _objects(predictions[-1]["result"]) if predictions else []


def _objects(found: Any) -> list[Mapping[str, Any]]:
    """The objects of a list; an export of all tasks lists predictions by their numbers."""
    return [one for one in found or [] if isinstance(one, Mapping)]


def _placed(region: Mapping[str, Any], value: Mapping[str, Any]) -> Placed:
    if value.get("rotation"):
        raise BoxError(f"a rectangle is turned by {value['rotation']} degrees; boxes are upright")
    if region.get("image_rotation"):
        raise BoxError(
            f"its picture is turned by {region['image_rotation']} degrees; turn it back in Label "
            f"Studio"
        )
    x = float(value["x"])
    y = float(value["y"])
    corners = (x, y, x + float(value["width"]), y + float(value["height"]))
    try:
        box = Box.from_annotation(corners, (100, 100), pixels=False)
    except BoxError as error:
        raise BoxError(f"a rectangle in per cent: {error}") from error
    notes = (region.get("meta") or {}).get("text") or []
    return Placed(
        box, _number(r"target (\d+)", notes), _number(r"B(\d+)", value.get("rectanglelabels") or [])
    )


def _number(pattern: str, texts: Sequence[Any]) -> int | None:
    found = [match for text in texts if (match := re.fullmatch(pattern, str(text), re.ASCII))]
    return int(found[0][1][:6]) - 1 if found else None


def _picture(address: str) -> str:
    """Path of a picture in the storage, for any kind of Label Studio address."""
    parts = urlsplit(address)
    return parse_qs(parts.query, errors="surrogateescape").get("d", [parts.path])[0].lstrip("/")
