"""A model asked for the region of the answer: the boxes of its reply are proposals for a person.

A model names a box by a call of its crop tool, or, like Qwen-VL models asked to locate something,
as JSON with "bbox_2d". Anything else in the reply is ignored.
"""

import re

from lfpc.boxes import Box
from lfpc.boxing.proposals import MOST, Proposal
from lfpc.dialogue import Crop
from lfpc.episode import Policy, episode, play
from lfpc.errors import BoxError
from lfpc.images import View, global_view, open_picture
from lfpc.looks import no_look
from lfpc.protocols import ChatProtocol
from lfpc.samples import Sample

PROMPT = (
    'Where in the picture is what answers this question: "{question}" Reply with the box '
    "around it, and with nothing else."
)
_NUMBER = r"\s*(-?\d{1,6}(?:\.\d{1,6})?)\s*"
_BOX = re.compile(rf'"bbox_2d"\s*:\s*\[{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}\]', re.ASCII)


def asked_boxes(
    sample: Sample, policy: Policy, protocol: ChatProtocol, *, budget: int, source: str
) -> list[Proposal]:
    """Proposals from one reply of `policy` about the whole picture.

    Args:
        sample: the sample to ask about.
        policy: the model.
        protocol: the model family's protocol.
        budget: visual tokens of the picture.
        source: name of the proposals on the page.
    Raises:
        PictureError: the picture cannot be opened.
        PolicyError: the policy does not reply.
    """
    view = global_view(open_picture(sample.image), budget, factor=protocol.factor)
    asking = Sample(
        id=sample.id,
        image=sample.image,
        question=PROMPT.format(question=sample.question),
        answer=sample.answer,
    )
    game = episode(asking, view, look=no_look, protocol=protocol, max_turns=1)
    turn = play([game], policy)[0].turns[0]
    boxes = (
        [turn.action.box]
        if isinstance(turn.action, Crop)
        else boxes_of_reply(turn.reply.text, view, protocol)
    )
    return [Proposal(box, source) for box in dict.fromkeys(boxes)][:MOST]


def boxes_of_reply(text: str, shown: View, protocol: ChatProtocol) -> list[Box]:
    """Every "bbox_2d" of a reply with an area inside `shown`."""
    frame = protocol.frame or shown.size
    found: list[Box] = []
    for numbers in _BOX.findall(text[:100_000]):
        try:
            found.append(Box.from_pixels([float(number) for number in numbers], frame))
        except BoxError:
            continue
    return found
