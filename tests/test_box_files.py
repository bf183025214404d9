import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lfpc.boxes import Box
from lfpc.boxing.decisions import Boxing, boxing_of, with_boxing
from lfpc.boxing.files import FORMATS, BoxEntry, with_entries
from lfpc.boxing.files.entries import grouped
from lfpc.cli import main
from lfpc.errors import SampleError
from lfpc.samples import Sample, read_samples, write_samples

INNER = Box(0.4, 0.4, 0.5, 0.5)
OUTER = Box(0.3, 0.3, 0.6, 0.6)
FAR = Box(0.8, 0.1, 0.9, 0.7)


@pytest.fixture
def samples(picture: Callable[..., Path]) -> list[Sample]:
    """Done with two targets, done with the odd fractions of 3 x 7 pixels, not checked, skipped,
    untouched; two share a picture."""
    first = picture("a b.png")
    second = picture("c.png", size=(3, 7))

    def made(name: str, image: Path, boxes: Any, state: Any) -> Sample:
        sample = Sample(id=name, image=image, question="<b>?</b>", answer="K", options=("K", "L"))
        return with_boxing(sample, boxes, Boxing(state=state))

    return [
        made("two targets", first, ((INNER, OUTER), (FAR,)), "done"),
        made("odd", second, ((Box(1 / 3, 2 / 7, 2 / 3, 1.0), Box(0.0, 1 / 7, 1.0, 1.0)),), "done"),
        made("not checked", first, ((FAR,),), "todo"),
        made("skipped", first, (), "skipped"),
        made("untouched", first, (), "todo"),
    ]


def without_boxes(samples: list[Sample]) -> list[Sample]:
    return [with_boxing(sample, (), Boxing()) for sample in samples]


@pytest.mark.parametrize("name", FORMATS)
def test_boxes_and_decisions_come_back_from_every_format(
    name: str, samples: list[Sample], tmp_path: Path
):
    content = json.loads(json.dumps(FORMATS[name].exported(samples, tmp_path)))
    back, unknown = with_entries(without_boxes(samples), FORMATS[name].imported(content), tmp_path)
    assert unknown == []
    assert [boxing_of(sample).state for sample in back] == [
        "done",
        "done",
        "todo",
        "skipped",
        "todo",
    ]
    for before, after in zip(samples, back, strict=True):
        assert [len(target) for target in after.boxes] == [len(target) for target in before.boxes]
        for p, q in zip(before.boxes, after.boxes, strict=True):
            for one, other in zip(p, q, strict=True):
                assert other.corners == pytest.approx(one.corners, abs=1e-12)


def test_coco_boxes_are_corner_and_size_in_pixels_of_the_upright_picture(
    samples: list[Sample], tmp_path: Path
):
    # INNER of 400 x 300 pixels: x 0.4 * 400 = 160, y 0.4 * 300 = 120, width 0.1 * 400 = 40, height
    # 30, area 1200
    content = FORMATS["coco"].exported(samples[:1], tmp_path)
    assert content["annotations"][0]["bbox"] == pytest.approx([160, 120, 40, 30])
    assert content["annotations"][0]["area"] == pytest.approx(1200)
    assert (
        content["images"][0] | {"width": 400, "height": 300, "file_name": "a b.png"}
        == content["images"][0]
    )
    assert [category["name"] for category in content["categories"]] == ["B1", "B2"]


