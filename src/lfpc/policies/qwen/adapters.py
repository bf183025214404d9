"""Low-rank adapters: put into a model, saved without it, and merged when a checkpoint is loaded.

A checkpoint of adapters holds `adapter_config.json` and `adapter_model.safetensors`, as peft reads
them, and the name of the folder with the weights that they change.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lfpc.errors import CheckpointError, ConfigError, first_line
from lfpc.policies.bases import ADAPTER_CONFIG, adapter_settings

WEIGHTS_FILE = "adapter_model.safetensors"
PREFIX = "base_model.model."
"""peft's beginning of the names of weights."""
_NAME = ".default"
"""peft's name of the only adapter, which its files leave out."""


def adapted_layers(model: Any, targets: Sequence[str], *, vision: bool) -> list[str]:
    """Full names of the linear layers to adapt: those of the language model called like a target,
    and with `vision` all in the blocks of the tower.

    Raises:
        ConfigError: a target that the language model does not have.
    """
    linear = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    language = [name for name in linear if ".language_model." in name]
    known = {name.rpartition(".")[2] for name in language}
    if unknown := [target for target in targets if target not in known]:
        raise ConfigError(
            f"`lora`: the language model has no layer {unknown[0]!r}; it has "
            f"{', '.join(sorted(known))}"
        )
    chosen = [name for name in language if name.rpartition(".")[2] in targets]
    return chosen + [name for name in linear if vision and ".visual.blocks." in name]


def add_adapters(model: Any, layers: Sequence[str], *, rank: int, alpha: int, seed: int) -> None:
    """Put float32 adapters into `layers` of `model`, in place; only they require gradients.

    Raises:
        ConfigError: peft is not installed.
    """
    try:
        import peft
    except ImportError as error:
        raise ConfigError("`lora` needs the package peft: pip install 'lfpc[lora]'") from error
    settings = peft.LoraConfig(
        r=rank, lora_alpha=alpha, target_modules=list(layers), lora_dropout=0.0
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        peft.inject_adapter_in_model(settings, model)
    for weight in adapters(model).values():
        weight.data = weight.data.float()


def adapters(model: Any) -> dict[str, Tensor]:
    """The weights of the adapters by name; empty without adapters."""
    return {name: weight for name, weight in model.named_parameters() if "lora_" in name}


def save_adapters(
    weights: Mapping[str, Tensor], folder: Path, *, base: Path, rank: int, alpha: int
) -> None:
    """Write adapters to `folder`, as peft reads them.

    Args:
        weights: by their names in the model; see `adapters`.
        base: folder of the weights that the adapters change.
    Raises:
        OSError, SafetensorError: the disk refuses.
    """
    layers = sorted({name.partition(".lora_")[0] for name in weights})
    settings = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": str(base.absolute()),
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "inference_mode": True,
        "target_modules": layers,
    }
    text = json.dumps(settings, indent=2) + "\n"
    (folder / ADAPTER_CONFIG).write_text(text, encoding="utf-8")
    tensors = {
        PREFIX + name.replace(_NAME, ""): weight.detach().cpu().contiguous()
        for name, weight in weights.items()
    }
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})


@torch.no_grad()
def merge_adapters(model: Any, folder: Path) -> None:
    """Add the adapters in `folder` to the weights of `model`, one layer after the other.

        W' = W + alpha / rank * B A

    Raises:
        CheckpointError: unreadable adapters, or adapters of another model.
    """
    for _, layer, low, high in each_adapter(model, folder):
        layer.weight.copy_(layer.weight.float() + high @ low)


@torch.no_grad()
def merged_weights(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Name in a checkpoint and value of every weight of `model`, one after the other, with the
    adapters that it was given by `add_adapters` merged. Tied weights come once.
    """
    for name, weight in model.state_dict().items():
        layer, _, kind = name.partition(".base_layer.")
        if "lora_" in name or (name == "lm_head.weight" and model.config.tie_word_embeddings):
            continue
        if kind == "weight":
            adapted: Any = model.get_submodule(layer)
            low, high = (part["default"].weight for part in (adapted.lora_A, adapted.lora_B))
            weight = weight.float() + adapted.scaling["default"] * (high @ low)
        yield name.replace(".base_layer.", "."), weight


def each_adapter(model: Any, folder: Path) -> Iterator[tuple[str, Any, Tensor, Tensor]]:
    """(name, layer of `model`, A, alpha / rank * B) of all adapters in `folder`, in float32.

    Raises:
        CheckpointError: see `merge_adapters`.
    """
    settings = adapter_settings(folder)
    try:
        tensors = load_file(folder / WEIGHTS_FILE)
        scale = float(settings["lora_alpha"]) / int(settings["r"])
        for name in sorted(tensors):
            if name.endswith(".lora_A.weight"):
                place = name.removeprefix(PREFIX).removesuffix(".lora_A.weight")
                layer: Any = model.get_submodule(place)
                device = layer.weight.device
                low = tensors[name].to(device).float()
                high = tensors[name.replace(".lora_A.", ".lora_B.")].to(device).float()
                if (len(high), low.shape[1]) != tuple(layer.weight.shape):
                    raise ValueError(f"{name} has another size than its layer")
                yield place, layer, low, scale * high
    except Exception as error:  # each reader raises its own exception for a broken file
        raise CheckpointError(
            f"{folder / WEIGHTS_FILE}: not adapters of this model ({first_line(error)})"
        ) from error
