from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from reports import made_up_record, write_run

from lfpc.boxes import WHOLE, Box
from lfpc.boxing.grounding import asked_boxes, boxes_of_reply
from lfpc.boxing.proposals import (
    FailureCount,
    Proposal,
    crop_proposals,
    failure_counts,
    hardest_first,
    own_records,
)
from lfpc.cli import main
from lfpc.dialogue import Action, Answer, Crop, Malformed, Reason
from lfpc.episode import episode, play
from lfpc.errors import RunError
from lfpc.images import CropRules, View, global_view, open_picture
from lfpc.looks import original_look
from lfpc.policies.scripted import ScriptedPolicy
from lfpc.protocols import PROTOCOLS
from lfpc.records import (
    EpisodeRecord,
    TurnRecord,
    failed_record,
    log_record,
    record_of,
)
from lfpc.run_samples import keep_samples
from lfpc.samples import Sample, read_samples, write_samples
from lfpc.storage.runs import CONFIG_FILE, Kind, RunFolder, read_run

PROTOCOL = PROTOCOLS["qwen2_5_vl"]
SHOWN = View(Image.new("RGB", (100, 50)), WHOLE)


def call(*box: float) -> str:
    return (
        f'<tool_call>{{"name": "image_zoom_in_tool", "arguments": {{"bbox_2d": '
        f"{list(box)}}}}}</tool_call>"
    )


def record(run: Path, sample: Sample, *replies: str, probe: str | None = None) -> RunFolder:
    """Play `replies` as an episode about `sample` and write it into the run folder, that of an
    evaluation under `probe` or else of a training run."""
    if not (run / CONFIG_FILE).exists():
        kind = Kind.EVALUATION if probe else Kind.TRAIN
        write_run(run, [], kind, **({"probe": probe} if probe else {}))
    folder = read_run(run)
    view = global_view(open_picture(sample.image), 256)
    game = episode(sample, view, look=original_look(CropRules()), protocol=PROTOCOL, max_turns=4)
    played = play([game], ScriptedPolicy(replies))[0]
    keep_samples(folder, [sample])
    log_record(folder, f"{sample.id}/{len(folder.episodes())}", record_of(played))
    return folder


@pytest.fixture
def asked(picture: Callable[..., Path]) -> Sample:
    """Its first view has 392 x 308 pixels: 14 x 11 visual tokens."""
    return Sample(id="s1", image=picture(), question="Which letter?", answer="K")


def test_crops_of_right_answers_are_proposed_the_most_frequent_first(tmp_path: Path, asked: Sample):
    right = "<answer>K</answer>"
    wrong = "<answer>L</answer>"
    record(tmp_path, asked, call(0, 0, 98, 77), right)
    for x in (196, 200, 204):  # alike: counted together, the first of them is proposed
        record(tmp_path, asked, call(x, 154, 294, 231), right)
    record(tmp_path, asked, call(300, 0, 390, 77), wrong)
    record(tmp_path, asked, right)
    found = crop_proposals(own_records(tmp_path), "crops of run")
    # 196 / 392 = 0.5, 154 / 308 = 0.5, 294 / 392 = 0.75, 231 / 308 = 0.75
    expected = [
        Proposal(Box(0.5, 0.5, 0.75, 0.75), "crops of run", 3),
        Proposal(Box(0.0, 0.0, 0.25, 0.25), "crops of run", 1),
    ]
    assert found == {"s1": expected}


def test_probes_failed_requests_and_other_files_are_no_record_of_the_model(
    tmp_path: Path, asked: Sample
):
    own = record(tmp_path / "own", asked, "<answer>K</answer>", probe="own")
    record(tmp_path / "noise", asked, "<answer>L</answer>", probe="noise")
    select = write_run(tmp_path / "select", [], Kind.SELECTION)
    select.log_episode("s1@256", {"said": "K"})
    log_record(own, "failed", failed_record(asked, "time-out"))
    assert failure_counts(own_records(tmp_path)) == {"s1": FailureCount(asked=1, failed=0)}


def test_replies_that_showed_no_crop_propose_nothing():
    def made(action: Action, view: tuple[int, int] | None) -> EpisodeRecord:
        return made_up_record("s", turns=(TurnRecord(text="", action=action, view=view),))

    box = Box(0.0, 0.0, 0.5, 0.5)
    shown = made(Crop(box), (28, 28))
    nothing = [
        made(Answer("K"), None),
        made(Malformed(Reason.BAD_BOX, "no box"), None),
        made(Crop(box), None),
        replace(shown, correct=False),
        replace(shown, correct=None),
        replace(shown, correct=0.5),
    ]
    assert crop_proposals(nothing, "run") == {}
    assert crop_proposals([shown], "run") == {"s": [Proposal(box, "run", 1)]}


