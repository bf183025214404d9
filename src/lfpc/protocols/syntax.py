"""The region of a picture that a Python program cuts, from its syntax tree alone. Nothing is
executed, imported or opened.

Supported: numbers and their arithmetic, `int`, `round`, `min`, ..., the size of a picture, PIL's
`crop` and `resize`, array slices and `cv2.resize`, through assignments, `with`, `try` and `if`.
Loops and functions are not evaluated. Unsupported values are unknown, and a cut with unknown
numbers does not count.
"""

import ast
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lfpc.boxes import WHOLE, Box, Size
from lfpc.errors import BoxError
from lfpc.protocols.syntax_values import (
    KEEPS_SHAPE,
    CodePicture,
    Value,
    calculated,
    compared,
    element,
    function_of,
    number,
    resized,
)

LONGEST_CODE = 20_000
"""Maximum characters of a program; longer ones are rejected."""


@dataclass(frozen=True, slots=True)
class Cut:
    """The last cut of a program: its numbers x1, y1, x2, y2, and the region of the file's picture
    (None: no area).
    """

    numbers: tuple[float, float, float, float]
    region: Box | None


def last_cut(code: str, size: Size) -> Cut | None:
    """The last cut of `code`; None: none with known numbers.

    Args:
        code: the program. Any picture file that it opens counts as the original.
        size: (width, height) of the original in pixels.
    Raises:
        ValueError: not Python, longer than `LONGEST_CODE`, or too deeply nested.
    """
    program = Program(CodePicture(WHOLE, float(size[0]), float(size[1])))
    run_program(program, code)
    return program.cut


def run_program(
    program: "Program", code: str, edit: Callable[[ast.Module], ast.Module] | None = None
) -> None:
    """Evaluate `code` in `program`, after `edit` has changed its tree.

    Raises:
        ValueError: not Python, longer than `LONGEST_CODE`, or too deeply nested.
    """
    if len(code) > LONGEST_CODE:
        raise ValueError(f"the code has {len(code)} characters; at most {LONGEST_CODE} are read")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # the parser warns about odd escapes in the policy's code
            tree = ast.parse(code)
        program.run((edit(tree) if edit else tree).body)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError("the code is not Python that can be read") from error


