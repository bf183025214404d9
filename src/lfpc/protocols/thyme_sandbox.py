"""The as-released reading of Thyme's code: the picture that it saves, with the changes that the
published sandbox makes to the code before it runs it.

Nothing is run here; see `lfpc.protocols.syntax`.
"""

import ast
import math
import textwrap
from dataclasses import replace

from lfpc.boxes import WHOLE, Size
from lfpc.protocols.syntax import Cut, Program, run_program
from lfpc.protocols.syntax_values import CodePicture, Value

LEAST_SIDE = 64
"""Minimum side in pixels of a box that is assigned as four numbers."""
MOST_STATEMENTS = 2_000
"""Maximum statements that are followed, loops unrolled."""
BOX_NAMES = frozenset(
    {
        "crop_box",
        "bbox",
        "box",
        "coordinates",
        "coords",
        "crop_coords",
        "left_crop_coords",
        "right_crop_coords",
        "top_crop_coords",
        "bottom_crop_coords",
    }
)
CORNER_NAMES = frozenset({"x1", "y1", "x2", "y2", "left", "top", "right", "bottom"})
"""Names whose assignment the sandbox takes for a box."""


def saved_picture(code: str, size: Size) -> tuple[CodePicture | None, Cut | None]:
    """The picture that `code` saves last (None: none that can be told), and its last cut.

    Args:
        code: the program. Any picture file that it opens counts as the original.
        size: (width, height) of the original in pixels.
    Raises:
        ValueError: not Python, or too long or too deeply nested to be read.
    """
    width, height = float(size[0]), float(size[1])
    program = _Sandbox(CodePicture(WHOLE, width, height, (0.0, 0.0, width, height)))
    run_program(program, textwrap.dedent(_aligned(code)).strip(), _Clamped(size).visit)
    return program.saved, program.cut


def _aligned(code: str) -> str:
    """The code with its first line indented as its second."""
    lines = code.splitlines()
    filled = [i for i, line in enumerate(lines) if line.strip()]
    if len(filled) > 1:
        second = lines[filled[1]]
        indent = second[: len(second) - len(second.lstrip(" "))]
        lines[filled[0]] = indent + lines[filled[0]].lstrip(" ")
    return "\n".join(lines)


class _Clamped(ast.NodeTransformer):
    """Moves boxes that are assigned as four numbers into the picture, in order and with sides of at
    least `LEAST_SIDE`.
    """

    def __init__(self, size: Size) -> None:
        self.size = size

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        """Change the numbers of a box."""
        match node:
            case ast.Assign(targets=[ast.Tuple(elts=names)], value=ast.Tuple(elts=numbers)):
                named = len(names) == 4 and all(isinstance(one, ast.Name) for one in names)
                is_box = named and any(
                    isinstance(one, ast.Name) and one.id.lower() in CORNER_NAMES for one in names
                )
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Tuple(elts=numbers)):
                is_box = name in BOX_NAMES
            case _:
                return self.generic_visit(node)
        given = [
            one.value
            for one in numbers
            if isinstance(one, ast.Constant) and isinstance(one.value, int | float)
        ]
        if is_box and len(given) == len(numbers) == 4:
            x1, x2 = _clamped(given[0], given[2], self.size[0])
            y1, y2 = _clamped(given[1], given[3], self.size[1])
            within = [round(one) for one in (x1, y1, x2, y2)]
            if within != [round(one) for one in given]:
                numbers[:] = [ast.Constant(one) for one in within]
        return node


def _clamped(a: float, b: float, side: int) -> tuple[float, float]:
    low = min(max(0.0, min(a, b)), side - 1.0)
    high = min(max(0.0, max(a, b)), float(side))
    if low >= high:
        low = max(0.0, high - 1.0)
    if high <= low:
        high = min(float(side), low + 1.0)
    if high - low >= LEAST_SIDE:
        return low, high
    if side < LEAST_SIDE:
        return 0.0, float(side)
    high = min(low + LEAST_SIDE, float(side))
    return max(0.0, high - LEAST_SIDE), high


