"""The result of `lfpc.evaluate` and `lfpc.probe`: one model at one budget."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from lfpc.errors import ConfigError
from lfpc.evaluation.places import Known, place_at, place_records
from lfpc.evaluation.probes import OWN, accuracy_drop
from lfpc.evaluation.terminal import probe_lines
from lfpc.evaluation.verdict import verdict_lines
from lfpc.metrics.statistics import Difference
from lfpc.records import EpisodeRecord


@dataclass(frozen=True, kw_only=True, repr=False)  # without slots: the records are cached
class EvaluationResult:
    """Results of one model at one budget, with its own crops and under probes.

    Its text, also in a notebook, is the table of `lfpc eval`, which ends with a verdict in words.
    """

    path: Path
    """Folder of the evaluations: `own` and one per probe."""
    root: Path
    """Folder of `results.json`, at or above `path`."""
    condition: Mapping[str, Any]
    """The entry of `results.json`; see `lfpc.evaluation.results.condition_results`."""
    figures: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Any])
    """Figures by evaluation, from "results" of `results.json`; empty for `lfpc.probe`."""
    left_out: tuple[str, ...] = ()
    """Probes that did not run, as no sample has boxes."""
    replay: bool = False
    """Whether the probes are replayed."""
    known: Known = field(default_factory=dict[Path, Any])
    """Records already read, by folder."""

    @cached_property
    def records(self) -> dict[str, list[EpisodeRecord]]:
        """A record per question by probe, "own" first; repeats and draws are averaged.

        Raises:
            RunError: a file is unreadable.
        """
        return place_records(place_at(self.path), replay=self.replay, known=self.known)

    @property
    def summary(self) -> Mapping[str, Any]:
        """The summary with the policy's own crops: "accuracy" and other shares in [0, 1], "n"
        questions, "visual_tokens" per question, "cost" in seconds and tokens, ...
        """
        return self.condition["summary"]

    def lost(self, probe: str) -> Difference:
        """The accuracy lost under `probe`, own - probe, in [-1, 1]: paired by question, with its
        95 % interval.

        Raises:
            ConfigError: the probe did not run.
        """
        if probe == OWN or probe not in self.records:
            known = ", ".join(name for name in self.records if name != OWN) or "none"
            raise ConfigError(f"{self.path} holds no probe {probe!r}; run so far: {known}")
        return accuracy_drop(self.records[OWN], self.records[probe])

    def lines(self) -> list[str]:
        """The table with its notes, without the verdict."""
        left_out = [f"{probe}: left out, no sample has boxes" for probe in self.left_out]
        return [*probe_lines(self.condition), *left_out]

    def __str__(self) -> str:
        return "\n".join([*self.lines(), *verdict_lines(self.condition)])

    def __repr__(self) -> str:
        return str(self)
