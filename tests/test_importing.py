"""Published training sets become samples folders; whatever cannot is named, and nothing else is
lost."""

import io
import json
import random
import shlex
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import published
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lfpc.boxes import Box
from lfpc.cli import main
from lfpc.data.exporters import EXPORTERS
from lfpc.errors import ConfigError, RunError, SampleError
from lfpc.images import open_picture
from lfpc.published.config import ImportConfig
from lfpc.published.files import TableRow, read_rows
from lfpc.published.importing import import_published
from lfpc.published.index import PUBLISHED
from lfpc.samples import Sample, read_samples, write_samples
from lfpc.storage.files import LOCK_FILE, FolderLock

HERE = Path(__file__).parent


def bring(
    name: str, src: Path, out: Path, **options: Any
) -> tuple[list[Sample], list[dict[str, Any]]]:
    """The samples of an import, however few, and the rejected rows."""
    config = ImportConfig(format=name, src=src, **options)
    import_published(config, out, min_share=0, progress=False)
    return read_samples(out), [
        json.loads(line) for line in (out / "rejected.jsonl").read_text().splitlines()
    ]


def facts(samples: list[Sample]) -> list[tuple[str, str, str]]:
    return [(sample.id, sample.question, sample.answer) for sample in samples]


# --- layouts --------------------------------------------------------------------------------------


def test_deepeyes_takes_the_question_without_the_tool(tmp_path: Path) -> None:
    samples, rejected = bring("deepeyes", published.deepeyes(tmp_path / "in"), tmp_path / "out")
    assert facts(samples)[0] == (
        "thinklite_eureka/0",
        "What is 0?",
        "The answer of 0 is a long sentence.",
    )
    assert {sample.id for sample in samples} == {
        "thinklite_eureka/0",
        "vstar/1",
        "thinklite_eureka/2",
        "vstar/3",
    }
    assert rejected == []
    assert all(sample.image.is_relative_to(tmp_path / "out" / "pictures") for sample in samples)


def test_pixel_reasoner_leaves_videos_out_and_reads_options(tmp_path: Path) -> None:
    samples, rejected = bring(
        "pixel-reasoner", published.pixel_reasoner(tmp_path / "in"), tmp_path / "out"
    )
    assert facts(samples) == [("q1", "What colour?", "red"), ("q2", "Which?", "B")]
    assert samples[1].options == ("red", "blue")
    assert samples[0].image == samples[1].image
    assert [(row["row"], row["reason"]) for row in rejected] == [(3, "video")]


def test_chain_of_focus_finds_pictures_under_a_root_without_the_authors_path(
    tmp_path: Path,
) -> None:
    src = published.chain_of_focus(tmp_path / "in")
    samples, rejected = bring(
        "chain-of-focus",
        src,
        tmp_path / "out",
        roots=(src / "pictures",),
        strip=("/authors/disk/",),
    )
    assert facts(samples) == [("row-1", "How many?", "3")]
    assert samples[0].category == "sa1b"
    assert [row["reason"] for row in rejected] == ["missing picture"]
    assert "sa/2.jpg" in rejected[0]["detail"]


def test_thinklite_leaves_pictures_below_one_visual_token_out(tmp_path: Path) -> None:
    samples, rejected = bring(
        "thinklite-vl", published.thinklite(tmp_path / "in"), tmp_path / "out"
    )
    assert facts(samples) == [("row-1", "What is x?", "4")]
    assert rejected[0]["reason"] == "tiny picture"
    assert "20 x 60 pixels" in rejected[0]["detail"]


def test_visualprobe_parts_keep_their_own_pictures_of_one_name(tmp_path: Path) -> None:
    samples, rejected = bring(
        "visualprobe", published.visualprobe(tmp_path / "in"), tmp_path / "out"
    )
    assert facts(samples) == [("easy/1", "What sign?", "stop"), ("hard/1", "What sign?", "stop")]
    assert samples[0].image != samples[1].image
    assert rejected == []


def test_visualprobe_is_its_test_parts_and_mini_o3_every_list(tmp_path: Path) -> None:
    src = published.visualprobe(tmp_path / "in")
    (src / "VisualProbe_Hard" / "train.json").rename(src / "VisualProbe_Hard" / "val.json")
    test_parts, _ = bring("visualprobe", src, tmp_path / "test parts")
    every_list, _ = bring("mini-o3", src, tmp_path / "every list")
    assert [sample.id for sample in test_parts] == ["hard/1"]
    assert [sample.id for sample in every_list] == ["easy/1", "hard/1"]


