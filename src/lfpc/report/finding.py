"""The finding as one picture: a question under its own crop and under noise, for a model that does
not use the crop and for one that does.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from lfpc.dialogue import Answer
from lfpc.images import open_picture
from lfpc.looks import Look
from lfpc.records import EpisodeRecord
from lfpc.report.cards import COVERED, LOW_IOU
from lfpc.report.strip import ASKED

SIDE = 220
"""Side of a panel, in pixels."""
_GAP = 20
_LABEL = 230
_LINE = 24
_INK, _GREY, _RIGHT, _WRONG = (20, 20, 20), (90, 90, 90), (26, 127, 55), (207, 34, 46)


@dataclass(frozen=True, slots=True)
class Shown:
    """One model's answers to a question: with its own crop, and with noise in its place."""

    name: str
    own: EpisodeRecord
    noise: EpisodeRecord
    own_look: Look
    noise_look: Look


def finding_pairs(
    lazy: Sequence[tuple[EpisodeRecord, Mapping[str, EpisodeRecord]]],
    looking: Sequence[tuple[EpisodeRecord, Mapping[str, EpisodeRecord]]],
) -> Iterator[tuple[tuple[EpisodeRecord, EpisodeRecord], tuple[EpisodeRecord, EpisodeRecord]]]:
    """(own, noise) of both models for each question about a mark that shows the finding: the crop
    of both holds the target and both are right; under noise the first model still is, the second
    is not.

    Args:
        lazy, looking: see `lfpc.report.browser.episodes_of`.
    """
    unchanged = {
        own.sample.id: (own, others["noise"])
        for own, others in lazy
        if own.correct and "noise" in others and others["noise"].correct and _fits(own)
    }
    for own, others in looking:
        first = unchanged.get(own.sample.id)
        noise = others.get("noise")
        if first and own.correct and noise and not noise.correct and _fits(own) and _said(noise):
            yield first, (own, noise)


def _fits(record: EpisodeRecord) -> bool:
    covers, near = (record.coverage or 0) > COVERED, (record.iou or 0) > LOW_IOU
    return covers and near and len(record.boxes) == 1 and record.sample.category != "relation"


def finding_picture(rows: Sequence[Shown]) -> Image.Image:
    """A row per model: the first view with the box that it asks for, its own crop with the answer,
    noise with the answer, and what that shows.

    Raises:
        PictureError: the original cannot be opened.
    """
    width = _LABEL + 3 * SIDE + 5 * _GAP + _LABEL
    height = 3 * _LINE + len(rows) * (SIDE + 2 * _LINE + _GAP)
    sheet = Image.new("RGB", (width, height), (255, 255, 255))
    pen = ImageDraw.Draw(sheet)
    bold, plain = ImageFont.load_default(size=17), ImageFont.load_default(size=15)
    sample = rows[0].own.sample
    pen.text(
        (_GAP, _GAP), f"{sample.question}   Right answer: {sample.answer}", font=bold, fill=_INK
    )
    columns = [2 * _GAP + _LABEL + n * (SIDE + _GAP) for n in range(4)]
    heads = ("first view, and the box it asks for", "shown: its own crop", "shown: noise")
    for x, head in zip(columns, heads, strict=False):
        pen.text((x, _GAP + _LINE), head, font=plain, fill=_GREY)
    for number, row in enumerate(rows):
        y = _GAP + 2 * _LINE + number * (SIDE + 2 * _LINE + _GAP)
        _paragraph(pen, (_GAP, y), row.name, bold)
        for x, panel in zip(columns, _panels(row), strict=False):
            sheet.paste(panel, (x, y))
        for x, record in zip(columns[1:], (row.own, row.noise), strict=False):
            colour = _RIGHT if record.correct else _WRONG
            word = "right" if record.correct else "wrong"
            text = f"answers {_said(record)} ({word})"
            pen.text((x, y + SIDE + 4), text, font=bold, fill=colour)
        changed = _said(row.own) != _said(row.noise)
        _paragraph(
            pen,
            (columns[3], y + SIDE // 3),
            "changed:\nthe crop was used" if changed else "unchanged:\nthe crop was not used",
            bold,
        )
    return sheet


def _said(record: EpisodeRecord) -> str:
    """The text of the answer; empty without one."""
    action = record.turns[-1].action if record.turns else None
    return action.text.strip() if isinstance(action, Answer) else ""


def _panels(row: Shown) -> Iterator[Image.Image]:
    sample, box = row.own.sample, row.own.boxes[0]
    first = open_picture(sample.image).convert("RGB")
    if row.own.first_view:
        first = first.resize(row.own.first_view, Image.Resampling.BICUBIC)
    panel = _square(first)
    corners = [value * SIDE for value in box.corners]
    ImageDraw.Draw(panel).rectangle(corners, outline=ASKED, width=3)
    yield panel
    for look, record in ((row.own_look, row.own), (row.noise_look, row.noise)):
        view = look(sample, record.boxes[0] if record.boxes else box)
        yield _square(view.image) if view else Image.new("RGB", (SIDE, SIDE), (235, 235, 235))


def _square(picture: Image.Image) -> Image.Image:
    """The picture within a square, unstretched unless it is square."""
    scale = SIDE / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    panel = Image.new("RGB", (SIDE, SIDE), (245, 245, 245))
    panel.paste(picture.convert("RGB").resize(size, Image.Resampling.NEAREST), (0, 0))
    return panel


def _paragraph(
    pen: ImageDraw.ImageDraw,
    at: tuple[int, int],
    text: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    for number, line in enumerate(text.split("\n")):
        pen.text((at[0], at[1] + number * _LINE), line, font=font, fill=_INK)
