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
from lfpc.boxing.files import FORMATS, BoxEntry, Reading, SampleIndex, with_entries
from lfpc.boxing.files.entries import grouped
from lfpc.boxing.files.label_studio import LocalStorage
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
    assert tasks[0]["data"]["image"] == f"/data/local-files/?d={tmp_path.name}/a%20b.png"
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


# --- files of the tools themselves ------------------------------------------------------------


@pytest.fixture
def phone(tmp_path: Path) -> Sample:
    """A photograph of 200 x 120 stored pixels, shown at 120 x 200."""
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (200, 120)).save(tmp_path / "pictures" / "phone.jpg", exif=exif)
    return Sample(id="s", image=tmp_path / "pictures" / "phone.jpg", question="?", answer="K")


def brought(
    name: str, content: Any, samples: list[Sample], folder: Path
) -> tuple[list[Sample], list[str]]:
    """The samples after an import as the command makes it, and the reasons of what was left out."""
    problems: list[SampleError] = []
    reading = Reading(SampleIndex(samples, folder).frame_at, problems)
    entries = FORMATS[name].imported(json.loads(json.dumps(content)), reading)
    changed, unknown = with_entries(samples, entries, folder)
    return changed, [*map(str, problems), *(entry.picture for entry in unknown)]


def coco(bbox: list[float], size: tuple[int, int] | None, name: str = "phone.jpg", **more: Any):
    image: dict[str, Any] = {"id": 1, "file_name": name}
    if size:
        image |= {"width": size[0], "height": size[1]}
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": bbox, **more}
    return {"images": [image], "annotations": [annotation]}


RIGHT = (70 / 120, 10 / 200, 100 / 120, 60 / 200)
"""The region of stored pixels 10, 20, 60, 50 in the upright photograph."""


@pytest.mark.parametrize(
    ("content", "corners"),
    [
        (coco([70, 10, 30, 50], (120, 200)), RIGHT),
        (coco([10, 20, 50, 30], (200, 120)), RIGHT),  # a tool that does not turn photographs
        (coco([35, 5, 15, 25], (60, 100)), RIGHT),  # a copy of half the size
        (coco([5, 10, 25, 15], (100, 60)), RIGHT),
        (coco([70, 10, 30, 50], None), RIGHT),
        (coco([70, 10, 30, 50], (120, 200), "set\\phone.jpg"), RIGHT),
        (coco([70, 10, 30, 50], (120, 200), "../other%20folder/pictures/phone.jpg"), RIGHT),
        (  # stored size, upright boxes
            coco([70, 10, 30, 50], (200, 120)) | {"info": {"contributor": "Label Studio"}},
            RIGHT,
        ),
        (coco([70, 10, 30, 50], (120, 200), attributes={"rotation": 0.0}), RIGHT),
        (coco([70, 10, 30, 50], (200, 200)), "200 x 200 pixels in the file, but phone.jpg has 120"),
        (coco([70, 10, 30, 50], (120, 200), attributes={"rotation": 45.0}), "turned by 45.0 degre"),
        (coco([70, 10, 90, 50], (120, 200)), "is not inside the picture (image of 120 x 200 pixel"),
        (coco([0.5, 0.1, 0.3, 0.2], (120, 200)), "is in fractions of the picture"),
        (coco([70, 10, 30, 50], (120, 200), image_id=2), "unknown image 2"),
    ],
)
def test_a_coco_box_lands_where_it_was_drawn_or_is_refused(
    phone: Sample, tmp_path: Path, content: Any, corners: Any
):
    (sample,), problems = brought("coco", content, [phone], tmp_path)
    if isinstance(corners, str):
        assert sample.boxes == ()
        assert corners in problems[0]
    else:
        assert sample.boxes[0][0].corners == pytest.approx(corners)
        assert problems == []


def test_two_coco_images_with_one_id_are_refused(phone: Sample, tmp_path: Path):
    content = coco([70, 10, 30, 50], (120, 200))
    content["images"] *= 2
    with pytest.raises(SampleError, match="two images have the id 1"):
        brought("coco", content, [phone], tmp_path)