def test_nameless_rows_are_numbered_across_files_also_where_an_import_continues(
    tmp_path: Path,
) -> None:
    src = tmp_path / "in"
    published.write_picture(src / "a.png")
    row = {"prompt": "How many?", "answer": "3", "image": "a.png"}
    published.write_json(src / "a.json", [row, row | {"image": "gone.png"}])
    published.write_json(src / "b.json", [7, row, row])
    samples, rejected = bring("zoombench", src, tmp_path / "out")
    assert [sample.id for sample in samples] == ["1", "3", "4"]
    assert [row["reason"] for row in rejected] == ["missing picture", "row"]
    journal = tmp_path / "out" / "journal" / "journal.jsonl"
    first_rows = journal.read_text().splitlines(keepends=True)[:4]
    journal.write_text("".join(first_rows))
    assert bring("zoombench", src, tmp_path / "out") == (samples, rejected)


def test_benchmarks_find_pictures_under_a_root(tmp_path: Path) -> None:
    published.write_picture(tmp_path / "elsewhere" / "a.png")
    row = {"prompt": "How many?", "answer": "3", "image": "/authors/disk/a.png"}
    published.write_json(tmp_path / "in" / "a.json", [row])
    (sample,), _ = bring(
        "zoombench",
        tmp_path / "in",
        tmp_path / "out",
        roots=(tmp_path / "elsewhere",),
        strip=("/authors/disk/",),
    )
    assert sample.answer == "3"


def test_benchmarks_are_imported_by_their_readers_with_boxes(tmp_path: Path) -> None:
    folder = tmp_path / "in" / "direct_attributes"
    published.write_picture(folder / "sa_1.jpg", 1, (100, 50))
    row = {
        "question": "Which colour?",
        "options": ["red", "blue"],
        "bbox": [[10, 5, 20, 10]],
        "target_object": ["cup"],
    }
    published.write_json(folder / "sa_1.json", row)
    published.write_json(
        tmp_path / "in" / "relative_position" / "sa_2.json", row
    )  # without a picture
    (sample,), rejected = bring("vstar", tmp_path / "in", tmp_path / "out")
    assert sample.boxes == ((Box(0.1, 0.1, 0.3, 0.3),),)
    assert sample.image.is_relative_to(tmp_path / "out" / "pictures")
    assert rejected[0]["detail"] == "no picture sa_2.jpg beside it"
    assert rejected[0]["where"].endswith("relative_position/sa_2.json: row 1")
    assert rejected[0]["reason"] == "missing picture"


ROWS = [
    {
        "problem": "Which?",
        "gold": {"answer": "b"},
        "pic": "a.png",
        "choices": ["a", "b"],
        "where": [16, 12, 32, 24],
    }
]
MAP = {
    "question": "problem",
    "answer": "gold.answer",
    "image": "pic",
    "options": "choices",
    "boxes": "where",
}


@pytest.mark.parametrize(
    "kind", ["jsonl", "json", "parquet", pytest.param("saved", marks=pytest.mark.slow)]
)
def test_any_table_is_read_with_its_columns_named(tmp_path: Path, kind: str) -> None:
    src = tmp_path / "in"
    published.write_picture(src / "a.png")
    match kind:
        case "jsonl":
            (src / "x.jsonl").write_text("\n".join(json.dumps(row) for row in ROWS))
        case "json":
            published.write_json(src / "x.json", ROWS)
        case "parquet":
            published.write_parquet(src / "x.parquet", ROWS)
        case _:
            datasets = pytest.importorskip(
                "datasets", reason="the package `datasets` is not installed"
            )
            datasets.Dataset.from_list(ROWS).save_to_disk(src / "saved")
    samples, rejected = bring(
        "table",
        src / "saved" if kind == "saved" else src,
        tmp_path / "out",
        columns=MAP,
        roots=(src,),
    )
    assert rejected == []
    (sample,) = samples
    assert (sample.question, sample.options, sample.answer) == ("Which?", ("a", "b"), "B")
    assert sample.boxes == ((Box(0.25, 0.25, 0.5, 0.5),),)  # 16 of 64, 12 of 48; 32 of 64, 24 of 48


@pytest.mark.slow
def test_saved_data_set_with_pictures_and_splits(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="the package `datasets` is not installed")
    rows = {
        "question": ["a?", "b?"],
        "answer": ["1", "2"],
        "image": [Image.new("RGB", (40, 40), name) for name in ("red", "blue")],
    }
    data = datasets.Dataset.from_dict(
        rows,
        features=datasets.Features(
            question=datasets.Value("string"),
            answer=datasets.Value("string"),
            image=datasets.Image(),
        ),
    )
    datasets.DatasetDict(train=data, test=data).save_to_disk(tmp_path / "in")
    samples, rejected = bring("table", tmp_path / "in", tmp_path / "out")
    assert [sample.answer for sample in samples] == ["1", "2", "1", "2"]
    names = [f"{split}/row-{n}" for split in ("train", "test") for n in (1, 2)]
    assert [sample.id for sample in samples] == names
    assert [sample.source for sample in samples] == ["train", "train", "test", "test"]
    one, _ = bring("table", tmp_path / "in" / "test", tmp_path / "test")
    assert [sample.id for sample in one] == ["row-1", "row-2"]
    assert len({sample.image for sample in samples}) == 2
    assert rejected == []


