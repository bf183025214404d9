"""verl's training engine with the run's frozen vision tower."""

from typing import Any

from verl.workers.engine.base import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

from lfpc.training.verl.translate import FREEZE_VISION

_Engine: Any = FSDPEngineWithLMHead  # whose type verl's decorator hides


class TrainingEngine(_Engine):
    """verl's FSDP engine. Its setting freeze_vision_tower has no effect in verl 0.9.1, so the tower
    is frozen here, before weights are sharded and the optimiser is made.
    """

    def _build_module(self) -> Any:
        module: Any = super()._build_module()
        if self.model_config.override_config.get(FREEZE_VISION):
            module.model.visual.requires_grad_(False)
        return module


for _device, _engine in EngineRegistry._engines["language_model"]["fsdp2"].items():
    if _engine is FSDPEngineWithLMHead:
        EngineRegistry._engines["language_model"]["fsdp2"][_device] = TrainingEngine
