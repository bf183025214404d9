"""A checkpoint of adapters as a plain checkpoint."""

from pathlib import Path

from lfpc.errors import CheckpointError
from lfpc.policies.qwen.adapters import base_of
from lfpc.policies.qwen.checkpoint import dtype_of, load_checkpoint, save_checkpoint
from lfpc.policies.settings import read_settings


def merge(adapters: Path, out: Path) -> Path:
    """Write the model of a checkpoint of adapters, merged, to the folder `out`, in the precision of
    the weights that they change. Works on the CPU.

    Raises:
        CheckpointError: no checkpoint of adapters, `out` exists, or the disk refuses.
    """
    base = base_of(adapters)
    if base is None:
        raise CheckpointError(f"{adapters}: no adapters in it; a plain checkpoint needs no merging")
    if out.exists():
        raise CheckpointError(f"{out} exists already; give another --out")
    model, tokenizer = load_checkpoint(adapters, dtype=dtype_of(base))
    return save_checkpoint(model, tokenizer, out, source=base, settings=read_settings(adapters))
