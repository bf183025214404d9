"""COCO's detection JSON: corner and size in pixels of the upright picture, with categories B1, B2,
...

Each image is a sample (several may name one file). We add fields: `sample` and `state` to images,
`target` and `level` to annotations. If a tool drops them, boxes are matched by the picture's name
and grouped by containment.
"""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lfpc.boxes import Box
from lfpc.boxing.decisions import boxing_of
from lfpc.boxing.files.entries import BoxEntry, Placed, nested
from lfpc.errors import BoxError, SampleError
from lfpc.images import upright_size
from lfpc.samples import Sample


def exported(samples: Sequence[Sample], folder: Path) -> dict[str, Any]:
    """The content of the file, with picture paths relative to `folder`."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, sample in enumerate(samples, 1):
        width, height = upright_size(sample.image)
        name = Path(os.path.relpath(sample.image, folder)).as_posix()
        state = boxing_of(sample).state
        images.append(
            {
                "id": number,
                "file_name": name,
                "width": width,
                "height": height,
                "sample": sample.id,
                "state": state,
            }
        )
        for t, target in enumerate(sample.boxes):
            for b, box in enumerate(target):
                x = box.x0 * width
                y = box.y0 * height
                w = (box.x1 - box.x0) * width
                h = (box.y1 - box.y0) * height
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": number,
                        "category_id": b + 1,
                        "bbox": [x, y, w, h],
                        "area": w * h,
                        "iscrowd": 0,
                        "target": t,
                        "level": b,
                    }
                )
    deepest = max((len(target) for sample in samples for target in sample.boxes), default=1)
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": n, "name": f"B{n}"} for n in range(1, deepest + 1)],
    }


def imported(content: Any) -> list[BoxEntry]:
    """The entries of the file, one per image.

    Raises:
        SampleError: not a COCO file, or an invalid annotation, which the message names.
    """
    try:
        images = {image["id"]: image for image in content["images"]}
        found: defaultdict[Any, list[Placed]] = defaultdict(list)
        for annotation in content["annotations"]:
            found[annotation["image_id"]].append(_placed(annotation, images))
        return [_entry(image, found[key]) for key, image in images.items()]
    except (KeyError, TypeError, AttributeError) as error:
        raise SampleError(
            f"not a COCO file with images and annotations ({type(error).__name__}: {error})"
        ) from error


def _placed(annotation: Mapping[str, Any], images: Mapping[Any, Mapping[str, Any]]) -> Placed:
    image = images.get(annotation["image_id"])
    try:
        if image is None:
            raise SampleError(f"unknown image {annotation['image_id']!r}")
        x, y, w, h = map(float, annotation["bbox"])
        box = Box.from_pixels((x, y, x + w, y + h), (float(image["width"]), float(image["height"])))
        return Placed(box, _whole(annotation, "target"), _whole(annotation, "level"))
    except (BoxError, SampleError, ValueError, OverflowError, ZeroDivisionError) as error:
        raise SampleError(f"annotation {annotation.get('id')!r} is not a box: {error}") from error


def _whole(annotation: Mapping[str, Any], name: str) -> int | None:
    value = annotation.get(name)
    return value if isinstance(value, int) else None


def _entry(image: Mapping[str, Any], placed: Sequence[Placed]) -> BoxEntry:
    state = image.get("state", "done" if placed else "todo")
    return BoxEntry(
        str(image.get("sample", "")), str(image.get("file_name", "")), nested(placed), state
    )