def test_unknown_format_and_unknown_field_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown data set 'nonsense'; known are deepeyes"):
        bring("nonsense", tmp_path, tmp_path / "out")
    with pytest.raises(ConfigError, match=r"samples, table; did you mean vstar\?$"):
        bring("VStar", tmp_path, tmp_path / "out")
    published.write_json(tmp_path / "in" / "x.json", ROWS)
    with pytest.raises(ConfigError, match="a sample has no 'qestion'"):
        bring("table", tmp_path / "in", tmp_path / "out", columns={"qestion": "problem"})
    assert not (tmp_path / "out").exists()  # so that the corrected command may use it
    with pytest.raises(ConfigError, match="which the import reads; name a folder outside"):
        bring("table", tmp_path / "in", tmp_path / "in" / "out")
    with pytest.raises(SampleError, match="no such file or folder"):
        bring("table", tmp_path / "gone", tmp_path / "out2")
    assert {"deepeyes", "table", "vstar", "hrbench-8k", "treebench", "zoombench"} <= set(PUBLISHED)


@pytest.mark.slow
def test_saved_data_set_with_lists_of_pictures_and_classes(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="the package `datasets` is not installed")
    names = ["red", "blue"]
    data = datasets.Dataset.from_dict(
        {
            "question": ["a?", "b?"],
            "answer": [1, 0],
            "extra": [{"kind": [0]}, {"kind": [1]}],
            "images": [[Image.new("RGB", (40, 40), name)] for name in names],
        },
        features=datasets.Features(
            question=datasets.Value("string"),
            answer=datasets.ClassLabel(names=names),
            extra={"kind": datasets.List(datasets.ClassLabel(names=names))},
            images=datasets.List(datasets.Image()),
        ),
    )
    data.save_to_disk(tmp_path / "in")
    samples, rejected = bring(
        "table",
        tmp_path / "in",
        tmp_path / "out",
        columns={"image": "images", "category": "extra.kind"},
    )
    assert rejected == []
    assert [sample.answer for sample in samples] == ["blue", "red"]
    assert [sample.category for sample in samples] == ["['red']", "['blue']"]
    assert len({sample.image for sample in samples}) == 2


