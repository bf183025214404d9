"""verl's worker processes, which play episodes, with packed pictures (see `pixels`)."""

from typing import Any

import ray
import torch
from torch import Tensor
from verl.trainer.ppo.v1 import AgentLoopManagerTQ
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopWorkerTQ

from lfpc.errors import CheckpointError
from lfpc.training.verl.inside.pixels import pack


def check_processor(processor: Any, path: str) -> None:
    """Check that verl loaded the picture processor in `path`; otherwise verl would use text alone.

    Raises:
        CheckpointError: it did not.
    """
    if processor is None:
        raise CheckpointError(
            f"{path}: its picture processor cannot be loaded, so there would be no "
            f"pictures; is the folder complete?"
        )


_Worker: Any = AgentLoopWorkerTQ  # Ray's handle; the class behind it is what is derived from


class EpisodeWorker(_Worker.__ray_metadata__.modified_class):
    """Plays the rollouts of its share of a step's questions concurrently."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_processor(self.processor, self.config.actor_rollout_ref.model.path)

    def _compute_multi_modal_inputs(self, output: Any, input_ids: Tensor) -> dict[str, Tensor]:
        pictures = self.processor.image_processor
        inputs = pack(
            output.multi_modal_data["images"],
            patch=pictures.patch_size,
            merge=pictures.merge_size,
        )
        grids = inputs["image_grid_thw"]
        pads = int((input_ids == self.processor.image_token_id).sum())
        features = int(grids.prod(-1).sum()) // pictures.merge_size**2
        if pads != features:
            raise ValueError(f"{pads} placeholders for pictures of {features} visual tokens")
        lengths = torch.repeat_interleave(grids[:, 1] * grids[:, 2], grids[:, 0])
        return {**inputs, "images_seqlens": lengths, "mm_token_type_ids": input_ids}


class EpisodeManager(AgentLoopManagerTQ):
    """verl's manager with our workers."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(EpisodeWorker)
