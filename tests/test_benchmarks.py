"""Files in the published layouts, made here with tiny pictures, read as samples; and the figures of
their records."""

import base64
import csv
import io
import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from lfpc.boxes import Box
from lfpc.dialogue import Answer, Crop
from lfpc.errors import ConfigError, MissingPicture, PictureError, SampleError
from lfpc.metrics.summary import average_at_k, flat_figures, summarise
from lfpc.published.benchmarks import read_benchmark, score_task
from lfpc.published.cells import plain_answer
from lfpc.published.files import read_rows
from lfpc.published.index import PUBLISHED, published_set
from lfpc.published.options import lettered, some_options, split_options
from lfpc.published.pictures import PictureStore, pixel_boxes
from lfpc.published.published_set import ReadOptions
from lfpc.records import EpisodeRecord, TurnRecord
from lfpc.samples import Sample, write_samples

Rows = list[dict[str, Any]]


def png(colour: int = 0, size: tuple[int, int] = (40, 20)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, (colour, 0, 0)).save(out, "PNG")
    return out.getvalue()


def b64(colour: int = 0) -> str:
    return base64.b64encode(png(colour)).decode()


def write_table(file: Path, rows: Rows) -> Path:
    """As pandas writes a TSV: cells with tabs, line breaks or quotation marks are quoted."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as out:
        table = csv.DictWriter(out, list(rows[0]), delimiter="\t", lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    return file


def write_parquet(file: Path, rows: Rows) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file


def write_json(file: Path, rows: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(rows))
    return file


def read(name: str, folder: Path, **options: Any) -> tuple[list[Sample], list[str]]:
    """The samples of a benchmark and what was said about skipped rows."""
    bad: list[SampleError] = []
    samples = read_benchmark(name, folder, folder / "work", on_bad=bad.append, **options)
    return samples, [str(error) for error in bad]


# --- V* -------------------------------------------------------------------------------------------


def vstar_folders(folder: Path, attributes: int = 3) -> Path:
    for i in range(attributes):
        file = folder / "direct_attributes" / f"sa_{i}.json"
        write_json(
            file,
            {
                "question": "What is the colour of the cup?",
                "options": [
                    f"The colour is right{i}.",
                    "The colour is red.",
                    "The colour is blue.",
                    "The colour is green.",
                ],
                "bbox": [[10, 5, 20, 10]],  # x, y, width, height of 40 x 20 pixels
                "target_object": ["cup"],
            },
        )
        file.with_suffix(".jpg").write_bytes(png(i))
    where = folder / "relative_position" / "sa_9.json"
    boxes = [[0, 0, 4, 2], [20, 10, 4, 2]]
    write_json(
        where,
        {
            "question": "Left or right?",
            "options": ["left", "right"],
            "bbox": boxes,
            "target_object": ["cup", "dog"],
        },
    )
    where.with_suffix(".jpg").write_bytes(png(9))
    for other in ("OCR", "GPT4V-hard"):
        write_json(folder / other / "x.json", {"question": "?", "options": ["a"]})
    return folder


def test_vstar_folders_are_shuffled_with_a_seed_and_keep_the_right_option(tmp_path: Path) -> None:
    samples, bad = read("vstar", vstar_folders(tmp_path, 40))
    assert bad == []
    assert len(samples) == 41
    for sample in samples[:-1]:
        right = sample.options["ABCD".index(sample.answer)]
        assert right.startswith("The colour is right")
        assert sample.meta["order"]["ABCD".index(sample.answer)] == 0
    assert {sample.answer for sample in samples} == set("ABCD")
    assert samples == read("vstar", tmp_path)[0]
    assert [s.answer for s in samples] != [s.answer for s in read("vstar", tmp_path, seed=1)[0]]


def test_vstar_boxes_are_fractions_and_two_targets_stay_two(tmp_path: Path) -> None:
    one, *_, two = read("vstar", vstar_folders(tmp_path))[0]
    assert (one.id, one.category) == ("direct_attributes/sa_0", "direct_attributes")
    assert one.boxes == ((Box(0.25, 0.25, 0.75, 0.75),),)
    assert len(two.boxes) == 2
    assert two.meta["targets"] == ["cup", "dog"]


def test_vstar_list_keeps_its_own_order_and_has_the_same_ids_and_boxes(tmp_path: Path) -> None:
    folders = read("vstar", vstar_folders(tmp_path))[0]
    tail = "\nAnswer with the option's letter from the given choices directly."
    row = {
        "text": f"What is the colour of the cup?\n(A) red\n(B) right0\n(C) blue\n(D) green{tail}",
        "category": "direct_attributes",
    }
    rows = [
        row | {"image": "direct_attributes/sa_0.jpg", "label": "B", "question_id": 0},
        row | {"image": "direct_attributes/sa_1.jpg", "label": "D", "question_id": 1},
        {"image": "OCR/x.jpg", "text": "?", "category": "OCR", "label": "A", "question_id": 2},
    ]
    (tmp_path / "test_questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    samples, bad = read("vstar", tmp_path)
    assert bad == []
    assert [s.id for s in samples] == [s.id for s in folders[:2]]
    assert [s.boxes for s in samples] == [s.boxes for s in folders[:2]]
    assert samples[0].options == ("red", "right0", "blue", "green")
    assert [s.answer for s in samples] == ["B", "D"]
    assert "order" not in samples[0].meta


def test_a_list_whose_label_never_changes_is_shuffled(tmp_path: Path) -> None:
    vstar_folders(tmp_path, 12)
    rows = [
        {
            "image": f"direct_attributes/sa_{i}.jpg",
            "text": "Q?\n(A) yes\n(B) no",
            "category": "direct_attributes",
            "label": "A",
        }
        for i in range(12)
    ]
    (tmp_path / "test_questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    samples, _ = read("vstar", tmp_path)
    assert {sample.answer for sample in samples} == {"A", "B"}
    assert all(sample.options["AB".index(sample.answer)] == "yes" for sample in samples)


# --- HR-Bench -------------------------------------------------------------------------------------


def hrbench_rows(questions: int = 3) -> Rows:
    """Each question four times, its options rotated; the first has a line break and quotation marks
    in its text."""
    rows: Rows = []
    for q in range(questions):
        options = ["red", "blue", "green", "grey"]
        for cycle in range(4):
            turned = options[cycle:] + options[:cycle]
            rows.append(
                {
                    "index": len(rows),
                    "question": 'What does "the\nsign" say?' if q == 0 else f"Colour {q}?",
                    "answer": "ABCD"[turned.index("red")],
                    "category": "single" if q % 2 == 0 else "cross",
                    **dict(zip("ABCD", turned, strict=True)),
                    "cycle_category": str(cycle),
                    "image": b64(q),
                }
            )
    return rows


@pytest.mark.parametrize("write", [write_table, write_parquet])
def test_hrbench_is_read_from_both_files_and_a_picture_is_written_once(
    tmp_path: Path, write: Any
) -> None:
    name = "hr_bench_4k.tsv" if write is write_table else "hr_bench_4k.parquet"
    write(tmp_path / name, hrbench_rows())
    samples, bad = read("hrbench-4k", tmp_path)
    assert bad == []
    assert [s.id for s in samples] == [str(i) for i in range(12)]
    assert all(s.options["ABCD".index(s.answer)] == "red" for s in samples)
    assert samples[0].question == 'What does "the\nsign" say?'
    assert len({s.meta["cluster"] for s in samples}) == 3
    assert [s.meta["cycle"] for s in samples[:4]] == ["0", "1", "2", "3"]
    pictures = list((tmp_path / "work").rglob("*.png"))
    assert len(pictures) == 3
    assert samples[0].image.read_bytes() == png(0)


def test_hrbench_sizes_in_one_folder_stay_apart_and_the_tsv_wins(tmp_path: Path) -> None:
    write_parquet(tmp_path / "hr_bench_8k.parquet", hrbench_rows(1))
    write_table(tmp_path / "hr_bench_4k.tsv", hrbench_rows(2))
    write_parquet(tmp_path / "hr_bench_4k.parquet", hrbench_rows(3))
    assert len(read("hrbench-4k", tmp_path)[0]) == 8
    assert len(read("hrbench-8k", tmp_path)[0]) == 4


def test_a_bad_row_is_named_and_loses_only_itself(tmp_path: Path) -> None:
    rows = hrbench_rows()
    rows[1]["answer"] = "E"
    rows[3]["image"] = base64.b64encode(b"no picture" * 50).decode()
    rows[5]["question"] = ""
    rows[7]["C"] = rows[7]["D"] = rows[7]["B"] = ""
    rows[9] = dict(rows[8])
    file = write_table(tmp_path / "hr_bench_4k.tsv", rows)
    with file.open("a") as out:
        out.write("12\ttoo few cells\n13\tmany" + "\tx" * 30 + "\n")
    samples, bad = read("hrbench-4k", tmp_path)
    assert [s.id for s in samples] == ["0", "2", "4", "6", "8", "10", "11"]
    says = [
        "row 2: the answer 'E'",
        "row 4: 500 bytes that are not",
        "row 6: no 'question'",
        "row 8: a multiple choice",
        "'8' is there twice",
    ]
    for line, part in zip(bad, [*says, "row 13: 2 cells", "row 14: 32 cells"], strict=True):
        assert part in line
        assert str(tmp_path) in line


def test_bad_rows_are_logged_and_counted_where_nobody_asks(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = hrbench_rows()
    rows[1]["answer"] = "E"
    write_table(tmp_path / "hr_bench_4k.tsv", rows)
    read_benchmark("hrbench-4k", tmp_path, tmp_path / "work")
    assert "row 2: the answer 'E'" in caplog.text
    assert "11 questions read, 1 rows skipped, the published set has 800" in caplog.text


def test_a_table_of_any_length_is_read_in_the_memory_of_a_row(tmp_path: Path) -> None:
    cell = "A" * 300_000  # beyond the default limit of a CSV cell

    def peak(rows: int) -> int:
        file = tmp_path / f"{rows}.tsv"
        with file.open("w") as out:
            out.write("index\timage\n")
            out.writelines(f"{i}\t{cell}\n" for i in range(rows))
        tracemalloc.start()
        lengths = [
            len(record.values["image"])
            for record in read_rows(file)
            if not isinstance(record, SampleError)
        ]
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert lengths == [len(cell)] * rows
        return used

    assert peak(40) < 1.1 * peak(5)


def test_a_parquet_file_that_breaks_off_is_an_error_row(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "x.parquet", hrbench_rows(1))
    file.write_bytes(file.read_bytes()[:-20])
    (found,) = read_rows(file)
    assert isinstance(found, SampleError)
    assert "x.parquet" in str(found)


# --- the others -----------------------------------------------------------------------------------


def test_visualprobe_parts_become_categories(tmp_path: Path) -> None:
    for part in ("Easy", "Hard"):
        folder = tmp_path / f"VisualProbe_{part}"
        row = {
            "doc_id": 3,
            "problem": "<image>\nWhat number?",
            "images": ["data/a.png"],
            "solution": "42",
            "data_source": "visual_probe",
        }
        write_json(
            folder / "val.json",
            [
                row,
                row | {"doc_id": 4, "solution": "<answer> B7 </answer>"},
                row | {"images": ["data/none.png"]},
                7,
            ],
        )
        (folder / "data").mkdir()
        (folder / "data" / "a.png").write_bytes(png())
    samples, bad = read("visualprobe", tmp_path)
    assert [(s.id, s.category, s.answer) for s in samples[:2]] == [
        ("easy/3", "easy", "42"),
        ("easy/4", "easy", "B7"),
    ]
    assert samples[2].category == "hard"
    assert samples[0].question == "What number?"
    assert samples[0].options == ()
    assert ["none.png" in line or "a row is a JSON object" in line for line in bad] == [True] * 4


def test_treebench_has_a_target_per_instance_and_up_to_six_options(tmp_path: Path) -> None:
    row = {
        "index": 0,
        "question": "Which?",
        **dict(zip("ABCDEF", ["a", "b", "c", "d", "e", ""], strict=True)),
        "answer": "E",
    }
    row |= {
        "category": "Perception/OCR",
        "target_instances": "[[0, 0, 20, 10], [20.0, 10.0, 40.0, 20.0]]",
        "image": b64(),
    }
    rows = [
        row,
        row | {"index": 1, "target_instances": "__import__('os')"},
        row | {"index": 2, "target_instances": "[[90, 90, 95, 95]]"},
    ]
    write_table(tmp_path / "TreeBench.tsv", rows)
    (sample,), bad = read("treebench", tmp_path)
    assert sample.options == ("a", "b", "c", "d", "e")
    assert sample.boxes == ((Box(0, 0, 0.5, 0.5),), (Box(0.5, 0.5, 1, 1),))
    assert "row 2: boxes are lists of four numbers" in bad[0]
    assert "row 3: box" in bad[1]


@pytest.mark.parametrize("layout", ["json", "parquet"])
def test_zoombench_has_choices_open_questions_and_one_box(tmp_path: Path, layout: str) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "0.png").write_bytes(png())
    picture = "images/0.png" if layout == "json" else {"bytes": png(), "path": None}
    choice = {
        "image": picture,
        "crop_image": picture,
        "prompt": "Which?\nA. one\nB. two\nAnswer with the letter.",
        "answer": "B",
    }
    choice |= {"question_type": "choice", "bbox": [10, 5, 30, 15]}
    rows = [choice, choice | {"prompt": "How many birds?", "answer": "12", "question_type": "open"}]
    write_json(tmp_path / "zoombench.json", rows) if layout == "json" else write_parquet(
        tmp_path / "test-00000.parquet", rows
    )
    (first, second), bad = read("zoombench", tmp_path)
    assert bad == []
    assert (first.question, first.options, first.answer) == ("Which?", ("one", "two"), "B")
    assert first.boxes == ((Box(0.25, 0.25, 0.75, 0.75),),)
    assert (second.options, second.answer, second.category) == ((), "12", "open")


def test_mme_realworld_is_read_from_parquet_and_from_the_list_beside_its_pictures(
    tmp_path: Path,
) -> None:
    listed = ["(A) x", "(B) y", "(C) z", "(D) w", "(E) The image does not feature the content."]
    row = {
        "index": "7",
        "question": "What?",
        "multi-choice options": listed,
        "answer": "E",
        "bytes": b64(),
    }
    write_parquet(
        tmp_path / "a" / "lite.parquet",
        [row | {"category": "Perception/Remote Sensing", "l2-category": "count"}],
    )
    (sample,), _ = read("mme-realworld-lite", tmp_path / "a")
    assert sample.options == ("x", "y", "z", "w", "The image does not feature the content.")
    assert (sample.answer, sample.category, sample.boxes) == ("E", "Perception/Remote Sensing", ())
    row = {
        "Question_id": "p/1",
        "Image": "a.png",
        "Text": "What?",
        "Answer choices": listed,
        "Ground truth": "A",
    }
    write_json(
        tmp_path / "b" / "MME_RealWorld_Lite.json",
        [row | {"Task": "Perception", "Subtask": "Remote Sensing", "Category": "count"}],
    )
    (tmp_path / "b" / "imgs").mkdir()
    (tmp_path / "b" / "imgs" / "a.png").write_bytes(png())
    (other,), _ = read("mme-realworld-lite", tmp_path / "b")
    assert (other.options, other.category, other.meta) == (
        sample.options,
        sample.category,
        sample.meta,
    )


def test_any_samples_folder_is_a_benchmark(tmp_path: Path, sample: Any) -> None:
    write_samples([sample(id="a"), sample(id="b")], tmp_path)
    assert [s.id for s in read("samples", tmp_path)[0]] == ["a", "b"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_set_names_its_source_and_what_is_missing(
    tmp_path: Path, name: str
) -> None:
    assert published_set(name).name == name
    assert "DIR" in published_set(name).fetch
    assert "{" not in published_set(name).fetch
    with pytest.raises(SampleError, match=r"lfpc data fetch-instructions|no such file"):
        list(published_set(name).read(tmp_path, ReadOptions(pictures=tmp_path / "pictures")))


@pytest.mark.parametrize("name", [name for name, each in PUBLISHED.items() if each.score])
def test_every_benchmark_names_what_is_missing(tmp_path: Path, name: str) -> None:
    with pytest.raises(SampleError, match=r"lfpc data fetch-instructions|no such file"):
        read(name, tmp_path)


def test_a_training_set_is_no_benchmark(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown benchmark 'deepeyes'; known are vstar"):
        read("deepeyes", tmp_path)
    with pytest.raises(ConfigError, match=r"; did you mean vstar\?$"):
        read("v-star", tmp_path)


def test_a_folder_of_the_benchmarks_name_is_looked_into_and_an_unknown_name_lists_the_known(
    tmp_path: Path,
) -> None:
    write_table(tmp_path / "treebench" / "x.tsv", [{"index": 1}])
    with pytest.raises(SampleError, match="no usable row, 1 skipped"):
        read("treebench", tmp_path)
    with pytest.raises(ConfigError, match="known are vstar"):
        read("vstart", tmp_path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=4,
)
COLUMNS = (
    "image",
    "Image",
    "images",
    "problem",
    "solution",
    "doc_id",
    "prompt",
    "question",
    "Text",
    "answer",
    "Ground truth",
    "bbox",
    "options",
    "index",
)


@pytest.mark.parametrize("name", ["visualprobe", "zoombench", "mme-realworld-lite"])
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    row=st.dictionaries(
        st.sampled_from(COLUMNS), JSON | st.just("a.png") | st.just("Q? (A) x (B) y") | st.just("A")
    )
)
def test_whatever_a_row_holds_it_loses_only_itself(
    tmp_path: Path, name: str, row: dict[str, Any]
) -> None:
    good = {
        "image": "a.png",
        "doc_id": "g",
        "problem": "Q?",
        "solution": "x",
        "prompt": "Q?",
        "question": "Q?",
        "answer": "A",
        "index": "g",
    }
    good |= {"options": ["(A) x", "(B) y"]}
    (tmp_path / "a.png").write_bytes(png())
    write_json(tmp_path / "val.json", [row, good])
    samples, bad = read(name, tmp_path)
    assert len(samples) + len(bad) == 2
    assert samples[-1].id.endswith("g")


# --- shared parts ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "question", "options"),
    [
        ("Q?\n(A) red\n(B) dark blue\nAnswer with a letter.", "Q?", ("red", "dark blue")),
        ("Q? (A) red (B) dark blue", "Q?", ("red", "dark blue")),
        ("Is plan B. better?\nA. yes\nB. no\n\nReply.", "Is plan B. better?", ("yes", "no")),
        ("(A)1\n(B)2\n(C)3", "", ("1", "2", "3")),
        ("(A) only one", "(A) only one", ()),
        ("(A) x (C) y", "(A) x (C) y", ()),
        ("How many?", "How many?", ()),
    ],
)
def test_lettered_options_are_taken_off_a_question(
    text: str, question: str, options: tuple[str, ...]
) -> None:
    assert split_options(text) == (question, options)


def test_every_kind_of_picture_cell_is_the_same_file(tmp_path: Path) -> None:
    (tmp_path / "a b.png").write_bytes(png())
    store = PictureStore(tmp_path / "kept", roots=(tmp_path,))
    for cell in (
        "a b.png",
        str(tmp_path / "a b.png"),
        f"file://{tmp_path}/a%20b.png",
        ["a b.png"],
        {"bytes": None, "path": "a b.png"},
    ):
        assert store.file_of(cell) == tmp_path / "a b.png"
    kept = {
        store.file_of(cell)
        for cell in (
            png(),
            b64(),
            f"data:image/png;base64,{b64()}",
            {"bytes": png(), "path": "gone.png"},
        )
    }
    assert len(kept) == 1
    assert kept.pop().read_bytes() == png()
    for cell in (None, "", "gone.png", 3, b"", b"not a picture", {"path": None}, "x" * 400):
        with pytest.raises(PictureError):
            store.file_of(cell)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_turn_with_the_exif_orientation_of_their_picture(
    tmp_path: Path, orientation: int
) -> None:
    picture = Image.new("L", (8, 4))
    picture.paste(255, (1, 0, 3, 1))  # the box, in pixels of the stored picture
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as stored:
        upright = ImageOps.exif_transpose(stored)
    ((box,),) = pixel_boxes([1, 0, 3, 1], tmp_path / "a.png")
    assert box.to_pixels(upright.size) == upright.getbbox()


# --- figures --------------------------------------------------------------------------------------


def record(
    name: str, right: bool, category: str = "", method: str = "option", **fields: Any
) -> EpisodeRecord:
    """The record of a question of its own picture; `fields` are of the sample, but for the boxes
    that were asked for and the error."""
    asked = fields.pop("asked", ())
    error = fields.pop("error", "")
    sample = Sample(
        id=name,
        image=Path(f"{name}.png"),
        question="Which?",
        answer="A",
        category=category,
        **{"options": ("x", "y"), **fields},
    )
    calls = [TurnRecord(text="look", action=Crop(box)) for box in asked]
    turns = (*calls, TurnRecord(text="<answer>A</answer>", action=Answer("A")))
    return EpisodeRecord(sample=sample, turns=turns, correct=right, method=method, error=error)


def test_the_common_figures_count_everything_and_say_who_decided() -> None:
    records = [
        record("a", True, "one"),
        record("b", True, "one", "judge"),
        record("c", False, "two", "unparsed"),
        record("d", False, "two", "undecided"),
        record("e", False, "two", "", options=("x", "y", "z", "w"), error="broken"),
    ]
    found = flat_figures(summarise(records))
    assert found["accuracy"] == 0.4
    assert (found["accuracy/one"], found["accuracy/two"]) == (1.0, 0.0)
    assert [
        found[f"decided/{name}"] for name in ("rule", "judge", "unparsed", "undecided", "failed")
    ] == [0.2] * 5
    assert found["chance"] == pytest.approx((4 * 0.5 + 0.25) / 5)
    assert (found["n"], found["clusters"]) == (5, 5)
    # variance of 1, 1, 0, 0, 0 over n - 1: 0.3; / 5
    assert found["accuracy_stderr"] == pytest.approx((0.3 / 5) ** 0.5)
    assert found["accuracy_low"] < 0.4 < found["accuracy_high"]


def test_no_records_give_no_accuracy() -> None:
    assert flat_figures(summarise([]))["accuracy"] is None


def hr_records(**fields: Any) -> Iterator[EpisodeRecord]:
    """Question p (single) right in all four rotations, q (single) in three, r (cross) in one."""
    for question, category, right in (
        ("p", "single", "1111"),
        ("q", "single", "1110"),
        ("r", "cross", "0100"),
    ):
        for cycle, mark in enumerate(right):
            meta = {"cycle": str(cycle), "cluster": question}
            yield record(f"{question}{cycle}", mark == "1", category, **{"meta": meta, **fields})


def test_hrbench_means_over_rotations_and_wants_all_of_them_right() -> None:
    found = flat_figures(score_task("hrbench-4k", list(hr_records())))
    #  rotation      0    1    2    3
    #  single        1    1    1    1/2     mean 7/8
    #  cross         0    1    0    0       mean 1/4
    #  all          2/3   1   2/3   1/3     mean 2/3 = 8/12
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert (found["accuracy/single"], found["accuracy/cross"]) == (7 / 8, 1 / 4)
    assert (found["cycle_3/accuracy/single"], found["cycle_1/accuracy"]) == (0.5, 1.0)
    assert found["all_rotations_right"] == pytest.approx(1 / 3)
    assert (found["clusters"], found["incomplete"]) == (3, 0)
    assert found["accuracy_stderr"] > summarise(list(hr_records(meta={})))["accuracy_stderr"]


def test_a_question_with_a_missing_rotation_cannot_be_right_in_all() -> None:
    found = score_task("hrbench-8k", list(hr_records())[1:])["figures"]
    assert (found["all_rotations_right"], found["incomplete"]) == (0.0, 1)


def test_treebench_iou_is_the_best_call_per_target_and_0_without_a_call() -> None:
    targets = ((Box(0.0, 0.0, 0.5, 0.5),), (Box(0.5, 0.5, 1.0, 1.0),))
    call = Box(0.0, 0.0, 0.5, 1.0)  # half of the first target's union, none of the second
    exact = Box(0.0, 0.0, 0.5, 0.5)
    records = [
        record("a", True, boxes=targets, asked=(call, exact)),
        record("b", True, boxes=targets, asked=(call,)),
        record("c", True, boxes=targets),
    ]
    found = score_task("treebench", records)["figures"]
    assert found["miou"] == pytest.approx((0.5 + 0.25 + 0.0) / 3)


def test_average_at_k_is_about_questions_and_refuses_runs_of_different_ones() -> None:
    runs = [
        [record("a", True), record("b", False)],
        [record("a", False), record("b", False)],
        [record("a", True), record("b", True)],
    ]
    found = average_at_k(runs)
    assert (found["avg@k"], found["any@k"], found["all@k"], found["k"]) == (0.5, 1.0, 0.0, 3)
    assert found["avg@k_stderr"] == pytest.approx(
        abs(2 / 3 - 1 / 3) / 2
    )  # two questions: half their distance
    with pytest.raises(ConfigError, match="run 2 does not have the samples of run 1"):
        average_at_k([runs[0], runs[1][:1]])


# --- layouts of the published files ---------------------------------------------------------------


MME = {
    "index": 0,
    "question": "What is written on the sign?",
    "multi-choice options": str(
        ["(A) route B. north", "(B) it's closed", "(C) x", "(D) y", "(E) z"]
    ),
    "answer": "B",
    "category": "Perception/OCR",
    "l2-category": "signs",
    "image": b64(),
}


def test_mme_realworld_options_printed_by_python_are_read_and_not_evaluated(tmp_path: Path) -> None:
    mark = tmp_path / "evaluated"
    evil = f"[__import__('pathlib').Path({str(mark)!r}).touch(), '(B) y']"
    rows = [MME, MME | {"index": 1, "multi-choice options": evil}]
    write_table(tmp_path / "mme_realworld_lite.tsv", rows)
    (sample,), (problem,) = read("mme-realworld-lite", tmp_path)
    assert sample.options == ("route B. north", "it's closed", "x", "y", "z")
    assert sample.answer == "B"
    assert "two options or more" in problem
    assert not mark.exists()


def test_distinct_questions_that_share_an_id_are_all_kept(tmp_path: Path) -> None:
    options = ["(A) 1", "(B) 2", "(C) 3"]
    row = {"Question_id": "p/1", "Image": "a.png", "Answer choices": options, "Ground truth": "A"}
    rows = [row | {"Text": "How many cars?"}, row | {"Text": "How many dogs?"}]
    write_json(tmp_path / "MME_RealWorld_Lite.json", [*rows, rows[0]])
    (tmp_path / "imgs").mkdir()
    (tmp_path / "imgs" / "a.png").write_bytes(png())
    samples, (problem,) = read("mme-realworld-lite", tmp_path)
    assert [(s.id, s.question) for s in samples] == [
        ("p/1", "How many cars?"),
        ("p/1#2", "How many dogs?"),
    ]
    assert "'p/1' is there twice" in problem


def test_treebench_reads_options_in_one_cell_and_columns_up_to_k(tmp_path: Path) -> None:
    common = {"question": "Which?", "category": "c", "target_instances": "[[0, 0, 20, 10]]"}
    listed = [
        "A. red\nB. blue",
        "A.The bus\nB.The tram",
        "A Cast iron\nB Wood\nC. Glass",
    ]
    columns = "ABCDEFGHIJK"
    rows = [
        common
        | {"index": i, "multi-choice options": text, "answer": "B", "image": b64()}
        | dict.fromkeys(columns, "")
        for i, text in enumerate(listed)
    ]
    rows.append(
        rows[0] | {"index": 3, "answer": "K"} | {letter: f"text {letter}" for letter in columns}
    )
    write_table(tmp_path / "TreeBench.tsv", rows)
    samples, bad = read("treebench", tmp_path)
    assert bad == []
    assert [s.options for s in samples[:3]] == [
        ("red", "blue"),
        ("The bus", "The tram"),
        ("Cast iron", "Wood", "Glass"),
    ]
    assert len(samples[3].options) == 11
    assert samples[3].answer == "K"


def test_an_empty_column_between_options_rejects_the_row(tmp_path: Path) -> None:
    rows = hrbench_rows(1)
    rows[1]["B"] = ""
    write_table(tmp_path / "hr_bench_4k.tsv", rows)
    samples, (problem,) = read("hrbench-4k", tmp_path)
    assert len(samples) == 3
    assert "option B is empty, but later ones are not" in problem


def test_options_in_columns_leave_letters_in_the_question(tmp_path: Path) -> None:
    row = {"index": 0, "question": "Compare.\n(A) is left\n(B) is right", "A": "left", "B": "same"}
    row |= {"answer": "B", "category": "c", "target_instances": "[]", "image": b64()}
    write_table(tmp_path / "TreeBench.tsv", [row])
    ((sample,), _) = read("treebench", tmp_path)
    assert sample.question == "Compare.\n(A) is left\n(B) is right"
    assert sample.options == ("left", "same")


def test_zoombench_is_read_as_its_converter_writes_it_also_in_a_renamed_folder(
    tmp_path: Path,
) -> None:
    row = {
        "images": ["../ZoomBench/images/image_0.png"],
        "crop_images": ["../ZoomBench/images/crop_image_0.png"],
        "query": "Which?\nA. one\nB. two",
        "response": "B",
    }
    rows = [row, row | {"query": "How many?", "response": "12"}]
    for name in ("ZoomBench", "renamed"):
        write_json(tmp_path / name / "zoombench.json", rows)
        (tmp_path / name / "images").mkdir()
        (tmp_path / name / "images" / "image_0.png").write_bytes(png())
    for name in ("ZoomBench", "renamed"):
        (first, second), bad = read("zoombench", tmp_path / name)
        assert bad == []
        assert (first.id, first.question, first.options) == ("1", "Which?", ("one", "two"))
        assert first.answer == "B"
        assert (second.id, second.question, second.answer) == ("2", "How many?", "12")
        assert first.image.read_bytes() == png()


def test_zoombench_parquet_has_query_and_response(tmp_path: Path) -> None:
    row = {"id": "z7", "query": "How many?", "response": "3", "question_type": "open"}
    row |= {"image": {"bytes": png(), "path": None}, "crop_image": {"bytes": png(), "path": None}}
    write_parquet(tmp_path / "test.parquet", [row])
    ((sample,), _) = read("zoombench", tmp_path)
    assert (sample.id, sample.answer, sample.category) == ("z7", "3", "open")


def vstar_table_rows() -> Rows:
    text = "What colour?\n(A) red\n(B) blue\nAnswer with the option's letter directly."
    row = {"text": text, "category": "direct_attributes"}
    return [
        row | {"image": {"bytes": png(), "path": "sa_0.jpg"}, "label": "A", "question_id": "0"},
        row | {"image": {"bytes": png(1), "path": None}, "label": "B", "question_id": "1"},
    ]


def test_vstar_is_read_from_its_parquet_file(tmp_path: Path) -> None:
    write_parquet(tmp_path / "data" / "test-00000-of-00001.parquet", vstar_table_rows())
    samples, bad = read("vstar", tmp_path)
    assert bad == []
    assert [(s.id, s.question, s.options, s.answer) for s in samples] == [
        ("direct_attributes/sa_0", "What colour?", ("red", "blue"), "A"),
        ("direct_attributes/1", "What colour?", ("red", "blue"), "B"),
    ]


def test_vstar_is_read_from_its_tsv_and_shuffled_where_one_letter_is_always_right(
    tmp_path: Path,
) -> None:
    row = {"question": "Left?", "A": "left", "B": "right", "C": "", "D": ""}
    row |= {"category": "relative_position"}
    rows = [row | {"index": i, "answer": "AB"[i % 2], "image": b64(i)} for i in range(4)]
    write_table(tmp_path / "a" / "VStarBench.tsv", rows)
    samples, bad = read("vstar", tmp_path / "a")
    assert bad == []
    assert [(s.id, s.answer) for s in samples] == [
        (f"relative_position/{i}", "AB"[i % 2]) for i in range(4)
    ]
    rows = [row | {"index": i, "answer": "A", "image": b64(i)} for i in range(12)]
    write_table(tmp_path / "b" / "VStarBench.tsv", rows)
    shuffled = read("vstar", tmp_path / "b")[0]
    assert {s.answer for s in shuffled} == {"A", "B"}
    assert {s.options["AB".index(s.answer)] for s in shuffled} == {"left"}


# --- options and answers --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "Which panel, (A) or (B), shows the cat?",
        "Compare figure (A) with (B). Which is larger?",
        "Which is larger? (A) or (B)",
        "Look at both. (A) or (B) shows the cat?",
        "Is the car in (A) bigger than the car in (B)?",
        "Which edge is longer? (A) to (B) or (B) to (C)?",
        "In the picture: (A) is a cat and (B) is a dog. Which is bigger?",
        "(A) a cat\n(B) a dog\nWhich one is bigger?",
        "Which is right?\n(A)\n(B)",
        "Which person is A. Smith or B. Jones?",
    ],
)
def test_letters_inside_a_question_are_no_list_of_options(text: str) -> None:
    assert split_options(text) == (text, ())


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("Q? (A) red, (B) blue, (C) green", ("red", "blue", "green")),
        ("Q?\nOptions:\nA. red\nB. blue", ("red", "blue")),
        ("Q? The choices are listed below:\n(A) red\n(B) blue\nReply.", ("red", "blue")),
        ("Q?\n(A) red (B) blue\n(C) green (D) grey", ("red", "blue", "green", "grey")),
        ("Q?\n(A) route B. north\n(B) route C. south", ("route B. north", "route C. south")),
        ("Q? (A) AND (B) OR (C) XOR", ("AND", "OR", "XOR")),
        (
            "Q?\n" + "\n".join(f"{letter}) {letter}1" for letter in "ABCDEFGHIJKLM"),
            tuple(f"{letter}1" for letter in "ABCDEFGHIJKLM"),
        ),
    ],
)
def test_a_list_of_options_is_taken_off_in_every_layout(text: str, options: tuple[str]) -> None:
    assert split_options(text) == ("Q?", options)


@pytest.mark.parametrize(
    ("value", "options"),
    [
        ("(A) red\n(B) blue", ("red", "blue")),
        ("(A) red (B) blue", ("red", "blue")),
        ("(A) red\\n(B) blue", ("red", "blue")),
        ("A.The bus B.The tram", ("The bus", "The tram")),
        ('["red", "blue"]', ("red", "blue")),
        ("['it\\'s red', 'blue']", ("it's red", "blue")),
        (["(A) red", "(B) blue"], ("red", "blue")),
        (["A flat", "B flat"], ("A flat", "B flat")),
        (["A.D.", "B.C."], ("A.D.", "B.C.")),
        ({"B": "blue", "A": "red", "C": None}, ("red", "blue")),
        (["red", "blue", None, float("nan")], ("red", "blue")),
        ([3, 4], ("3", "4")),
    ],
)
def test_options_are_read_in_every_form(value: Any, options: tuple[str]) -> None:
    assert some_options(value) == options


@pytest.mark.parametrize(
    "value", ["red", "red, blue", ["red", None, "blue"], ["red", None], [["a"], ["b"]], 7, {"A": 1}]
)
def test_what_is_no_list_of_options_is_rejected(value: Any) -> None:
    with pytest.raises(SampleError, match=r"option"):
        some_options(value)


@pytest.mark.parametrize(
    ("answer", "options", "letter"),
    [
        ("B. Blue", ("Red", "Blue"), "B"),
        ("blue", ("Red", "Blue"), "B"),
        ("(b) blue.", ("Red", "Blue"), None),
        ("(B) blue.", ("Red", "Blue"), "B"),
        ("A", ("B", "A", "C"), "A"),
        ("b", ("b", "a"), "A"),
        ("b", ("red", "blue"), "B"),
        (4, (3, 4), "B"),
        ("B. Red", ("Red", "Blue"), None),
        ("red", ("Red", "red."), None),
        ("!", (".", "!"), "B"),
        ("C", ("Red", "Blue"), None),
    ],
)
def test_an_answer_names_one_option_or_none(
    answer: Any, options: tuple[Any, ...], letter: str | None
) -> None:
    texts = tuple(map(str, options))
    if letter is None:
        with pytest.raises(SampleError):
            lettered(answer, texts)
    else:
        assert lettered(answer, texts) == letter


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        ("\\boxed{B}", "B"),
        (["\\boxed{B}"], "B"),
        (["B"], "B"),
        ('["B"]', "B"),
        ("So it is $\\boxed{\\frac{1}{2}}$.", "\\frac{1}{2}"),
        ("\\boxed{\\text{red car}}", "red car"),
        ("<answer> stop </answer>", "stop"),
        (["red", None], "red"),
        ("a [small] car", "a [small] car"),
        (3, "3"),
        (0, "0"),
    ],
)
def test_reference_answers_lose_their_wrapping(value: Any, answer: str) -> None:
    assert plain_answer(value) == answer


@pytest.mark.parametrize("value", [None, float("nan"), [], ["a", "b"], {"a": 1}, "  "])
def test_no_answer_and_several_answers_are_rejected(value: Any) -> None:
    with pytest.raises(SampleError):
        plain_answer(value)


# --- tables ---------------------------------------------------------------------------------------


def cells(file: Path) -> list[Any]:
    return [str(row) if isinstance(row, SampleError) else row.values for row in read_rows(file)]


@pytest.mark.parametrize("place", ["first", "last"], ids=["first cell", "last cell"])
@pytest.mark.parametrize("quoted_later", [False, True])
def test_a_quotation_mark_that_is_not_closed_loses_only_its_row(
    tmp_path: Path, place: str, quoted_later: bool
) -> None:
    file = tmp_path / "x.tsv"
    bad = '"open\tq' if place == "first" else '2\t"open'
    last = '"two\nlines"' if quoted_later else "d"
    file.write_text(f"id\tq\n1\ta\n{bad}\n3\tb\n4\tc\n5\t{last}\n")
    one, problem, *others = cells(file)
    assert one == {"id": "1", "q": "a"}
    assert "x.tsv: row 2: " in problem
    assert [row["id"] for row in others] == ["3", "4", "5"]
    assert others[-1]["q"] == last.strip('"')


def test_a_row_that_is_not_utf8_is_an_error_and_no_replacement_marks(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_bytes("id,q\n1,plain\n2,café\n3,more\n".encode("latin-1"))
    one, problem, other = cells(file)
    assert (one["id"], other["id"]) == ("1", "3")
    assert "row 2: not UTF-8" in problem
    file.write_bytes("id,qü\n1,plain\n".encode("latin-1"))
    (problem,) = cells(file)
    assert "the first line is not UTF-8" in problem


def test_one_unreadable_parquet_value_loses_only_its_row(tmp_path: Path) -> None:
    texts = pa.array([b"one", b"caf\xe9", b"three", b"four"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"q": texts}), tmp_path / "x.parquet")
    one, problem, *others = cells(tmp_path / "x.parquet")
    assert one == {"q": "one"}
    assert "row 2: unreadable value" in problem
    assert others == [{"q": "three"}, {"q": "four"}]


def test_a_damaged_row_group_loses_only_its_rows(tmp_path: Path) -> None:
    file = tmp_path / "x.parquet"
    rows = [{"q": f"text {i} " + "x" * 200} for i in range(6)]
    pq.write_table(
        pa.Table.from_pylist(rows), file, row_group_size=2, compression="zstd", use_dictionary=False
    )
    meta = pq.ParquetFile(file).metadata.row_group(1).column(0)
    data = bytearray(file.read_bytes())
    start = meta.data_page_offset
    data[start : start + meta.total_compressed_size] = b"\xff" * meta.total_compressed_size
    file.write_bytes(bytes(data))
    found = cells(file)
    assert [row["q"][:6] for row in found if isinstance(row, dict)] == [
        "text 0",
        "text 1",
        "text 4",
        "text 5",
    ]
    assert sum(isinstance(row, str) for row in found) == 1


def test_json_lines_in_a_json_file_are_read(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"q": 1}\n{"q": NaN}\nbroken\n')
    one, two, problem = cells(tmp_path / "x.json")
    assert (one, two) == ({"q": 1}, {"q": None})
    assert "row 3: not a line of JSON" in problem


def test_a_short_name_without_a_file_is_a_missing_picture_and_no_base64(tmp_path: Path) -> None:
    store = PictureStore(tmp_path / "kept", roots=(tmp_path,))
    long = "/".join(["d" * 50] * 5) + "/p.png"
    (tmp_path / long).parent.mkdir(parents=True)
    (tmp_path / long).write_bytes(png())
    assert store.file_of(long) == tmp_path / long
    for name in ("img_0001", "abcd", "a" * 60):
        with pytest.raises(MissingPicture, match="no such picture"):
            store.file_of(name)