def test_null_and_nan_are_absent_and_never_text(tmp_path: Path) -> None:
    published.write_picture(tmp_path / "in" / "a.png")
    row = {"id": "r", "image": "a.png", "question": "q?", "answer": "A"}
    nan = float("nan")
    rows = [
        row | {"id": "options", "options": {"A": "x", "B": "y", "C": None, "D": nan}},
        row | {"id": "category", "category": None, "source": nan, "boxes": nan},
        row | {"answer": nan},
        row | {"answer": None},
        row | {"question": nan},
        row | {"id": nan},
        row | {"id": "few", "options": ["x", None]},
    ]
    (tmp_path / "in" / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    samples, rejected = bring("table", tmp_path / "in", tmp_path / "out")
    assert [(sample.id, sample.options) for sample in samples] == [
        ("options", ("x", "y")),
        ("category", ()),
    ]
    assert (samples[1].category, samples[1].source) == ("", "")
    assert [one["row"] for one in rejected] == [3, 4, 5, 6, 7]


def test_options_in_one_cell_are_a_list_and_a_lone_text_is_not(tmp_path: Path) -> None:
    published.write_picture(tmp_path / "in" / "a.png")
    row = {"image": "a.png", "question": "Colour?", "answer": "blue"}
    rows = [
        row | {"options": text}
        for text in ("(A) red\n(B) blue", '["red", "blue"]', "['red', 'blue']", "red")
    ]
    published.write_json(tmp_path / "in" / "x.json", rows)
    samples, (problem,) = bring("table", tmp_path / "in", tmp_path / "out")
    assert [(s.options, s.answer) for s in samples] == [(("red", "blue"), "B")] * 3
    assert "two options or more, got 'red'" in problem["detail"]


def test_pixel_reasoner_answers_are_boxed_or_the_first_of_a_list(tmp_path: Path) -> None:
    published.write_picture(tmp_path / "in" / "a.png")
    text = "Which?\n(A) red\n(B) blue"
    for i, answer in enumerate(["\\boxed{B}", ["B"], ["\\boxed{B}"], ["B", "blue"]]):
        row = {"qid": "q", "question": text, "answer": answer, "image": ["a.png"]}
        published.write_parquet(tmp_path / "in" / str(i) / "x.parquet", [row])
        published.write_picture(tmp_path / "in" / str(i) / "a.png")
    samples, rejected = bring("pixel-reasoner", tmp_path / "in", tmp_path / "out")
    assert rejected == []
    assert [(s.question, s.options, s.answer) for s in samples] == [
        ("Which?", ("red", "blue"), "B")
    ] * 4


def test_a_missing_column_is_reported_with_the_columns_of_the_file(tmp_path: Path) -> None:
    published.write_picture(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "x.csv").write_text("qid, img, problem\n1, a.png, q?\n")
    samples, (problem,) = bring("table", tmp_path / "in", tmp_path / "out")
    assert samples == []
    assert problem["detail"] == "no 'image'; the row has qid, img, problem"


@pytest.mark.parametrize(
    ("rows", "columns", "maps"),
    [
        (
            [{"qid": 7, "img": "a.png", "problem": "q?", "solution": "red"}],
            [],
            "id=qid image=img question=problem answer=solution",
        ),
        (
            [{"Image": {"bytes": None, "path": "a.png"}, "extra": {"prompt": "q?", "gt": "red"}}],
            [],
            "image=Image question=extra.prompt answer=extra.gt",
        ),
        (
            [{"shot": "a.png", "question": "q?", "answer": "red"}] * 2,
            ["question=quest"],
            "image=shot",
        ),
        (  # choices that do not hold the answer are left out
            [{"image": "a.png", "query": "q?", "label": "red", "choices": ["blue", "green"]}],
            [],
            "question=query answer=label",
        ),
        ([{"a": 1, "b": "x"}], [], None),
        ([], [], None),
    ],
)
def test_an_import_without_a_sample_takes_nothing_and_names_the_command_that_works(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    rows: list[dict[str, Any]],
    columns: list[str],
    maps: str | None,
) -> None:
    published.write_picture(tmp_path / "a.png")
    out = tmp_path / "out"
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["data", "import", "table", str(tmp_path / "t.jsonl"), str(out)]
    assert main([*words, *(["--map", *columns] if columns else [])]) == 1
    assert {path.name for path in out.iterdir()} - {LOCK_FILE} == {"rejected.jsonl"}
    said = capsys.readouterr().err
    reason = (
        f"the first: no '{'question' if 'image' in next(iter(rows)) else 'image'}'; the row has "
        if rows
        else "it has no rows"
    )
    assert f"no row could be read as a sample of table; {reason}" in said
    if maps is None:
        assert "try:" not in said
        return
    command = shlex.split(said.partition("; try: ")[2])
    assert command == ["lfpc", *words, "--map", *maps.split()]
    assert main(command[1:]) == 0
    assert [sample.answer for sample in read_samples(out)] == ["red"] * len(rows)


def test_an_import_of_less_than_half_takes_nothing_unless_it_is_asked_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    published.write_picture(tmp_path / "a.png")
    good = {"image": "a.png", "question": "q?", "answer": "red"}
    rows = [good, good | {"image": "gone.png"}, good | {"answer": None}]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "out"
    words = ["data", "import", "table", str(tmp_path / "t.jsonl"), str(out)]
    assert main(words) == 1
    said = capsys.readouterr().err
    assert "only 1 of 3 rows could be read as samples of table, so nothing is imported" in said
    assert "of the others, the first: no such picture: gone.png" in said
    assert {path.name for path in out.iterdir()} - {LOCK_FILE} == {"rejected.jsonl"}
    assert main([*words, "--min-share", "0.3"]) == 0
    assert len(read_samples(out)) == 1
    several = [good, *[good | {"image": ["a.png", "a.png"]}] * 3]  # for other models
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in several))
    assert main([*words[:-1], str(tmp_path / "other")]) == 0


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("comma.csv", "image,question,answer\na.png,q?,red\n"),
        ("excel.csv", "\ufeffimage;question;answer\na.png;q?;red\n"),
        ("tabs.csv", "image\tquestion\tanswer\na.png\tq?\tred\n"),
        ("commas.tsv", "image,question,answer\na.png,q?,red\n"),
        ("sep.csv", "sep=;\r\nimage;question;answer\r\na.png;q?;red\r\n"),
        ("separator.tsv", '\ufeff"sep=|"\nimage|question|answer\na.png|q?|red\n'),
        ("lines.json", '{"image": "a.png", "question": "q?", "answer": "red"}\n' * 2),
        ("one.json", '{"image": "a.png", "question": "q?", "answer": "red"}'),
        ("list.jsonl", '[{"image": "a.png",\n "question": "q?", "answer": "red"}]'),
        ("indented.json", '{\n"image": "a.png",\n"question": "q?",\n"answer": "red"\n}'),
        ("wrapped.json", '{"data": [{"image": "a.png", "question": "q?", "answer": "red"}]}'),
        ("mark.jsonl", '\ufeff{"image": "a.png", "question": "q?", "answer": "red"}\n'),
        ("quoted.csv", 'image,question,answer\n"a.png,q?,red\na.png,q?,red\na.png,q?,red\n'),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-be", "utf-16-le without a mark"])
