"""What is wrong with a samples folder, which pictures look the same, and what a mixture leaves
out."""

import json
import re
import tracemalloc
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from lfpc import cli
from lfpc.boxes import Box
from lfpc.data.check import CheckSummary, ProblemKind, check_samples
from lfpc.data.config import MixConfig, MixPart, parts_named
from lfpc.data.mix import draw_evenly, mix
from lfpc.errors import ConfigError, PictureError, SampleError
from lfpc.report.check_page import write_check_page
from lfpc.samples import Sample, read_samples, write_samples

imagehash = pytest.importorskip("imagehash", reason="the package ImageHash is not installed")
from lfpc.data.hashes import hashes_of, known_hashes, leak_finder, picture_hash  # noqa: E402


def photo(file: Path, seed: int, size: tuple[int, int] = (600, 400), **options: Any) -> Path:
    """A picture with a look of its own: a few soft blobs."""
    file.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(file, **options)
    return file


def a_sample(picture: Path, name: str = "s", **fields: Any) -> Sample:
    return Sample(
        **{"id": name, "image": picture, "question": f"What is {name}?", "answer": "red"} | fields
    )


def kinds(folder: Path, samples: list[Sample]) -> dict[str, list[tuple[ProblemKind, bool]]]:
    checked = check_samples(write_samples(samples, folder).parent)
    return {
        each.sample.id: [(p.kind, p.fatal) for p in each.problems]
        for each in checked
        if each.sample
    }


def test_check_separates_unusable_samples_from_warnings(tmp_path: Path) -> None:
    picture = photo(tmp_path / "p.png", 1)
    (tmp_path / "cut.png").write_bytes(picture.read_bytes()[:3000])
    found = kinds(
        tmp_path,
        [
            a_sample(picture, "sound", boxes=((Box(0.1, 0.1, 0.2, 0.2), Box(0, 0, 0.5, 0.5)),)),
            a_sample(tmp_path / "cut.png", "cut"),
            a_sample(tmp_path / "gone.png", "gone"),
            a_sample(picture, "letter", answer="C", options=("red", "blue")),
            a_sample(picture, "twins", answer="A", options=("red", "Red.")),
            a_sample(picture, "empty", answer="<answer></answer>"),
            a_sample(
                picture,
                "long",
                answer="a thing that is far too long to be said by anybody in just these words",
            ),
            a_sample(picture, "wide", boxes=((Box(0, 0, 0.8, 0.8),),)),  # 64 %
            a_sample(
                picture, "dot", boxes=((Box(0.5, 0.5, 0.505, 0.6),),)
            ),  # 600 * 0.005 = 3 pixels
        ],
    )
    assert found == {
        "sound": [],
        "cut": [(ProblemKind.PICTURE, True)],
        "gone": [(ProblemKind.PICTURE, True)],
        "letter": [(ProblemKind.ANSWER, True)],
        "twins": [(ProblemKind.OPTIONS, False)],
        "empty": [(ProblemKind.ANSWER, True)],
        "long": [(ProblemKind.ANSWER, False)],
        "wide": [(ProblemKind.BOX, False)],
        "dot": [(ProblemKind.BOX, False)],
    }


def test_box_outside_its_picture_and_bad_nesting_are_rows_that_are_no_samples(
    tmp_path: Path,
) -> None:
    row = {"id": "a", "image": "p.png", "question": "q", "answer": "a"}
    photo(tmp_path / "p.png", 1)
    rows = [
        row | {"boxes": [[[0.5, 0.5, 1.2, 0.6]]]},
        row | {"boxes": [[[0, 0, 0.5, 0.5], [0.1, 0.1, 0.2, 0.2]]]},
        row,
    ]
    (tmp_path / "samples.jsonl").write_text("\n".join(map(json.dumps, rows)))
    first, second, third = check_samples(tmp_path)
    assert "0 <= x0 < x1 <= 1" in first.lines[0]
    assert "is not inside" in second.lines[0]
    assert (first.usable, second.usable, third.usable) == (False, False, True)


def test_same_question_about_the_same_picture_is_a_duplicate_or_a_contradiction(
    tmp_path: Path,
) -> None:
    picture = photo(tmp_path / "p.png", 1)
    (tmp_path / "copy.png").write_bytes(picture.read_bytes())
    found = kinds(
        tmp_path,
        [
            a_sample(picture, "a", question="What is it?"),
            a_sample(tmp_path / "copy.png", "b", question="what  is it?", answer="Red."),
            a_sample(picture, "c", question="What is it?", answer="blue"),
            a_sample(picture, "d", question="What is that?"),
        ],
    )
    assert {name: [kind for kind, _ in problems] for name, problems in found.items()} == {
        "a": [],
        "b": [ProblemKind.DUPLICATE],
        "c": [ProblemKind.CONTRADICTION],
        "d": [],
    }


