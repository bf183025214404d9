import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfpc.boxes import WHOLE, Box, corner_distance, coverage, intersection_area, iou, union
from lfpc.errors import BoxError

sizes = st.tuples(st.integers(1, 9000), st.integers(1, 9000))


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    def side() -> tuple[float, float]:
        a, b = sorted(draw(st.lists(st.floats(0, 1), min_size=2, max_size=2)))
        return (a, b) if b - a > 1e-6 else (0.25, 0.75)

    (x0, x1) = side()
    (y0, y1) = side()
    return Box(x0, y0, x1, y1)


IMPOSSIBLE = [
    (0.5, 0, 0.5, 1),
    (0.6, 0, 0.5, 1),
    (0, 0.2, 1, 0.1),
    (-0.1, 0, 1, 1),
    (0, 0, 1.1, 1),
    (math.nan, 0, 1, 1),
    (0, 0, 1, math.inf),
]


@pytest.mark.parametrize("corners", IMPOSSIBLE)
def test_impossible_rectangles_are_rejected_at_birth(
    corners: tuple[float, float, float, float],
) -> None:
    with pytest.raises(BoxError, match="must satisfy"):
        Box(*corners)


def test_iou_and_coverage_by_hand() -> None:
    a = Box(0, 0, 0.5, 0.5)
    b = Box(0.25, 0.25, 0.75, 0.75)
    # shared 0.25 * 0.25 = 0.0625; union 0.25 + 0.25 - 0.0625 = 0.4375
    assert intersection_area(a, b) == 0.0625
    assert iou(a, b) == pytest.approx(0.0625 / 0.4375)
    assert coverage(a, b) == 0.25  # 0.0625 of b's 0.25
    assert corner_distance(a, b) == 0.25  # each corner coordinate differs by a quarter


def test_boxes_that_only_touch_share_nothing() -> None:
    assert intersection_area(Box(0, 0, 0.5, 1), Box(0.5, 0, 1, 1)) == 0


def test_union_by_hand() -> None:
    assert union([Box(0.1, 0.2, 0.3, 0.4), Box(0.2, 0.1, 0.6, 0.3)]) == Box(0.1, 0.1, 0.6, 0.4)
    with pytest.raises(BoxError):
        union([])


@given(boxes(), boxes())
def test_iou_is_symmetric_bounded_and_never_above_coverage(a: Box, b: Box) -> None:
    assert 0 <= iou(a, b) <= 1
    assert iou(a, b) == pytest.approx(iou(b, a))
    assert iou(a, b) <= coverage(a, b) + 1e-9
    assert iou(a, b) <= coverage(b, a) + 1e-9


@given(boxes(), boxes())
def test_a_box_covers_itself_and_the_whole_covers_everything(a: Box, b: Box) -> None:
    assert iou(a, a) == pytest.approx(1)
    assert coverage(WHOLE, a) == pytest.approx(1)
    assert coverage(union([a, b]), a) == pytest.approx(1)
    assert 0 <= corner_distance(a, b) <= 1
    assert corner_distance(a, a) == 0


@given(sizes, st.data())
def test_whole_pixels_survive_the_round_trip(size: tuple[int, int], data: st.DataObject) -> None:
    x0 = data.draw(st.integers(0, size[0] - 1))
    y0 = data.draw(st.integers(0, size[1] - 1))
    corners = (
        x0,
        y0,
        data.draw(st.integers(x0 + 1, size[0])),
        data.draw(st.integers(y0 + 1, size[1])),
    )
    assert Box.from_pixels(corners, size).to_pixels(size) == corners


@given(boxes(), sizes)
def test_pixels_cover_the_box_and_lie_inside_the_picture(box: Box, size: tuple[int, int]) -> None:
    x0, y0, x1, y1 = box.to_pixels(size)
    assert 0 <= x0 < x1 <= size[0]
    assert 0 <= y0 < y1 <= size[1]
    assert x0 <= box.x0 * size[0] + 1e-8
    assert x1 >= box.x1 * size[0] - 1e-8


def test_a_box_thinner_than_rounding_still_has_a_pixel() -> None:
    assert Box(0.5, 0.5, 0.5 + 1e-13, 0.5 + 1e-13).to_pixels((100, 100)) == (50, 50, 51, 51)
    assert Box(1 - 1e-13, 1 - 1e-13, 1, 1).to_pixels((100, 100)) == (99, 99, 100, 100)


