"""The miniature world: scenes are reproducible, questions have their answers, splits never meet."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lfpc.boxes import coverage, intersection_area
from lfpc.errors import ConfigError, SampleError
from lfpc.images import global_view, visual_tokens
from lfpc.mini.folders import SPLITS, write_split
from lfpc.mini.scenes import (
    EASY,
    HARD,
    MARKS,
    TRANSFER,
    WIDE,
    WIDE_HARD,
    WIDE_LARGE,
    attribute_question,
    draw_scene,
    relation_question,
)
from lfpc.samples import read_samples

RULES = st.sampled_from([EASY, HARD, TRANSFER, WIDE, WIDE_HARD, WIDE_LARGE])


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), rules=RULES)
def test_every_mark_lies_on_its_object_and_objects_do_not_touch(seed, rules):
    scene = draw_scene(seed, rules)
    assert len({thing.name for thing in scene.things}) == len(scene.things) >= 2
    for thing in scene.things:
        assert thing.mark in MARKS
        assert coverage(thing.box, thing.mark_box) == pytest.approx(1, abs=1e-6)
    for a, b in combinations(scene.things, 2):
        assert intersection_area(a.box, b.box) == 0


def test_wide_marks_are_spread_evenly_over_sizes_and_half_have_a_twin_beside_them():
    scenes = [draw_scene([5, seed], WIDE) for seed in range(120)]
    heights = [
        (thing.mark_box.y1 - thing.mark_box.y0) * 448 - 2
        for scene in scenes
        for thing in scene.things
    ]
    low, middle, high = np.quantile(np.log(heights), [0.05, 0.5, 0.95])
    assert (np.exp(low), np.exp(high)) == pytest.approx((13.5, 43), rel=0.12)
    assert middle == pytest.approx((low + high) / 2, abs=0.15)  # log-uniform
    paired = [
        any(
            a.shape == b.shape
            and (a.box.x1 - a.box.x0) == pytest.approx(b.box.x1 - b.box.x0)
            and min(abs(a.box.x1 - b.box.x0), abs(a.box.y1 - b.box.y0)) * 448 <= 8
            for a in scene.things
            for b in scene.things
            if a is not b
        )
        for scene in scenes
    ]
    assert 0.4 < np.mean(paired) < 0.65


def test_a_seed_gives_the_same_pixels_and_another_seed_does_not():
    a, b, c = (np.asarray(draw_scene(seed).image) for seed in (7, 7, 8))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


def test_full_budget_has_at_least_eight_times_the_tokens_of_the_small_one():
    image = draw_scene(1).image
    full, small = (visual_tokens(global_view(image, budget).size) for budget in (256, 25))
    assert (full, small) == (256, 25)
    assert full >= 8 * small


def test_relation_is_asked_along_the_longer_axis_and_reverses_with_the_order():
    opposite = {"left": "right", "right": "left", "above": "below", "below": "above"}
    first, second = draw_scene(3).things[:2]
    there = relation_question(first, second)
    back = relation_question(second, first)
    assert back.answer == opposite[there.answer]
    dx = first.box.x0 + first.box.x1 - second.box.x0 - second.box.x1
    dy = first.box.y0 + first.box.y1 - second.box.y0 - second.box.y1
    assert (there.answer in ("left", "right")) == (abs(dx) >= abs(dy))
    assert there.boxes == ((first.box,), (second.box,))


def test_attribute_question_has_the_mark_inside_the_object_as_nested_boxes():
    thing = draw_scene(3).things[0]
    question = attribute_question(thing)
    assert question.text == f"What mark is on the {thing.name}?"
    assert question.boxes == ((thing.mark_box, thing.box),)


def test_split_is_an_ordinary_samples_folder_and_is_not_written_twice(tmp_path):
    first = write_split(tmp_path / "a", "test", 6)
    written = (tmp_path / "a" / "samples.jsonl").stat().st_mtime_ns
    assert write_split(tmp_path / "a", "test", 6) == first == read_samples(tmp_path / "a")
    assert (tmp_path / "a" / "samples.jsonl").stat().st_mtime_ns == written
    assert write_split(tmp_path / "a", "test", 7)[:6] == first
    with pytest.raises(SampleError, match="holds 7 samples, not 2; ask for 7 or more"):
        write_split(tmp_path / "a", "test", 2)
    for count in (2, 7, 8):
        with pytest.raises(SampleError, match="holds samples of 'lfpc-mini/test', not of"):
            write_split(tmp_path / "a", "train", count)
    assert {
        sample.category for sample in write_split(tmp_path / "b", "test", 8, relations=1.0)
    } == {"relation"}
    assert (
        read_samples(tmp_path / "a")[0].image.read_bytes()
        == (tmp_path / "b" / "pictures" / "test-00000.png").read_bytes()
    )


def test_splits_own_different_seeds_and_an_unknown_split_is_named(tmp_path):
    assert len({number for number, _ in SPLITS.values()} | {10}) == len(SPLITS) + 1
    with pytest.raises(ConfigError, match="unknown split 'tset'; known are train"):
        write_split(tmp_path, "tset", 1)
