"""What a model family reads and writes: one small file each. `PROTOCOLS` is the index."""

from lfpc.protocols.base import ChatProtocol, Message, Part
from lfpc.protocols.qwen2_5_vl import QWEN2_5_VL

PROTOCOLS: dict[str, ChatProtocol] = {protocol.name: protocol for protocol in (QWEN2_5_VL,)}

__all__ = ["PROTOCOLS", "ChatProtocol", "Message", "Part"]
