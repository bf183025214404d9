import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfpc.boxes import Box
from lfpc.boxing.decisions import Boxing, Nested, boxing_of, with_boxing
from lfpc.boxing.merge import agreement, merged, other_proposals, summary
from lfpc.cli import main
from lfpc.errors import SampleError
from lfpc.samples import Sample, read_samples, write_samples

A = Box(0.0, 0.0, 0.2, 0.2)
B = Box(0.0, 0.0, 0.2, 0.1)
C = Box(0.5, 0.5, 0.7, 0.7)
WIDE = Box(0.0, 0.0, 0.4, 0.4)
WIDER = Box(0.0, 0.0, 0.4, 0.8)


def sample(name: str, boxes: Nested = (), **boxing: Any) -> Sample:
    return with_boxing(
        Sample(id=name, image=Path("a.png"), question="?", answer="K"), boxes, Boxing(**boxing)
    )


def test_agreement_pairs_targets_whatever_their_order():
    # B is the lower half of A: IoU 0.02 / 0.04 = 0.5; C meets itself: 1; WIDE is half of WIDER: 0.5
    found = agreement(((A, WIDE), (C,)), ((C,), (B, WIDER)))
    assert sorted(found.tightest) == pytest.approx([0.5, 1.0])
    assert found.wider == pytest.approx((0.5,))
    assert found.mean == pytest.approx(0.75)


def test_a_target_that_one_person_did_not_see_counts_nothing():
    assert agreement(((A,), (C,)), ((A,),)).tightest == pytest.approx((1.0, 0.0))
    assert agreement(((A,),), ((C,),)).tightest == (
        0.0,
        0.0,
    )  # they do not touch: each is seen by one person only
    assert agreement((), ((A,),)).mean == 0
    assert agreement((), ()).mean == 1


def test_what_only_one_person_decided_is_taken():
    mine = [sample("1", ((A,),), state="done", by="ada"), sample("2"), sample("3")]
    theirs = [
        sample("1"),
        sample("2", ((C,),), state="done", by="bob"),
        sample("3"),
        sample("4", state="skipped"),
    ]
    found = merged(mine, theirs)
    assert [one.id for one in found.samples] == ["1", "2", "3", "4"]
    assert [one.boxes for one in found.samples] == [((A,),), ((C,),), (), ()]
    assert [boxing_of(one).by for one in found.samples] == ["ada", "bob", "", ""]
    assert found.flagged == ()
    assert found.agreements == {}


def test_of_boxes_that_agree_the_first_are_kept_and_others_are_flagged_beside_the_second():
    mine = [
        sample("near", ((A,),), state="done", by="ada"),
        sample("far", ((A,),), state="done", by="ada", note="hm"),
    ]
    theirs = [
        sample("near", ((B,),), state="done", by="bob"),
        sample("far", ((C,),), state="done", by="bob", note="dark"),
    ]
    near, far = merged(mine, theirs).samples
    assert near.boxes == ((A,),)
    assert not boxing_of(near).flagged
    assert far.boxes == ((A,),)
    assert boxing_of(far) == Boxing(
        state="done", by="ada", flagged=True, note="boxes differ, IoU 0.00; hm; dark"
    )
    assert [(one.box, one.source) for one in other_proposals(far)] == [(C, "boxes of bob")]
    assert merged(mine, theirs).flagged == ("far",)
    assert merged(mine, theirs, least=0.6).flagged == ("near", "far")


def test_one_who_boxed_outweighs_one_who_skipped_with_a_flag():
    mine = [sample("1", state="skipped", by="ada")]
    theirs = [sample("1", ((C,),), state="done", by="bob")]
    found = merged(mine, theirs)
    assert found.samples[0].boxes == ((C,),)
    assert boxing_of(found.samples[0]).note == "bob: done, ada: skipped"
    assert found.flagged == ("1",)


def test_merging_a_folder_with_itself_changes_nothing():
    samples = [
        sample("1", ((A, WIDE),), state="done", by="ada"),
        sample("2", state="skipped", flagged=True, note="why"),
        sample("3"),
    ]
    found = merged(samples, list(samples))
    assert found.samples == samples
    assert summary(found.agreements.values())["iou_tightest"] == 1
    assert found.flagged == ()


@pytest.mark.parametrize(
    "field",
    [{"question": "Another?"}, {"answer": "L"}, {"options": ("K", "L")}, {"image": Path("b.png")}],
)
def test_folders_that_are_no_copies_are_refused(field: dict[str, Any]):
    with pytest.raises(SampleError, match="sample '1'"):
        merged([sample("1")], [replace(sample("1"), **field)])


@pytest.mark.parametrize(
    "meta", [3, {"boxes": 3}, {"boxes": [[[0, 0, 9, 9]]]}, [], {"by": "x"}, {"boxes": None}]
)
def test_other_boxes_that_are_none_are_passed_over(meta: Any):
    assert other_proposals(replace(sample("1"), meta={"other_boxes": meta})) == []


corner = st.integers(0, 9)
boxes = st.builds(
    lambda x, y, w, h: Box(x / 20, y / 20, (x + w + 1) / 20, (y + h + 1) / 20),
    corner,
    corner,
    corner,
    corner,
)
targets = st.lists(boxes.map(lambda box: (box,)), max_size=4).map(tuple)


@given(targets, targets)
def test_agreement_is_the_same_both_ways_and_whole_only_with_oneself(a: Nested, b: Nested):
    assert agreement(a, b).mean == pytest.approx(agreement(b, a).mean)
    assert 0 <= agreement(a, b).mean <= 1
    assert agreement(a, a).mean == pytest.approx(1)


def test_the_command_prints_the_agreement_and_writes_both(
    tmp_path: Path, picture: Callable[..., Path], capsys: pytest.CaptureFixture[str]
):
    image = picture()
    for name, box in (("a", A), ("b", B)):
        write_samples(
            [replace(sample("1", ((box,),), state="done", by=name), image=image)], tmp_path / name
        )
    arguments = ["data", "merge-boxes", str(tmp_path / "a"), str(tmp_path / "b")]
    assert main(arguments) == 0
    assert "IoU of B1: 0.500" in capsys.readouterr().out
    assert main([*arguments, "--out", str(tmp_path / "c")]) == 0
    assert read_samples(tmp_path / "c")[0].boxes == ((A,),)
    written = json.loads((tmp_path / "c" / "agreement.json").read_text())
    assert written["by_sample"]["1"]["tightest"] == pytest.approx([0.5])
