"""LFPC: teach a vision-language model to crop large pictures and to use what it cropped (arXiv
2603.27494).
"""

# The public names are those of __all__ (docs/python.md); everything else may change. They are
# imported at their first use, so that `import lfpc` and `lfpc --help` stay quick.
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lfpc.api.commands import evaluate, open_run, probe, select, train
    from lfpc.api.policies import load_policy, served_policy
    from lfpc.boxes import Box
    from lfpc.episode import Episode
    from lfpc.errors import LfpcError
    from lfpc.evaluation.result import EvaluationResult
    from lfpc.images import CropRules
    from lfpc.metrics.statistics import Difference
    from lfpc.policies.config import ModelPolicy, PolicyConfig
    from lfpc.records import EpisodeRecord, read_records
    from lfpc.rewards import RewardConfig, RewardTerms
    from lfpc.samples import Sample, read_samples, write_samples
    from lfpc.selection.run import Selection
    from lfpc.storage.runs import RunFolder
    from lfpc.training.config import LoraConfig, TrainConfig
    from lfpc.training.presets import preset

__version__ = "0.3.0"

__all__ = [
    "Box",
    "CropRules",
    "Difference",
    "Episode",
    "EpisodeRecord",
    "EvaluationResult",
    "LfpcError",
    "LoraConfig",
    "ModelPolicy",
    "PolicyConfig",
    "RewardConfig",
    "RewardTerms",
    "RunFolder",
    "Sample",
    "Selection",
    "TrainConfig",
    "evaluate",
    "load_policy",
    "open_run",
    "preset",
    "probe",
    "read_records",
    "read_samples",
    "select",
    "served_policy",
    "train",
    "write_samples",
]
_HOMES = {
    "lfpc.api.policies": ("load_policy", "served_policy"),
    "lfpc.boxes": ("Box",),
    "lfpc.episode": ("Episode",),
    "lfpc.errors": ("LfpcError",),
    "lfpc.evaluation.result": ("EvaluationResult",),
    "lfpc.images": ("CropRules",),
    "lfpc.metrics.statistics": ("Difference",),
    "lfpc.policies.config": ("ModelPolicy", "PolicyConfig"),
    "lfpc.records": ("EpisodeRecord", "read_records"),
    "lfpc.rewards": ("RewardConfig", "RewardTerms"),
    "lfpc.samples": ("Sample", "read_samples", "write_samples"),
    "lfpc.selection.run": ("Selection",),
    "lfpc.storage.runs": ("RunFolder",),
    "lfpc.training.config": ("LoraConfig", "TrainConfig"),
    "lfpc.training.presets": ("preset",),
}
"""Module -> its public names; all others are in `lfpc.api.commands`."""


if not TYPE_CHECKING:  # a type checker sees the imports above, and that other names are not there

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module 'lfpc' has no attribute {name!r}")
        homes = (module for module, names in _HOMES.items() if name in names)
        value = getattr(import_module(next(homes, "lfpc.api.commands")), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
