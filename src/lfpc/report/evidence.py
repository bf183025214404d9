"""The content of a report: records, results, training curves, and their origins."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lfpc.evaluation.probes import PROBES, RANDOM
from lfpc.evaluation.results import COMPARED, AllRecords, Comparison, Condition
from lfpc.images import CropRules
from lfpc.looks import Look
from lfpc.metrics.summary import Records
from lfpc.protocols import PROTOCOLS, protocol_named
from lfpc.protocols.files import protocol_from_plain

Gains = Mapping[str, Mapping[str, float]]
"""Sample id -> look -> nats that the own crop gained over it."""
TRAINING = "training"
"""Budget name of training episodes."""
ROWS = ("differences", "ablations")
"""Comparisons of `results.json` that are rows of two arms each."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Configuration and environment of a run, from its folder."""

    config: Mapping[str, Any]
    environment: Mapping[str, Any]
    date: str = ""
    """Day on which the run began."""

    @property
    def rules(self) -> CropRules:
        """Crop rules of the run."""
        if given := self.config.get("crop"):
            return CropRules(**given)
        named = self.config.get("protocol")
        if not isinstance(named, Mapping) and named not in PROTOCOLS:
            return CropRules()
        protocol = protocol_named(protocol_from_plain(named))
        released = protocol.as_released if self.config.get("coords") == "as-released" else None
        return (released and released.crop) or protocol.crop


@dataclass(frozen=True, slots=True)
class NamedLook:
    """A look with a name, which is equal only for equal looks."""

    name: str
    look: Look


@dataclass(frozen=True, slots=True)
class DataFacts:
    """Facts of a training set."""

    count: int
    budgets: Mapping[str, int]
    """Counts of the selected first-view budgets."""
    categories: Mapping[str, int]
    areas: Sequence[float]
    """Area of each target's tightest truth box, as share of the picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Everything a report shows. With several runs, each arm begins with the run's name."""

    records: AllRecords = field(default_factory=dict[Condition, Records])
    """Evaluation records by condition."""
    results: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Content of `results.json`: "questions", "seeds", "conditions", and "comparisons" between
    arms."""
    curves: Mapping[str, Sequence[Mapping[str, Any]]] = field(
        default_factory=dict[str, Sequence[Mapping[str, Any]]]
    )
    """Training metrics by arm, of the first seed."""
    training: Mapping[tuple[str, int], Records] = field(
        default_factory=dict[tuple[str, int], Records]
    )
    """Training records by (arm, seed)."""
    alarms: Mapping[tuple[str, int], Sequence[Sequence[str]]] = field(
        default_factory=dict[tuple[str, int], Sequence[Sequence[str]]]
    )
    """Codes of the alarms of every step by (arm, seed), for runs with any."""
    origins: Mapping[Condition, Origin] = field(default_factory=dict[Condition, Origin])
    """Origins by condition; a training run has the budget `TRAINING` and the probe "own"."""
    data: Mapping[str, DataFacts] = field(default_factory=dict[str, DataFacts])
    """Facts of the training sets, by the name of the samples folder."""
    gains: Mapping[tuple[str, str, int], Gains] = field(
        default_factory=dict[tuple[str, str, int], Gains]
    )
    """Gains of the crops by (arm, budget, seed)."""
    runs: Sequence[str] = ()
    """Names of several runs; empty for one."""

    @property
    def run_comparisons(self) -> list[Comparison]:
        """Comparisons of the first run with each further one, in the order of `lfpc compare`."""
        found = list(dict.fromkeys((one.arm, one.budget) for one in self.records))
        arms = {arm for arm, _ in found}
        return [
            Comparison(metric, (theirs, budget), (arm, budget))
            for arm, budget in found
            if (theirs := self._in_first_run(arm)) in arms and theirs is not None
            for metric in COMPARED
        ]

    def _in_first_run(self, arm: str) -> str | None:
        """The arm of the first run that corresponds to `arm` of another run."""
        if len(self.runs) < 2:
            return None
        fitting = (run for run in self.runs if arm == run or arm.startswith(f"{run}/"))
        name = max(fitting, key=len, default=self.runs[0])
        return None if name == self.runs[0] else self.runs[0] + arm.removeprefix(name)

    def shown(self, condition: Condition) -> "NamedLook | None":
        """The look of `condition`, which makes its crops again; None: unknown."""
        records = self.records.get(condition) or self.training.get((condition.arm, condition.seed))
        origin = self.origins.get(condition)
        probe = str(origin.config.get("probe", "own")) if origin else ""
        if not records or not origin or probe not in PROBES:
            return None
        seed = int(origin.config.get("seed", 0)) if probe in RANDOM else 0
        samples = [record.sample for record in records]
        look = PROBES[probe](samples, origin.rules, seed)
        return NamedLook(f"{probe}/{seed}/{origin.rules}", look)

    def renamed(self, run: str) -> "Evidence":
        """The same evidence, with `run` at the beginning of every arm."""

        def name(arm: str) -> str:
            return f"{run}/{arm}" if arm else run

        results = dict(self.results)
        if "conditions" in results:
            found = results["conditions"].items()
            results["conditions"] = {name(arm): budgets for arm, budgets in found}
        if "comparisons" in results:
            results["comparisons"] = _renamed(results["comparisons"], name)
        return replace(
            self,
            records={one._replace(arm=name(one.arm)): some for one, some in self.records.items()},
            results=results,
            curves={name(arm): rows for arm, rows in self.curves.items()},
            training={(name(arm), seed): some for (arm, seed), some in self.training.items()},
            alarms={(name(arm), seed): codes for (arm, seed), codes in self.alarms.items()},
            origins={one._replace(arm=name(one.arm)): some for one, some in self.origins.items()},
            gains={(name(arm), *at): some for (arm, *at), some in self.gains.items()},
        )


def _renamed(compared: Mapping[str, Any], name: Callable[[str], str]) -> dict[str, Any]:
    """The rows of comparisons within a run, with other names of the arms."""
    found: dict[str, Any] = {}
    for kind in ROWS:
        found[kind] = []
        for row in compared.get(kind, ()):
            (left, *at), (right, *there) = row["left"], row["right"]
            cells = [name(left), *at], [name(right), *there]
            title = " - ".join(map(" ".join, cells))
            found[kind].append(row | {"name": title, "left": cells[0], "right": cells[1]})
    return found


def merged(parts: Sequence[Evidence]) -> Evidence:
    """Several runs as one. What each compares within itself stays, with the p values adjusted there
    (Holm); ratios are of one run.
    """
    records = {key: some for part in parts for key, some in part.records.items()}
    conditions = [part.results.get("conditions", {}) for part in parts]
    compared = [part.results["comparisons"] for part in parts if "comparisons" in part.results]
    results: dict[str, Any] = {
        "questions": len({record.sample.id for some in records.values() for record in some}),
        "seeds": sorted({seed for part in parts for seed in part.results.get("seeds", ())}),
        "conditions": {arm: found for some in conditions for arm, found in some.items()},
    }
    if compared:
        results["comparisons"] = {
            kind: [row for some in compared for row in some.get(kind, ())] for kind in ROWS
        }
    return Evidence(
        records=records,
        results=results,
        curves={key: rows for part in parts for key, rows in part.curves.items()},
        training={key: some for part in parts for key, some in part.training.items()},
        alarms={key: codes for part in parts for key, codes in part.alarms.items()},
        origins={key: origin for part in parts for key, origin in part.origins.items()},
        data={key: facts for part in parts for key, facts in part.data.items()},
        gains={key: some for part in parts for key, some in part.gains.items()},
    )
