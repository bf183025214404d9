import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from PIL import Image

from lfpc.boxes import WHOLE, Box, target_iou
from lfpc.dialogue import Answer, Crop, Malformed, Reason, Reply, Turn, Usage
from lfpc.episode import Episode, Stop, episode, play
from lfpc.errors import RunError
from lfpc.images import CropRules, View, global_view, open_picture
from lfpc.looks import original_look
from lfpc.policies.human import reply_text
from lfpc.policies.scripted import ScriptedPolicy
from lfpc.protocols import PROTOCOLS
from lfpc.records import (
    EpisodeRecord,
    log_record,
    read_records,
    record_from_json,
    record_of,
    record_to_json,
)
from lfpc.rewards import RewardConfig, RewardTerms, episode_reward
from lfpc.run_samples import keep_samples, run_samples
from lfpc.samples import Sample
from lfpc.storage.runs import Kind, RunFolder

INNER = Box(0.2, 0.2, 0.4, 0.4)
OUTER = Box(0.0, 0.0, 0.5, 0.5)
WIDE = Box(0.0, 0.0, 0.5, 1.0)


def view(width: int, height: int, region: Box = WHOLE) -> View:
    return View(Image.new("RGB", (width, height)), region)


def crop(box: Box, shown: bool = True) -> Turn:
    return Turn(Reply("crop"), Crop(box), view(56, 56, box) if shown else None)


def played(*turns: Turn, targets=((INNER, OUTER),), said: str | None = "red") -> Episode:
    sample = Sample(id="s", image=Path("p.png"), question="?", answer="red", boxes=targets)
    end = (Turn(Reply("a"), Answer(said)),) if said else ()
    return Episode(sample, view(112, 84), (*turns, *end), Stop.ANSWERED if said else Stop.MAX_TURNS)


def test_facts_of_an_episode_with_two_crops():
    record = record_of(played(crop(OUTER), crop(WIDE)))
    assert record.correct
    assert (record.tool, record.calls, record.crops, record.n_turns) == (True, 2, 2, 3)
    assert (record.global_tokens, record.crop_tokens, record.visual_tokens) == (
        4 * 3,
        2 * 2 * 2,
        20,
    )
    assert record.iou_first == pytest.approx(1.0)  # OUTER is one of the nested boxes
    assert record.iou == pytest.approx(0.5)  # WIDE is twice OUTER
    assert record.iou_best == pytest.approx(1.0)
    assert record.coverage == pytest.approx(1.0)
    assert record.crop_area == pytest.approx(0.5)


def test_one_crop_answers_for_every_target_but_the_best_is_taken_for_each():
    other = Box(0.6, 0.6, 1.0, 1.0)
    record = record_of(played(crop(OUTER), crop(other), targets=((INNER, OUTER), (other,))))
    assert record.iou == pytest.approx(0.5)  # mean of 0 and 1
    assert record.iou_best == pytest.approx(1.0)
    assert record.coverage == pytest.approx(0.5)


def test_without_crop_there_is_no_iou_and_malformed_replies_are_named():
    record = record_of(played(Turn(Reply("?"), Malformed(Reason.NO_ACTION, "Error")), said=None))
    assert record.iou is record.crop_area is record.coverage is record.said is None
    assert record.malformed == ("no_action",)
    assert not record.tool
    assert not record.correct
    assert target_iou([OUTER], []) is None


def test_a_call_that_showed_nothing_is_no_use_of_the_tool():
    record = record_of(played(crop(OUTER, shown=False)))
    assert not record.tool
    assert record.iou == pytest.approx(1.0)


def test_an_answer_given_before_the_crop_is_a_fact():
    early = Turn(Reply("It is red, I check."), Crop(OUTER), view(56, 56, OUTER))
    assert record_of(played(early)).answered_before_crop is True
    assert record_of(played(crop(OUTER))).answered_before_crop is False
    assert record_of(played()).answered_before_crop is None


