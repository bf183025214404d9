"""Rows that were damaged by hand: `report`, `rescore` and `probe` name file and line, or work."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from reports import CONFIG, made_up_episode, noise_pictures, write_run

from lfpc.cli import main
from lfpc.dialogue import Malformed, Reason
from lfpc.metrics.summary import summarise
from lfpc.records import TurnRecord, record_from_json, record_to_json
from lfpc.rewards import RewardTerms
from lfpc.samples import read_samples
from lfpc.storage.runs import Kind, RunFolder

DAMAGES: tuple[Any, ...] = (None, "x", "", -1, 1.5, True, [], [1], {}, {"x": 1}, [[]], "nan")


BAD_VALUE = '{"v": 2, "key": "q00001", "sample": "q00001", "correct": true, "seconds": "long"}'


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("run")
    pictures = noise_pictures(folder / "pictures", 2)
    more = {"truncated": 1, "calls": 1, "crops": 1, "global_tokens": 8, "seconds": 0.5}
    records = [
        made_up_episode(n, pictures[n], correct=bool(n), **more, reward=RewardTerms(accuracy=1.0))
        for n in range(2)
    ]
    turn = TurnRecord(text="?", action=Malformed(next(iter(Reason)), "none"))
    odd = {"turns": (turn, *records[0].turns), "malformed": ("x",), "name": "odd"}
    records.append(made_up_episode(2, pictures[0], correct=None, **odd))
    return write_run(folder / "run", records, Kind.EVALUATION, **CONFIG, budget=16, probe="own")


def damaged(value: Any) -> Iterator[Any]:
    """Copies of a JSON value with one part replaced, or gone."""
    yield from DAMAGES
    if isinstance(value, dict):
        for key in value:
            yield {name: inner for name, inner in value.items() if name != key}
            yield from ({**value, key: bad} for bad in damaged(value[key]))
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield value[:place] + value[place + 1 :]
            yield from ([*value[:place], bad, *value[place + 1 :]] for bad in damaged(inner))


@pytest.mark.slow
def test_every_damage_of_a_row_is_refused_or_does_no_harm(run: RunFolder) -> None:
    known = {sample.id: sample for sample in read_samples(run.samples_file)}
    rows = [json.loads(line) for line in (run.path / "episodes.jsonl").read_text().splitlines()]
    refused = harmless = 0
    for bad in filter(lambda bad: isinstance(bad, dict), damaged(rows[2])):
        try:
            record = record_from_json(bad, known)
        except (LookupError, TypeError, ValueError, AttributeError):  # as `read_records` expects
            refused += 1
        else:
            harmless += 1
            summarise([record])
            assert json.dumps(record_to_json(record))
    assert refused > 500
    assert harmless > 100


@pytest.mark.parametrize("line", ["3", "[]", "{", '{"key": []}', BAD_VALUE, "[" * 100_000])
@pytest.mark.parametrize("verb", ["report", "rescore"])
def test_commands_name_the_line(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, verb: str
) -> None:
    file = run.path / "episodes.jsonl"
    whole = file.read_text()
    first, *others = whole.splitlines()
    file.write_text("\n".join([first, line, *others, ""]))
    try:
        words = [verb, str(run.path), *(["--out", str(tmp_path)] if verb == "report" else [])]
        assert main(words) == 1
    finally:
        file.write_text(whole)
    assert f"{file}:2: not a " in capsys.readouterr().err