@pytest.mark.parametrize(
    "box",
    [
        [0, 0, 9, 9],
        [0, 0, 1],
        ["a", 0, 1, 1],
        [float("nan"), 0, 1, 1],
        None,
        [0.5, 0.5, 0.5, 0.6],
    ],
)
def test_what_is_written_in_a_run_and_is_no_box_is_refused_by_file_and_line(
    tmp_path: Path, asked: Sample, box: Any
):
    run = record(tmp_path, asked, call(0, 0, 98, 77), "<answer>K</answer>")
    (row,) = run.episodes().values()
    row["turns"][0]["action"]["box"] = box
    run.log_episode("other", row)
    with pytest.raises(RunError, match=r"episodes\.jsonl:2: not a record"):
        list(own_records(tmp_path))


def test_records_without_a_verdict_count_neither_way():
    records = [made_up_record("s", verdict) for verdict in (True, False, None)]
    assert failure_counts(records) == {"s": FailureCount(asked=2, failed=1)}


def test_a_folder_without_episodes_is_named(tmp_path: Path):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(RunError, match="no recorded episodes"):
            list(own_records(folder))


def test_hardest_are_failed_most_often_and_those_never_asked_come_last(asked: Sample):
    samples = [
        replace(asked, id=name)
        for name in ("never asked", "easy", "half", "hard once", "hard thrice")
    ]
    records = {
        "easy": FailureCount(4, 0),
        "half": FailureCount(4, 2),
        "hard once": FailureCount(1, 1),
        "hard thrice": FailureCount(3, 3),
    }
    assert [one.id for one in hardest_first(samples, records)] == [
        "hard thrice",
        "hard once",
        "half",
        "easy",
        "never asked",
    ]


def test_the_command_picks_the_hardest_and_keeps_their_pictures(
    tmp_path: Path, picture: Callable[..., Path], capsys: pytest.CaptureFixture[str]
):
    samples = [Sample(id=f"s{i}", image=picture(), question="?", answer="K") for i in range(4)]
    write_samples(samples, tmp_path / "data")
    for sample, said in zip(samples, "KLKL", strict=True):
        record(tmp_path / "run", sample, f"<answer>{said}</answer>")
    out = tmp_path / "deep" / "hard"
    assert (
        main(
            [
                "data",
                "hardest",
                str(tmp_path / "data"),
                "--runs",
                str(tmp_path / "run"),
                "--out",
                str(out),
                "--count",
                "2",
            ]
        )
        == 0
    )
    assert "2 picked were answered wrongly 2 of 2 times" in capsys.readouterr().out
    picked = read_samples(out)
    assert [one.id for one in picked] == ["s1", "s3"]
    assert all(one.image.is_file() for one in picked)


def test_hardest_of_a_run_about_other_samples_is_an_error(
    asked: Sample, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    write_samples([asked], tmp_path / "data")
    record(tmp_path / "run", replace(asked, id="other"), "<answer>K</answer>")
    words = ["data", "hardest", str(tmp_path / "data"), "--runs", str(tmp_path / "run")]
    assert main([*words, "--out", str(tmp_path / "hard")]) == 1
    assert "no sample of" in capsys.readouterr().err
    assert not (tmp_path / "hard").exists()


def test_a_model_that_calls_its_tool_proposes_the_crop(asked: Sample):
    found = asked_boxes(
        asked, ScriptedPolicy([call(98, 77, 196, 154)]), PROTOCOL, budget=256, source="asked m"
    )
    assert found == [Proposal(Box(0.25, 0.25, 0.5, 0.5), "asked m")]


def test_a_model_that_locates_proposes_every_box_it_names(asked: Sample):
    text = (
        '```json\n[{"bbox_2d": [98, 77, 196, 154], "label": "sign"},\n{"bbox_2d": [0, 0, 98.0, '
        '77], "label": "<b>"}]\n```'
    )
    found = asked_boxes(asked, ScriptedPolicy([text]), PROTOCOL, budget=256, source="asked m")
    assert [one.box for one in found] == [Box(0.25, 0.25, 0.5, 0.5), Box(0.0, 0.0, 0.25, 0.25)]


@pytest.mark.parametrize("name", ["qwen3_vl", "qwen3_vl_user", "qwen3_vl_text"])
def test_boxes_of_qwen3_are_thousandths_and_others_pixels_of_the_shown_picture(name: str):
    text = '{"bbox_2d": [10, 20, 50, 40]}'
    assert boxes_of_reply(text, SHOWN, PROTOCOLS[name]) == [Box(0.01, 0.02, 0.05, 0.04)]
    assert boxes_of_reply(text, SHOWN, PROTOCOL) == [Box(0.1, 0.4, 0.5, 0.8)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nothing",
        '"bbox_2d": [1, 2, 3]',
        '"bbox_2d": [5, 5, 5, 5]',
        '"bbox_2d": [900, 900, 901, 901]',
        '"bbox_2d": ["' * 50_000,
    ],
)
def test_a_reply_without_a_box_proposes_nothing(text: str):
    assert boxes_of_reply(text, SHOWN, PROTOCOL) == []