def test_model_pixels_are_clipped_and_put_in_order() -> None:
    assert Box.from_pixels([150, 80, -10, 20], (100, 100)) == Box(0, 0.2, 1, 0.8)


@pytest.mark.parametrize(
    "numbers",
    [[1, 2, 3], [math.nan, 0, 5, 5], [0, 0, math.inf, 5], [200, 0, 300, 50], [5, 5, 5, 9]],
)
def test_pixels_without_area_inside_the_picture_are_no_box(numbers: list[float]) -> None:
    with pytest.raises(BoxError):
        Box.from_pixels(numbers, (100, 100))


def test_a_box_inside_a_box_is_mapped_to_the_picture() -> None:
    # the lower right quarter of the right half
    assert Box(0.5, 0.5, 1, 1).within(Box(0.5, 0, 1, 1)) == Box(0.75, 0.5, 1, 1)
    with pytest.raises(BoxError):
        Box(0.1, 0.1, 0.1 + 1e-15, 0.2).within(Box(0.9, 0, 0.9 + 1e-15, 1))


@given(boxes(), boxes())
def test_a_box_within_another_lies_in_it(inner: Box, outer: Box) -> None:
    mapped = inner.within(outer)
    assert inner.within(WHOLE) == inner
    assert outer.x0 <= mapped.x0 < mapped.x1 <= outer.x1
    assert outer.y0 <= mapped.y0 < mapped.y1 <= outer.y1
    assert mapped.area == pytest.approx(inner.area * outer.area, rel=1e-3)


def test_padding_ends_at_the_edge_and_widening_moves_inside() -> None:
    assert Box(0.5, 0.25, 0.75, 0.5).padded(0.25, 0.5) == Box(0.25, 0, 1, 1)
    assert Box(0.5, 0, 0.625, 0.125).at_least(0.25, 0.25) == Box(0.4375, 0, 0.6875, 0.25)
    assert Box(0.5, 0.25, 0.75, 0.5).at_least(0.1, 2) == Box(0.5, 0, 0.75, 1)


@given(boxes(), st.floats(0, 1.5), st.floats(0, 1.5))
def test_a_widened_box_holds_the_box(box: Box, width: float, height: float) -> None:
    wide = box.at_least(width, height)
    assert coverage(wide, box) == pytest.approx(1)
    assert wide.x1 - wide.x0 >= min(width, 1) - 1e-9
    assert wide.y1 - wide.y0 >= min(height, 1) - 1e-9


def test_corners_of_a_data_file_are_taken_as_they_are() -> None:
    assert Box.from_annotation([70, 50, 100, 70], (120, 100)) == Box(70 / 120, 0.5, 100 / 120, 0.7)
    # rounded outwards by whoever drew it: two pixels, or one in a hundred
    assert Box.from_annotation([-2, 0, 122, 100], (120, 100)) == Box(0, 0, 1, 1)
    assert Box.from_annotation([0, 0, 4030, 50], (4000, 100)).x1 == 1
    # a rectangle in per cent may be tiny
    assert Box.from_annotation([0.2, 0.2, 0.9, 0.9], (100, 100), pixels=False).x1 == pytest.approx(
        0.009
    )


@pytest.mark.parametrize(
    ("numbers", "says"),
    [
        ([70, 50, 30, 20], "not left, top, right, bottom (perhaps width and height)"),
        ([10, 60, 60, 10], "not left, top, right, bottom"),
        ([10, 10, 10, 20], "not left, top, right, bottom"),
        ([0.1, 0.1, 0.5, 0.5], "is in fractions of the picture; pixels are needed"),
        ([100, 100, 900, 900], "is not inside the picture"),
        ([-10, 0, 50, 50], "is not inside the picture"),
        ([0, 0, float("nan"), 1], "4 finite numbers"),
        ([0, 0, 1], "4 finite numbers"),
    ],
)
def test_numbers_of_a_data_file_that_are_no_corners_are_not_repaired(numbers, says) -> None:
    with pytest.raises(BoxError, match=re.escape(says)):
        Box.from_annotation(numbers, (120, 100))