def test_tables_are_read_as_other_programs_write_them(
    tmp_path: Path, name: str, content: str, encoding: str
) -> None:
    published.write_picture(tmp_path / "a.png")
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    wide = content.removeprefix("\ufeff") if encoding != "utf-8" else content
    (tmp_path / name).write_bytes((mark + wide).encode(encoding.split()[0]))
    samples, rejected = bring("table", tmp_path / name, tmp_path / "out")
    assert {(sample.question, sample.answer) for sample in samples} == {("q?", "red")}
    assert len(samples) == (2 if name in ("lines.json", "quoted.csv") else 1)
    assert len(rejected) == (name == "quoted.csv")  # an open quotation mark loses its own line


def test_a_table_with_two_columns_of_one_name_is_refused(tmp_path: Path) -> None:
    published.write_picture(tmp_path / "a.png")
    (tmp_path / "t.csv").write_text("image,question,answer,answer \na.png,q?,red,blue\n")
    samples, (rejected,) = bring("table", tmp_path / "t.csv", tmp_path / "out")
    assert samples == []
    assert "two columns are called 'answer'; rename one" in rejected["detail"]


def test_class_names_are_read_from_a_parquet_file_without_the_package(tmp_path: Path) -> None:
    published.write_picture(tmp_path / "in" / "a.png")
    label = {"names": ["red", "blue"], "_type": "ClassLabel"}
    features = {
        "answer": label,
        "kinds": {"feature": label, "_type": "List"},
        "old": [label],
        "extra": {"kind": label},
        "sequence": {"feature": {"kind": label}, "_type": "Sequence"},
    }
    rows = [
        {
            "image": "a.png",
            "question": "q?",
            "answer": 1,
            "kinds": [1],
            "old": [0],
            "extra": {"kind": 0},
            "sequence": {"kind": [1, -1]},
        }
    ]
    table = pa.Table.from_pylist(rows)
    told = json.dumps({"info": {"features": features}})
    pq.write_table(
        table.replace_schema_metadata({"huggingface": told}), tmp_path / "in" / "t.parquet"
    )
    (row,) = read_rows(tmp_path / "in" / "t.parquet")
    assert isinstance(row, TableRow)
    assert {name: row.values[name] for name in features} == {
        "answer": "blue",
        "kinds": ["blue"],
        "old": ["red"],
        "extra": {"kind": "red"},
        "sequence": {"kind": ["blue", None]},
    }
    samples, _ = bring("table", tmp_path / "in", tmp_path / "out")
    assert [sample.answer for sample in samples] == ["blue"]


# --- what cannot be a sample ----------------------------------------------------------------------


def claimed(width: int, height: int) -> bytes:
    """A small PNG file whose header claims a size."""
    data = bytearray(published.picture_bytes())
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    return bytes(data)


def test_every_bad_row_is_named_and_every_good_one_kept(tmp_path: Path) -> None:
    src = tmp_path / "in"
    secret = tmp_path / "secret"
    good = published.write_picture(src / "good.png", 5)
    published.write_picture(secret / "s.png", 9)
    (src / "link.png").symlink_to(secret / "s.png")
    (src / "cut.png").write_bytes(published.picture_bytes(1, (300, 300))[:200])
    Image.effect_noise((400, 300), 80).convert("RGB").save(tmp_path / "whole.jpg")
    (src / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:-9000])
    (src / "text.png").write_text("not a picture")
    (src / "bomb.png").write_bytes(claimed(100_000, 100_000))
    (src / "lie.png").write_bytes(claimed(9000, 9000))
    published.write_picture(src / "narrow.png", 6, (28 * 201, 28))
    published.write_picture(src / "tiny.png", 6, (27, 400))
    pictures = {
        "../secret/s.png": "outside",
        str(secret / "s.png"): "outside",
        "link.png": "outside",
        "file:///etc/passwd": "outside",
        "gone.png": "missing picture",
        "x" * 240 + ".png": "missing picture",
        "a\0b.png": "missing picture",
        "cut.png": "broken picture",
        "cut.jpg": "broken picture",
        "text.png": "broken picture",
        "lie.png": "broken picture",
        "bomb.png": "absurd size",
        "narrow.png": "narrow picture",
        "tiny.png": "tiny picture",
        "": "row",
        "x" * 400: "broken picture",
    }
    good_row = {"id": "g", "image": "good.png", "question": "q", "answer": "a"}
    rows: list[Any] = [
        good_row,
        *(good_row | {"id": f"bad{i}", "image": name} for i, name in enumerate(pictures)),
    ]
    rows += [{"image": "good.png", "question": "q"}, good_row | {"image": 7}, [1], "text", None]
    rows += [good_row | {"image": ["good.png", "good.png"]}, good_row | {"question": "another"}]
    lines = [json.dumps(row) for row in rows]
    lines.insert(2, '{"torn": ')
    (src / "rows.jsonl").write_text("\n".join(lines))
    samples, rejected = bring("table", src, tmp_path / "out")
    assert [sample.id for sample in samples] == ["g", f"g#{len(lines)}"], (
        "an id that is there twice costs no sample"
    )
    reasons = {row["row"]: row["reason"] for row in rejected}
    assert [reasons[i + (2 if i == 0 else 3)] for i in range(len(pictures))] == list(
        pictures.values()
    )
    assert len(rejected) == len(lines) - 2
    assert [row["reason"] for row in rejected[-6:]] == [
        "row",
        "broken picture",
        "row",
        "row",
        "row",
        "several pictures",
    ]
    assert all("Traceback" not in row["detail"] and row["detail"] for row in rejected)
    stored = [file for file in (tmp_path / "out" / "pictures").rglob("*") if file.is_file()]
    assert [file.read_bytes() for file in stored] == [good.read_bytes()], (
        "one picture, once, and nothing from outside"
    )