def test_a_coco_export_lists_each_picture_once(samples: list[Sample], tmp_path: Path):
    content = FORMATS["coco"].exported(samples, tmp_path)
    assert [image["file_name"] for image in content["images"]] == ["a b.png", "c.png"]
    assert [image["id"] for image in content["images"]] == [1, 2]
    assert {annotation["image_id"] for annotation in content["annotations"]} == {1, 2}
    assert len({annotation["id"] for annotation in content["annotations"]}) == 6


def test_pictures_of_one_name_are_told_apart_by_their_folders(
    picture: Callable[..., Path], tmp_path: Path
):
    samples: list[Sample] = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        image = picture(f"{name}/a.png")
        samples.append(Sample(id=name, image=image, question="?", answer="K"))
    content = coco([40, 30, 40, 30], (400, 300), "/elsewhere/two/a.png")
    (one, two), _ = brought("coco", content, samples, tmp_path)
    assert (one.boxes, len(two.boxes)) == ((), 1)
    with pytest.raises(SampleError, match="2 samples share"):
        brought("coco", coco([40, 30, 40, 30], (400, 300), "a.png"), samples, tmp_path)


def region(**changes: Any) -> dict[str, Any]:
    value = {"x": 5.0, "y": 10.0, "width": 25.0, "height": 30.0, "rotation": 0}
    made = {"type": "rectanglelabels", "original_width": 120, "original_height": 200}
    return made | {"value": value | {"rectanglelabels": ["B1"]} | changes} | changes


def task(**changes: Any) -> dict[str, Any]:
    return {"id": 1, "data": {"image": "/data/local-files/?d=pictures/phone.jpg"}} | changes


DRAWN = (0.05, 0.1, 0.3, 0.4)


@pytest.mark.parametrize(
    ("exported", "found"),
    [
        # all tasks, checked or not: predictions are numbers, most fields are Label Studio's own
        (task(annotations=[{"id": 2, "result": [region()]}], predictions=[1], drafts=[]), DRAWN),
        (task(annotations=[], predictions=[1, 2], total_predictions=2), ()),
        (task(completions=[{"result": [region()]}]), DRAWN),
        (task(annotations=[{"result": None}]), ()),
        (task(annotations=[{"result": [region(image_rotation=0)]}]), DRAWN),
        (task(annotations=[{"result": [region(x=75.0, width=25.9)]}]), (0.75, 0.1, 1.0, 0.4)),
        (
            {
                "id": 1,
                "image": "/data/upload/1/0a1b2c3d-phone.jpg",
                "question": "?",
                "options": [],
                "box": [region()["value"] | {"original_width": 120, "original_height": 200}],
                "annotator": 1,
                "annotation_id": 2,
                "lead_time": 8.9,
            },
            DRAWN,
        ),
        (task(annotations=[{"result": [region(image_rotation=90)]}]), "turned by 90 degrees; turn"),
        (task(annotations=[{"result": [region(rotation=12)]}]), "a rectangle is turned by 12 degr"),
        (task(annotations=[{"result": [region(width=150.0)]}]), "in per cent: box [5.0, 10.0, 155"),
        (task(annotations=[{"result": [region(width=-5.0)]}]), "is not left, top, right, bottom"),
        ({"id": 1, "question": "?"}, "not as Label Studio exports it (KeyError: 'image')"),
    ],
)
def test_every_form_of_label_studios_json_is_read(
    phone: Sample, tmp_path: Path, exported: Any, found: Any
):
    (sample,), problems = brought("label-studio", [exported], [phone], tmp_path)
    if isinstance(found, str):
        assert (sample.boxes, len(problems)) == ((), 1)
        assert problems[0].startswith("task 1: ")
        assert found in problems[0]
        return
    assert problems == []
    corners = [box.corners for target in sample.boxes for box in target]
    assert corners == ([pytest.approx(found)] if found else [])
    assert boxing_of(sample).state == ("todo" if exported.get("annotations") == [] else "done")


