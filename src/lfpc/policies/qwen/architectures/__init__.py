"""Supported architectures, one file each. `ARCHITECTURES` is the index; docs/architectures.md
says how to add one.
"""

from typing import Any

from lfpc.errors import CheckpointError
from lfpc.policies.qwen.architectures.base import Architecture
from lfpc.policies.qwen.architectures.qwen2_5_vl import QWEN2_5_VL
from lfpc.policies.qwen.architectures.qwen3_vl import QWEN3_VL

ARCHITECTURES: dict[str, Architecture] = {one.model_type: one for one in (QWEN2_5_VL, QWEN3_VL)}
"""By `model_type` of config.json."""


def architecture_of(model: Any) -> Architecture:
    """The architecture of a transformers model.

    Raises:
        CheckpointError: an unsupported one.
    """
    name = model.config.model_type
    if name not in ARCHITECTURES:
        raise CheckpointError(
            f"architecture {name!r} is not supported; supported: {', '.join(ARCHITECTURES)}"
        )
    return ARCHITECTURES[name]


__all__ = ["ARCHITECTURES", "QWEN2_5_VL", "QWEN3_VL", "Architecture", "architecture_of"]
