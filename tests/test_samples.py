import json
import os
from collections.abc import Callable
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

import pytest

from lfpc.boxes import Box
from lfpc.cli import main
from lfpc.data.check import check_samples
from lfpc.errors import SampleError
from lfpc.samples import (
    Sample,
    read_samples,
    row_of_sample,
    sample_from_row,
    scan_samples,
    write_samples,
)

ROW: dict[str, Any] = {"id": "a", "image": "a.png", "question": "Which?", "answer": "K"}


def write_rows(folder: Path, *rows: Any) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / "samples.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in ROW.items() if name != key}


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (without("answer"), "has no 'answer'; each row needs id, image, question, answer"),
        (ROW | {"anwser": "K"}, "unknown field 'anwser'"),
        (ROW | {"answer": ""}, "empty 'answer'"),
        (ROW | {"boxes": [[[0, 0, 1.2, 1]]]}, "boxes are fractions of the picture"),
        (ROW | {"boxes": [[[10, 10, 20, 20]]]}, "boxes are fractions of the picture"),
        (ROW | {"boxes": [[]]}, "a target without boxes"),
        (ROW | {"boxes": [[[0, 0, 0.5, 0.5], [0.1, 0.1, 0.4, 0.4]]]}, "from tightest to widest"),
        (ROW | {"boxes": [[0, 0, 1, 1]]}, "wrong shape"),
        (ROW | {"boxes": 3}, "wrong shape"),
        (ROW | {"budget": 0}, "positive number of visual tokens"),
        (ROW | {"budget": "many"}, "wrong shape"),
        (ROW | {"budget": 1e999}, "wrong shape: 'budget' needs a whole number of visual tokens, g"),
        (ROW | {"budget": 2.5}, "'budget' needs a whole number of visual tokens, got 2.5"),
        (ROW | {"boxes": None}, "'boxes' needs a list of targets"),
        (ROW | {"boxes": None}, "got null; leave it out"),
        (ROW | {"boxes": [[["0", 0, 1, 1]]]}, "'boxes' needs a list of targets, each a list of"),
        (ROW | {"boxes": [[[0, 0, 1]]]}, "'boxes' needs"),
        (ROW | {"boxes": {"x": 1}}, "'boxes' needs a list of targets, each a list of [x0, y0, x1,"),
        (ROW | {"answer": None}, "'answer' needs a text, got null"),
        (ROW | {"question": None}, "'question' needs a text, got null"),
        (ROW | {"id": None}, "'id' needs a text, got null"),
        (ROW | {"answer": float("nan")}, "'answer' needs a text, got nan"),
        (ROW | {"answer": ["K"]}, "'answer' needs a text, got ['K']"),
        (ROW | {"answer": True}, "'answer' needs a text, got true or false"),
        (ROW | {"image": None}, "'image' needs the path of a picture, got null"),
        (ROW | {"image": ""}, "'image' needs the path of a picture, got ''"),
        (ROW | {"image": "a\0.png"}, "'image' needs the path of a picture, got 'a\\x00.png'"),
        (ROW | {"image": "\ud800.png"}, "'image' needs the path of a picture, got '\\ud800.png'"),
        (ROW | {"options": "red"}, "'options' needs a list of texts, got 'red'"),
        (ROW | {"options": {"A": "red"}}, "'options' needs a list of texts, got {'A': 'red'}"),
        (ROW | {"options": ["red", None]}, "'options' needs texts, got null; leave it out"),
        (ROW | {"options": None}, "'options' needs a list of texts, got null; leave it out"),
        (ROW | {"category": None}, "'category' needs a text, got null; leave it out"),
        (ROW | {"meta": []}, "'meta' needs an object, got []"),
        ("{not json", "not a line of JSON"),
        ("[1, 2]", "a row is a JSON object, got list"),
        ("[" * 100_000, "not a line of JSON"),
    ],
)
def test_a_bad_row_is_named_with_file_and_line(tmp_path: Path, row: Any, says: str) -> None:
    write_rows(tmp_path, ROW | {"id": "first"}, "", row)
    with pytest.raises(SampleError) as caught:
        read_samples(tmp_path)
    assert "samples.jsonl:3: " in str(caught.value)
    assert says in str(caught.value)


def test_an_id_used_twice_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SampleError, match=r":2: sample id 'a' is used twice"):
        read_samples(write_rows(tmp_path, ROW, ROW))


def test_bytes_that_are_not_text_are_an_error_of_that_line(tmp_path: Path) -> None:
    (tmp_path / "samples.jsonl").write_bytes(json.dumps(ROW).encode() + b"\n\xff\xfe\n")
    with pytest.raises(SampleError, match=":2: not a line of JSON"):
        read_samples(tmp_path)


