from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from test_boxes import boxes

from lfpc.boxes import WHOLE, Box
from lfpc.dialogue import Answer, Crop, Malformed, Reply, Turn
from lfpc.episode import Episode, Stop
from lfpc.errors import ConfigError
from lfpc.images import View
from lfpc.rewards import (
    RewardConfig,
    RewardTerms,
    episode_grounding,
    episode_reward,
    grounding_reward,
)
from lfpc.samples import Sample

TIGHT = Box(0.4, 0.4, 0.5, 0.5)
WIDE = Box(0.3, 0.3, 0.6, 0.6)


def view(box: Box = WHOLE) -> View:
    return View(Image.new("RGB", (28, 28)), box)


def an_episode(
    sample: Sample,
    boxes: Sequence[Box] = (),
    answer: str | None = "K",
    *,
    malformed: bool = False,
    shown: bool = True,
) -> Episode:
    turns = [Turn(Reply("?"), Malformed("no_action", "Error"))] if malformed else []
    turns += [Turn(Reply("crop"), Crop(box), view(box) if shown else None) for box in boxes]
    if answer is not None:
        turns.append(Turn(Reply("answer"), Answer(answer)))
    return Episode(
        sample, view(), tuple(turns), Stop.MAX_TURNS if answer is None else Stop.ANSWERED
    )


def test_the_exact_box_earns_everything() -> None:
    assert grounding_reward(TIGHT, [TIGHT, WIDE]) == pytest.approx(1)


def test_grounding_by_hand() -> None:
    # B = 0.3..0.5 square, area 0.04; it holds TIGHT (0.01): IoU 0.25. With WIDE (0.09): shared
    # 0.04, IoU 0.04/0.09 = 0.4444
    # corner distances: to TIGHT (0.1 + 0.1 + 0 + 0)/4 = 0.05; to WIDE the same
    # r_geo = 0.5 * 0.4444 + 0.5 * 0.95
    box = Box(0.3, 0.3, 0.5, 0.5)
    assert grounding_reward(box, [TIGHT, WIDE]) == pytest.approx(0.5 * 4 / 9 + 0.5 * 0.95)
    assert grounding_reward(box, [TIGHT, WIDE], iou_weight=1) == pytest.approx(4 / 9)


def test_a_box_that_misses_the_target_earns_no_iou_share() -> None:
    # half of TIGHT: coverage 0.5 < 0.9; IoU would be 0.5; corner distance 0.05 / 4 = 0.0125
    half = Box(0.4, 0.4, 0.45, 0.5)
    assert grounding_reward(half, [TIGHT]) == pytest.approx(0.5 * (1 - 0.0125))
    assert grounding_reward(half, [TIGHT], guarded=False) == pytest.approx(
        0.5 * 0.5 + 0.5 * (1 - 0.0125)
    )


def test_coverage_has_to_exceed_the_threshold() -> None:
    assert grounding_reward(TIGHT, [TIGHT], min_coverage=1.0, iou_weight=1) == 0  # 1 is not above 1


def test_grounding_needs_a_truth_box() -> None:
    with pytest.raises(ValueError, match="at least one"):
        grounding_reward(TIGHT, [])


@given(
    boxes(),
    st.lists(boxes(), min_size=1, max_size=4),
    st.floats(0, 1),
    st.floats(0, 1),
    st.booleans(),
)
def test_grounding_is_bounded(
    box: Box, nested: list[Box], tau: float, w: float, guarded: bool
) -> None:
    assert (
        -1e-9
        <= grounding_reward(box, nested, min_coverage=tau, iou_weight=w, guarded=guarded)
        <= 1 + 1e-9
    )


@given(boxes(), st.lists(boxes(), min_size=1, max_size=4))
def test_the_guard_never_pays_more(box: Box, nested: list[Box]) -> None:
    assert grounding_reward(box, nested) <= grounding_reward(box, nested, guarded=False) + 1e-12


@pytest.mark.parametrize(
    ("episode", "terms"),
    [
        ({"boxes": [WIDE]}, {"accuracy": 1, "tool": 0.5}),
        ({}, {"accuracy": 1}),  # right without a crop: no tool reward
        ({"boxes": [WIDE], "shown": False}, {"accuracy": 1}),  # the crop was not shown
        ({"boxes": [WIDE], "answer": "X"}, {}),  # a crop and a wrong answer earn nothing
        ({"boxes": [WIDE], "malformed": True}, {"accuracy": 1, "tool": 0.5, "format": -1}),
        ({"boxes": [WIDE], "answer": None}, {"format": -1}),
    ],
)
def test_stage_one_reward(
    sample: Callable[..., Sample], episode: dict[str, Any], terms: dict[str, float]
) -> None:
    assert episode_reward(an_episode(sample(), **episode), RewardConfig()) == RewardTerms(**terms)


def test_stage_two_adds_the_weighted_grounding(sample: Callable[..., Sample]) -> None:
    terms = episode_reward(an_episode(sample(), [TIGHT]), RewardConfig(grounding=2.0))
    assert terms.grounding == pytest.approx(2)
    assert terms.total == pytest.approx(1 + 0.5 + 2)


def test_grounding_is_paid_for_a_wrong_answer_too_and_not_without_crop_or_boxes(
    sample: Callable[..., Sample],
) -> None:
    config = RewardConfig(grounding=1.0)
    assert episode_reward(an_episode(sample(), [TIGHT], "X"), config).grounding == pytest.approx(1)
    assert episode_reward(an_episode(sample()), config).grounding == 0
    assert episode_reward(an_episode(sample(boxes=()), [TIGHT]), config).grounding == 0


def test_which_crop_counts(sample: Callable[..., Sample]) -> None:
    crops = [WHOLE, TIGHT, WIDE]
    score = {
        which: episode_grounding(
            an_episode(sample(boxes=((TIGHT,),)), crops), RewardConfig(predicted=which)
        )
        for which in ("first", "last", "best")
    }
    assert score["first"] == grounding_reward(WHOLE, [TIGHT])
    assert score["last"] == grounding_reward(WIDE, [TIGHT])
    assert score["best"] == pytest.approx(1)


def test_two_targets_are_averaged_and_best_takes_each_targets_own_crop(
    sample: Callable[..., Sample],
) -> None:
    other = Box(0.8, 0.8, 0.9, 0.9)
    two = sample(boxes=((TIGHT,), (other,)))
    assert episode_grounding(
        an_episode(two, [TIGHT, other]), RewardConfig(predicted="best")
    ) == pytest.approx(1)
    # last crop = other: 1 for it; for TIGHT only the distance: each corner 0.4 away, 0.5 * 0.6 =
    # 0.3; mean 0.65
    assert episode_grounding(an_episode(two, [TIGHT, other]), RewardConfig()) == pytest.approx(0.65)


def test_weights_outside_their_range_are_rejected() -> None:
    with pytest.raises(ConfigError, match="iou_weight` must lie in"):
        RewardConfig(iou_weight=1.5)