def test_report_keeps_the_worst_and_draws_at_random(tmp_path: Path) -> None:
    picture = photo(tmp_path / "p.png", 1)
    samples = [
        a_sample(picture, f"s{i}", answer="z" if i % 3 else "A", options=("x", "y"))
        for i in range(30)
    ]
    samples[7] = a_sample(tmp_path / "gone.png", "s7", answer="z", options=("x", "X"))
    report = CheckSummary(kept=4)
    for checked in check_samples(write_samples(samples, tmp_path).parent):
        report.add(checked)
    assert (report.rows, report.unusable) == (30, 20)
    assert [checked.sample.id for checked in report.worst if checked.sample][:2] == ["s7", "s1"]
    assert len({checked.sample.id for checked in report.drawn if checked.sample}) == 4


def test_the_page_lists_every_row_with_a_problem(tmp_path: Path) -> None:
    picture = photo(tmp_path / "p.png", 1)
    samples = [
        a_sample(picture, f"s{i}", answer="z" if i % 2 else "A", options=("x", "y"))
        for i in range(40)
    ]
    file = write_samples(samples, tmp_path / "data")
    with file.open("a") as lines:
        lines.write("not JSON\n")
    report = CheckSummary()
    for checked in check_samples(file.parent):
        report.add(checked)
    text = write_check_page(tmp_path / "page", report, file.parent).read_text()
    rows = re.findall(r'<tr><th scope="row">(\d+)</th><td>([^<]*)</td><td>(yes|no)</td>', text)
    unusable = [(str(i + 1), f"s{i}", "no") for i in range(1, 40, 2)]
    assert rows[:21] == [*unusable, ("41", "none", "no")], "unusable rows first"
    assert len(rows) == len(report.bad)


def test_a_copy_with_16_bits_and_one_in_lab_are_copies(tmp_path: Path) -> None:
    original = photo(tmp_path / "bench" / "p.png", 1)
    with Image.open(original) as picture:
        grey = np.asarray(picture.convert("L"), dtype=np.uint16) * 257
        Image.fromarray(grey).save(tmp_path / "deep.png")
        to_lab = ImageCms.buildTransform(
            ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
        )
        lab = ImageCms.applyTransform(picture, to_lab)
    assert lab is not None
    lab.save(tmp_path / "lab.tiff")
    leak = leak_finder(known_hashes([original.parent], tmp_path / "hashes", progress=False))
    assert all(leak(tmp_path / name) for name in ("deep.png", "lab.tiff"))


def test_a_picture_that_cannot_be_compared_is_one_problem_and_the_next_row_is_checked(
    tmp_path: Path,
) -> None:
    def leak(picture: Path) -> str | None:
        if picture.stem == "odd":
            raise PictureError(f"{picture}: not a readable picture")
        return "another"

    rows = [a_sample(photo(tmp_path / f"{name}.png", 1), name) for name in ("odd", "fine")]
    checked = list(check_samples(write_samples(rows, tmp_path / "data").parent, leak))
    found = [[(problem.kind, problem.fatal) for problem in each.problems] for each in checked]
    assert found == [[(ProblemKind.PICTURE, True)], [(ProblemKind.LEAK, False)]]


def test_copies_look_the_same_and_other_pictures_do_not(tmp_path: Path) -> None:
    original = photo(tmp_path / "bench" / "o.png", 3, (600, 400))
    copies = [
        photo(tmp_path / "small.jpg", 3, (300, 200), quality=40),
        photo(tmp_path / "large.webp", 3, (900, 600), quality=60),
    ]
    others = [photo(tmp_path / f"{seed}.png", seed) for seed in range(10, 20)]
    leak = leak_finder(known_hashes([tmp_path / "bench"], tmp_path / "hashes", progress=False))
    assert all(str(original) in (leak(copy) or "") for copy in copies)
    assert not any(leak(other) for other in others)


def test_pictures_of_one_colour_have_no_look(tmp_path: Path) -> None:
    for colour in ("white", "black"):
        Image.new("RGB", (300, 200), colour).save(tmp_path / f"{colour}.png")
        assert picture_hash(tmp_path / f"{colour}.png") is None
    with pytest.raises(SampleError, match="no pictures in it"):
        known_hashes([tmp_path / "nothing"], tmp_path / "hashes", progress=False)


def test_hashes_are_not_computed_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = [photo(tmp_path / f"{i}.png", i) for i in range(3)]
    first = list(hashes_of(pictures, tmp_path / "hashes", progress=False))
    monkeypatch.setattr(
        "lfpc.data.hashes.picture_hash", lambda picture: pytest.fail("computed again")
    )
    assert list(hashes_of(pictures, tmp_path / "hashes", progress=False)) == first


