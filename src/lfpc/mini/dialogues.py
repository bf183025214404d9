"""Pretraining, second part: dialogues for the language model, with reading, localisation, sloppy
calls of the crop tool, and answers.

No dialogue needs its crop: the answer is readable in the global picture too, and the crop often
misses it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lfpc.boxes import Box
from lfpc.images import crop_view
from lfpc.mini.folders import CROPS
from lfpc.mini.pictures import READABLE, Region, crop_region, pool_scene, show
from lfpc.mini.scenes import (
    MARKS,
    Scene,
    SceneQuestion,
    attribute_question,
    relation_question,
)
from lfpc.protocols.qwen2_5_vl import DIRECT_SYSTEM, SYSTEM, TOOL

PixelArray = np.ndarray
Segment = tuple[str | PixelArray, bool]
"""A piece of a training row, and whether the model is trained on it; pictures never are."""
PixelBox = tuple[int, int, int, int]
"""xyxy in pixels of a row's first picture."""
KnownThings = dict[str, tuple[int, PixelBox]]
"""Name of a thing -> its mark's class (-1: not readable) and its box."""


@dataclass(frozen=True, slots=True)
class DialogueRow:
    """One training row. Wherever its text mentions a thing that is `known`, the mention is a
    further target.
    """

    segments: list[Segment]
    known: KnownThings


@dataclass(frozen=True, slots=True)
class CropShares:
    """Shares of crops in two-picture dialogues. The rest shows another thing, or nothing."""

    hit: float = 0.3
    """Share with the right thing: crop and global picture agree."""
    contradict: float = 0.0
    """Share with a thing of the same colour from another picture: only the global picture has the
    answer."""
    unreadable: float = 0.0
    """Share with an unreadable global picture: only the right crop has the answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DialogueRules:
    """How the rows of a step are drawn."""

    scenes: int
    """Number of distinct pictures."""
    shares: CropShares = CropShares()
    wide: bool = False
    """Scenes of a wide range of sizes, with calls and crops at every budget of `ROWS`."""
    spread: float = 0.12
    """Standard deviation of a box's centre in sides of its object."""
    zoom: float = 2.0
    """Median side of a box in sides of its object."""

    def scene(self, rng: np.random.Generator) -> Scene:
        """A random picture of the pool."""
        return pool_scene(int(rng.integers(self.scenes)), wide=self.wide)

    def box(self, rng: np.random.Generator, target: Box) -> Box:
        """A sloppy box around `target`."""
        return sloppy_box(rng, target, spread=self.spread, zoom=self.zoom)


def reading_row(
    rng: np.random.Generator, scene: Scene, region: Region, grid: tuple[int, int]
) -> DialogueRow:
    """One picture and up to six short questions about it: marks that can be read, places, names at
    a place, relations.
    """
    pixels = show(scene, region, (grid[1] * 28, grid[0] * 28))
    asked = _questions_in_view(rng, scene, region, grid)
    system = (
        [(f"<|im_start|>system\n{DIRECT_SYSTEM}<|im_end|>\n", False)] if rng.random() < 0.7 else []
    )
    row: list[Segment] = [
        *system,
        ("<|im_start|>user\n<|vision_start|>", False),
        (pixels, False),
        ("<|vision_end|>", False),
    ]
    for number, (question, answer) in enumerate(asked[:6]):
        row.append(
            (
                ("<|im_start|>user\n" if number else "")
                + question
                + "<|im_end|>\n<|im_start|>assistant\n",
                False,
            )
        )
        row.append((f"<answer>{answer}</answer><|im_end|>", True))
        row.append(("\n", False))
    return DialogueRow(row, _known(scene, region, grid))


def _questions_in_view(
    rng: np.random.Generator, scene: Scene, region: Region, grid: tuple[int, int]
) -> list[tuple[str, str]]:
    rows, columns = grid
    height = scene.image.height
    scale = columns * 28 / (region[2] - region[0]), rows * 28 / (region[3] - region[1])
    asked: list[tuple[str, str]] = []
    seen = []
    for index in rng.permutation(len(scene.things)):
        thing = scene.things[int(index)]
        box = _in_view(thing.box, scene, region, scale)
        if box is None:
            continue
        seen.append(thing)
        mark_box = _in_view(thing.mark_box, scene, region, scale)
        tall = (thing.mark_box.y1 - thing.mark_box.y0) * height * scale[1]
        kinds = ["where", "where", "what"] + (["mark"] * 5 if mark_box and tall >= READABLE else [])
        kind = kinds[int(rng.integers(len(kinds)))]
        if kind == "mark":
            asked.append((f"What mark is on the {thing.name}?", thing.mark))
        elif kind == "where":
            asked.append((f"Where is the {thing.name}?", _numbers(box)))
        else:
            asked.append((f"What is at {_numbers(box)}?", thing.name))
    if len(seen) >= 2 and rng.random() < 0.6:
        question = relation_question(seen[0], seen[1])
        asked.insert(int(rng.integers(len(asked) + 1)), (question.text, question.answer))
    return asked


