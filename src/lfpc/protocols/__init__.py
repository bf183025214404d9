"""Prompts and parsers of model families, one file each. `PROTOCOLS` is the index; docs/protocols.md
compares them.
"""

from lfpc.errors import ConfigError
from lfpc.protocols.base import ChatProtocol, Coords, Message, MessagePart
from lfpc.protocols.chain_of_focus import CHAIN_OF_FOCUS
from lfpc.protocols.deepeyes import DEEPEYES
from lfpc.protocols.ergo import ERGO
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


def protocol_named(name: str, coords: Coords = "mapped") -> ChatProtocol:
    """The protocol called `name`, with the reading `coords` of boxes.

    Raises:
        ConfigError: unknown protocol, or unsupported reading.
    """
    if name not in PROTOCOLS:
        raise ConfigError(f"unknown protocol {name!r}; known are {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name].with_coords(coords)


__all__ = ["PROTOCOLS", "ChatProtocol", "Coords", "Message", "MessagePart", "protocol_named"]
