"""Every verb that makes a samples folder: it locks the folder, and loses nothing that is there."""

import json
from dataclasses import replace
from pathlib import Path

import published
import pytest
import tiny
from other_lock import held
from reports import made_up_record, write_run

from lfpc.cli import main
from lfpc.errors import SampleError
from lfpc.samples import SAMPLES_FILE, Sample, read_samples, write_samples
from lfpc.storage.files import LOCK_FILE
from lfpc.storage.runs import Kind

VERBS = {
    "mix": "data mix sets made --parts one=all",
    "export": "data export samples sets/one made",
    "export verl": "data export verl sets/one made",
    "export deepeyes": "data export deepeyes sets/one made",
    "export mini-o3": "data export mini-o3 sets/one made",
    "merge-boxes": "data merge-boxes sets/one sets/two --out made",
    "import-boxes": "data import-boxes sets/one boxes.json --out made",
    "hardest": "data hardest sets/one --runs run --out made",
    "import": "data import deepeyes published made",
}
WITHOUT_SAMPLES = {"export verl", "export deepeyes", "export mini-o3"}
"""Verbs that write no samples.jsonl."""


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that `VERBS` make, in the current folder, beside what they read."""
    monkeypatch.chdir(tmp_path)
    one = tmp_path / "sets" / "one"
    one.mkdir(parents=True)
    samples = [tiny.sample(one, number) for number in range(3)]
    write_samples(samples, one)
    write_samples(samples, tmp_path / "sets" / "two")
    assert main(["data", "export-boxes", str(one), "boxes.json"]) == 0
    records = [made_up_record(one.id, correct=False, sample=one) for one in samples]
    write_run(tmp_path / "run", records, Kind.EVALUATION, probe="own", budget=12)
    rows = [published.deepeyes_row(i, published.picture_bytes(i, (64, 48))) for i in range(3)]
    published.write_parquet(tmp_path / "published" / "d.parquet", rows)
    return tmp_path / "made"


def drawn(samples: list[Sample]) -> list[Sample]:
    """The samples after somebody boxed the second one."""
    return [samples[0], replace(samples[1], boxes=((tiny.BOX,), (tiny.BOX,))), *samples[2:]]


@pytest.mark.parametrize("verb", VERBS)
def test_a_folder_in_use_is_left_alone(
    made: Path, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with held(made):
        assert main(VERBS[verb].split()) == 1
        assert "made is in use: another process writes there" in capsys.readouterr().err
        assert [path.name for path in made.iterdir()] == [LOCK_FILE]
    assert main(VERBS[verb].split()) == 0


@pytest.mark.parametrize("verb", sorted(VERBS.keys() - WITHOUT_SAMPLES))
def test_a_second_call_keeps_what_was_drawn(
    made: Path, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = VERBS[verb].split()
    assert main(words) == 0
    first = (made / SAMPLES_FILE).read_bytes()
    assert main(words) == 0
    assert (made / SAMPLES_FILE).read_bytes() == first
    write_samples(drawn(read_samples(made)), made)
    boxed = (made / SAMPLES_FILE).read_bytes()
    assert boxed != first
    capsys.readouterr()
    code = main(words)
    heard = capsys.readouterr()
    assert (made / SAMPLES_FILE).read_bytes() == boxed
    if verb == "import":
        assert code == 0
        assert "already imported; 3 samples: made" in heard.out
    else:
        assert code == 1
        assert (
            f"{SAMPLES_FILE}: 1 of 3 rows would be changed or removed, the first in line 2"
            in heard.err
        )


@pytest.mark.parametrize("verb", sorted(VERBS.keys() - WITHOUT_SAMPLES))
def test_a_folder_of_other_samples_is_left_alone(
    made: Path, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    made.mkdir()
    write_samples([replace(tiny.sample(made, 7), id="own")], made)
    own = (made / SAMPLES_FILE).read_bytes()
    assert main(VERBS[verb].split()) == 1
    assert "name another output folder" in capsys.readouterr().err
    assert (made / SAMPLES_FILE).read_bytes() == own
    assert not list(made.glob(".*.part"))


def test_a_finished_import_called_again_counts_as_before(made: Path) -> None:
    words = VERBS["import"].split()
    assert main(words) == 0
    kept = {name: (made / name).read_bytes() for name in ("summary.json", "rejected.jsonl")}
    write_samples(drawn(read_samples(made))[:2], made)  # one boxed, one deleted by hand
    assert main(words) == 0
    assert {name: (made / name).read_bytes() for name in kept} == kept
    assert json.loads(kept["summary.json"])["samples"] == 3
    assert len(read_samples(made)) == 2


@pytest.mark.parametrize("missing", ["summary.json", SAMPLES_FILE, "journal line"])
def test_an_import_that_lacks_something_is_finished(made: Path, missing: str) -> None:
    words = VERBS["import"].split()
    assert main(words) == 0
    whole = {path.name: path.read_bytes() for path in made.glob("*.json*")}
    if missing == "journal line":
        journal = made / "journal" / "journal.jsonl"
        journal.write_text("".join(journal.read_text().splitlines(keepends=True)[:-1]))
        (made / SAMPLES_FILE).unlink()
    else:
        (made / missing).unlink()
    assert main(words) == 0
    assert {path.name: path.read_bytes() for path in made.glob("*.json*")} == whole


def test_rows_may_be_added_but_not_changed_without_replace(tmp_path: Path) -> None:
    samples = [tiny.sample(tmp_path, number, "\ud800é") for number in range(3)]
    write_samples(samples[:2], tmp_path, replace=False)
    write_samples(samples, tmp_path, replace=False)
    with pytest.raises(SampleError, match=r"samples\.jsonl: 2 of 3 rows .* line 1"):
        write_samples([samples[1]], tmp_path, replace=False)
    assert read_samples(tmp_path) == samples
    write_samples([samples[1]], tmp_path)
    assert read_samples(tmp_path) == [samples[1]]