class _Sandbox(Program):
    """Evaluates a program as the sandbox runs it: whole pixels, black beyond the edges, and the
    last saved picture.
    """

    def __init__(self, original: CodePicture) -> None:
        super().__init__(original)
        self.saved: CodePicture | None = None
        self.left = MOST_STATEMENTS

    def forget(self, statement: ast.stmt) -> None:
        """Follow loops over written lists; forget what other unsupported statements change."""
        match statement:
            case ast.For(
                target=target, iter=ast.List(elts=values) | ast.Tuple(elts=values), body=body
            ) if (count := len(values) * len(body)) <= self.left:
                self.left -= count
                for value in values:
                    self.bind(target, self.value(value))
                    self.run(body)
            case _:
                super().forget(statement)

    def cut_out(
        self, picture: CodePicture, box: Value, *, array: bool = False
    ) -> CodePicture | None:
        """Record the cut of `box` in whole pixels of `picture`: rounded, or for slices cut off at
        the edges.
        """
        self.cut = None
        if not isinstance(box, tuple) or len(box) != 4 or picture.corners is None:
            return None
        numbers = [one for one in box if one is not None and math.isfinite(one)]
        if len(numbers) < 4:
            return None
        x0, y0, x1, y1 = numbers
        pixels = [float(round(one)) for one in numbers]
        if array:
            sides = (picture.width, picture.height)
            pixels = [min(max(0.0, one), sides[i % 2]) for i, one in enumerate(pixels)]
        self.cut = Cut((x0, y0, x1, y1), None)
        if pixels[2] <= pixels[0] or pixels[3] <= pixels[1]:
            return None
        left, top, right, bottom = picture.corners
        across = (right - left) / picture.width
        down = (bottom - top) / picture.height
        return CodePicture(
            picture.region,
            pixels[2] - pixels[0],
            pixels[3] - pixels[1],
            (
                left + pixels[0] * across,
                top + pixels[1] * down,
                left + pixels[2] * across,
                top + pixels[3] * down,
            ),
        )

    def called(self, node: ast.Call, owner: Value) -> Value:
        """As for any program, and: saving, turning and `ImageOps.crop`."""
        name = getattr(node.func, "attr", "")
        if name == "save":
            self.saved = owner if isinstance(owner, CodePicture) else None
            return None
        if name == "imwrite":
            written = self.value(node.args[1]) if len(node.args) > 1 else None
            self.saved = written if isinstance(written, CodePicture) else None
            return None
        if name == "rotate" and isinstance(owner, CodePicture):
            return self.turned(owner, node)
        if name == "crop" and owner is None and node.args:
            return self.without_border(node)
        return super().called(node, owner)

    def turned(self, picture: CodePicture, node: ast.Call) -> Value:
        """`picture.rotate(...)`: its size is known at quarter turns, and where it is kept."""
        named = {keyword.arg: keyword.value for keyword in node.keywords}
        angle = self.value(node.args[0]) if node.args else None
        expand = named.get("expand")
        if not (isinstance(expand, ast.Constant) and expand.value):
            return picture
        if not isinstance(angle, float) or angle % 90:
            return None
        if angle % 180 == 0:
            return picture
        return replace(picture, width=picture.height, height=picture.width)

    def without_border(self, node: ast.Call) -> Value:
        """`ImageOps.crop(picture, border)`."""
        picture = self.value(node.args[0])
        named = {keyword.arg: keyword.value for keyword in node.keywords}
        given = node.args[1] if len(node.args) > 1 else named.get("border")
        border = self.value(given) if given is not None else 0.0
        if not isinstance(picture, CodePicture) or not isinstance(border, float):
            self.cut = None
            return None
        return self.cut_out(
            picture, (border, border, picture.width - border, picture.height - border)
        )
