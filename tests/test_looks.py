from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lfpc.boxes import Box
from lfpc.errors import SampleError
from lfpc.images import CropRules, View, crop_view, open_picture
from lfpc.looks import (
    black_look,
    blur_look,
    mean_look,
    no_look,
    noise_look,
    original_look,
    other_look,
    random_look,
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


def test_added_noise_keeps_the_mean_and_hides_detail(sample: Make, tmp_path: Path) -> None:
    stripes = np.zeros((112, 112, 3), np.uint8)
    stripes[:, ::4] = 255
    path = tmp_path / "stripes.png"
    Image.fromarray(stripes).save(path)
    one = sample(image=path)
    look = noise_look(RULES, added=True)
    shown = look(one, Box(0, 0, 1, 1))
    assert shown is not None
    assert pixels(shown) == pixels(look(one, Box(0, 0, 1, 1)))
    found = np.asarray(shown.image, float)
    # 0 + N(0, 128) clipped has mean 128 / sqrt(2 pi) = 51; 255 + N(0, 128) clipped has 204
    assert found[:, ::4].mean() == pytest.approx(204, abs=3)
    assert found[:, 1::4].mean() == pytest.approx(51, abs=3)
    assert pixels(shown) != pixels(noise_look(RULES)(one, Box(0, 0, 1, 1)))


def test_black_is_black_at_the_crops_size(sample: Make) -> None:
    shown, own = black_look(RULES)(sample(), BOX), original_look(RULES)(sample(), BOX)
    assert shown is not None
    assert own is not None
    assert shown.size == own.size
    assert shown.image.getextrema() == ((0, 0), (0, 0), (0, 0))


@pytest.mark.parametrize("box", [BOX, Box(0.0, 0.0, 1.0, 0.5), Box(0.9, 0.9, 1.0, 1.0)])
def test_a_random_place_has_the_requested_size_and_stays_inside(sample: Make, box: Box) -> None:
    one = sample()
    shown = [random_look(RULES, seed=seed)(one, box) for seed in (0, 0, 1)]
    regions = [view.region for view in shown if view]
    assert regions[0] == regions[1] != regions[2]
    for region in regions:
        assert 0 <= region.x0 < region.x1 <= 1
        assert 0 <= region.y0 < region.y1 <= 1
        assert region.x1 - region.x0 == pytest.approx(box.x1 - box.x0)
        assert region.y1 - region.y0 == pytest.approx(box.y1 - box.y0)


def test_nothing_comes_back(sample: Make) -> None:
    assert no_look(sample(), BOX) is None
