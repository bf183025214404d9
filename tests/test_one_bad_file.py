"""Nine files that are no usable picture, and four odd ones that are: each loses itself only, in
every place that opens pictures, and `data check` knows them all.
"""

import os
import zlib
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lfpc.boxes import Box
from lfpc.boxing.files import FORMATS
from lfpc.cli import main
from lfpc.data.check import check_samples
from lfpc.data.exporters import export
from lfpc.data.hashes import picture_hash
from lfpc.errors import PictureError
from lfpc.evaluation.opened import OpenEvaluation
from lfpc.evaluation.run import evaluate
from lfpc.images import CropRules
from lfpc.looks import original_look
from lfpc.policies.scripted import ScriptedPolicy
from lfpc.protocols import PROTOCOLS
from lfpc.published.config import ImportConfig
from lfpc.published.importing import import_published
from lfpc.report.pictures import PictureFiles
from lfpc.samples import Sample, read_samples, write_samples
from lfpc.selection.config import SelectConfig
from lfpc.selection.run import select
from lfpc.storage.runs import Kind, RunFolder
from lfpc.training.config import TrainConfig
from lfpc.training.draw import Openable, first_views
from lfpc.web.annotate.app import annotation_app
from lfpc.web.annotate.session import open_session
from lfpc.web.ask.uploads import Uploads

PROTOCOL = PROTOCOLS["qwen2_5_vl"]
GOOD = ("plain.png", "turned.jpg", os.fsdecode(b"\xff.png"), "x" * 250 + ".png", "wrong-ending.txt")


def encoded(kind: str, **options: object) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    out = BytesIO()
    Image.fromarray(noise).save(out, kind, **options)  # pyright: ignore[reportArgumentType]
    return out.getvalue()


