"""What both engines of a comparison do: the same questions about the same pictures, two turns each,
one crop in between.

Imports no model framework: TRL's side reads it in an environment of its own.
"""

import json
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

from lfpc.boxes import Box
from lfpc.images import CropRules, View, global_view, open_picture
from lfpc.protocols import PROTOCOLS
from lfpc.protocols.qwen2_5_vl import QWEN2_5_VL
from lfpc.samples import Sample

CROP = CropRules(min_tokens=16, max_tokens=25)
"""Crops cost 16 to 25 visual tokens."""
PROMPTS = 8
"""Questions a step."""
TURNS = 2
"""A crop call, then an answer."""
MAX_NEW_TOKENS = 16
"""A crop call has 12 tokens, an answer 4. A reply is cut off here, so that a malformed one does not
hold up its batch on either side."""
TEMPERATURE = 0.5
"""Of sampling on either side: the tiny model slips in the format once in a few hundred tokens, and
far more rarely at this."""


def protocol() -> str:
    """Name of the protocol of both sides, which `lfpc` knows from then on: replies run to the
    end-of-turn token, where TRL stops too.
    """
    name = "bench"
    PROTOCOLS[name] = replace(QWEN2_5_VL, name=name, stop=())
    return name


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """One side's work."""

    checkpoint: str
    """Folder of the model."""
    data: str
    """Samples folder; step n takes its n-th `prompts` samples."""
    steps: int
    """Steps that will be asked for, warm-up included."""
    threads: int
    """CPU threads."""
    budget: int = 25
    """Visual tokens of the first view."""
    group: int = 8
    """Rollouts of every question."""
    prompts: int = PROMPTS
    """Questions a step."""
    micro_batch: int = 64
    """Rollouts that an update reads together."""
    learning_rate: float = 1e-6
    """So low that both sides' models go on doing the same."""
    share: bool = True
    """The local engine's `TrainConfig.share`."""

    @property
    def rollouts(self) -> int:
        """Rollouts a step."""
        return self.prompts * self.group

    def save(self, file: Path) -> Path:
        """Write as JSON; the other process reads it with `load`."""
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(asdict(self)), encoding="utf-8")
        return file

    @classmethod
    def load(cls, file: str) -> "Setup":
        """What `save` wrote."""
        return cls(**json.loads(Path(file).read_text(encoding="utf-8")))


@lru_cache(maxsize=256)
def first_view(picture: Path, budget: int) -> View:
    """The global view; made once per picture on either side."""
    return global_view(open_picture(picture), budget)


WEIGHTS = (1.0, 2**0.5, 3**0.5, 5**0.5)
"""No ratio of two is rational: the score of one rollout does not happen to be the mean of its
group."""


def score(box: Box | None, answer: str | None, sample: Sample) -> float:
    """A reward that differs between the rollouts of a question, so that every one of them is
    trained on.

    r = [right] + x0 + sqrt(2) y0 + sqrt(3) x1 + sqrt(5) y1, corners in fractions; without a box
    they are 0
    """
    corners = box.corners if box else (0.0, 0.0, 0.0, 0.0)
    return float(answer == sample.answer) + sum(
        weight * corner for weight, corner in zip(WEIGHTS, corners, strict=True)
    )
