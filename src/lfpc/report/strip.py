"""One episode as one picture: the original, the first view, each crop, and the replies below."""

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from lfpc.boxes import Box
from lfpc.images import open_picture
from lfpc.looks import Look
from lfpc.records import EpisodeRecord
from lfpc.samples import Sample

HEIGHT = 320
GAP = 16
LINE = 22
"""Height of a panel, gap between panels, and height of a text line, in pixels."""
TRUTH = (46, 160, 67)
ASKED = (214, 40, 40)
"""Colours of truth boxes and of the boxes that the policy asked for."""


def episode_strip(record: EpisodeRecord, look: Look) -> Image.Image:
    """Draw an episode; `look` makes its crops again.

    Raises:
        PictureError: the original cannot be opened.
    """
    sample = record.sample
    original = open_picture(sample.image).convert("RGB")
    boxes = record.boxes
    panels = [
        (
            _outlined(original, sample, boxes),
            f"original, {original.width} x {original.height} (green: truth, red: asked for)",
        )
    ]
    if record.first_view:
        width, height = record.first_view
        first = original.resize(record.first_view, Image.Resampling.BICUBIC)
        panels.append((first, f"first view, {width} x {height}"))
    for number, box in enumerate(boxes, 1):
        if view := look(sample, box):
            panels.append(
                (
                    view.image,
                    f"crop {number}, cut from the original, {view.image.width} x "
                    f"{view.image.height}",
                )
            )
    said = [f"question: {sample.question}", *(f"model: {turn.text}" for turn in record.turns)]
    verdict = f"{'right' if record.correct else 'wrong'}; the answer is {sample.answer}"
    return _composed(panels, [*said, verdict])


def _outlined(picture: Image.Image, sample: Sample, boxes: Sequence[Box]) -> Image.Image:
    drawn = picture.copy()
    pen = ImageDraw.Draw(drawn)
    thick = max(1, picture.height // 200)
    for color, some in (
        (TRUTH, [box for nested in sample.boxes for box in nested]),
        (ASKED, boxes),
    ):
        for box in some:
            corners = [
                v * side
                for v, side in zip(box.corners, (*picture.size, *picture.size), strict=True)
            ]
            pen.rectangle(corners, outline=color, width=thick)
    return drawn


def _composed(panels: Sequence[tuple[Image.Image, str]], lines: Sequence[str]) -> Image.Image:
    font = ImageFont.load_default(size=15)
    scaled = [
        (
            picture.convert("RGB").resize(
                (max(1, round(picture.width * HEIGHT / picture.height)), HEIGHT),
                Image.Resampling.NEAREST,
            ),
            text,
        )
        for picture, text in panels
    ]
    columns = [max(picture.width, int(font.getlength(text))) for picture, text in scaled]
    size = sum(columns) + GAP * (len(scaled) + 1), HEIGHT + LINE * (len(lines) + 1) + 3 * GAP
    sheet = Image.new("RGB", size, (255, 255, 255))
    pen = ImageDraw.Draw(sheet)
    x = GAP
    for (picture, text), column in zip(scaled, columns, strict=True):
        pen.text((x, GAP), text, font=font, fill=(60, 60, 60))
        sheet.paste(picture, (x, GAP + LINE))
        x += column + GAP
    for number, line in enumerate(lines):
        pen.text(
            (GAP, HEIGHT + LINE + 2 * GAP + number * LINE), line[:200], font=font, fill=(20, 20, 20)
        )
    return sheet
