from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lfpc.boxes import Box
from lfpc.errors import SampleError
from lfpc.images import CropRules, View, crop_view, open_picture
from lfpc.looks import (
    blur_look,
    mean_look,
    no_look,
    noise_look,
    original_look,
    other_look,
    truth_look,
)
from lfpc.samples import Sample

Make = Callable[..., Sample]
RULES = CropRules(min_tokens=4, max_tokens=64)
BOX = Box(0.1, 0.1, 0.4, 0.35)


def pixels(view: View | None) -> bytes:
    assert view is not None
    return view.image.tobytes()


def test_the_original_is_shown_where_it_was_asked_for(sample: Make) -> None:
    one = sample()
    assert pixels(original_look(RULES)(one, BOX)) == pixels(
        crop_view(open_picture(one.image), BOX, RULES)
    )


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


def test_the_truth_of_each_target_is_the_nearest_to_what_was_asked_for(sample: Make) -> None:
    first = Box(0.1, 0.1, 0.2, 0.2)
    second = Box(0.7, 0.6, 0.8, 0.9)
    one = sample(boxes=((first,), (second,)))
    look = truth_look(RULES, each=True)
    regions = [view.region for box in (BOX, Box(0.5, 0.5, 0.9, 0.9)) if (view := look(one, box))]
    assert regions == [first, second]


def test_padding_is_a_share_of_the_box_and_ends_at_the_border(sample: Make) -> None:
    shown = truth_look(RULES, level=0, padding=0.5)(
        sample(boxes=((Box(0.1, 0.4, 0.3, 0.6),),)), BOX
    )
    assert shown is not None
    assert shown.region.corners == pytest.approx(
        (0.0, 0.3, 0.4, 0.7)
    )  # 0.1 - 0.5 * 0.2 = 0, 0.4 - 0.1, 0.3 + 0.1, 0.6 + 0.1


def test_the_truth_needs_boxes(sample: Make) -> None:
    with pytest.raises(SampleError, match="'s1' has no boxes"):
        truth_look(RULES)(sample(boxes=()), BOX)


def test_noise_has_the_crops_size_and_depends_on_seed_sample_and_box(sample: Make) -> None:
    one = sample()
    crop = original_look(RULES)(sample(), BOX)
    noise = noise_look(RULES, seed=1)(sample(), BOX)
    assert crop is not None
    assert noise is not None
    assert (noise.size, noise.region) == (crop.size, crop.region)
    assert abs(float(np.asarray(noise.image).mean()) - 127.5) < 3  # uniform over 0..255
    again = pixels(noise_look(RULES, seed=1)(one, BOX))
    assert again == pixels(noise)
    others = [noise_look(RULES, seed=2)(one, BOX), noise_look(RULES, seed=1)(sample(id="s2"), BOX)]
    moved = noise_look(RULES, seed=1)(one, Box(0.2, 0.1, 0.5, 0.35))
    assert all(pixels(view) != again for view in [*others, moved])


def test_other_shows_the_same_region_of_another_picture(
    sample: Make, picture: Callable[..., Path]
) -> None:
    other = sample(id="s2", image=picture("other.png", (800, 200)))
    shown = other_look(RULES, lambda _: other)(sample(), BOX)
    assert pixels(shown) == pixels(crop_view(open_picture(other.image), BOX, RULES))


def test_the_mean_is_one_colour_and_a_blur_keeps_only_colours(sample: Make, tmp_path: Path) -> None:
    stripes = np.zeros((112, 112, 3), np.uint8)
    stripes[:, ::4] = 255  # every fourth column white: the mean is 255 / 4
    path = tmp_path / "stripes.png"
    Image.fromarray(stripes).save(path)
    one = sample(image=path)
    whole = Box(0, 0, 1, 1)
    mean = mean_look(RULES)(one, whole)
    blurred = blur_look(RULES)(one, whole)
    assert mean is not None
    assert blurred is not None
    assert mean.size == blurred.size == (112, 112)
    assert mean.image.getcolors() == [(112 * 112, (64, 64, 64))]
    assert np.asarray(blurred.image, float)[20:-20, 20:-20].std() < 3  # the stripes' own is 110


def test_nothing_comes_back(sample: Make) -> None:
    assert no_look(sample(), BOX) is None
