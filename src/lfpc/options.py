"""Configuration fields as options of the command line, parsed by tyro.

A verb embeds a configuration, so that each option is declared once, with the name, type, default
and help text of the field.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from contextvars import ContextVar
from dataclasses import fields, is_dataclass, replace
from io import StringIO
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import tyro
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
    UnsupportedTypeAnnotationError,
)

from lfpc.errors import ConfigError, LfpcError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")
Embedded = Annotated[T, tyro.conf.arg(name="")]
"""A configuration whose fields are options of the verb that holds it."""
Group = Annotated[T, tyro.conf.OmitArgPrefixes]
"""The same, as a group of its own in the help, with the field's name."""
UNSET = "unset"
"""Default in the help of an option that may be absent."""
REGISTRY = ConstructorRegistry()
NotAnOption = Annotated[T, tyro.conf.Fixed, tyro.conf.Suppress]
"""A field that is not an option."""


def fields_of(cls: "type[DataclassInstance]", config: "DataclassInstance") -> dict[str, Any]:
    """The fields of `cls` by name, with the values of `config`, an instance of `cls` or a
    subclass.
    """
    return {field.name: getattr(config, field.name) for field in fields(cls)}


@contextmanager
def configuration_errors() -> Iterator[None]:
    """Raise the LfpcError of a configuration that is parsed in this block. tyro would print that of
    a nested one itself, as wrong usage, because it is a ValueError.
    """
    printed = StringIO()
    try:
        with redirect_stderr(printed):
            yield
    except (SystemExit, ValueError) as stop:
        error: BaseException | None = stop
        while error is not None and not isinstance(error, LfpcError):
            error = error.__context__
        if error is not None:
            raise error from None
        sys.stderr.write(printed.getvalue())
        raise


def json_option(name: str) -> PrimitiveConstructorSpec[Mapping[str, Any]]:
    """An option of one JSON object; `name` is its name in errors."""

    def read(words: Sequence[str]) -> Mapping[str, Any]:
        try:
            found = json.loads(words[0])
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise ConfigError(f"`{name}` must be a JSON object, got {words[0]!r}")
        return found

    return word_option(read, lambda value: [json.dumps(dict(value))], metavar="JSON", nargs=1)


def word_option(
    read: Callable[[Sequence[str]], Any],
    write: Callable[[Any], list[str]],
    *,
    metavar: str,
    nargs: Literal[1, "*"] = "*",
) -> PrimitiveConstructorSpec[Any]:
    """An option whose words `read` parses.

    Args:
        read: words -> value; raises ConfigError.
        write: value -> words, for the default in the help text.
        metavar: name of a word in the help text.
        nargs: number of words.
    """

    def value_of(words: list[str]) -> Any:
        try:
            return read(words)
        except ConfigError as error:
            # tyro formats any ValueError itself, and a ConfigError is one
            raise LfpcError(str(error)) from error

    return PrimitiveConstructorSpec(
        nargs=nargs,
        metavar=metavar if nargs == 1 else f"[{metavar} [{metavar} ...]]",
        instance_from_str=value_of,
        is_instance=lambda value: True,
        str_from_instance=write,
    )


def pairs(option: str, words: Sequence[str], form: str) -> dict[str, str]:
    """Values by name, from words of the form NAME=VALUE.

    Raises:
        ConfigError: a word of another form; the message names the option.
    """
    split = [word.partition("=") for word in words]
    for name, equals, value in split:
        if not (name and equals and value):
            raise ConfigError(f"{option} takes {form}; got {name}{equals}{value}")
    return {name: value for name, _, value in split}


@REGISTRY.primitive_rule
def _may_be_absent(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """`T | None` reads like T: an absent option is None, so None needs no spelling."""
    parts = get_args(info.type)
    if get_origin(info.type) not in (Union, UnionType) or NoneType not in parts or len(parts) != 2:
        return None
    inner = next(part for part in parts if part is not NoneType)
    spec = ConstructorRegistry.get_primitive_spec(PrimitiveTypeInfo.make(inner, info.markers, None))
    if isinstance(spec, UnsupportedTypeAnnotationError):
        return None
    return replace(
        spec,
        is_instance=lambda value: value is None or spec.is_instance(value),
        str_from_instance=lambda value: [UNSET] if value is None else spec.str_from_instance(value),
    )


_EMPTY = ("", "''", "'{}'")
"""Empty values as tyro writes them in a help text."""
_ARRANGING: ContextVar[bool] = ContextVar("arranging", default=False)


@REGISTRY.struct_rule
def _arranged(info: StructTypeInfo) -> StructConstructorSpec | None:
    """The options of a dataclass as tyro finds them, in the order of the help: those that the
    class names in `FIRST`, then the others.
    """
    if _ARRANGING.get() or not is_dataclass(info.type):
        return None
    mark = _ARRANGING.set(True)  # the other rules are asked, not this one again
    try:
        spec = ConstructorRegistry.get_struct_spec(info)
    finally:
        _ARRANGING.reset(mark)
    if not isinstance(spec, StructConstructorSpec):
        return None
    first: Sequence[str] = getattr(info.type, "FIRST", ())
    order = {name: place for place, name in enumerate(first)}
    arranged = sorted(spec.fields, key=lambda field: order.get(field.name, len(order)))
    return replace(spec, fields=tuple(map(_helped, arranged)))


def _helped(field: StructFieldSpec) -> StructFieldSpec:
    """The option with its help on one line, and one default: an empty value is not shown, and None
    only if the text does not say what happens then.
    """
    text = field.helptext() if callable(field.helptext) else field.helptext
    said = field.default is None and "Default" in (text or "")

    def hint(default: str) -> str:
        return f"(default: {default})" if default not in _EMPTY and not said else ""

    shown: Any = Annotated[field.type, tyro.conf.arg(help_behavior_hint=hint)]
    return replace(field, helptext=text and " ".join(text.split()), type=shown)


def parse(
    verb: type[T], words: Sequence[str], *, prog: str, default: T | None = None, more: str = ""
) -> T:
    """A verb from its words. Leaves through SystemExit(2) for wrong usage, SystemExit(0) for help.

    Args:
        verb: the dataclass; its `EXAMPLES`, if any, follow the description in the help.
        words: what was typed after the verb.
        prog: how the verb is called.
        default: defaults of all fields.
        more: text after the description.
    """
    examples: Sequence[str] = getattr(verb, "EXAMPLES", ())
    shown = "\n".join(f"  {line}" for line in examples)
    parts = [verb.__doc__ and tyro_doc(verb.__doc__), more, shown and f"Examples:\n{shown}"]
    given: dict[str, Any] = {} if default is None else {"default": default}
    description = "\n\n".join(part for part in parts if part)
    return tyro.cli(
        verb, prog=prog, args=list(words), description=description, registry=REGISTRY, **given
    )


def tyro_doc(text: str) -> str:
    """A docstring with its paragraphs on one line each."""
    paragraphs = ("\n".join(map(str.strip, text.split("\n")))).strip().split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
