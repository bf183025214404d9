"""Pictures as a parser gets them: an original of 4000 x 2000 pixels, shown at 200 x 100, and two
crops of it."""

from typing import Any

from PIL import Image

from lfpc.boxes import WHOLE, Box
from lfpc.dialogue import Action, Context, Crop, Malformed, Reason, Reply, Turn
from lfpc.images import View
from lfpc.protocols import ChatProtocol, MessagePart

ORIGINAL = (4000, 2000)
FIRST = View(Image.new("RGB", (200, 100)), WHOLE, ORIGINAL)
RIGHT = View(Image.new("RGB", (112, 112)), Box(0.5, 0, 1, 1), ORIGINAL)
"""The right half."""
CORNER = View(Image.new("RGB", (56, 56)), Box(0.75, 0.5, 1, 1), ORIGINAL)
"""The right half's lower right quarter."""


def reason(action: Action) -> Reason | None:
    """Why a reply could not be read; None: it could."""
    return action.reason if isinstance(action, Malformed) else None


def emitted(action: Action) -> Any:
    """Numbers as they were written and the picture they refer to."""
    return (action.emitted, action.source) if isinstance(action, Crop) else None


def talk(
    protocol: ChatProtocol, *turns: tuple[str, View | None]
) -> list[tuple[str, tuple[MessagePart, ...]]]:
    """A conversation after these replies, each with the crop that it is given: (role, parts) of
    every message."""
    said: tuple[Turn, ...] = ()
    for text, view in turns:
        context = Context("Which letter is on the van?", ("K", "L"), FIRST, said)
        said += (Turn(Reply(text), protocol.parse(text, context.views), view),)
    messages = protocol.messages(Context("Which letter is on the van?", ("K", "L"), FIRST, said))
    return [(message.role, message.parts) for message in messages]