def test_small_categories_are_taken_whole_and_the_others_share_the_rest() -> None:
    # 3 of a, 10 of b, 20 of c; 15 wanted: 15 // 3 = 5 > 3, so a 3; (15 - 3) // 2 = 6 of b; 15 - 9 =
    # 6 of c
    piles = {"a": range(3), "b": range(3, 13), "c": range(13, 33)}
    drawn = set(draw_evenly(piles, 15, 0))
    assert [len(drawn.intersection(pile)) for pile in piles.values()] == [3, 6, 6]
    assert drawn == set(draw_evenly(piles, 15, 0)) != set(draw_evenly(piles, 15, 1))
    assert sorted(draw_evenly(piles, 40, 0)) == sorted(draw_evenly(piles, None, 0)) == [*range(33)]


def imported(folder: Path) -> Path:
    """Samples folders of three parts: sound ones, a copy across parts, a benchmark's picture, a
    small one, an unreachable answer."""
    one = folder / "one"
    two = folder / "two"
    shared = photo(one / "shared.png", 50)
    (two / "p").mkdir(parents=True)
    (two / "p" / "same.png").write_bytes(shared.read_bytes())
    photo(folder / "bench" / "b.jpg", 60, (600, 402), quality=90)
    write_samples(
        [
            a_sample(shared, "s", question="Same?"),
            a_sample(photo(one / "leak.png", 60, (400, 268)), "leak"),
            a_sample(photo(one / "small.png", 51, (100, 90)), "small"),
            a_sample(shared, "bad", answer="C", options=("x", "y")),
            *(
                a_sample(photo(one / f"{i}.png", i), f"n{i}", category="ab"[i % 2])
                for i in range(6)
            ),
        ],
        one,
    )
    write_samples(
        [
            a_sample(two / "p" / "same.png", "t", question="same?"),
            a_sample(photo(two / "x.png", 99), "x"),
        ],
        two,
    )
    return folder


def test_mixture_leaves_out_leaks_duplicates_small_pictures_and_answers_that_nobody_can_give(
    tmp_path: Path,
) -> None:
    folder = imported(tmp_path)
    config = MixConfig(parts=(MixPart("one", 5), MixPart("two", None)))
    mixed = mix(folder, config, tmp_path / "out", against=[folder / "bench"], progress=False)
    left = {f"{row['part']}/{row['sample']}": row["reason"] for row in left_out(tmp_path / "out")}
    assert {name: reason for name, reason in left.items() if reason != "not drawn"} == {
        "one/leak": "leak",
        "one/small": "tiny picture",
        "one/bad": "answer",
        "two/t": "duplicate",
    }
    ids = [sample.id for sample in read_samples(tmp_path / "out")]
    assert [name for name in ids if name.startswith("two")] == ["two/x"]
    assert mixed.samples == len(ids)
    assert [each.sample.id for each in mixed.leaks] == ["leak"]
    assert mixed.parts["one"] == {
        "read": 10,
        "samples": 5,
        "leak": 1,
        "tiny picture": 1,
        "answer": 1,
        "not drawn": 2,
    }
    assert all(sample.image.is_file() for sample in read_samples(tmp_path / "out"))
    assert str(folder / "bench" / "b.jpg") in (tmp_path / "out" / "left_out.jsonl").read_text()
    assert json.loads((tmp_path / "out" / "mix.json").read_text())["compared_with"] == 1


def test_a_mixture_is_the_same_for_a_seed(tmp_path: Path) -> None:
    for n in range(9):
        Image.new("RGB", (224, 224) if n else (60, 60), (n * 20, 9, 9)).save(tmp_path / f"{n}.png")
    for part, count in (("one", 20), ("two", 40)):
        some = [
            a_sample(
                tmp_path / f"{n % 9}.png",
                str(n),
                question=f"What is thing {n % 36} of {'ab'[n % 2]}?",
                category="abbc"[n % 4],
            )
            for n in range(count)
        ]
        write_samples(some, tmp_path / part)
    config = MixConfig(parts=(MixPart("one", 7), MixPart("two", 5)), seed=3)
    out = tmp_path / "out"
    mixed = mix(tmp_path, config, out, progress=False)
    assert mixed.samples == len(read_samples(out)) == 12
    assert mixed.left_out == {"tiny picture": 8, "duplicate": 20, "not drawn": 20}
    digests = [sha256((out / name).read_bytes()).hexdigest()[:12] for name in WRITTEN]
    assert digests == list(WRITTEN.values())


