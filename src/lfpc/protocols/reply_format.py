"""A reply format as data: tags and keys of a call, coordinates of its box, tags of an answer."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, permutations
from math import inf
from typing import Any, Literal

from lfpc.boxes import Box
from lfpc.dialogue import Action, Malformed, Reason
from lfpc.errors import ConfigError
from lfpc.images import View
from lfpc.protocols.exact import (
    Form,
    exact_if,
    in_order,
    is_alone,
    is_exact,
    is_plain,
    only_thought,
)
from lfpc.protocols.reading import (
    BAD_BOX,
    boxed_answer,
    check_shape,
    crop_of,
    four_numbers,
    from_text,
    is_only_boxed,
    malformed,
    read_json,
    said,
    whole_number,
)

BOXED = "\\boxed{"
THOUSANDTHS = (1000, 1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyFormat:
    """Format of calls and answers. The first call or answer of a reply counts."""

    call: tuple[str, str]
    """Tags around a call. An unclosed call ends with the reply."""
    box: str
    """Keys of the box in the call's JSON, joined by dots; empty: the call is the list itself."""
    coordinates: Literal["shown", "0-1", "0-1000", "original"]
    """Unit of a box: pixels of the picture as shown, fractions, thousandths, or pixels of the
    original."""
    answer: tuple[str, str]
    r"""Tags around an answer. An opening \boxed{ takes the last one, with matched braces."""
    tool: str = ""
    """Name of the tool, which a call has under "name"; empty: a call names no tool."""
    picture: str = ""
    """Keys of the named picture, joined by dots; empty: boxes refer to the first view."""
    original_name: str = ""
    """Name of the first view in a call."""
    crop_name: str = ""
    """Name of a crop in a call, with {number} among the crops from 1, or {picture} among all
    pictures from 1."""
    repair: bool = True
    """Whether calls with small faults of their JSON are repaired."""
    answer_wins: bool = False
    """Whether an answer counts also after a call."""
    free_answer: bool = False
    """Whether a reply without a call and without an answer's tags is the answer."""
    widen: float = 1.0
    """Width and height of the shown region, in those of the box."""
    min_side: float = 0.0
    """Minimum side of a box (exclusive), in pixels of the first view if `coordinates` is shown,
    else of the original."""
    max_aspect: float | None = None
    """Maximum ratio of the longer to the shorter side, in the same pixels."""

    def __post_init__(self) -> None:
        for name in ("call", "answer"):
            if not all(getattr(self, name)):
                raise ConfigError(f"'{name}' must be two texts that are not empty")
        if self.call[0] == self.answer[0]:
            raise ConfigError("'call' and 'answer' begin alike, so that no answer could be read")
        if self.tool and not self.box:
            raise ConfigError("'tool' needs a call in JSON: give the keys of the box in 'box'")
        if self.picture and not (
            self.crop_name.count("{number}") + self.crop_name.count("{picture}") == 1
        ):
            raise ConfigError("'crop_name' must contain {number} or {picture} once")
        if self.picture and self.original_name and (self._numbered(self.original_name) or 0) > 0:
            raise ConfigError(
                f"'original_name' {self.original_name!r} is also the name of a crop by 'crop_name' "
                f"{self.crop_name!r}; give the first view another name"
            )
        keys = [one.split(".") for one in (self.box, self.picture) if one]
        if not all(chain(*keys)):
            raise ConfigError("'box' and 'picture' must be keys joined by single dots")
        if self.tool:
            keys.append(["name"])
        for one, other in permutations(keys, 2):
            if one == other[: len(one)]:
                raise ConfigError(
                    f"a call cannot hold both {'.'.join(one)!r} and {'.'.join(other)!r}; give "
                    f"'box', 'picture' and the tool's \"name\" keys of their own"
                )
        most = 1.0 if self.max_aspect is None else self.max_aspect
        for name, value, least in (
            ("widen", self.widen, 1),
            ("min_side", self.min_side, 0),
            ("max_aspect", most, 1),
        ):
            if not least <= value < inf:
                raise ConfigError(f"'{name}' must be a number from {least}, got {value}")

    @property
    def closing_tags(self) -> tuple[str, ...]:
        """Texts after which a reply is over."""
        return (self.call[1],) if self.answer[0] == BOXED else (self.call[1], self.answer[1])

    @property
    def is_tool_call(self) -> bool:
        """Whether a server's tool-call parser may take the call out of the reply."""
        return self.call[0] == "<tool_call>" and self.box.startswith("arguments.")

    def parser(self, text: str, views: Sequence[View]) -> Action:
        """The action of a reply; see `lfpc.protocols.base.Parser`."""
        calls = _between(self.call)
        called = calls.search(text)
        if self.answer[0] == BOXED:
            before = text if called is None or self.answer_wins else text[: called.start()]
            answer, comes_first = boxed_answer(before), True
            alone = is_only_boxed(text, calls)
        else:
            answered = _between(self.answer).search(text)
            answer = answered and answered.group(1)
            alone = answered is not None and is_alone(answered, calls)
            comes_first = (
                answered is not None and called is not None and answered.start() < called.start()
            )
        if answer is not None and (called is None or self.answer_wins or comes_first):
            return said(answer, exact=alone)
        if called is not None:
            return exact_if(is_alone(called), self._read(called.group(1), views))
        if self.free_answer:
            return said(text.rpartition("</think>")[2], exact=only_thought(text))
        return malformed(Reason.NO_ACTION, "There is neither a tool call nor an answer.")

    def write_call(self, box: Box, first_view: View) -> str:
        """A reply with a call for `box`."""
        if self.coordinates == "0-1":
            numbers: list[float] = [round(corner, 4) for corner in box.corners]
        else:
            numbers = list(box.to_pixels(self._frame(first_view)))
        call: Any = {"name": self.tool} if self.tool else {}
        if self.box:
            _put(call, self.box, numbers)
        else:
            call = numbers
        if self.picture:
            _put(call, self.picture, self.original_name or self._name(0))
        return f"{self.call[0]}{json.dumps(call)}{self.call[1]}"

    def _frame(self, view: View) -> tuple[int, int]:
        if self.coordinates == "shown":
            return view.size
        if self.coordinates == "original":
            (width, height), (x0, y0, x1, y1) = view.original_size, view.region.corners
            return max(1, round(width * (x1 - x0))), max(1, round(height * (y1 - y0)))
        return (1, 1) if self.coordinates == "0-1" else THOUSANDTHS

    def _read(self, body: str, views: Sequence[View]) -> Action:
        try:
            call: Any = read_json(body, repair=self.repair)
        except ValueError:
            return malformed(Reason.BAD_JSON, "The tool call is not valid JSON.")
        if self.tool and not (isinstance(call, dict) and call.get("name") == self.tool):
            return malformed(Reason.UNKNOWN_TOOL, f"The only tool is {self.tool}.")
        if self.box and not isinstance(call, dict):
            return BAD_BOX
        source = self._source(self._at(call, self.picture)) if self.picture else 0
        if source is None:
            return malformed(Reason.BAD_SOURCE, "The call names no picture that was shown.")
        numbers = four_numbers(self._at(call, self.box), lenient=self.repair)
        frame = self._frame(views[source if source < len(views) else 0])
        exact = is_exact(body, self._form(), further=is_plain)
        crop = crop_of(numbers, frame, views, source, exact=exact)
        if isinstance(crop, Malformed):
            return crop
        size = views[0].size if self.coordinates == "shown" else views[0].original_size
        most = inf if self.max_aspect is None else self.max_aspect
        if self.min_side or self.max_aspect is not None:
            crop = check_shape(crop, size, above=self.min_side, aspect=most)
        if isinstance(crop, Malformed) or self.widen == 1:
            return crop
        return replace(crop, wider=crop.box.grown((self.widen - 1) / 2))

    def _form(self) -> Form:
        """The form of a call that names its picture as the prompt does."""
        if not self.box:
            return in_order
        form: dict[str, Any] = {"name": self.tool} if self.tool else {}
        _put(form, self.box, in_order)
        if self.picture:
            _put(form, self.picture, self._is_name)
        return form

    def _is_name(self, named: Any) -> bool:
        source = self._source(named)
        return source is not None and str(named) in (self.original_name, self._name(source))

    def _at(self, value: Any, keys: str) -> Any:
        for key in filter(None, keys.split(".")):
            value = from_text(value) if self.repair else value
            value = value.get(key) if isinstance(value, dict) else None
        return value

    def _name(self, source: int) -> str:
        return self.crop_name.replace("{number}", str(source)).replace("{picture}", str(source + 1))

    def _source(self, named: Any) -> int | None:
        """Number of the picture that a call names; None: a name of another form."""
        name = str(whole_number(named)) if isinstance(named, int | float) else named
        if not isinstance(name, str):
            return None
        return 0 if name == self.original_name else self._numbered(name)

    def _numbered(self, name: str) -> int | None:
        """Number of the picture with this name by `crop_name`; None: a name of another form."""
        before, _, after = re.sub(r"\{number\}|\{picture\}", "\0", self.crop_name).partition("\0")
        digits = name.removeprefix(before).removesuffix(after)
        if f"{before}{digits}{after}" != name or not re.fullmatch("[0-9]{1,6}", digits):
            return None
        source = int(digits) - ("{picture}" in self.crop_name)
        return source if source >= 0 else None


def _between(tags: tuple[str, str]) -> re.Pattern[str]:
    return re.compile(rf"{re.escape(tags[0])}(.*?)(?:{re.escape(tags[1])}|\Z)", re.DOTALL)


def _put(call: dict[str, Any], keys: str, value: Any) -> None:
    *outer, last = keys.split(".")
    for key in outer:
        call = call.setdefault(key, {})
    call[last] = value
