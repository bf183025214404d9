"""COCO's detection JSON: corner and size in pixels of the upright picture, with categories B1, B2,
...

Each image is a picture. We add fields: `samples` (their states by id) to images; `sample`,
`target` and `level` to annotations. If a tool drops them, boxes are matched by the picture's name
and grouped by containment.
"""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lfpc.boxes import Box, Size
from lfpc.boxing.decisions import boxing_of
from lfpc.boxing.files.entries import BoxEntry, Placed, Reading, nested
from lfpc.errors import BoxError, SampleError
from lfpc.images import upright_size
from lfpc.picture_files import Frame
from lfpc.samples import Sample

_SAME_ASPECT = 0.02
"""Maximum relative difference in aspect ratio of a picture and a resized copy of it."""


def exported(samples: Sequence[Sample], folder: Path) -> dict[str, Any]:
    """The content of the file, with picture paths relative to `folder`."""
    images: dict[str, dict[str, Any]] = {}
    annotations: list[dict[str, Any]] = []
    for sample in samples:
        name = Path(os.path.relpath(sample.image, folder)).as_posix()
        if name not in images:
            width, height = upright_size(sample.image)
            images[name] = {
                "id": len(images) + 1,
                "file_name": name,
                "width": width,
                "height": height,
                "samples": {},
            }
        image = images[name]
        image["samples"][sample.id] = boxing_of(sample).state
        for t, target in enumerate(sample.boxes):
            for b, box in enumerate(target):
                x = box.x0 * image["width"]
                y = box.y0 * image["height"]
                w = (box.x1 - box.x0) * image["width"]
                h = (box.y1 - box.y0) * image["height"]
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": image["id"],
                        "category_id": b + 1,
                        "bbox": [x, y, w, h],
                        "area": w * h,
                        "iscrowd": 0,
                        "sample": sample.id,
                        "target": t,
                        "level": b,
                    }
                )
    deepest = max((len(target) for sample in samples for target in sample.boxes), default=1)
    return {
        "info": {"description": "truth boxes, B1 the tightest of each target"},
        "images": list(images.values()),
        "annotations": annotations,
        "categories": [{"id": n, "name": f"B{n}"} for n in range(1, deepest + 1)],
    }


def imported(content: Any, reading: Reading | None = None) -> list[BoxEntry]:
    """The entries of the file, one per image and sample.

    Boxes of the stored pixels of a photograph that is turned by its EXIF data are turned with it.

    Args:
        content: the file.
        reading: what is known of the samples.
    Raises:
        SampleError: not a COCO file, two images with one id, or, unless `reading` skips them, an
            invalid annotation, which the message names.
    """
    reading = reading or Reading()
    try:
        images: dict[Any, Mapping[str, Any]] = {}
        for image in content["images"]:
            if image["id"] in images:
                raise SampleError(f"two images have the id {image['id']!r}")
            images[image["id"]] = image
        found: defaultdict[Any, list[Mapping[str, Any]]] = defaultdict(list)
        for annotation in content["annotations"]:
            if annotation["image_id"] not in images:
                unknown = f"unknown image {annotation['image_id']!r}"
                reading.skip(_no_box(annotation, unknown))
            found[annotation["image_id"]].append(annotation)
        upright = "Label Studio" in str((content.get("info") or {}).get("contributor", ""))
        entries: list[BoxEntry] = []
        for key, image in images.items():
            try:
                entries += _entries(image, found[key], reading, upright=upright)
            except SampleError as error:
                reading.skip(error)
        return entries
    except (KeyError, TypeError, AttributeError) as error:
        raise SampleError(
            f"not a COCO file with images and annotations ({type(error).__name__}: {error})"
        ) from error


def _entries(
    image: Mapping[str, Any],
    annotations: Sequence[Mapping[str, Any]],
    reading: Reading,
    *,
    upright: bool,
) -> list[BoxEntry]:
    """The entries of one image; `upright`: its boxes are, whatever size it names."""
    picture = str(image.get("file_name", ""))
    states: Mapping[str, Any] = image.get("samples") or {}
    if "sample" in image:  # an older export of ours: an image for each sample
        states = {image["sample"]: image.get("state", "todo")}
    only = next(iter(states)) if len(states) == 1 else ""
    by_sample: dict[str, list[Placed]] = {name: [] for name in states} or {"": []}
    frame = reading.frame_at(only or next(iter(states), ""), picture)
    size, turn = _frame(image, frame, upright=upright)
    for annotation in annotations:
        placed = _placed(annotation, size, frame if turn else None)
        by_sample.setdefault(str(annotation.get("sample", only)), []).append(placed)
    if not by_sample.get("", ["kept"]) and len(by_sample) > 1:
        del by_sample[""]
    return [
        BoxEntry(name, picture, nested(placed), states.get(name, "done" if placed else "todo"))
        for name, placed in by_sample.items()
    ]


def _frame(image: Mapping[str, Any], frame: Frame | None, *, upright: bool) -> tuple[Any, bool]:
    """(width, height) of the pixels of an image's boxes, and whether these are the stored ones of a
    turned picture.

    Raises:
        SampleError: the picture has another shape.
    """
    if frame is None:
        return (image["width"], image["height"]), False
    if not (image.get("width") and image.get("height")) or upright:
        return frame.size, False
    size = float(image["width"]), float(image["height"])
    for known, turn in ((frame.size, False), (frame.stored, True)):
        if size == known or _same_shape(size, known):
            return size, turn
    raise SampleError(
        f"image {image['id']!r} has {size[0]:g} x {size[1]:g} pixels in the file, but "
        f"{image.get('file_name')} has {frame.size[0]} x {frame.size[1]}"
    )


def _same_shape(size: tuple[float, float], known: Size) -> bool:
    return abs(size[0] * known[1] / (size[1] * known[0]) - 1) <= _SAME_ASPECT


def _placed(annotation: Mapping[str, Any], size: Any, turned: Frame | None) -> Placed:
    try:
        if rotation := (annotation.get("attributes") or {}).get("rotation"):
            raise BoxError(f"it is turned by {rotation} degrees; boxes are upright")
        x, y, w, h = map(float, annotation["bbox"])
        width, height = map(float, size)
        box = Box.from_annotation((x, y, x + w, y + h), (width, height))
    except (BoxError, ValueError, OverflowError, ZeroDivisionError) as error:
        shape = f"image of {size[0]:g} x {size[1]:g} pixels"
        raise _no_box(annotation, f"{error} ({shape})") from error
    return Placed(
        turned.upright(box) if turned else box,
        _whole(annotation, "target"),
        _whole(annotation, "level"),
    )


def _no_box(annotation: Mapping[str, Any], reason: object) -> SampleError:
    return SampleError(f"annotation {annotation.get('id')!r} is not a box: {reason}")


def _whole(annotation: Mapping[str, Any], name: str) -> int | None:
    value = annotation.get(name)
    return value if isinstance(value, int) else None
