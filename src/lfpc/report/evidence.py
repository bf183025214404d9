"""What a report tells of: evaluation rows, training curves and episodes, and what produced them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lfpc.evaluate.probes import PROBES, RANDOM
from lfpc.evaluate.replay import samples_of_rows
from lfpc.evaluate.results import AllRows, Comparison, Seconds, Setting
from lfpc.images import CropRules
from lfpc.looks import Look
from lfpc.metrics.episodes import Row
from lfpc.protocols import PROTOCOLS

TRAINING = "training"
"""Stands where an evaluated setting has its budget."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What a run was asked to do, and where it ran; as its folder has it."""

    config: Mapping[str, Any]
    environment: Mapping[str, Any]

    @property
    def rules(self) -> CropRules:
        """How its crops became pictures."""
        if given := self.config.get("crop"):
            return CropRules(**given)
        protocol = PROTOCOLS.get(str(self.config.get("protocol")))
        return protocol.crop if protocol else CropRules()


@dataclass(frozen=True, slots=True)
class NamedLook:
    """A look, under a name that two settings share only if they show the same."""

    name: str
    look: Look


@dataclass(frozen=True, slots=True)
class DataFacts:
    """Which questions a run learnt from."""

    count: int
    budgets: Mapping[str, int]
    """How often resolution selection chose each first-view budget."""
    categories: Mapping[str, int]
    areas: Sequence[float]
    """Share of the picture that the tightest truth box of each target has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Everything a report shows. A run's parts are told apart by the arm, which several runs prefix
    with their names.
    """

    rows: AllRows = field(default_factory=dict[Setting, Sequence[Row]])
    """Evaluation rows by (arm, budget name, probe, seed)."""
    seconds: Seconds = field(default_factory=dict[tuple[str, str], float])
    """Seconds per question measured apart from the rows, by (arm, budget name)."""
    curves: Mapping[str, Sequence[Row]] = field(default_factory=dict[str, Sequence[Row]])
    """Metrics rows by arm, of the first seed."""
    training: Mapping[tuple[str, int], Sequence[Row]] = field(
        default_factory=dict[tuple[str, int], Sequence[Row]]
    )
    """Episodes kept in training by (arm, seed)."""
    origins: Mapping[Setting, Origin] = field(default_factory=dict[Setting, Origin])
    """By setting; a training run's budget is `TRAINING` and its probe "own"."""
    data: Mapping[str, DataFacts] = field(default_factory=dict[str, DataFacts])
    """What the training runs learnt from, by the name of the samples folder."""
    runs: Sequence[str] = ()
    """Names of the runs, where there are several."""

    @property
    def further(self) -> list[Comparison]:
        """Comparisons beside the paper's: each ablation against its parent, each further run
        against the first.
        """
        arms = list(dict.fromkeys(arm for arm, *_ in self.rows))
        settings = list(dict.fromkeys((arm, budget) for arm, budget, *_ in self.rows))
        pairs = [(arm, parent) for arm in arms for parent in arms if arm.startswith(f"{parent}-")]
        pairs += [(arm, theirs) for arm in arms if (theirs := self._in_first_run(arm)) in arms]
        return [
            Comparison(metric, (arm, budget), (parent, budget))
            for arm, parent in pairs
            for budget in dict.fromkeys(budget for some, budget in settings if some == arm)
            for metric in ("accuracy", "noise_drop", "iou")
        ]

    def _in_first_run(self, arm: str) -> str | None:
        """The arm of the first run that corresponds to `arm` of a later one."""
        if len(self.runs) < 2:
            return None
        name = max(
            (run for run in self.runs if arm == run or arm.startswith(f"{run}/")),
            key=len,
            default=self.runs[0],
        )
        return None if name == self.runs[0] else self.runs[0] + arm.removeprefix(name)

    def shown(self, setting: Setting) -> "NamedLook | None":
        """What the crop tool showed in `setting`: crops are made again with it. None: not known."""
        rows = self.rows.get(setting) or self.training.get((setting[0], setting[3]))
        origin = self.origins.get(setting)
        probe = str(origin.config.get("probe", "own")) if origin else ""
        if not rows or not origin or probe not in PROBES:
            return None
        seed = int(origin.config.get("seed", 0)) if probe in RANDOM else 0
        return NamedLook(
            f"{probe}/{seed}/{origin.rules}",
            PROBES[probe](samples_of_rows(rows), origin.rules, seed),
        )

    def renamed(self, run: str) -> "Evidence":
        """The same with `run` in front of every arm."""

        def name(arm: str) -> str:
            return f"{run}/{arm}" if arm else run

        return replace(
            self,
            rows={(name(arm), *rest): rows for (arm, *rest), rows in self.rows.items()},
            seconds={(name(arm), budget): value for (arm, budget), value in self.seconds.items()},
            curves={name(arm): rows for arm, rows in self.curves.items()},
            training={(name(arm), seed): rows for (arm, seed), rows in self.training.items()},
            origins={(name(arm), *rest): origin for (arm, *rest), origin in self.origins.items()},
        )


def merged(parts: Sequence[Evidence]) -> Evidence:
    """Several runs as one."""
    return Evidence(
        rows={key: rows for part in parts for key, rows in part.rows.items()},
        seconds={key: value for part in parts for key, value in part.seconds.items()},
        curves={key: rows for part in parts for key, rows in part.curves.items()},
        training={key: rows for part in parts for key, rows in part.training.items()},
        origins={key: origin for part in parts for key, origin in part.origins.items()},
        data={key: facts for part in parts for key, facts in part.data.items()},
    )
