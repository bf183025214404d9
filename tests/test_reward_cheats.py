"""What episodes earn that do not use their crops: by the paper's equations, and with the options
that close this. One scene, 1600 x 1200 pixels, seen at 256 visual tokens.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from PIL import Image

from lfpc.boxes import WHOLE, Box
from lfpc.dialogue import STOPPED, TRUNCATED, Answer, Crop, Reply, Turn
from lfpc.episode import Episode, Stop
from lfpc.errors import ConfigError
from lfpc.images import CropRules, crop_view, global_view
from lfpc.rewards import (
    PAPER,
    STRICT,
    TRIVIAL_BOXES,
    RewardConfig,
    episode_reward,
    grounding_reward,
    is_repeat,
    l1_reward,
    new_pixels,
    strict,
)
from lfpc.samples import Sample
from lfpc.training.presets import PRESETS
from lfpc.training.statistics import alarms, episode_numbers

PICTURE = Image.new("RGB", (1600, 1200))
FIRST = global_view(PICTURE, 256)
RULES = CropRules()
SIGN = Box(0.70, 0.60, 0.80, 0.70)
WORDS = Box(0.72, 0.62, 0.78, 0.66)
NEAR = Box(0.70, 0.60, 0.80, 0.69)
CORNER = Box(0, 0, 1 / 1600, 1 / 1200)
CENTRE = Box(0.5, 0.5, 0.5 + 1 / 1600, 0.5 + 1 / 1200)
HALF = Box(0.5, 0, 1, 1)
USELESS = tuple(Box(0.1 * n, 0.05, 0.1 * n + 0.08, 0.15) for n in range(5))


@dataclass(frozen=True)
class Played:
    boxes: Sequence[Box] = ()
    right: bool = True
    tokens: int = 60
    cut_off: bool = False


def played(one: Played, sample: Sample) -> Episode:
    call = Reply("crop", finish=TRUNCATED if one.cut_off else STOPPED)
    turns = [Turn(call, Crop(box), crop_view(PICTURE, box, RULES)) for box in one.boxes]
    last = Reply("answer", token_ids=(7,) * one.tokens)
    answer = Answer("K" if one.right else "X")
    return Episode(sample, FIRST, (*turns, Turn(last, answer)), Stop.ANSWERED)


STAGE2 = {"paper": PRESETS["stage2"][1].reward, "strict": PRESETS["stage2-strict"][1].reward}
#                       Stage I          Stage II
#                    paper  strict     paper  strict
TABLE = {
    # r_geo 0.95: IoU with SIGN 0.9; corner distances 0.01 / 4 and, scaled, 0.0025 / 0.175
    "honest": (Played([NEAR]), 1.50, 1.50, 2.45, 2.44),
    "no crop": (Played(), 1.00, 1.00, 1.00, 1.00),
    "corner pixel": (Played([CORNER]), 1.50, 1.00, 1.65, 1.00),
    "centre pixel": (Played([CENTRE]), 1.50, 1.00, 1.90, 1.00),
    "whole": (Played([WHOLE]), 1.50, 1.00, 1.78, 1.00),
    "half": (Played([HALF]), 1.50, 1.00, 1.85, 1.00),
    "one useless crop": (Played(USELESS[:1]), 1.50, 1.50, 1.69, 1.50),
    "five useless crops": (Played(USELESS), 1.50, 1.30, 1.79, 1.30),
    "the same useless crop five times": (Played(USELESS[:1] * 5), 1.50, 1.30, 1.69, 1.30),
    "the same good crop five times": (Played([NEAR] * 5), 1.50, 1.30, 2.45, 2.24),
    "good crop, 3,000 words": (Played([NEAR], tokens=4000), 1.50, 1.15, 2.45, 2.09),
    "good crop, cut off": (Played([NEAR], cut_off=True), 0.50, 0.50, 1.45, 1.44),
    "wrong, good crop": (Played([NEAR], right=False), 0.00, 0.00, 0.95, 0.00),
    "wrong, corner pixel": (Played([CORNER], right=False), 0.00, 0.00, 0.15, 0.00),
    "wrong, centre pixel": (Played([CENTRE], right=False), 0.00, 0.00, 0.40, 0.00),
    "wrong, half": (Played([HALF], right=False), 0.00, 0.00, 0.35, 0.00),
    "wrong, whole": (Played([WHOLE], right=False), 0.00, 0.00, 0.28, 0.00),
    "wrong, five useless crops": (Played(USELESS, right=False), 0.00, -0.20, 0.29, -0.20),
}


@pytest.fixture
def boxed(sample) -> Sample:
    return sample(boxes=((WORDS, SIGN),))


def totals(one: Played, sample: Sample) -> list[float]:
    episode = played(one, sample)
    configs = (PAPER, STRICT, STAGE2["paper"], STAGE2["strict"])
    return [episode_reward(episode, config).total for config in configs]


@pytest.mark.parametrize("name", TABLE)
def test_what_each_episode_earns(boxed, name):
    one, *expected = TABLE[name]
    assert totals(one, boxed) == pytest.approx(expected, abs=0.0051)


IN_DOCS = {
    "a good crop, right": ["honest"],
    "no crop, right": ["no crop"],
    "one pixel in a corner, right": ["corner pixel"],
    "the whole picture, right": ["whole"],
    "half of the picture, right": ["half"],
    "five useless crops, right": ["five useless crops"],
    "a good crop and 3,000 words, right": ["good crop, 3,000 words"],
    "a good crop in a reply that the token limit ended, right": ["good crop, cut off"],
    "a good crop, wrong": ["wrong, good crop"],
    "one pixel, half or whole picture, wrong": [
        "wrong, corner pixel",
        "wrong, centre pixel",
        "wrong, half",
        "wrong, whole",
    ],
}


def test_the_table_of_the_docs_is_this_one(boxed):
    page = (Path(__file__).parent.parent / "docs" / "method.md").read_text()
    for said, names in IN_DOCS.items():
        row = re.search(rf"^\| {re.escape(said)} \| (.*) \|$", page, re.MULTILINE)
        assert row, said
        earned = zip(*(totals(TABLE[name][0], boxed) for name in names), strict=True)
        # columns of the docs: Stage I, Stage II, and both of them strict
        stage1, strict1, stage2, strict2 = (
            sorted({f"{x:.2f}" for x in column}) for column in earned
        )
        columns = [
            " to ".join([each[0], each[-1]][: len(each)])
            for each in (stage1, stage2, strict1, strict2)
        ]
        assert row[1].split(" | ") == columns, said


def test_with_all_options_every_cheat_earns_less_than_the_honest_episode(boxed):
    honest = totals(TABLE["honest"][0], boxed)
    for name, (one, *_) in TABLE.items():
        stage1, stage2 = totals(one, boxed)[1::2]
        if one.right and name != "honest":
            assert stage2 < honest[3] - 0.1, name
            # without truth boxes, one crop of the wrong place is like one of the right place
            assert stage1 < honest[1] - 0.1 or name == "one useless crop", name
        if not one.right:
            assert max(stage1, stage2) <= 0, name


def test_the_presets_and_the_defaults_are_the_papers_equations():
    extra = {
        "new_pixels": 0,
        "repeat_iou": None,
        "l1_scale": "picture",
        "gate_grounding": False,
        "length_cost": 0.0,
        "crop_cost": 0.0,
        "area_cost": 0.0,
    }
    assert RewardConfig() == PAPER
    for name, (_, config) in PRESETS.items():
        found = {key: getattr(config.reward, key) for key in extra}
        assert (found == extra) == (not name.endswith("-strict")), name
    assert strict(PAPER) == STRICT


@pytest.mark.parametrize(
    ("options", "cheat", "lost"),
    [
        ({"new_pixels": 100}, "corner pixel", 0.5),
        ({"new_pixels": 100}, "centre pixel", 0.5),
        ({"repeat_iou": 0.5}, "whole", 0.5),
        ({"repeat_iou": 0.5}, "half", 0.5),
        ({"crop_cost": 0.05}, "five useless crops", 0.2),
        ({"length_cost": 0.1}, "good crop, 3,000 words", 0.3488),
        ({"length_cost": 0.1, "free_tokens": 4000}, "good crop, 3,000 words", 0.0),
    ],
)
def test_each_option_alone_takes_what_its_cheat_earned(boxed, options, cheat, lost):
    one = TABLE[cheat][0]
    paper = episode_reward(played(one, boxed), PAPER).total
    closed = episode_reward(played(one, boxed), replace(PAPER, **options)).total
    assert paper - closed == pytest.approx(lost)
    honest = played(TABLE["honest"][0], boxed)
    assert episode_reward(honest, replace(PAPER, **options)) == episode_reward(honest, PAPER)


def test_an_area_costs_its_share_of_the_picture(boxed):
    costly = replace(PAPER, area_cost=0.5)
    for cheat, share in (("whole", 1.0), ("half", 0.5), ("no crop", 0.0)):
        one = played(TABLE[cheat][0], boxed)
        assert episode_reward(one, PAPER).total - episode_reward(one, costly).total == (
            pytest.approx(0.5 * share)
        )
    one = played(TABLE["half"][0], boxed)
    shown = tuple(replace(turn, view=turn.view and FIRST) for turn in one.turns)
    wider = replace(one, turns=shown)  # the tool shows more than the requested half
    assert episode_reward(wider, costly).crops == episode_reward(one, costly).crops == -0.25


@pytest.mark.parametrize(
    ("cheat", "codes"),
    [
        ("honest", []),
        ("no crop", ["no_tool"]),
        ("corner pixel", ["box_tiny"]),
        ("centre pixel", ["box_tiny"]),
        ("whole", ["repeats", "box_whole"]),
        ("half", ["repeats", "box_whole"]),
        ("five useless crops", ["crops"]),
        ("the same good crop five times", ["crops", "repeats"]),
        ("good crop, 3,000 words", ["long"]),
    ],
)
def test_each_cheat_raises_its_alarm_in_the_first_step(boxed, cheat, codes):
    episode = played(TABLE[cheat][0], boxed)
    terms = episode_reward(episode, PAPER)
    assert alarms([episode_numbers([episode] * 4, [terms] * 4)]) == codes


def test_a_paid_crop_is_chosen_among_the_new_ones(boxed):
    # the last crop shows everything; the one before it is B_p
    episode = played(Played([NEAR, WHOLE]), boxed)
    config = replace(STAGE2["paper"], repeat_iou=0.5)
    alone = episode_reward(played(TABLE["honest"][0], boxed), STAGE2["paper"])
    assert episode_reward(episode, config) == alone


def test_new_pixels_by_hand():
    # first view 504 x 364 = 183,456 of 1,920,000 pixels: 9.555 %
    assert FIRST.size == (504, 364)
    # 160 x 120 pixels, shown at 168 x 112 = 18,816
    crop = crop_view(PICTURE, SIGN, RULES)
    assert crop.size == (168, 112)
    assert new_pixels(crop, FIRST) == pytest.approx(18_816 - 19_200 * 0.09555)
    # one pixel, enlarged to 16 tokens
    assert new_pixels(crop_view(PICTURE, CORNER, RULES), FIRST) == pytest.approx(1 - 0.09555)
    # at equal resolution a crop shows nothing new
    assert new_pixels(crop, global_view(PICTURE, 16_384)) <= 0
    # enlarged or not, the whole picture at the first view's size adds nothing
    assert new_pixels(crop_view(PICTURE, WHOLE, CropRules(max_tokens=256)), FIRST) == 0


def test_a_repeat_is_a_region_that_was_shown():
    views = [crop_view(PICTURE, box, RULES) for box in (SIGN, NEAR, WORDS, HALF, USELESS[0])]
    sign, near, words, half, useless = views
    assert is_repeat(sign, [sign])
    assert is_repeat(near, [FIRST, useless, sign])  # IoU 0.9
    assert not is_repeat(words, [FIRST, sign])  # a closer look: IoU 0.24
    assert is_repeat(half, [FIRST])  # IoU 0.5 with the whole picture
    assert not is_repeat(half, [FIRST], least=0.6)


@pytest.mark.parametrize("scale", ["picture", "trivial", "box"])
def test_the_exact_box_earns_all_of_r_l1(scale):
    assert l1_reward(WORDS, (WORDS, SIGN), scale) == l1_reward(SIGN, (WORDS, SIGN), scale) == 1


def test_scaled_corner_distances_by_hand():
    # SIGN moved right by half of its width: d = 2 * 0.05 / 4 = 0.025
    moved = Box(0.75, 0.60, 0.85, 0.70)
    assert l1_reward(moved, (SIGN,)) == pytest.approx(1 - 0.025)
    # sides 0.1 and 0.1: s = 0.2 / 4 = 0.05
    assert l1_reward(moved, (SIGN,), "box") == pytest.approx(0.5)
    # nearest trivial box: the middle half, (0.45 + 0.35 + 0.05 + 0.05) / 4 = 0.225, or the centre,
    # (0.2005 + 0.2995 + 0.1005 + 0.1995) / 4 = 0.2; s = 0.2 - 0.02
    assert l1_reward(moved, (SIGN,), "trivial") == pytest.approx(1 - 0.025 / 0.18)


def test_trivial_boxes_earn_nothing_wherever_the_target_is():
    places = [n / 10 for n in range(10)]
    targets = [Box(x, y, x + 0.06, y + 0.08) for x in places for y in places]
    for target in targets:
        for box in (*TRIVIAL_BOXES, CORNER, CENTRE, HALF, WHOLE):
            assert l1_reward(box, (target,), "trivial") == 0
    # an ordinary miss of half a side still points the way
    near = [l1_reward(Box(t.x0, t.y0, t.x1 + 0.03, t.y1), (t,), "trivial") for t in targets]
    assert sum(score > 0.5 for score in near) > 0.9 * len(near)


def test_a_truth_box_that_is_trivial_pays_by_its_iou_alone():
    assert l1_reward(WHOLE, (WHOLE,), "trivial") == 0
    assert grounding_reward(WHOLE, (WHOLE,), l1_scale="trivial") == 0.5


def test_a_point_earns_nothing_if_distances_are_scaled_by_the_box():
    points = [Box(x, y, x + 1e-4, y + 1e-4) for x in (0.71, 0.75, 0.79) for y in (0.61, 0.65)]
    assert max(l1_reward(point, (SIGN,), "box") for point in points) < 2e-3


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"repeat_iou": 0.0}, "`reward.repeat_iou` must lie in"),
        ({"crop_cost": -1}, "--reward.crop-cost must be at least 0, got -1"),
        ({"area_cost": float("inf")}, "--reward.area-cost must be a finite number, got inf"),
        ({"tool": float("nan")}, "--reward.tool must be a finite number, got nan"),
        ({"new_pixels": -1}, "--reward.new-pixels must be at least 0"),
        ({"l1_scale": "boxes"}, "--reward.l1-scale must be one of picture, trivial, box"),
    ],
)
def test_impossible_options_are_one_sentence(options, says):
    with pytest.raises(ConfigError, match=says):
        RewardConfig(**options)