def test_an_episode_as_a_record(sample: Callable[..., Sample]) -> None:
    one = sample(category="letter")
    game = episode(
        one,
        global_view(open_picture(one.image), 16),
        look=original_look(CropRules()),
        protocol=PROTOCOLS["qwen2_5_vl"],
    )
    (done,) = play([game], ScriptedPolicy(["hm", reply_text("0 0 28 28"), "<answer>K</answer>"]))
    record = record_of(done, episode_reward(done, RewardConfig()), step=3)
    row = record_to_json(record)
    assert json.loads(json.dumps(row)) == row
    assert [turn["action"]["kind"] for turn in row["turns"]] == ["malformed", "crop", "answer"]
    # what was written, what it means, what was shown
    asked = row["turns"][1]["action"]
    assert (asked["emitted"], asked["source"], asked["box"]) == (
        [0, 0, 28, 28],
        0,
        [0, 0, 28 / 112, 28 / 84],
    )
    assert [turn["region"] for turn in row["turns"]] == [None, [0, 0, 28 / 112, 28 / 84], None]
    # 100 x 100 pixels of the original: 100 / 28 = 3.57 -> 4 * 28
    assert [turn["view"] for turn in row["turns"]] == [None, [112, 112], None]
    assert row["reward"] == {
        "accuracy": 1.0,
        "format": -1.0,
        "tool": 0.5,
        "grounding": 0.0,
        "length": 0.0,
        "crops": 0.0,
        "total": 0.5,
    }
    assert (
        row["sample"],
        row["said"],
        row["correct"],
        row["stop"],
        row["step"],
    ) == (
        "s1",
        "K",
        True,
        "answered",
        3,
    )


def rich() -> EpisodeRecord:
    """A record with every kind of turn, and every field that can be written."""
    reply = Reply("\ud800 crop", usage=Usage(90, 12), finish="stop")
    cropped = Turn(reply, Crop(INNER, emitted=(1.5, 2, 3, 4), source=1), view(56, 28, OUTER))
    malformed = Turn(Reply("?"), Malformed(Reason.BAD_BOX, "no box"))
    record = record_of(
        played(cropped, malformed),
        RewardTerms(accuracy=1.0, format=-1.0, tool=0.5, grounding=0.25),
        seconds=0.5,
        budget=16,
        concurrency=8,
        replayed=1,
        step=3,
        advantage=-0.5,
    )
    return replace(record, judge="m", undecided="why", error="late")


def test_a_record_survives_its_line():
    for record in (rich(), record_of(played(crop(OUTER), said=None)), record_of(played())):
        line = json.dumps(record_to_json(record))
        assert record_from_json(json.loads(line), {"s": record.sample}) == record


def test_a_line_names_its_sample_and_leaves_out_what_holds_nothing():
    row = record_to_json(record_of(played()))
    assert (row["v"], row["sample"]) == (2, "s")
    assert not {"question", "answer", "image", "boxes", "iou", "reward", "error", "seed"} & set(row)
    unknown = replace(record_of(played()), correct=None)
    assert record_to_json(unknown)["correct"] is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"v": 1}, "version 1"),
        ({"sample": "other"}, "no sample 'other'"),
        ({"colour": "red"}, "colour"),
        ({"stop": "tired"}, "tired"),
        ({"turns": [{"text": "x", "action": {"kind": "jump"}}]}, "jump"),
        ({"turns": [{"text": "x", "action": {"kind": "crop", "box": [0, 0, 2, 1]}}]}, "box"),
    ],
)
def test_a_damaged_line_is_named_with_its_fault(change, says):
    record = record_of(played())
    with pytest.raises((ValueError, TypeError), match=says):
        record_from_json(record_to_json(record) | change, {"s": record.sample})


@dataclass(frozen=True)
class NoSettings:
    """A run without settings."""


def test_a_damaged_line_of_a_run_is_one_sentence_with_file_and_line(tmp_path):
    record = record_of(played())
    run = RunFolder.open(tmp_path, Kind.EVALUATION, NoSettings())
    keep_samples(run, [record.sample])
    log_record(run, "s", record)
    assert read_records(run) == {"s": replace(record, sample=run_samples(run)[0])}
    run.log_episode("t", {"v": 2, "sample": "s", "turns": 7})
    with pytest.raises(RunError, match=r"episodes\.jsonl:2: not a record"):
        read_records(run)


def test_records_of_samples_that_are_not_asked_about_are_left_out(tmp_path):
    record = record_of(played())
    run = RunFolder.open(tmp_path, Kind.EVALUATION, NoSettings())
    log_record(run, "s", record)
    assert read_records(run, [replace(record.sample, id="other")]) == {}
