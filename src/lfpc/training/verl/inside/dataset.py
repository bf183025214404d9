"""The run's schedule as a dataset: the same samples, step by step, as in the local engine with the
same seed.

verl therefore shuffles, filters and drops nothing, and a resumed run repeats no sample. A sample
with a broken picture is replaced by the next, as there.
"""

from typing import Any

import torch
from omegaconf import DictConfig
from torch.utils.data import Dataset

from lfpc.images import open_picture
from lfpc.training.draw import Openable, prompts_of_step, training_samples, validation_samples
from lfpc.training.verl.inside.section import run_config
from lfpc.training.verl.lines import line_of_sample
from lfpc.training.verl.translate import NAME, TRAIN


class ScheduledSamples(Dataset):
    """Items for verl's agent loops; `index` is the place in the schedule.

    Args:
        data_files: `TRAIN`, the schedule of the run, or `VALIDATION`, its held-out samples in order
            (one training sample without any, because verl needs an item).
        config: verl's `data` section.
        max_samples: verl's limit, unused.
    Raises:
        SampleError, PictureError: see `training_samples`.
    """

    def __init__(
        self, data_files: Any, config: DictConfig, max_samples: int = -1, **_: Any
    ) -> None:
        run = run_config(config)
        self.samples = training_samples(run.data, run)
        if data_files == TRAIN:
            self.places = [
                n
                for step in range(1, run.steps + 1)
                for n in prompts_of_step(len(self.samples), run, step)
            ]
        else:
            self.samples = validation_samples(run) or self.samples[:1]
            self.places = list(range(len(self.samples)))
        self.openable = Openable(self.samples, lambda sample: open_picture(sample.image))

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, place: int) -> dict[str, Any]:
        (sample,) = self.openable.at([self.places[place]])
        return {
            "raw_prompt": [{"role": "user", "content": sample.question}],
            "sample": line_of_sample(sample),
            "index": place,
            "data_source": NAME,
            "reward_model": {"style": "rule", "ground_truth": sample.answer},
            "dummy_tensor": torch.tensor([0], dtype=torch.uint8),
        }
