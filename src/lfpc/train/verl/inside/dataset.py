"""The run's questions, step by step: the dataset is the schedule that the local engine would follow
with the same seed.

So verl has nothing to shuffle, and nothing can be filtered, dropped at the end of an epoch, or
asked twice after a resume.
"""

from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch.utils.data import Dataset

from lfpc.errors import SampleError
from lfpc.samples import Sample
from lfpc.train.draw import prompts_of_step
from lfpc.train.verl.export import SOURCE, exported_samples, line_of_sample
from lfpc.train.verl.inside.section import run_config


class ScheduledSamples(Dataset):
    """Rows for verl's agent loops; `index` is the place in the schedule.

    Args:
        data_files: the exported samples.
        config: verl's `data` section.
        max_samples: verl's limit; ours is the schedule.
    Raises:
        SampleError: the file is not one of exported samples, or holds none.
    """

    def __init__(
        self, data_files: Any, config: DictConfig, max_samples: int = -1, **_: Any
    ) -> None:
        file = Path(str(data_files if isinstance(data_files, str) else data_files[0]))
        run = run_config(config)
        self.samples = exported_samples(file)
        if not self.samples:
            raise SampleError(f"{file}: no samples")
        self.split = "train" if str(file) == str(config.train_files) else "validation"
        self.places = list(range(len(self.samples)))
        if self.split == "train":
            self.places = [
                n
                for step in range(1, run.steps + 1)
                for n in prompts_of_step(len(self.samples), run, step)
            ]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, place: int) -> dict[str, Any]:
        sample: Sample = self.samples[self.places[place]]
        return {
            "raw_prompt": [{"role": "user", "content": sample.question}],
            "sample": line_of_sample(sample),
            "split": self.split,
            "index": place,
            "data_source": SOURCE,
            "reward_model": {"style": "rule", "ground_truth": sample.answer},
            "dummy_tensor": torch.tensor([0], dtype=torch.uint8),
        }