@pytest.mark.parametrize(
    ("pictures", "storage", "shown"),
    [
        (["hard/c 1.png"], "hard", "hard/c%201.png"),  # Label Studio serves no file of its root
        (["hard/a/c.png", "hard/b/d.png"], "hard", "hard/a/c.png"),
        (["hard/../all/a/c.png"], "all/a", "a/c.png"),  # nor a path with ..
        (["all/a/c.png", "hard/d.png"], ".", "{root}/all/a/c.png"),
        (["link/a/c.png"], "all/a", "a/c.png"),
    ],
)
def test_label_studio_gets_one_storage_that_holds_all_pictures(
    tmp_path: Path, pictures: list[str], storage: str, shown: str
):
    for folder in ("hard/a", "hard/b", "all/a"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "all")
    samples = [
        Sample(id=str(n), image=tmp_path / path, question="?", answer="K", boxes=((INNER,),))
        for n, path in enumerate(pictures)
    ]
    for sample in samples:
        Image.new("RGB", (40, 30)).save(sample.image)
    local = LocalStorage.of(samples)
    assert local.storage == (tmp_path / storage).resolve()
    assert local.document_root == local.storage.parent
    made = FORMATS["label-studio"].exported(samples, tmp_path / "hard")
    address = f"/data/local-files/?d={shown.format(root=tmp_path.name)}"
    assert made[0]["data"]["image"] == address
    for task in made:
        del task["data"]["sample"]
    back, unknown = with_entries(
        without_boxes(samples), FORMATS["label-studio"].imported(made), tmp_path / "hard"
    )
    assert (unknown, [sample.boxes for sample in back]) == ([], [((INNER,),)] * len(samples))


def test_pictures_of_one_name_in_a_folder_and_below_it_are_told_apart(tmp_path: Path):
    (tmp_path / "deep").mkdir()
    samples = [
        Sample(id=str(n), image=tmp_path / path, question="?", answer="K", boxes=((box,),))
        for n, (path, box) in enumerate([("c.png", INNER), ("deep/c.png", OUTER)])
    ]
    for sample in samples:
        Image.new("RGB", (40, 30)).save(sample.image)
    made = FORMATS["label-studio"].exported(samples, tmp_path)
    for task in made:
        del task["data"]["sample"]
    entries = FORMATS["label-studio"].imported(made)
    back, _ = with_entries(without_boxes(samples), entries, tmp_path)
    assert [sample.boxes for sample in back] == [((INNER,),), ((OUTER,),)]


def test_pictures_without_a_common_folder_are_named():
    samples = [
        Sample(id=path, image=Path(path), question="?", answer="K") for path in ("/a/b.png", "/c/d")
    ]
    with pytest.raises(SampleError, match=r"no folder in common.*copy them into one"):
        LocalStorage.of(samples)


def test_a_bad_entry_loses_itself_and_a_file_of_bad_ones_takes_nothing(
    samples: list[Sample], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    write_samples(without_boxes(samples), tmp_path)
    before = (tmp_path / "samples.jsonl").read_bytes()
    tasks = FORMATS["label-studio"].exported(samples[:2], tmp_path)
    file = tmp_path / "boxes.json"
    words = ["data", "import-boxes", str(tmp_path), str(file), "--format", "label-studio"]
    tasks[1]["annotations"][0]["result"][0]["value"]["rotation"] = 12
    strange = task(annotations=[{"result": [region()]}])
    file.write_text(json.dumps([*tasks, strange]))
    assert main(words) == 1
    assert (
        "3 boxes in 1 of 3 entries, so nothing is imported; the first problem: task 2: a rect"
        in (capsys.readouterr().err)
    )
    assert (tmp_path / "samples.jsonl").read_bytes() == before
    file.write_text(json.dumps([task(annotations=[])]))
    assert main(words) == 1
    assert "0 boxes in 0 of 1 entries" in capsys.readouterr().err
    file.write_text(json.dumps(tasks))
    assert main(words) == 0
    said = capsys.readouterr().out
    assert f"{file}: task 2: a rectangle is turned by 12 degrees; boxes are upright" in said
    assert "3 boxes for 1 of 5 samples (1 entries left out)" in said
    assert [len(sample.boxes) for sample in read_samples(tmp_path)] == [2, 0, 0, 0, 0]