def _known(scene: Scene, region: Region, grid: tuple[int, int]) -> KnownThings:
    """Mark class and box of the things in view, by name."""
    known: KnownThings = {}
    scale = grid[1] * 28 / (region[2] - region[0]), grid[0] * 28 / (region[3] - region[1])
    for thing in scene.things:
        if (box := _in_view(thing.box, scene, region, scale)) is None:
            continue
        tall = (thing.mark_box.y1 - thing.mark_box.y0) * scene.image.height * scale[1]
        readable = tall >= READABLE and _in_view(thing.mark_box, scene, region, scale) is not None
        known[thing.name] = (MARKS.index(thing.mark) if readable else -1, box)
    return known


def _in_view(box: Box, scene: Scene, region: Region, scale: tuple[float, float]) -> PixelBox | None:
    """The box in whole pixels of the view, or None if less than 80 % of either side is inside
    it.
    """
    width, height = scene.image.size
    x0, x1 = ((v * width - region[0]) * scale[0] for v in (box.x0, box.x1))
    y0, y1 = ((v * height - region[1]) * scale[1] for v in (box.y0, box.y1))
    right = (region[2] - region[0]) * scale[0]
    bottom = (region[3] - region[1]) * scale[1]
    a0 = max(x0, 0)
    b0 = max(y0, 0)
    a1 = min(x1, right)
    b1 = min(y1, bottom)
    if a1 - a0 < 0.8 * (x1 - x0) or b1 - b0 < 0.8 * (y1 - y0):
        return None
    return round(a0), round(b0), round(a1), round(b1)


def _numbers(box: PixelBox) -> str:
    return "[" + ", ".join(map(str, box)) + "]"


def sloppy_box(
    rng: np.random.Generator, target: Box, *, spread: float = 0.12, zoom: float = 2.0
) -> Box:
    """A box around `target`: each side `zoom` times as long give or take a seventh, the centre off
    by `spread` of a side.
    """
    w = target.x1 - target.x0
    h = target.y1 - target.y0
    x = (target.x0 + target.x1) / 2 + rng.normal(0, spread) * w
    y = (target.y0 + target.y1) / 2 + rng.normal(0, spread) * h
    half_w, half_h = (side * zoom * np.exp(rng.normal(0, 0.15)) / 2 for side in (w, h))
    x = min(max(x, 0.03), 0.97)
    y = min(max(y, 0.03), 0.97)
    return Box(
        max(0.0, x - half_w), max(0.0, y - half_h), min(1.0, x + half_w), min(1.0, y + half_h)
    )


def call_text(box: Box, side: int) -> str:
    """The tool call for `box` in a view of side x side pixels."""
    corners = ", ".join(str(round(v * side)) for v in box.corners)
    return (
        f'<tool_call>{{"name": "{TOOL}", "arguments": {{"bbox_2d": '
        f"[{corners}]}}}}</tool_call><|im_end|>"
    )


def _tool_question(rng: np.random.Generator, scene: Scene, relations: float = 0.2) -> SceneQuestion:
    things = [scene.things[int(i)] for i in rng.permutation(len(scene.things))]
    return (
        relation_question(things[0], things[1])
        if rng.random() < relations
        else attribute_question(things[0])
    )


