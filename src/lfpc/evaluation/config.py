"""Configuration of one evaluation: a model, a budget, a probe. Torch-free."""

from dataclasses import dataclass

from lfpc.errors import ConfigError
from lfpc.evaluation.probes import NO_TOOL, PROBES
from lfpc.images import CropRules, check_budget
from lfpc.policies.config import PolicyConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationConfig(PolicyConfig):
    """Configuration of one evaluation. Server address and concurrency are excluded, so a run can
    resume elsewhere.
    """

    budget: int | None
    """Visual tokens of the first view; None: each sample's own."""
    probe: str
    """Name of a probe in `lfpc.evaluation.probes.PROBES`."""
    crop: CropRules | None = None
    """Resolution of a crop; None: the protocol's."""
    max_turns: int = 6
    """Turn limit of an episode."""
    seed: int = 0
    """Seed of noise crops and of the pairing with other pictures."""
    task: str = ""
    """Benchmark of the questions; empty: a samples folder."""
    arm: str = ""
    """Arm of the model in a study; empty: no study."""
    replay: bool = False
    """Whether the recorded replies up to the first crop are replayed; False: the policy replies
    from the start."""

    def __post_init__(self) -> None:
        PolicyConfig.__post_init__(self)
        if self.probe not in PROBES:
            raise ConfigError(f"unknown probe {self.probe!r}; known are {', '.join(PROBES)}")
        if self.replay and self.probe == NO_TOOL:
            raise ConfigError(
                f"the probe {NO_TOOL!r} has no replay: without the tool there is no crop up to "
                f"which to replay; run it without --replay"
            )
        if self.max_turns < 1:
            raise ConfigError(f"--max-turns must be at least 1, got {self.max_turns}")
        if self.crop_rules.factor != self.chat.factor:
            raise ConfigError(
                f"crop.factor is {self.crop_rules.factor}, but a visual token of "
                f"{self.protocol} is {self.chat.factor} pixels wide"
            )
        if self.budget is not None:
            check_budget(self.budget, self.chat.factor, "--budget")

    @property
    def crop_rules(self) -> CropRules:
        """Crop rules: the configured ones, else the protocol's."""
        return self.crop or self.chat.crop
