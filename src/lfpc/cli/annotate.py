"""Truth boxes drawn by people: the page, and what becomes of its files. Imports stay inside `run`, see `lfpc.cli`."""

import getpass
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from lfpc.cli.verb import Verb

if TYPE_CHECKING:
    from lfpc.data.proposals import Proposal
    from lfpc.samples import Sample


@dataclass(frozen=True, kw_only=True)
class Annotate:
    """Draw nested truth boxes on the pictures of a samples folder, on a page in your browser; every change is kept at once."""

    folder: Positional[Path]
    """Samples folder: samples.jsonl beside its pictures. It is changed."""
    proposals: tuple[Path, ...] = ()
    """Run folders whose crops are proposed where they led to the right answer."""
    hardest: tuple[Path, ...] = ()
    """Run folders by which the samples are ordered: the ones answered wrongly most often come first."""
    questions: int | None = None
    """How many samples to work on, from the first; None: all."""
    pictures: tuple[Path, ...] = ()
    """Further folders whose pictures may be shown; those inside FOLDER always are."""
    by: str = ""
    """Name kept with each change; empty: your login name."""
    port: int = 0
    """Port of the page; 0: one that FOLDER always gets, so that an open page goes on when this is started again."""

    def run(self) -> str:
        from lfpc.web.annotate import annotation_app, open_desk
        from lfpc.web.serving import serve, usual_port

        proposals = self._proposals()
        with open_desk(
            self.folder, by=self.by or getpass.getuser(), pictures=self.pictures, arrange=self._arrangement(), proposals=proposals
        ) as desk:
            serve(annotation_app(desk), "lfpc annotate", port=self.port or usual_port(self.folder))
            done = sum(sample.meta.get("boxing", {}).get("state") == "done" for sample in desk.samples())
        return f"{self.folder}: {done} of {len(desk.order)} samples done"

    def _proposals(self) -> "dict[str, list[Proposal]]":
        from lfpc.data.proposals import MOST, crop_proposals, recorded_rows

        found: dict[str, list[Proposal]] = {}
        for run in self.proposals:
            for name, some in crop_proposals(recorded_rows(run), f"crops of {run.name}").items():
                found[name] = (found.get(name, []) + some)[:MOST]
        return found

    def _arrangement(self) -> "Callable[[Sequence[Sample]], Sequence[Sample]]":
        from lfpc.data.proposals import failure_records, hardest_first, recorded_rows

        records = failure_records(row for run in self.hardest for row in recorded_rows(run))
        return lambda samples: (hardest_first(samples, records) if records else samples)[: self.questions]


VERBS: dict[str, type[Verb]] = {
    "annotate": Annotate,
}
