from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lfpc.boxes import Box
from lfpc.errors import SampleError
from lfpc.images import CropRules, View, crop_view, open_picture
from lfpc.looks import no_look, noise_look, original_look, other_look, truth_look
from lfpc.samples import Sample

Make = Callable[..., Sample]
RULES = CropRules(min_tokens=4, max_tokens=64)
BOX = Box(0.1, 0.1, 0.4, 0.35)


def pixels(view: View | None) -> bytes:
    assert view is not None
    return view.image.tobytes()


def test_the_original_is_shown_where_it_was_asked_for(sample: Make) -> None:
    one = sample()
    assert pixels(original_look(RULES)(one, BOX)) == pixels(crop_view(open_picture(one.image), BOX, RULES))


def test_the_truth_is_shown_whatever_was_asked_for(sample: Make) -> None:
    one = sample()
    for level, nested in enumerate(one.boxes[0]):
        shown = truth_look(RULES, level=level)(one, BOX)
        assert shown is not None
        assert shown.region == nested
    deepest = truth_look(RULES, level=9)(one, BOX)
    assert deepest is not None
    assert deepest.region == one.boxes[0][-1]


def test_the_truth_of_two_targets_holds_both(sample: Make) -> None:
    one = sample(boxes=((Box(0.1, 0.1, 0.2, 0.2),), (Box(0.7, 0.6, 0.8, 0.9),)))
    shown = truth_look(RULES)(one, BOX)
    assert shown is not None
    assert shown.region == Box(0.1, 0.1, 0.8, 0.9)


def test_the_truth_needs_boxes(sample: Make) -> None:
    with pytest.raises(SampleError, match="'s1' has no boxes"):
        truth_look(RULES)(sample(boxes=()), BOX)


def test_noise_has_the_crops_size_and_depends_on_seed_sample_and_box(sample: Make) -> None:
    one, crop, noise = sample(), original_look(RULES)(sample(), BOX), noise_look(RULES, seed=1)(sample(), BOX)
    assert crop is not None
    assert noise is not None
    assert (noise.size, noise.region) == (crop.size, crop.region)
    assert abs(float(np.asarray(noise.image).mean()) - 127.5) < 3  # uniform over 0..255
    again = pixels(noise_look(RULES, seed=1)(one, BOX))
    assert again == pixels(noise)
    others = [noise_look(RULES, seed=2)(one, BOX), noise_look(RULES, seed=1)(sample(id="s2"), BOX)]
    moved = noise_look(RULES, seed=1)(one, Box(0.2, 0.1, 0.5, 0.35))
    assert all(pixels(view) != again for view in [*others, moved])


def test_other_shows_the_same_region_of_another_picture(sample: Make, picture: Callable[..., Path]) -> None:
    other = sample(id="s2", image=picture("other.png", (800, 200)))
    shown = other_look(RULES, lambda _: other)(sample(), BOX)
    assert pixels(shown) == pixels(crop_view(open_picture(other.image), BOX, RULES))


def test_nothing_comes_back(sample: Make) -> None:
    assert no_look(sample(), BOX) is None