def claimed(side: int) -> bytes:
    """A PNG file whose header claims `side` x `side` pixels."""
    data = bytearray(encoded("PNG"))
    data[16:24] = side.to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    return bytes(data)


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    folder = tmp_path / "set"
    folder.mkdir()
    png, jpeg = encoded("PNG"), encoded("JPEG")
    turned = bytes.fromhex("49492a00080000000200120103000100000006000000")
    turned += bytes.fromhex("1a010a000100000026000000") + bytes(4) + b"\xff" * 4 + bytes(4)
    contents = {
        **dict.fromkeys(GOOD, png),
        "turned.jpg": encoded("JPEG", exif=b"Exif\0\0" + turned),  # with an impossible rational
        "cut.png": png[: len(png) // 2],
        "zeros.jpg": jpeg[: len(jpeg) // 2] + bytes(len(jpeg) - len(jpeg) // 2),
        "text.png": b"<html>404 Not Found</html>",
        "postscript.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\nshowpage\n",
        "bomb.png": claimed(60_000),
        "empty.png": b"",
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    (folder / "folder.png").mkdir()
    os.mkfifo(folder / "pipe.png")
    (folder / "loop.png").symlink_to("loop.png")
    bad = ("folder.png", "pipe.png", "loop.png", "gone.png")
    found = [
        Sample(id=name, image=folder / name, question=f"What is {n}?", answer="A")
        for n, name in enumerate((*contents, *bad))
    ]
    write_samples(found, folder)
    return found


def bad_ids(samples: list[Sample]) -> set[str]:
    return {sample.id for sample in samples} - set(GOOD)


def test_every_place_that_opens_pictures_agrees(samples: list[Sample], tmp_path: Path) -> None:
    folder = tmp_path / "set"
    bad = bad_ids(samples)
    assert len(bad) == 10

    checked = list(check_samples(folder))
    assert {one.sample.id for one in checked if one.sample and not one.usable} == bad

    config = ImportConfig(format="samples", src=folder)
    made = import_published(config, tmp_path / "in", min_share=0.3, progress=False)
    assert {sample.id for sample in read_samples(tmp_path / "in")} == set(GOOD)
    assert sum(made.rejected.values()) == 10

    exported = export("verl", samples, tmp_path / "out", min_share=0.3)
    assert (exported.samples, len(exported.left_out)) == (5, 10)
    import_published(ImportConfig(format="verl", src=tmp_path / "out"), tmp_path / "back")
    assert {sample.id for sample in read_samples(tmp_path / "back")} == set(GOOD)

    policy = ScriptedPolicy(["<answer>A</answer>"])
    run = RunFolder.open(tmp_path / "run", Kind.EVALUATION, config)
    look = original_look(CropRules())
    asked = OpenEvaluation(samples=samples, run=run, protocol=PROTOCOL, budget=16, look=look)
    (records,) = evaluate([asked], policy, progress=False)
    assert {record.sample.id for record in records if record.failed} == bad
    assert all(record.correct for record in records if not record.failed)

    opens = Openable(samples, first_views(TrainConfig(first_view="fixed", out=tmp_path)))
    assert {sample.id for sample in opens.all()} == set(GOOD)
    assert set(opens.broken) == bad
    assert [sample.id for sample in opens.at([5, 0])] == ["plain.png", "plain.png"]
    order = range(len(samples))
    good = [samples[place].id for place in order if samples[place].id in GOOD]
    assert [sample.id for sample in opens.further(order, 1, 2)] == good[1:3]
    ends = [samples[place].id for place in order].index(good[2]) + 1
    assert opens.passed == ends - 3
    assert opens.further(order, len(good), 2) == []
    assert opens.passed == len(bad)

    pages = PictureFiles(tmp_path / "pages")
    assert {sample.id for sample in samples if pages.original(sample) is None} == bad
    for sample in samples:
        if sample.id in bad:
            with pytest.raises(PictureError):
                picture_hash(sample.image)
        else:
            assert picture_hash(sample.image)


def test_a_selection_loses_the_broken_samples_only(samples: list[Sample], tmp_path: Path) -> None:
    selection = select(
        samples,
        ScriptedPolicy(["<answer>A</answer>"]),
        config=SelectConfig(ladder=(16, 4)),
        protocol=PROTOCOL,
        out=tmp_path / "run",
        progress=False,
    )
    assert set(selection.failed or {}) == bad_ids(samples)


def test_the_annotation_page_and_uploads_name_the_picture(
    samples: list[Sample], tmp_path: Path
) -> None:
    client = pytest.importorskip("starlette.testclient")
    uploads = Uploads(tmp_path / "uploads")
    with open_session(tmp_path / "set") as session:
        page = client.TestClient(annotation_app(session))
        for number, sample in enumerate(samples):
            found = page.get(f"/api/samples/{number}").json()
            assert (found["picture"] is None) == (sample.id not in GOOD)
            if sample.id not in GOOD:
                assert sample.id in found["problem"]
            if not sample.image.is_file():
                continue
            if sample.id in GOOD:
                assert uploads.add(sample.image.read_bytes())
            else:
                with pytest.raises(PictureError):
                    uploads.add(sample.image.read_bytes())


@pytest.mark.parametrize("name", FORMATS)
def test_boxes_of_sound_pictures_are_exported_and_come_back(
    samples: list[Sample], tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    folder = tmp_path / "set"
    box = ((Box(0.1, 0.2, 0.5, 0.6),),)
    kept = [replace(sample, boxes=box) for sample in samples if sample.id in (*GOOD, "text.png")]
    write_samples(kept, folder)
    words = [str(folder), str(tmp_path / "boxes.json"), "--format", name]
    assert main(["data", "export-boxes", *words]) == 0
    assert "left out: sample 'text.png': " in capsys.readouterr().out
    write_samples([replace(sample, boxes=()) for sample in kept], folder)
    assert main(["data", "import-boxes", *words]) == 0
    assert "5 boxes for 5 of 6 samples" in capsys.readouterr().out
    write_samples(samples, folder)
    assert main(["data", "export-boxes", *words]) == 1
    assert "samples could be exported, so nothing is written" in capsys.readouterr().err