def test_a_file_in_utf_16_says_so(tmp_path: Path) -> None:
    (tmp_path / "samples.jsonl").write_text(json.dumps(ROW) + "\n", encoding="utf-16")
    with pytest.raises(SampleError, match=r":1: .*the file is UTF-16, save it as UTF-8"):
        read_samples(tmp_path)


def test_numbers_are_texts_where_texts_are_needed(tmp_path: Path) -> None:
    row = ROW | {"id": 7, "answer": 3, "options": [2, 3.5, "3"], "budget": 64.0}
    (found,) = read_samples(write_rows(tmp_path, row))
    assert (found.id, found.answer, found.options, found.budget) == (
        "7",
        "3",
        ("2", "3.5", "3"),
        64,
    )


def test_a_folder_without_samples_names_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(SampleError, match=r"no such file; a samples folder holds samples\.jsonl"):
        read_samples(tmp_path)


def test_a_table_in_place_of_samples_gets_the_command_that_imports_it(tmp_path: Path) -> None:
    file = tmp_path / "questions.csv"
    file.write_text("image,question,answer\n")
    with pytest.raises(SampleError, match=rf"`lfpc data import table {file} FOLDER`"):
        read_samples(file)


def test_samples_survive_writing_and_reading(tmp_path: Path) -> None:
    full = Sample(
        id="b",
        image=tmp_path / "sub/b.png",
        question="Qué?",
        answer="B",
        options=("x", "y"),
        boxes=((Box(0.1, 0.1, 0.2, 0.2),),),
        budget=64,
        category="relation",
        source="mini",
        meta={"seed": 3},
    )
    plain = sample_from_row(ROW, tmp_path)
    write_samples([full, plain], tmp_path)
    assert read_samples(tmp_path) == [full, plain]
    assert row_of_sample(full, tmp_path)["image"] == "sub/b.png"


def test_a_picture_outside_the_folder_keeps_a_relative_path_so_that_both_can_be_moved_together(
    tmp_path: Path,
) -> None:
    sample = sample_from_row(ROW, tmp_path / "one")
    row = row_of_sample(sample, tmp_path / "two")
    assert row["image"] == "../one/a.png"
    assert sample_from_row(row, tmp_path / "two") == sample


def test_scanning_continues_after_a_bad_row(tmp_path: Path) -> None:
    found = list(scan_samples(write_rows(tmp_path, "no", ROW)))
    assert [type(item) for item in found] == [SampleError, Sample]


def test_the_check_names_every_problem_and_passes_what_is_sound(
    tmp_path: Path, picture: Callable[..., Path]
) -> None:
    picture("a.png")
    (tmp_path / "broken.png").write_bytes(picture("b.png").read_bytes()[:200])
    picture("sliver.png", (601, 3))
    bad = [
        without("answer"),
        ROW | {"id": "gone", "image": "gone.png"},
        ROW | {"id": "broken", "image": "broken.png"},
        ROW | {"id": "sliver", "image": "sliver.png"},
        ROW | {"id": "option", "options": ["x", "y"], "answer": "C"},
    ]
    checked = check_samples(
        write_rows(
            tmp_path,
            ROW,
            *bad,
            ROW | {"id": "z", "question": "Other?", "options": ["x", "y"], "answer": "B"},
        )
    )
    problems = ["; ".join(each.lines) or None for each in checked]
    says = [
        None,
        "has no 'answer'",
        "no such picture",
        "not a readable picture",
        "narrower than 1 : 200",
        "neither the letter nor the text",
        None,
    ]
    for problem, part in zip(problems, says, strict=True):
        assert (problem is None) == (part is None), problem
        assert (part or "") in (problem or "")


def test_a_question_with_a_lone_surrogate_survives_writing_and_reading(
    tmp_path: Path, sample: Callable[..., Sample]
) -> None:
    written = sample(id="odd", question="What \udc00?")
    assert read_samples(write_samples([written], tmp_path).parent)[0].question == "What \udc00?"


def test_a_terminal_that_is_not_utf_8_gets_every_line(
    tmp_path: Path, picture: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = TextIOWrapper(BytesIO(), encoding="latin-1")
    monkeypatch.setattr("sys.stdout", terminal)
    name = os.fsdecode(b"\xff.png")  # a file name that is not UTF-8
    picture("a.png").rename(tmp_path / name)
    rows = [ROW | {"image": name}, ROW | {"id": "图", "image": "图.png", "question": "\ud83d?"}]
    assert main(["data", "check", str(write_rows(tmp_path, *rows))]) == 1
    terminal.seek(0)
    assert terminal.read() == f"sample '\\u56fe': {tmp_path}/\\u56fe.png: no such picture\n"
