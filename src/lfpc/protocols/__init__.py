"""Prompts and parsers of model families, one module each. `PROTOCOLS` is the index, which
docs/protocols.md compares. `files` makes further ones from TOML files.
"""

from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path

from lfpc.errors import ConfigError
from lfpc.protocols.base import ChatProtocol, Coords, Message, MessagePart
from lfpc.protocols.chain_of_focus import CHAIN_OF_FOCUS
from lfpc.protocols.deepeyes import DEEPEYES
from lfpc.protocols.ergo import ERGO
from lfpc.protocols.files import ProtocolFile, build, read_toml
from lfpc.protocols.mini_o3 import MINI_O3
from lfpc.protocols.pixel_reasoner import PIXEL_REASONER
from lfpc.protocols.qwen2_5_vl import QWEN2_5_VL
from lfpc.protocols.qwen3_vl import QWEN3_VL, QWEN3_VL_TEXT, QWEN3_VL_USER
from lfpc.protocols.thyme import THYME

PROTOCOLS: dict[str, ChatProtocol] = {
    protocol.name: protocol
    for protocol in (
        QWEN2_5_VL,
        QWEN3_VL,
        QWEN3_VL_USER,
        QWEN3_VL_TEXT,
        DEEPEYES,
        CHAIN_OF_FOCUS,
        MINI_O3,
        PIXEL_REASONER,
        ERGO,
        THYME,
    )
}


def protocol_named(name: str | ProtocolFile, coords: Coords = "mapped") -> ChatProtocol:
    """The protocol called `name`, or that of a protocol file, with the reading `coords` of boxes.

    Raises:
        ConfigError: unknown protocol, or unsupported reading.
    """
    protocol = _built(name) if isinstance(name, ProtocolFile) else _known(name)
    return protocol.with_coords(coords)


def protocol_given(word: str) -> str | ProtocolFile:
    """The name of a protocol, or the content of the protocol file at the path `word`.

    Raises:
        ConfigError: neither, or an error in the file.
    """
    path = Path(word)
    if word in PROTOCOLS or not (path.suffix == ".toml" or _is_file(path)):
        return _known(word).name
    file = read_toml(path)
    if file.name in PROTOCOLS:
        raise ConfigError(
            f"{path}: 'name' is that of a built-in protocol, {file.name}; use another"
        )
    try:
        protocol_named(file)
    except ConfigError as error:
        raise ConfigError(f"{path}: base: {error}") from error
    return file


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # no name of a file, such as a very long one
        return False


@lru_cache(maxsize=16)
def _built(file: ProtocolFile) -> ChatProtocol:
    return build(file, _known(file.base))


def _known(name: str) -> ChatProtocol:
    if name in PROTOCOLS:
        return PROTOCOLS[name]
    near = get_close_matches(name, PROTOCOLS, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise ConfigError(f"unknown protocol {name!r}; known are {', '.join(PROTOCOLS)}{hint}")


__all__ = [
    "PROTOCOLS",
    "ChatProtocol",
    "Coords",
    "Message",
    "MessagePart",
    "ProtocolFile",
    "protocol_given",
    "protocol_named",
]