class Program:
    """Evaluates a program from top to bottom: known values of its names, and the last cut."""

    def __init__(self, original: CodePicture) -> None:
        self.original = original
        self.names = dict[str, Value]()
        self.cut: Cut | None = None

    def run(self, statements: Sequence[ast.stmt]) -> None:
        """Evaluate statements in order."""
        for statement in statements:
            match statement:
                case ast.Assign(targets=targets, value=value):
                    found = self.value(value)
                    for target in targets:
                        self.bind(target, found)
                case ast.AnnAssign(target=target, value=ast.expr() as value):
                    self.bind(target, self.value(value))
                case ast.AugAssign(target=ast.Name(id=name), op=op, value=value):
                    self.names[name] = calculated(op, self.names.get(name), self.value(value))
                case ast.Expr(value=value):
                    self.value(value)
                case ast.With(items=items, body=body):
                    for item in items:
                        found = self.value(item.context_expr)
                        if item.optional_vars is not None:
                            self.bind(item.optional_vars, found)
                    self.run(body)
                case ast.Try(body=body, orelse=orelse, finalbody=finalbody):
                    self.run([*body, *orelse, *finalbody])
                case ast.If():
                    self.branch(statement)
                case _:
                    self.forget(statement)

    def branch(self, statement: ast.If) -> None:
        """Evaluate the branch that is taken, or both if unknown; then names and cuts on which they
        differ are unknown.
        """
        test = statement.test
        taken = None
        if isinstance(test, ast.Compare) and len(test.ops) == 1:
            taken = compared(test.ops[0], self.value(test.left), self.value(test.comparators[0]))
        if taken is not None:
            self.run(statement.body if taken else statement.orelse)
            return
        names = dict(self.names)
        cut = self.cut
        self.run(statement.body)
        first_names = self.names
        first_cut = self.cut
        self.names = names
        self.cut = cut
        self.run(statement.orelse)
        for name, value in first_names.items():
            self.names[name] = value if self.names.get(name, value) == value else None
        if self.cut is cut:
            self.cut = first_cut
        elif first_cut is not cut and first_cut != self.cut:
            self.cut = None

    def forget(self, statement: ast.stmt) -> None:
        """Make everything unknown that an unsupported statement may have changed."""
        for node in ast.walk(statement):
            match node:
                case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                    self.names[name] = None
                case ast.Subscript(value=ast.Name(id=name), slice=index):
                    self.names[name] = None
                    self.cut = None if isinstance(index, ast.Tuple) else self.cut
                case ast.Attribute(value=ast.Name(id=name), attr=attribute):
                    self.names[name] = None
                    self.cut = None if attribute == "crop" else self.cut

    def bind(self, target: ast.expr, value: Value) -> None:
        """Assign `value` to the target of an assignment."""
        match target:
            case ast.Name(id=name):
                self.names[name] = value
            case ast.Tuple(elts=parts) | ast.List(elts=parts):
                values = (
                    value
                    if isinstance(value, tuple) and len(value) == len(parts)
                    else (None,) * len(parts)
                )
                for part, one in zip(parts, values, strict=True):
                    self.bind(part, one)
            case ast.Subscript(value=owner):
                self.spoil(owner)

    def spoil(self, node: ast.expr) -> None:
        """Make numbers that were changed in place unknown; a picture that was drawn on keeps its
        size.
        """
        if isinstance(node, ast.Name) and isinstance(self.names.get(node.id), tuple):
            self.names[node.id] = None

    def value(self, node: ast.expr) -> Value:
        """The value of an expression, with its cuts recorded."""
        match node:
            case ast.Constant(value=int() | float() as constant) if not isinstance(constant, bool):
                return number(constant)
            case ast.Name(id=name):
                return self.names.get(name)
            case ast.NamedExpr(target=target, value=value):
                self.bind(target, found := self.value(value))
                return found
            case ast.Tuple(elts=parts) | ast.List(elts=parts):
                return tuple(
                    one if isinstance(one, float) else None for one in map(self.value, parts)
                )
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return calculated(ast.Mult(), -1.0, self.value(operand))
            case ast.BinOp(left=left, op=op, right=right):
                return calculated(op, self.value(left), self.value(right))
            case ast.Attribute(value=owner, attr=attribute):
                found = self.value(owner)
                return found.attribute(attribute) if isinstance(found, CodePicture) else None
            case ast.Subscript(value=owner, slice=index):
                return self.item(self.value(owner), index)
            case ast.Call():
                return self.call(node)
        return None

    def item(self, owner: Value, index: ast.expr) -> Value:
        """`owner[index]`: a slice of a picture, an element or the first elements of a few
        numbers.
        """
        if isinstance(owner, CodePicture):
            return self.sliced(owner, index)
        if not isinstance(owner, tuple):
            return None
        match index:
            case ast.Slice(lower=None, upper=ast.Constant(value=int(upper)), step=None):
                return owner[:upper]
            case ast.Slice():
                return None
        return element(owner, self.value(index))

    def sliced(self, picture: CodePicture, index: ast.expr) -> Value:
        """`picture[y1:y2, x1:x2]` of an array; slices without bounds are no cut."""
        axes = (*(index.elts if isinstance(index, ast.Tuple) else [index]), ast.Slice())[:2]
        if all(
            isinstance(axis, ast.Slice) and axis.lower is axis.upper is axis.step is None
            for axis in axes
        ):
            return picture
        bounds: list[float] = []
        for axis, length in zip(axes, (picture.height, picture.width), strict=True):
            for part, missing in (
                ((axis.lower, 0.0), (axis.upper, length))
                if isinstance(axis, ast.Slice) and axis.step is None
                else ()
            ):
                bound = missing if part is None else self.value(part)
                bounds += (
                    [bound + length if bound < 0 else bound] if isinstance(bound, float) else []
                )
        return self.cut_out(
            picture,
            (bounds[2], bounds[0], bounds[3], bounds[1]) if len(bounds) == 4 else None,
            array=True,
        )

    def cut_out(
        self, picture: CodePicture, box: Value, *, array: bool = False
    ) -> CodePicture | None:
        """Record the cut of `box`, in pixels of `picture`; an unknown cut replaces the one before
        it. `array`: cut by slices.
        """
        self.cut = None
        if not isinstance(box, tuple) or len(box) != 4 or None in box:
            return None
        x0, y0, x1, y1 = (side or 0.0 for side in box)
        try:
            part = Box.from_pixels((x0, y0, x1, y1), (picture.width, picture.height))
            region = part.within(picture.region)
        except (BoxError, ArithmeticError):
            self.cut = Cut((x0, y0, x1, y1), None)
            return None
        self.cut = Cut((x0, y0, x1, y1), region)
        return CodePicture(
            region, (part.x1 - part.x0) * picture.width, (part.y1 - part.y0) * picture.height
        )

    def call(self, node: ast.Call) -> Value:
        """The value of a call; unknown functions return unknown values."""
        owner = self.value(node.func.value) if isinstance(node.func, ast.Attribute) else None
        return self.called(node, owner)

    def called(self, node: ast.Call, owner: Value) -> Value:
        """The value of a call of a function, or of a method of `owner`."""
        name = str(getattr(node.func, "attr", getattr(node.func, "id", "")))
        given: list[Value] = [self.value(argument) for argument in node.args]
        named = {keyword.arg: self.value(keyword.value) for keyword in node.keywords}
        match owner, name, given:
            case CodePicture(), "crop", _:
                return self.cut_out(owner, _argument(named, "box", given))
            case None, "crop", _:
                self.cut = None
            case CodePicture(), "resize", _:
                return resized(owner, _argument(named, "size", given), None, None)
            case _, "resize", [CodePicture() as picture, *rest]:
                return resized(
                    picture, _argument(named, "dsize", rest), named.get("fx"), named.get("fy")
                )
            case None, "open" | "imread", _ if isinstance(node.func, ast.Attribute):
                return self.original
            case CodePicture(), _, _ if name in KEEPS_SHAPE:
                return owner
            case _, _, [CodePicture() as picture, *_] if name in KEEPS_SHAPE:
                return picture
            case None, _, [float(), *_] if not named:
                return function_of(name, given)
            case _, "tuple" | "list", [tuple() as numbers]:
                return numbers
            case CodePicture(), "thumbnail", _ if isinstance(
                node.func, ast.Attribute
            ) and isinstance(node.func.value, ast.Name):
                self.names[node.func.value.id] = None
            case tuple(), _, _ if isinstance(node.func, ast.Attribute):
                self.spoil(node.func.value)
        return None


def _argument(named: Mapping[str | None, Value], name: str, given: Sequence[Value]) -> Value:
    return named.get(name, given[0] if given else None)
