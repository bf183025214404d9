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


EASY = SceneRules()
HARD = SceneRules(objects=(5, 8), radius=(22, 30), mark=(13, 17))
"""Smaller marks, more distractors: Stage II's hard samples."""
TRANSFER = SceneRules(side=560, objects=(6, 8), radius=(24, 34), mark=(15, 20))
"""Larger pictures too, for transfer: never trained on."""
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
    placed: list[tuple[int, int, int]] = []
    things: list[Thing] = []
    for color in colors:
        spot = _free_spot(rng, rules, placed)
        if spot is not None:
            placed.append(spot)
            things.append(
                _draw_thing(
                    pen, rng, rules, spot, str(color), SHAPES[int(rng.integers(len(SHAPES)))]
                )
            )
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


def _free_spot(
    rng: np.random.Generator, rules: SceneRules, placed: list[tuple[int, int, int]]
) -> tuple[int, int, int] | None:
    """(centre x, centre y, radius) that touches no placed object, or None after 60 tries."""
    for _ in range(60):
        r = int(rng.integers(rules.radius[0], rules.radius[1] + 1))
        x, y = (int(v) for v in rng.integers(r + 2, rules.side - r - 2, 2))
        if all(max(abs(x - a), abs(y - b)) > r + c + 6 for a, b, c in placed):
            return x, y, r
    return None


def _draw_thing(
    pen: ImageDraw.ImageDraw,
    rng: np.random.Generator,
    rules: SceneRules,
    spot: tuple[int, int, int],
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
    font = _font_of_height(int(rng.integers(rules.mark[0], rules.mark[1] + 1)))
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
