"""Procedural high-resolution pictures: coloured shapes on texture, each with a small letter on it.

Two kinds of question, as in V*: the attribute of a small detail ("What mark is on the red kite?")
and a relation between two things ("Is the red kite left or right of the blue drum?"). Object boxes
and mark boxes are in fractions, like all boxes. A seed determines a scene; the splits have fixed,
disjoint ranges of seeds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lfpc.boxes import Box

COLORS = {
    "red": (214, 40, 40),
    "green": (46, 160, 67),
    "blue": (45, 85, 215),
    "yellow": (235, 205, 50),
    "purple": (140, 60, 180),
    "orange": (240, 130, 30),
    "cyan": (50, 190, 210),
    "pink": (245, 140, 190),
}
SHAPES = ("drum", "box", "tent", "kite")
"""A disc, a square, a triangle, a diamond."""
MARKS = "ACEHKLPSTX"
"""Capital letters of distinct shapes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneRules:
    """Rules of scenes; lengths in pixels of the original."""

    side: int = 448
    """The picture is side x side pixels."""
    objects: tuple[int, int] = (3, 6)
    """Least and greatest number of objects."""
    radius: tuple[int, int] = (26, 36)
    """Half the side of an object."""
    mark: tuple[int, int] = (17, 23)
    """Height of a capital letter."""
    mark_share: tuple[float, float] | None = None
    """Height of a capital letter in radii, in place of `mark`; radii are then log-uniform."""
    twins: float = 0.0
    """Share of pictures in which an object, where there is room, has another of its shape and size
    beside it, in another colour and with a mark of its own: a loose crop shows both marks."""


EASY = SceneRules()
HARD = SceneRules(objects=(5, 8), radius=(22, 30), mark=(13, 17))
"""Smaller marks, more distractors: Stage II's hard samples."""
TRANSFER = SceneRules(side=560, objects=(6, 8), radius=(24, 34), mark=(15, 20))
"""Larger pictures too, for transfer: never trained on."""
WIDE = SceneRules(objects=(3, 6), radius=(20, 72), mark_share=(0.58, 0.72), twins=0.5)
"""Marks of 12 to 52 pixels, log-uniform: every budget from 25 to 256 visual tokens shows some and
not others."""
WIDE_HARD = SceneRules(objects=(5, 8), radius=(18, 40), mark_share=(0.58, 0.72), twins=0.5)
"""The smaller half of them, with more distractors."""
WIDE_LARGE = SceneRules(
    side=896, objects=(5, 8), radius=(20, 72), mark_share=(0.58, 0.72), twins=0.5
)
"""Originals of four times the full budget, as the paper's 16,384 visual tokens show half the side
of an 8K picture."""
LARGE = SceneRules(side=1680, objects=(6, 8), radius=(26, 38), mark=(13, 17))
"""For models of usual size: marks are 7 to 9 pixels high in a view of 1,024 visual tokens (896 x
896 pixels)."""


@dataclass(frozen=True, slots=True)
class Thing:
    """One object of a scene. Boxes in fractions of the picture."""

    color: str
    shape: str
    mark: str
    box: Box
    mark_box: Box

    @property
    def name(self) -> str:
        """For example "red kite"."""
        return f"{self.color} {self.shape}"


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """A picture and its things."""

    image: Image.Image
    things: tuple[Thing, ...]


@dataclass(frozen=True, slots=True)
class SceneQuestion:
    """A question about a scene. `about` are its things; `answer` is a mark or a direction."""

    text: str
    answer: str
    category: str
    about: tuple[Thing, ...]

    @property
    def boxes(self) -> tuple[tuple[Box, ...], ...]:
        """Nested truth boxes per target: mark then object for an attribute, the two objects for a
        relation.
        """
        if self.category == "attribute":
            return tuple((thing.mark_box, thing.box) for thing in self.about)
        return tuple((thing.box,) for thing in self.about)


def draw_scene(seed: int | Sequence[int], rules: SceneRules = EASY) -> Scene:
    """The scene of `seed` under `rules`; the same seed gives the same pixels."""
    rng = np.random.default_rng(seed)
    image = _texture(rng, rules.side)
    pen = ImageDraw.Draw(image)
    count = int(rng.integers(rules.objects[0], rules.objects[1] + 1))
    colors = rng.permutation(list(COLORS))[
        :count
    ]  # every object its own: a colour and a shape name it twice over
    paired = rules.twins > 0 and rng.random() < rules.twins
    placed: list[Spot] = []
    things: list[Thing] = []
    unused = [str(color) for color in colors]
    while unused:
        spot = _free_spot(rng, rules, placed)
        color = unused.pop(0)
        if spot is None:
            continue
        shape = SHAPES[int(rng.integers(len(SHAPES)))]
        twin = _spot_beside(rng, rules, spot, placed) if paired and unused else None
        for here, its_color in ((spot, color), (twin, unused[0] if twin else "")):
            if here is not None:
                placed.append(here)
                things.append(_draw_thing(pen, rng, rules, here, its_color, shape))
        if twin is not None:
            unused.pop(0)
    return Scene(image, tuple(things))


