"""Box files of the tools themselves: pycocotools reads our COCO file, Label Studio shows our tasks,
and what it and its converter write comes back. `make test-annotation` runs these.
"""

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from environments import interpreter, made
from environments.label_studio_server import LabelStudioServer
from lfpc.boxes import Box
from lfpc.boxing.decisions import Boxing, boxing_of, with_boxing
from lfpc.boxing.files.label_studio import CONFIG
from lfpc.cli import main
from lfpc.samples import Sample, read_samples, write_samples

pytestmark = [
    pytest.mark.annotation,
    pytest.mark.skipif(
        not made("annotation"), reason="the environment is missing: make test-annotation"
    ),
]
COCO = """
import json, sys
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
truth = COCO(sys.argv[1])
boxes = [{**one, "score": 1.0} for one in truth.dataset["annotations"]]
scored = COCOeval(truth, truth.loadRes(boxes), "bbox")
scored.evaluate(); scored.accumulate(); scored.summarize()
print(json.dumps([len(truth.getImgIds()), len(truth.getAnnIds()), float(scored.stats[0])]))
"""
LABEL_STUDIO = """
import sys
from pathlib import Path
from label_studio_sdk.converter import Converter
config, tasks, out = sys.argv[1:]
converter = Converter(config, project_dir=None, download_resources=False)
converter.convert_to_json(tasks, f"{out}/json", is_dir=False)
converter.convert_to_json_min(tasks, f"{out}/min", is_dir=False)
converter.convert_to_coco(tasks, f"{out}/coco", output_image_dir=f"{out}/images", is_dir=False)
"""


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    """Boxed samples: a photograph turned by its EXIF data, an odd name, a shared picture."""
    folder = tmp_path / "set"
    (folder / "pictures").mkdir(parents=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (200, 120), "red").save(folder / "pictures" / "phone.jpg", exif=exif)
    Image.new("RGB", (90, 60), "blue").save(folder / "pictures" / "a b ü#1.png")
    nested = ((Box(0.4, 0.4, 0.5, 0.5), Box(0.3, 0.3, 0.6, 0.6)), (Box(0.7, 0.1, 0.9, 0.2),))
    made_up = [
        with_boxing(
            Sample(id=name, image=folder / "pictures" / file, question="?", answer="K"),
            boxes,
            Boxing(state="done"),
        )
        for name, file, boxes in (
            ("turned", "phone.jpg", nested),
            ("odd", "a b ü#1.png", nested[:1]),
            ("shared", "a b ü#1.png", nested[1:]),
        )
    ]
    write_samples(made_up, folder)
    return made_up