def test_summary_counts_by_source_and_reason(tmp_path: Path) -> None:
    src = published.deepeyes(tmp_path / "in", 6)
    published.write_parquet(
        src / "more.parquet", [published.deepeyes_row(7, published.picture_bytes(1, (9, 9)))]
    )
    bring("deepeyes", src, tmp_path / "out")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["samples"] == 6
    assert summary["rejected"] == {"tiny picture": 1}
    assert summary["sources"]["vstar"] == {
        "samples": 3,
        "with_options": 0,
        "with_boxes": 0,
        "rejected": 1,
    }


# --- going on, and size ---------------------------------------------------------------------------


@pytest.mark.slow
def test_killed_import_resumes_with_the_same_result(tmp_path: Path) -> None:
    src = tmp_path / "in"
    rows = [
        published.deepeyes_row(i, published.picture_bytes(i, (64, 48) if i % 7 else (9, 9)))
        for i in range(300)
    ]
    published.write_parquet(src / "d.parquet", rows, row_group_size=50)
    whole = bring("deepeyes", src, tmp_path / "whole")
    out = tmp_path / "out"
    rng = random.Random(1)
    journal = out / "journal" / "journal.jsonl"
    command = [sys.executable, "-m", "lfpc", "data", "import", "deepeyes", str(src), str(out)]
    killed = 0
    for goal in (1, 100):
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            while (
                not journal.exists() or journal.read_bytes().count(b"\n") < goal
            ) and process.poll() is None:
                time.sleep(rng.uniform(0, 0.002))
            killed += process.poll() is None
            process.send_signal(signal.SIGKILL)
    assert killed == 2
    before = journal.read_bytes().count(b"\n")
    subprocess.run(command, check=True, capture_output=True)
    lines = journal.read_text().splitlines()
    assert before < len(lines) == 300
    assert [json.loads(line)["key"] for line in lines] == [str(i) for i in range(1, 301)]
    assert facts(read_samples(out)) == facts(whole[0])
    assert (out / "rejected.jsonl").read_text() == (
        tmp_path / "whole" / "rejected.jsonl"
    ).read_text().replace("/whole/", "/out/")


def test_a_line_that_is_deleted_as_the_message_advises_is_imported_again(tmp_path: Path) -> None:
    src = tmp_path / "in"
    rows = [published.deepeyes_row(i, published.picture_bytes(i, (64, 48))) for i in range(5)]
    published.write_parquet(src / "d.parquet", rows)
    whole = facts(bring("deepeyes", src, tmp_path / "out")[0])
    journal = tmp_path / "out" / "journal" / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join([*lines[:2], "{broken\n", *lines[3:]]))
    with pytest.raises(RunError, match=r"journal\.jsonl:3: .* delete the line to continue"):
        bring("deepeyes", src, tmp_path / "out")
    journal.write_text("".join([*lines[:2], *lines[3:]]))
    assert sorted(facts(bring("deepeyes", src, tmp_path / "out")[0])) == sorted(whole)


@pytest.mark.slow
def test_an_import_leaves_a_folder_alone_in_which_somebody_draws_boxes(tmp_path: Path) -> None:
    src = tmp_path / "in"
    published.write_parquet(
        src / "d.parquet", [published.deepeyes_row(1, published.picture_bytes(1, (64, 48)))]
    )
    out = tmp_path / "out"
    with FolderLock(out):
        command = [sys.executable, "-m", "lfpc", "data", "import", "deepeyes", str(src), str(out)]
        done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"{out} is in use" in done.stderr


@pytest.mark.parametrize(
    ("name", "make"),
    [("deepeyes", published.deepeyes), ("pixel-reasoner", published.pixel_reasoner)],
    ids=["pictures in the table", "picture files"],
)
def test_a_full_disk_ends_an_import_and_rejects_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, make: Callable[[Path], Path]
) -> None:
    replace = Path.replace

    def refuse(self: Path, target: Path) -> Path:
        if "pictures" in target.parts:
            raise OSError(28, "No space left on device")
        return replace(self, target)

    src = make(tmp_path / "in")
    whole = bring(name, src, tmp_path / "whole")
    with monkeypatch.context() as full:
        full.setattr(Path, "replace", refuse)
        with pytest.raises(RunError, match="No space left on device"):
            bring(name, src, tmp_path / "out")
    samples, rejected = bring(name, src, tmp_path / "out")
    assert (facts(samples), rejected) == (facts(whole[0]), whole[1])