def attribute_question(thing: Thing) -> SceneQuestion:
    """What mark is on this thing?"""
    return SceneQuestion(f"What mark is on the {thing.name}?", thing.mark, "attribute", (thing,))


def relation_question(first: Thing, second: Thing) -> SceneQuestion:
    """Where is the first thing, seen from the second, along the axis on which they are further
    apart?
    """
    dx = (first.box.x0 + first.box.x1) - (second.box.x0 + second.box.x1)
    dy = (first.box.y0 + first.box.y1) - (second.box.y0 + second.box.y1)
    if abs(dx) >= abs(dy):
        text = f"Is the {first.name} left or right of the {second.name}?"
        answer = "left" if dx < 0 else "right"
    else:
        text = f"Is the {first.name} above or below the {second.name}?"
        answer = "above" if dy < 0 else "below"
    return SceneQuestion(text, answer, "relation", (first, second))


def _texture(rng: np.random.Generator, side: int) -> Image.Image:
    """Soft blotches of one hue plus grain, so that no region is flat."""
    blotches = rng.normal(0, 16, (side // 32, side // 32, 3)) + rng.integers(95, 165, 3)
    soft = Image.fromarray(np.clip(blotches, 0, 255).astype(np.uint8)).resize(
        (side, side), Image.Resampling.BICUBIC
    )
    grain = rng.integers(-10, 11, (side, side, 1), dtype=np.int16)
    return Image.fromarray(
        np.clip(np.asarray(soft, dtype=np.int16) + grain, 0, 255).astype(np.uint8)
    )


Spot = tuple[int, int, int]
"""Centre x, centre y and radius of an object, in pixels."""


def _free_spot(rng: np.random.Generator, rules: SceneRules, placed: Sequence[Spot]) -> Spot | None:
    """A spot that touches no placed object, or None after 60 tries."""
    least, greatest = rules.radius
    for _ in range(60):
        if rules.mark_share is None:
            r = int(rng.integers(least, greatest + 1))
        else:
            r = round(float(np.exp(rng.uniform(np.log(least), np.log(greatest)))))
        x, y = (int(v) for v in rng.integers(r + 2, rules.side - r - 2, 2))
        if _is_free((x, y, r), placed):
            return x, y, r
    return None


def _spot_beside(
    rng: np.random.Generator, rules: SceneRules, spot: Spot, placed: Sequence[Spot]
) -> Spot | None:
    """A spot of the same radius on one side of `spot`, or None if there is no room."""
    x, y, r = spot
    step = 2 * r + 7
    for dx, dy in rng.permutation([(step, 0), (-step, 0), (0, step), (0, -step)]):
        a, b = x + int(dx), y + int(dy)
        inside = all(r + 2 <= v < rules.side - r - 2 for v in (a, b))
        if inside and _is_free((a, b, r), placed):
            return a, b, r
    return None


def _is_free(spot: Spot, placed: Sequence[Spot]) -> bool:
    x, y, r = spot
    return all(max(abs(x - a), abs(y - b)) > r + c + 6 for a, b, c in placed)


def _draw_thing(
    pen: ImageDraw.ImageDraw,
    rng: np.random.Generator,
    rules: SceneRules,
    spot: Spot,
    color: str,
    shape: str,
) -> Thing:
    x, y, r = spot
    side = rules.side
    tint = tuple(int(np.clip(v + rng.integers(-14, 15), 0, 255)) for v in COLORS[color])
    outline = {
        "tent": [(x, y - r), (x - r, y + r), (x + r, y + r)],
        "kite": [(x, y - r), (x - r, y), (x, y + r), (x + r, y)],
    }
    if shape == "drum":
        pen.ellipse((x - r, y - r, x + r, y + r), fill=tint)
    elif shape == "box":
        pen.rectangle((x - r, y - r, x + r, y + r), fill=tint)
    else:
        pen.polygon(outline[shape], fill=tint)
    mark = MARKS[int(rng.integers(len(MARKS)))]
    height = (
        int(rng.integers(rules.mark[0], rules.mark[1] + 1))
        if rules.mark_share is None
        else round(r * rng.uniform(*rules.mark_share))
    )
    font = _font_of_height(height)
    left, top, right, bottom = pen.textbbox((0, 0), mark, font=font)
    low = r // 3 if shape == "tent" else 0  # a triangle is wider further down
    mx = x - (right - left) / 2 + int(rng.integers(-3, 4))
    my = y - (bottom - top) / 2 + low + int(rng.integers(-3, 4))
    pen.text(
        (mx - left, my - top),
        mark,
        font=font,
        fill=(15, 15, 15) if sum(COLORS[color]) > 330 else (245, 245, 245),
    )
    mark_box = Box.from_pixels(
        (mx - 1, my - 1, mx + right - left + 1, my + bottom - top + 1), (side, side)
    )
    return Thing(
        color, shape, mark, Box.from_pixels((x - r, y - r, x + r, y + r), (side, side)), mark_box
    )


@lru_cache(maxsize=64)
def _font_of_height(pixels: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """PIL's built-in face at the size whose capitals are about `pixels` high."""
    return ImageFont.load_default(size=pixels / 0.72)