def said(script: str, *words: object) -> list[str]:
    """The lines that a script prints in the environment."""
    command = [str(interpreter("annotation")), "-c", script, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def test_pycocotools_scores_our_export_against_itself(
    samples: list[Sample], tmp_path: Path
) -> None:
    file = tmp_path / "boxes.json"
    assert main(["data", "export-boxes", str(tmp_path / "set"), str(file)]) == 0
    assert json.loads(said(COCO, file)[-1]) == [2, 6, 1.0]


@pytest.mark.parametrize("form", ["json", "min", "coco"])
def test_what_label_studios_converter_writes_comes_back(
    samples: list[Sample], tmp_path: Path, form: str
) -> None:
    folder = tmp_path / "set"
    words = [str(folder), str(tmp_path / "tasks.json"), "--format", "label-studio"]
    assert main(["data", "export-boxes", *words]) == 0
    tasks: list[dict[str, Any]] = json.loads((tmp_path / "tasks.json").read_text())
    for number, task in enumerate(tasks, 1):  # as Label Studio gives them to its converter
        task |= {"id": number, "predictions": [number]}
        for annotation in task["annotations"]:
            annotation |= {"id": number, "completed_by": 1}
    tasks = tasks[:2] if form == "coco" else tasks  # COCO names pictures, not samples
    (tmp_path / "tasks.json").write_text(json.dumps(tasks))
    (tmp_path / "config.xml").write_text(CONFIG)
    said(LABEL_STUDIO, tmp_path / "config.xml", tmp_path / "tasks.json", tmp_path)
    kept = samples[:2] if form == "coco" else samples
    write_samples([with_boxing(sample, (), Boxing()) for sample in kept], folder)
    words = [str(folder), str(tmp_path / form / "result.json")]
    name = "coco" if form == "coco" else "label-studio"
    assert main(["data", "import-boxes", *words, "--format", name]) == 0
    assert_same_boxes(read_samples(folder), kept)


def assert_same_boxes(found: list[Sample], wanted: list[Sample]) -> None:
    for before, after in zip(wanted, found, strict=True):
        assert boxing_of(after).state == "done"
        boxes = [
            sorted(box.corners for target in s.boxes for box in target) for s in (before, after)
        ]
        for one, other in zip(*boxes, strict=True):
            assert other == pytest.approx(one, abs=1e-6)


@pytest.mark.parametrize("place", ["in the folder", "outside"])
def test_label_studio_shows_every_picture_and_what_is_drawn_there_comes_back(
    samples: list[Sample], tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    """No setting but those that the export prints and docs/annotate.md names."""
    folder = tmp_path / "set"
    if place == "outside":  # as after lfpc data hardest
        folder = tmp_path / "hard"
        samples = [
            replace(sample, image=folder / ".." / "set" / "pictures" / sample.image.name)
            for sample in samples
        ]
    else:
        Image.new("RGB", (80, 60), "green").save(folder / "top.png")
        samples = [*samples, replace(samples[1], id="top", image=folder / "top.png")]
    new = with_boxing(replace(samples[0], id="new"), (), Boxing())
    write_samples([*samples, new], folder)
    tasks_file = tmp_path / "tasks.json"
    words = [str(folder), str(tasks_file), "--format", "label-studio"]
    assert main(["data", "export-boxes", *words]) == 0
    said = capsys.readouterr().out
    (root,) = re.findall(r"DOCUMENT_ROOT=(.*)", said)
    (storage,) = re.findall(r"local storage (.*)", said)
    (config,) = re.findall(r"<View>.*</View>", said, re.DOTALL)
    server = LabelStudioServer(Path(root), data=tmp_path / "studio", log=tmp_path / "studio.log")
    with server:
        project = server.ask(
            "POST", "/api/projects", json={"title": "boxes", "label_config": config}
        ).json()["id"]
        server.ask(
            "POST",
            "/api/storages/localfiles",
            json={"project": project, "path": storage, "title": "pictures", "use_blob_urls": True},
        )
        server.ask(
            "POST",
            f"/api/projects/{project}/import",
            files={"file": ("tasks.json", tasks_file.read_bytes())},
        )
        tasks = server.ask("GET", f"/api/tasks?project={project}&fields=all").json()["tasks"]
        by_sample = {task["data"]["sample"]: task for task in tasks}
        assert set(by_sample) == {*(sample.id for sample in samples), "new"}
        for sample in samples:
            shown = server.ask("GET", by_sample[sample.id]["data"]["image"]).content
            assert shown == sample.image.read_bytes()
        rectangle = {
            "type": "rectanglelabels",
            "from_name": "box",
            "to_name": "image",
            "original_width": 120,
            "original_height": 200,
            "value": {"x": 10, "y": 20, "width": 30, "height": 40, "rectanglelabels": ["B1"]},
        }
        drawn = f"/api/tasks/{by_sample['new']['id']}/annotations"
        server.ask("POST", drawn, json={"result": [rectangle]})
        forms = {
            form: server.ask("GET", f"/api/projects/{project}/export?exportType={form}").content
            for form in ("JSON", "JSON_MIN")
        }
    drawn = with_boxing(new, ((Box(0.1, 0.2, 0.4, 0.6),),), Boxing(state="done"))
    for form, content in forms.items():
        result = tmp_path / f"{form}.json"
        result.write_bytes(content)
        out = tmp_path / form
        words = [str(folder), str(result), "--format", "label-studio", "--out", str(out)]
        assert main(["data", "import-boxes", *words]) == 0
        assert_same_boxes(read_samples(out), [*samples, drawn])
