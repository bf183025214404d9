"""The protocol and data of a measured number, as `results.json` records them.

A number without its protocol is not reproducible: published accuracies of one model differ by up to
7 points between scripts.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from lfpc.boxes import WHOLE
from lfpc.dialogue import Context, Crop, Reply, Turn
from lfpc.images import CropRules, View
from lfpc.protocols import ChatProtocol
from lfpc.samples import Sample, row_of_sample
from lfpc.storage.environment import environment
from lfpc.storage.identity import file_hashes, value_hash
from lfpc.storage.typed import plain


def protocol_block(
    *,
    model: str,
    revision: str | None,
    protocol: ChatProtocol,
    budget: int | None,
    crop: CropRules,
    max_turns: int,
    sampling: Mapping[str, Any],
    coordinates: str,
    data: Mapping[str, Any],
    probe: str = "own",
    tools: bool = True,
) -> dict[str, Any]:
    """The protocol of a number as JSON: all that a reproduction needs.

    Args:
        model: name or folder of the weights.
        revision: commit or hash of the weights; None: unknown.
        protocol: the model family's protocol; its texts enter as one hash.
        budget: visual tokens of the first view; None: each sample's own.
        crop: resolution of crops.
        max_turns: turn limit of an episode.
        sampling: sampling parameters of each request, such as temperature, top_p, seed.
        coordinates: reading of boxes; see `lfpc.protocols.base.Coords`.
        data: from `data_block`.
        probe: name of the probe.
        tools: whether the crop tool was offered.
    """
    return plain(
        {
            "model": model,
            "model_revision": revision,
            "protocol": protocol.name,
            **({"protocol_file": protocol.file} if protocol.file else {}),
            "prompt_sha256": prompt_hash(protocol, tools=tools),
            "stop": protocol.stop,
            "coordinates": coordinates,
            "token_side": protocol.factor,
            "budget": budget,
            "crop": crop,
            "max_turns": max_turns,
            "sampling": sampling,
            "probe": probe,
            "tools": tools,
            "data": data,
            "environment": environment(),
        }
    )


def prompt_hash(protocol: ChatProtocol, *, tools: bool = True) -> str:
    """Hash of every text of a protocol: a conversation about a made-up question, two options, a
    crop and no crop.
    """
    view = View(Image.new("RGB", (56, 56)), WHOLE)
    turns = (Turn(Reply("reply"), Crop(WHOLE), view), Turn(Reply("reply"), Crop(WHOLE), None))
    messages = protocol.messages(Context("question", ("first", "second"), view, turns), tools=tools)
    texts = [
        [message.role, *(part if isinstance(part, str) else "<picture>" for part in message.parts)]
        for message in messages
    ]
    return value_hash([*texts, protocol.native_tools] if tools and protocol.native_tools else texts)


def data_block(
    samples: Sequence[Sample], *, source: str, seed: int, skipped: int = 0
) -> dict[str, Any]:
    """The data of an evaluation: source, number of questions, and a hash of all questions with
    their pictures.

    The hash does not depend on the machine or the work folder.
    """
    pictures = file_hashes(sample.image for sample in samples)
    asked: list[Any] = []
    for sample in samples:
        row = row_of_sample(sample, sample.image.parent)
        texts = {key: value for key, value in row.items() if key not in ("meta", "image")}
        asked.append([texts, pictures[sample.image]])
    return {
        "source": source,
        "samples": len(samples),
        "skipped": skipped,
        "option_seed": seed,
        "sha256": value_hash(asked),
    }
