"""Model FLOPs of an update, and their share of a card's peak (MFU).

    MFU = model FLOPs / (seconds * peak FLOP/s)

    a token of the language model, forward     2 N + 4 h L a   N: parameters of its L layers of
                                                               width h, a: tokens attended to
    a written token, besides                   2 h V           V: words
    a patch of the tower, forward              2 M + 4 v (D_w 64 + D_f p)
                                               M: parameters of D blocks of width v and of the
                                               merger (which reads 4 patches at once), of which
                                               D_w attend in windows of 64 patches and D_f to the
                                               p patches of the picture
    backward                                   twice the forward pass; once where the weights are
                                               frozen (LoRA), but twice for attention; nothing for
                                               a frozen tower

FLOPs that the numbers need are counted, and no recomputation by gradient checkpointing. What is
shared between rollouts is counted once. Adapters are neglected.

Source: PaLM (arXiv 2204.02311), appendix B, there 6 N + 12 L h a for a trained token.
"""

import re
from collections.abc import Sequence

from lfpc.training.config import LoraConfig
from lfpc.training.rollouts import Rollout
from lfpc.training.verl.shape import ModelShape

PEAK_TFLOPS = {
    "A100": 312.0,
    "A10": 125.0,
    "A40": 150.0,
    "RTX A6000": 155.0,
    "L4": 121.0,
    "L40S": 362.0,
    "RTX 4090": 165.0,
    "H100 PCIe": 756.0,
    "H100 NVL": 835.0,
    "H100": 989.0,
    "H200 NVL": 835.0,
    "H200": 989.0,
    "B200": 2250.0,
}
"""Peak of dense matrix products in bfloat16, in TFLOP/s, by words of the card's name, as in the
manufacturer's data sheets. The first that fits counts."""
UNKNOWN = "unknown card"
WINDOW = 64
FULL_BLOCKS = 4
"""Patches of a window of the tower, and blocks that attend to the whole picture."""


def peak_tflops(card: str) -> float | None:
    """Peak of a card by its name, such as "NVIDIA H100 80GB HBM3"; None: unknown."""
    words = set(re.split(r"[\s-]+", card))
    return next((peak for name, peak in PEAK_TFLOPS.items() if set(name.split()) <= words), None)


def mfu(flops: float, seconds: float, card: str) -> float | str:
    """Share of the card's peak; `UNKNOWN` for one that is not in the table."""
    peak = peak_tflops(card)
    return UNKNOWN if peak is None else flops / (seconds * peak * 1e12)


def update_flops(
    shape: ModelShape, rollouts: Sequence[Rollout], *, lora: LoraConfig | None, share: bool
) -> float:
    """Model FLOPs of an update.

    Args:
        shape: of the model.
        rollouts: its rollouts.
        lora: the trained adapters; None: all weights, tower included.
        share: whether prompts and pictures that rollouts share are computed once.
    """
    read = attended = written = 0
    prompts: set[tuple[bytes, int]] = set()
    pictures: dict[int, int] = {}
    for number, rollout in enumerate(rollouts):
        row = rollout.encoded
        start = row.prefix if share else 0
        spans = [(start, len(row.ids))]
        prompt = (row.ids[:start].tobytes(), id(row.views[0]))
        if share and prompt not in prompts:
            prompts.add(prompt)
            spans.append((0, start))
        read += sum(end - begin for begin, end in spans)
        attended += sum(end * (end + 1) - begin * (begin + 1) for begin, end in spans) // 2
        written += len(rollout.logprobs)
        for place, view in enumerate(row.views):
            patches = view.size[0] * view.size[1] // 14**2
            pictures[id(view) if share else 1000 * number + place] = patches
    frozen = lora is not None
    h, v = shape.hidden, shape.vision_hidden
    language = (
        (2 if frozen else 3)
        * 2
        * (read * shape.layers * shape.layer_parameters + written * h * shape.vocabulary)
    )
    attention = 3 * 4 * h * shape.layers * attended
    full = min(FULL_BLOCKS, shape.vision_depth)
    windowed = shape.vision_depth - full
    tower = sum(
        2 * count * _tower_parameters(shape) + 4 * v * count * (windowed * WINDOW + full * count)
        for count in pictures.values()
    )
    passes = 3 if lora is None else 2 if lora.vision else 1
    return float(language + attention + passes * tower)


def _tower_parameters(shape: ModelShape) -> float:
    """Parameters that a patch passes."""
    v = shape.vision_hidden
    block = 4 * v * v + 3 * v * shape.vision_intermediate
    return shape.vision_depth * block + (16 * v * v + 4 * v * shape.hidden) / 4