def test_a_picture_turned_by_its_exif_has_the_size_it_is_shown_at(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.new("RGB", (40, 30)).save(tmp_path / "turned.jpg", exif=exif)
    sample = Sample(
        id="s", image=tmp_path / "turned.jpg", question="?", answer="K", boxes=((INNER,),)
    )
    image = FORMATS["coco"].exported([sample], tmp_path)["images"][0]
    assert (image["width"], image["height"]) == (30, 40)


def test_label_studio_rectangles_are_percent_and_checked_ones_are_annotations(
    samples: list[Sample], tmp_path: Path
):
    tasks = FORMATS["label-studio"].exported(samples, tmp_path)
    assert tasks[0]["data"]["image"] == "/data/local-files/?d=a%20b.png"
    region = tasks[0]["annotations"][0]["result"][0]
    assert [region["value"][key] for key in ("x", "y", "width", "height")] == pytest.approx(
        [40, 40, 10, 10]
    )
    assert (region["original_width"], region["original_height"]) == (400, 300)
    assert (len(tasks[2]["annotations"]), len(tasks[2]["predictions"])) == (0, 1)
    assert tasks[3]["annotations"][0]["was_cancelled"]


def test_files_of_a_tool_that_drops_our_fields_are_grouped_by_what_contains_what(
    samples: list[Sample], tmp_path: Path
):
    content = FORMATS["coco"].exported(samples[:2], tmp_path)
    for row in (*content["images"], *content["annotations"]):
        for key in ("sample", "state", "target", "level"):
            row.pop(key, None)
    content["annotations"].reverse()
    back, unknown = with_entries(
        without_boxes(samples[:2]), FORMATS["coco"].imported(content), tmp_path
    )
    assert unknown == []
    assert [len(target) for target in back[0].boxes] == [2, 1]
    assert boxing_of(back[0]).state == "done"


def test_a_picture_of_several_samples_is_not_guessed(samples: list[Sample], tmp_path: Path):
    with pytest.raises(SampleError, match="4 samples share"):
        with_entries(samples, [BoxEntry("", "a b.png", ((INNER,),), "done")], tmp_path)


def test_an_entry_about_no_sample_is_handed_back(samples: list[Sample], tmp_path: Path):
    strange = BoxEntry("nobody", "a b.png", ((INNER,),), "done")
    assert with_entries(samples, [strange], tmp_path) == (samples, [strange])


def test_an_entry_that_nobody_checked_replaces_no_decision(samples: list[Sample], tmp_path: Path):
    entries = [BoxEntry(sample.id, "", ((INNER,),), "todo") for sample in samples] + [
        BoxEntry("not checked", "", (), "todo")
    ]
    back, _ = with_entries(samples, entries, tmp_path)
    assert [sample.boxes for sample in back] == [
        *(sample.boxes for sample in samples[:2]),
        ((INNER,),),
        (),
        ((INNER,),),
    ]


@pytest.mark.parametrize(
    "picture_name",
    ["/data/upload/1/c.png", "https://host/x/c.png?d=3", "/data/local-files/?d=deep/c.png"],
)
def test_label_studio_tasks_without_a_sample_are_found_by_their_picture(
    samples: list[Sample], tmp_path: Path, picture_name: str
):
    tasks = FORMATS["label-studio"].exported(samples[1:2], tmp_path)
    del tasks[0]["data"]["sample"]
    tasks[0]["data"]["image"] = picture_name.replace("?d=3", "")
    back, unknown = with_entries(
        without_boxes(samples), FORMATS["label-studio"].imported(tasks), tmp_path
    )
    assert unknown == []
    assert len(back[1].boxes[0]) == 2


def test_a_turned_rectangle_is_refused_with_its_task(samples: list[Sample], tmp_path: Path):
    tasks = FORMATS["label-studio"].exported(samples, tmp_path)
    tasks[0]["annotations"][0]["result"][1]["value"]["rotation"] = 12
    with pytest.raises(SampleError, match=r"task 1: .*turned by 12 degrees"):
        FORMATS["label-studio"].imported(tasks)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    "content",
    [
        None,
        3,
        "x",
        {},
        [3],
        [{}],
        {"images": 3},
        {"images": [{"id": 1}], "annotations": [{"image_id": 1, "bbox": [1, 2]}]},
    ],
)
def test_a_file_that_is_something_else_is_refused_with_a_sentence(name: str, content: Any):
    with pytest.raises(SampleError, match=r"not a|not as|is no box"):
        FORMATS[name].imported(content)


@pytest.mark.parametrize(
    "bbox", [[0, 0, 0, 5], [500, 0, 5, 5], [0, 0, 1e400, 5], [0, 0, 5], ["a", 0, 1, 1]]
)
def test_a_coco_box_without_area_in_its_picture_is_named(
    samples: list[Sample], tmp_path: Path, bbox: list[Any]
):
    content = FORMATS["coco"].exported(samples[:1], tmp_path)
    content["annotations"][1]["bbox"] = bbox
    with pytest.raises(SampleError, match="annotation 2 is not a box"):
        FORMATS["coco"].imported(content)


unit = st.floats(0, 1)


@given(st.lists(st.tuples(unit, unit, unit, unit), max_size=8))
def test_grouped_boxes_are_always_nested_and_none_is_lost(
    corners: list[tuple[float, float, float, float]],
):
    boxes = [
        Box(*one)
        for one in corners
        if one[0] < one[2] and one[1] < one[3] and (one[2] - one[0]) * (one[3] - one[1]) > 1e-12
    ]
    targets = grouped(boxes)
    Sample(
        id="s", image=Path("a"), question="?", answer="K", boxes=targets
    )  # refuses what is not nested
    assert sorted(box.corners for target in targets for box in target) == sorted(
        box.corners for box in boxes
    )


@pytest.mark.parametrize("name", FORMATS)
def test_the_commands_write_and_read_a_file(
    name: str, samples: list[Sample], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = tmp_path
    other = tmp_path / "other"
    file = tmp_path / "out" / "boxes.json"
    write_samples(samples, folder)
    assert main(["data", "export-boxes", str(folder), str(file), "--format", name]) == 0
    write_samples(without_boxes(samples), other)
    assert main(["data", "import-boxes", str(other), str(file), "--format", name]) == 0
    assert "boxes for 5 of 5 samples" in capsys.readouterr().out
    assert [len(sample.boxes) for sample in read_samples(other)] == [2, 1, 1, 0, 0]
    file.write_text("{")
    assert main(["data", "import-boxes", str(other), str(file), "--format", name]) == 1
    assert str(file) in capsys.readouterr().err