def test_other_files_or_options_do_not_resume_in_the_same_folder(tmp_path: Path) -> None:
    src = published.deepeyes(tmp_path / "in", 4)
    bring("deepeyes", src, tmp_path / "out")
    with pytest.raises(RunError, match="min_side"):
        bring("deepeyes", src, tmp_path / "out", min_side=5)
    published.deepeyes(src, 40)
    with pytest.raises(RunError, match="files"):
        bring("deepeyes", src, tmp_path / "out")


MEASURE = """
import sys
from pathlib import Path
from lfpc.published.config import ImportConfig
from lfpc.published.importing import import_published
from bench.side_by_side import peak_memory_mib
config = ImportConfig(format=sys.argv[1], src=Path(sys.argv[2]))
import_published(config, Path(sys.argv[3]), progress=False)
print(peak_memory_mib())
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["deepeyes", "table"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, kind: str) -> None:
    """125 MB of pictures against 18: the peak may grow by 48 MB."""
    noise = [random.Random(i).randbytes(600 * 500 * 3) for i in range(4)]

    def picture(i: int) -> bytes:
        name = tmp_path / "n.bmp"
        Image.frombytes("RGB", (600, 500), noise[i % 4]).save(name)
        return name.read_bytes() + i.to_bytes(4)  # each its own content

    def peak(count: int) -> float:
        src = tmp_path / f"in{count}"
        src.mkdir()
        if kind == "deepeyes":
            import pyarrow as pa
            import pyarrow.parquet as pq

            first = pa.Table.from_pylist([published.deepeyes_row(0)]).schema
            with pq.ParquetWriter(src / "d.parquet", first) as file:
                for start in range(0, count, 20):
                    file.write_table(
                        pa.Table.from_pylist(
                            [
                                published.deepeyes_row(i, picture(i))
                                for i in range(start, start + 20)
                            ],
                            first,
                        )
                    )
        else:
            from base64 import b64encode

            with (src / "d.jsonl").open("w") as out:
                for i in range(count):
                    out.write(
                        json.dumps(
                            {
                                "question": "q",
                                "answer": "a",
                                "image": b64encode(picture(i)).decode(),
                            }
                        )
                        + "\n"
                    )
        command = [sys.executable, "-c", MEASURE, kind, str(src), str(tmp_path / f"out{count}")]
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, cwd=HERE.parent
        )  # -c finds `bench` from there
        assert len(read_samples(tmp_path / f"out{count}")) == count
        return float(done.stdout)

    few = peak(20)
    many = peak(140)
    assert many - few < 48, f"{few:.0f} MiB for 20 rows, {many:.0f} MiB for 140"


# --- out and back ---------------------------------------------------------------------------------


def rich_samples(folder: Path) -> list[Sample]:
    """Samples with everything a sample can have."""
    box = (Box(0.1, 0.1, 0.2, 0.2), Box(0, 0, 0.5, 0.5))
    common: dict[str, Any] = {
        "source": "mine",
        "category": "hard",
        "budget": 64,
        "meta": {"a": [1, {"b": None}], "é": "ü"},
    }
    one = published.write_picture(folder / "1.png", 1)
    two = published.write_picture(folder / "2.jpg", 2)
    return [
        Sample(
            id="1",
            image=one,
            question="What\nis (A) it?",
            answer="a “b”",
            boxes=(box, box[:1]),
            **common,
        ),
        Sample(
            id="2", image=two, question="Which?", answer="B", options=("red", "dark blue"), **common
        ),
        Sample(id="ü/3", image=two, question="How many?", answer="3"),
    ]


def same_but_picture(samples: list[Sample]) -> list[tuple[Any, ...]]:
    names = ("id", "question", "answer", "options", "boxes", "budget", "category", "source", "meta")
    return [tuple(getattr(sample, name) for name in names) for sample in samples]


@pytest.mark.parametrize("name", list(EXPORTERS))
def test_samples_come_back_as_they_went(tmp_path: Path, name: str) -> None:
    samples = rich_samples(tmp_path / "p")
    assert EXPORTERS[name](iter(samples), tmp_path / "export") == 3
    back, rejected = bring(name, tmp_path / "export", tmp_path / "back")
    assert rejected == []
    assert same_but_picture(back) == same_but_picture(samples)
    assert [sample.image.read_bytes() for sample in back] == [
        sample.image.read_bytes() for sample in samples
    ]
    assert back[1].image == back[2].image


def test_options_beyond_j_are_exported_and_imported(tmp_path: Path) -> None:
    picture = published.write_picture(tmp_path / "p" / "1.png", 1)
    options = tuple(f"text {i}" for i in range(13))
    sample = Sample(id="1", image=picture, question="Which?", answer="M", options=options)
    EXPORTERS["mini-o3"]([sample], tmp_path / "export")
    (row,) = json.loads((tmp_path / "export" / "train.json").read_text())
    assert "(M) text 12" in row["problem"]
    published.write_json(
        tmp_path / "in" / "x.json",
        [{"question": row["problem"], "answer": "M. text 12", "image": str(picture)}],
    )
    (back,), _ = bring("table", tmp_path / "in", tmp_path / "out", roots=(tmp_path / "p",))
    assert (back.options, back.answer) == (options, "M")


def test_exports_have_the_published_columns(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    samples = rich_samples(tmp_path / "p")
    EXPORTERS["deepeyes"](samples, tmp_path / "d")
    row = pq.read_table(tmp_path / "d" / "train.parquet").to_pylist()[1]
    assert set(published.deepeyes_row(0)) <= set(row)
    assert row["prompt"] == [{"role": "user", "content": "<image>\nWhich?\n(A) red\n(B) dark blue"}]
    assert row["reward_model"]["ground_truth"] == "B"
    assert row["images"][0]["bytes"] == samples[1].image.read_bytes()
    EXPORTERS["mini-o3"](samples, tmp_path / "m")
    listed = json.loads((tmp_path / "m" / "train.json").read_text())
    assert listed[2]["solution"] == "<answer>3</answer>"
    assert (tmp_path / "m" / listed[0]["images"][0]).read_bytes() == samples[0].image.read_bytes()
    EXPORTERS["mini-o3"]([], tmp_path / "empty")
    assert json.loads((tmp_path / "empty" / "train.json").read_text()) == []


@pytest.mark.parametrize("name", ["verl", "deepeyes", "mini-o3", "samples"])
def test_exports_hold_pictures_that_every_reader_shows_the_same(tmp_path: Path, name: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    pictures = {"turned.jpg": "RGB", "clear.png": "RGBA", "deep.png": "I;16", "plain.jpg": "RGB"}
    samples: list[Sample] = []
    for file, mode in pictures.items():
        tags = exif if file == "turned.jpg" else Image.Exif()
        Image.effect_noise((60, 40), 80).convert(mode).save(tmp_path / file, exif=tags)
        box = ((Box(0.1, 0.2, 0.3, 0.4),),)
        samples.append(Sample(id=file, image=tmp_path / file, question="q?", answer="K", boxes=box))
    assert EXPORTERS[name](samples, tmp_path / "out") == 4
    if name == "samples":  # ours, which turns them itself
        held = [sample.image.read_bytes() for sample in read_samples(tmp_path / "out")]
        assert held == [sample.image.read_bytes() for sample in samples]
        return
    if name == "mini-o3":
        rows = json.loads((tmp_path / "out" / "train.json").read_text())
        held = [(tmp_path / "out" / row["images"][0]).read_bytes() for row in rows]
    else:
        rows = pq.read_table(tmp_path / "out" / "train.parquet").to_pylist()
        held = [row["images"][0]["bytes"] for row in rows]
    for sample, content in zip(samples, held, strict=True):
        with Image.open(io.BytesIO(content)) as theirs:
            shown = theirs.convert("RGB")
        assert shown.tobytes() == open_picture(sample.image).tobytes(), sample.id
    assert held[3] == samples[3].image.read_bytes()
    back, _ = bring(name, tmp_path / "out", tmp_path / "back")
    assert [sample.boxes for sample in back] == [sample.boxes for sample in samples]


@pytest.mark.parametrize("name", list(EXPORTERS))
def test_an_export_leaves_broken_samples_out_and_less_than_half_writes_nothing(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = rich_samples(tmp_path / "p")
    write_samples(samples, tmp_path)
    file = tmp_path / "samples.jsonl"
    samples[0].image.write_bytes(samples[0].image.read_bytes()[:-60])
    words = ["data", "export", name, str(tmp_path), str(tmp_path / "out")]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert f"left out: sample {samples[0].id!r}: {samples[0].image}: not a readable pict" in said
    assert f"2 samples, 1 left out: {tmp_path / 'out'}" in said
    assert len(bring(name, tmp_path / "out", tmp_path / "back")[0]) == 2
    file.write_text(file.read_text() + "{}\n{}\n")
    words[-1] = str(tmp_path / "none")
    assert main(words) == 1
    said = capsys.readouterr().err
    assert "2 of 5 samples could be exported, so nothing is written; the first problem: " in said
    assert not (tmp_path / "none").exists()
    assert main([*words, "--min-share", "0.4"]) == 0
    file.write_text("")
    assert main(words) == 1