WRITTEN = {
    "samples.jsonl": "6c355b353497",
    "left_out.jsonl": "a8e5fa240f7a",
    "mix.json": "2b5ceaabf125",
}
"""Hashes of what the first version, which kept all samples in memory, wrote."""


@pytest.mark.slow
def test_a_mixture_keeps_no_rows_in_memory(tmp_path: Path) -> None:
    picture = photo(tmp_path / "p.png", 1, (240, 240))
    peaks: list[int] = []
    for count in (50, 550):
        rows = (
            a_sample(picture, str(n), answer=f"A long answer to question {n}" * 20)
            for n in range(count)
        )
        write_samples(rows, tmp_path / str(count) / "one")
        tracemalloc.start()
        config = MixConfig(parts=(MixPart("one", count // 2),))
        mix(tmp_path / str(count), config, tmp_path / f"out{count}", progress=False)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 500 * 400, "bytes; the answer of a row has 560"


def left_out(folder: Path) -> list[dict[str, str]]:
    return list(map(json.loads, (folder / "left_out.jsonl").read_text().splitlines()))


def test_a_mixture_of_less_than_half_writes_nothing_and_names_the_filters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = imported(tmp_path)
    words = ["data", "mix", str(folder), str(tmp_path / "out"), "--parts", "one=all", "two=1"]
    assert cli.main([*words, "--min-tokens", "900"]) == 1
    said = capsys.readouterr().err
    assert "no sample of part 'one' passed the filters, so nothing is written; left out: 10" in said
    small = [
        a_sample(photo(tmp_path / "one" / f"m{i}.png", i, (60, 60)), f"m{i}") for i in range(9)
    ]
    write_samples([*read_samples(folder / "one"), *small], folder / "one")
    assert cli.main(words) == 1
    said = capsys.readouterr().err
    assert "only 9 of 21 samples (--min-share takes fewer) passed the filters" in said
    assert "left out: 10 tiny picture, 1 answer, 1 duplicate; the first: sample 'small': 1" in said
    assert not (tmp_path / "out" / "samples.jsonl").exists()
    assert cli.main([*words, "--min-share", "0.4"]) == 0
    assert len(read_samples(tmp_path / "out")) == 9


def test_mixture_names_a_missing_part_and_an_invalid_count(tmp_path: Path) -> None:
    with pytest.raises(
        SampleError,
        match=r"pixel-reasoner: no samples.jsonl there; import the set first: lfpc data import "
        r"pixel-reasoner",
    ):
        mix(
            tmp_path,
            MixConfig(parts=(MixPart("pixel-reasoner", 3),)),
            tmp_path / "out",
            progress=False,
        )
    with pytest.raises(ConfigError, match="--parts a=few"):
        parts_named(["a=few"])


def test_verbs_write_pages_that_hold_the_samples_as_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = imported(tmp_path)
    evil = '<script>alert("x")</script>'
    samples = [
        *read_samples(folder / "one")[:3],
        a_sample(photo(tmp_path / "one" / "evil.png", 5), evil, answer=evil, source=evil),
    ]
    write_samples(samples, folder / "one")
    against = ["--against", str(folder / "bench")]
    out = str(tmp_path / "mixed")
    assert (
        cli.main(
            [
                "data",
                "check",
                str(folder / "one"),
                "--page",
                str(tmp_path / "page"),
                *against,
                "--hashes",
                str(tmp_path / "l"),
            ]
        )
        == 0
    )
    assert cli.main(["data", "mix", str(folder), out, "--parts", "one=3", "two=all", *against]) == 0
    said = capsys.readouterr().out
    assert "sample 'leak': its picture is a copy of" in said
    assert "5 samples" in said or "4 samples" in said
    for page in (tmp_path / "page" / "index.html", tmp_path / "mixed" / "report" / "index.html"):
        text = page.read_text()
        assert evil not in text
        assert "alert(&#34;x&#34;)" in text
        assert (page.parent / "report.css").is_file()
    assert len(list((tmp_path / "page" / "pictures").iterdir())) == 4


def test_the_same_question_with_its_options_in_another_order_is_compared_by_the_right_text(
    tmp_path: Path,
) -> None:
    picture = photo(tmp_path / "p.png", 1)
    samples = [
        a_sample(picture, "a", question="Hue?", answer="A", options=("red", "blue")),
        a_sample(picture, "same", question="Hue?", answer="B", options=("blue", "red")),
        a_sample(picture, "other", question="Hue?", answer="A", options=("blue", "red")),
    ]
    found = kinds(tmp_path, samples)
    assert {name: [kind for kind, _ in problems] for name, problems in found.items()} == {
        "a": [],
        "same": [ProblemKind.DUPLICATE],
        "other": [ProblemKind.CONTRADICTION],
    }