def _tool_prompt(pixels: PixelArray, question: str) -> list[Segment]:
    return [
        (f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n<|vision_start|>", False),
        (pixels, False),
        (f"<|vision_end|>{question}<|im_end|>\n<|im_start|>assistant\n", False),
    ]


def call_row(
    rng: np.random.Generator, scene: Scene, tokens: int, rules: DialogueRules
) -> DialogueRow:
    """A row with the tool: mostly a call with a sloppy box, sometimes an answer at once if the
    picture allows it.
    """
    side = tokens * 28
    question = _tool_question(rng, scene)
    readable = _is_readable(question, side)
    at_once = readable and rng.random() < (0.3 if question.category == "relation" else 0.15)
    reply = (
        f"<answer>{question.answer}</answer><|im_end|>"
        if at_once
        else call_text(rules.box(rng, question.about[0].box), side)
    )
    whole = (0, 0, *scene.image.size)
    return DialogueRow(
        [*_tool_prompt(show(scene, whole, (side, side)), question.text), (reply, True)],
        _known(scene, whole, (tokens, tokens)),
    )


def crop_row(
    rng: np.random.Generator, tokens: int, rules: DialogueRules, *, relations: float = 0.2
) -> DialogueRow:
    """Global picture, call, crop, answer; trained on the answer only.

    The answer is always the true one: the rules' shares set how reliable either picture is,
    `relations` how many questions are about a relation.
    """
    side = tokens * 28
    shares = rules.shares
    scene = rules.scene(rng)
    question = _tool_question(rng, scene, relations)
    if rules.wide:
        wanted = rng.random() >= shares.unreadable
        while _is_readable(question, side) != wanted and question.category != "relation":
            scene = rules.scene(rng)
            question = _tool_question(rng, scene, 0.0)
    box = rules.box(rng, question.about[0].box)
    source = scene
    luck = rng.random() - shares.hit
    if 0 <= luck < shares.contradict:
        source, box = _lookalike(rng, question.about[0].color, rules)
    elif luck >= shares.contradict and rng.random() < 0.5:
        others = [thing for thing in scene.things if thing not in question.about] or list(
            scene.things
        )
        box = rules.box(rng, others[int(rng.integers(len(others)))].box)
    elif luck >= shares.contradict:
        x, y = rng.uniform(0.05, 0.95, 2)
        box = rules.box(rng, Box(x - 0.05, y - 0.05, x + 0.05, y + 0.05))
    corners = np.round(np.array(box.corners) * side) / side  # the shown box is that of the call
    shown = crop_view(source.image, Box.from_pixels(corners.tolist(), (1, 1)), CROPS)
    whole = (0, 0, *scene.image.size)
    segments: list[Segment] = [
        *_tool_prompt(show(scene, whole, (side, side)), question.text),
        (call_text(box, side) + "\n<|im_start|>user\n<tool_response><|vision_start|>", False),
        (np.asarray(shown.image), False),
        ("<|vision_end|></tool_response><|im_end|>\n<|im_start|>assistant\n", False),
        (f"<answer>{question.answer}</answer><|im_end|>", True),
    ]
    return DialogueRow(segments, _known(scene, whole, (tokens, tokens)))


def _is_readable(question: SceneQuestion, side: int) -> bool:
    """Whether a picture of side x side pixels answers the question; a relation always."""
    mark = question.about[0].mark_box
    return question.category == "relation" or (mark.y1 - mark.y0) * side >= READABLE


def _lookalike(rng: np.random.Generator, color: str, rules: DialogueRules) -> tuple[Scene, Box]:
    """Another scene with a thing of the same colour, and a box around that thing."""
    for _ in range(50):
        scene = rules.scene(rng)
        for thing in scene.things:
            if thing.color == color:
                return scene, rules.box(rng, thing.box)
    raise ValueError(f"no scene of the pool shows a {color} thing; draw from more scenes")


SINGLE = {"crop": 0.15, "region": 0.15, "small": 0.45, "middle": 0.05, "full": 0.2}
"""Shares of the kinds of rows in a step: only single pictures."""
MIXED = {
    "crop": 0.08,
    "region": 0.05,
    "small": 0.12,
    "middle": 0.04,
    "full": 0.23,
    "call": 0.33,
    "dialogue": 0.15,
}
"""The same with calls and dialogues."""
SETTLED = {
    "crop": 0.06,
    "region": 0.04,
    "small": 0.1,
    "middle": 0.03,
    "full": 0.24,
    "call": 0.28,
    "dialogue": 0.25,
}
"""The same with more dialogues, for a model that reads the whole picture."""
ROWS = {5: 16, 6: 12, 8: 8, 10: 6, 12: 5, 14: 4, 16: 3}
"""Visual tokens along a side of a global picture -> rows per step."""
SMALL = (5, 6, 8)


def dialogue_rows(
    rng: np.random.Generator, kinds: Mapping[str, float], rules: DialogueRules
) -> tuple[str, list[DialogueRow]]:
    """Rows of one kind for one step, drawn with the shares `kinds`."""
    kind = str(rng.choice(list(kinds), p=list(kinds.values())))
    if kind == "call":
        tokens = int(
            rng.choice(list(ROWS))
            if rules.wide
            else rng.choice([5, 6, 8, 16], p=[0.3, 0.1, 0.25, 0.35])
        )
        return kind, [call_row(rng, rules.scene(rng), tokens, rules) for _ in range(ROWS[tokens])]
    if (
        kind == "dialogue" and rng.random() < 0.3
    ):  # a relation is readable in the global picture at every budget
        tokens = int(rng.choice(list(ROWS) if rules.wide else SMALL))
        return kind, [crop_row(rng, tokens, rules, relations=1.0) for _ in range(ROWS[tokens])]
    if kind == "dialogue" and rules.wide:
        tokens = int(rng.choice(list(ROWS)))
        return kind, [crop_row(rng, tokens, rules) for _ in range(ROWS[tokens])]
    if kind == "dialogue":
        tokens, count = (8, 8) if rng.random() < rules.shares.unreadable else (16, 4)
        return kind, [crop_row(rng, tokens, rules) for _ in range(count)]
    count, grids = {
        "crop": (16, [(4, 4), (4, 5), (5, 4), (5, 5)]),
        "region": (8, [(8, 8)]),
        "small": (12, [(5, 5), (6, 6)]),
        "middle": (6, [(8, 8)]),
        "full": (3, [(16, 16)]),
    }[kind]
    grid = grids[int(rng.integers(len(grids)))]
    rows = []
    for _ in range(count):
        drawn = rules.scene(rng)
        region: Region = (0, 0, *drawn.image.size)
        if kind == "crop":
            region = crop_region(rng, drawn, grid, 1.0 + 1.8 * rng.random())
        elif kind == "region":
            x, y = (float(v) for v in rng.uniform(0, drawn.image.width - 224, 2))
            region = (x, y, x + 224, y + 224)
        rows.append(reading_row(rng, drawn, region, grid))
    return kind, rows
