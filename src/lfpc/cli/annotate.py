"""Truth boxes drawn by people: the page, merging, exchange files. Imports stay inside `run`, see
`lfpc.cli`.
"""

import getpass
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from tyro.conf import Positional, arg

from lfpc.cli.model import AskedModel
from lfpc.cli.verb import Verb
from lfpc.errors import RunError

if TYPE_CHECKING:
    from lfpc.boxing.proposals import Proposal
    from lfpc.samples import Sample


@dataclass(frozen=True, kw_only=True)
class Annotate(AskedModel):
    """Draw nested truth boxes on the pictures of a samples folder, on a page in your browser. Every
    change is saved at once.

    With --checkpoint, or --base-url and --model, the page can ask that model for proposals.
    """

    EXAMPLES: ClassVar = (
        "lfpc annotate data/hard",
        "lfpc annotate data/hard --pictures data/selected --proposals runs/on-train",
        "lfpc annotate data/hard --checkpoint CHECKPOINT",
    )

    FIRST: ClassVar = ("proposals", "hardest", "pictures", "by", *AskedModel.FIRST, "port")

    folder: Annotated[Positional[Path], arg(metavar="FOLDER")]
    """Samples folder to change: samples.jsonl beside its pictures."""
    proposals: tuple[Path, ...] = ()
    """Run folders to take proposals from: crops that led to the right answer."""
    hardest: tuple[Path, ...] = ()
    """Run folders that set the order: samples answered wrongly most often come first."""
    questions: int | None = None
    """Number of samples to work on, from the first. Default: all."""
    pictures: tuple[Path, ...] = ()
    """Further folders whose pictures may be shown, besides FOLDER."""
    by: str = ""
    """Name to save with each change. Default: your login name."""
    budget: int | None = None
    """Visual tokens of the picture for the model. Default: the checkpoint's (lfpc.json), else
    1024."""
    port: int = 0
    """Port of the page; 0: the usual port of FOLDER, so that an open page survives a restart."""

    def run(self) -> str:
        from lfpc.web import need_web

        need_web()
        from lfpc.boxing.decisions import boxing_of
        from lfpc.web.annotate import annotation_app, open_session
        from lfpc.web.serving import serve, usual_port

        with open_session(
            self.folder,
            by=self.by or getpass.getuser(),
            pictures=self.pictures,
            arrange=self._arrangement(),
            proposals=self._proposals(),
            ask=self._asking(),
        ) as session:
            serve(
                annotation_app(session), "lfpc annotate", port=self.port or usual_port(self.folder)
            )
            done = sum(boxing_of(sample).state == "done" for sample in session.samples())
        return f"{self.folder}: {done} of {len(session.order)} samples done"

    def _proposals(self) -> "dict[str, list[Proposal]]":
        from lfpc.boxing.proposals import MOST, crop_proposals, own_records

        found: dict[str, list[Proposal]] = {}
        for run in self.proposals:
            for name, some in crop_proposals(own_records(run), f"crops of {run.name}").items():
                found[name] = (found.get(name, []) + some)[:MOST]
        return found

    def _asking(self) -> "Callable[[Sample], Sequence[Proposal]] | None":
        if self.checkpoint is None and self.base_url is None and self.model is None:
            return None
        from lfpc.boxing.grounding import asked_boxes
        from lfpc.policies.loading import any_policy

        config, backend = self.asked()
        policy = any_policy(config, backend)
        budget = self.defaults().budget if self.budget is None else self.budget
        one_at_a_time = Lock()

        def ask(sample: "Sample") -> "Sequence[Proposal]":
            with one_at_a_time:
                return asked_boxes(
                    sample, policy, config.chat, budget=budget, source=f"asked {config.model}"
                )

        return ask

    def _arrangement(self) -> "Callable[[Sequence[Sample]], Sequence[Sample]]":
        from lfpc.boxing.proposals import failure_counts, hardest_first, own_records

        records = failure_counts(record for run in self.hardest for record in own_records(run))
        return lambda samples: (hardest_first(samples, records) if records else samples)[
            : self.questions
        ]


@dataclass(frozen=True, kw_only=True)
class Hardest:
    """Pick the samples that a model answers wrongly most often in recorded runs, for boxing."""

    EXAMPLES: ClassVar = (
        "lfpc data hardest data/selected --runs runs/on-train --out data/hard --count 256",
    )

    folder: Annotated[Positional[Path], arg(metavar="FOLDER")]
    """Samples folder to pick from."""
    runs: tuple[Path, ...]
    """Run folders in which the samples were asked: training runs or evaluations."""
    out: Path
    """Samples folder to write; pictures stay where they are."""
    count: int = 256
    """Number of samples to pick."""

    def run(self) -> str:
        from lfpc.boxing.proposals import failure_counts, hardest_first, own_records
        from lfpc.samples import read_samples, write_samples
        from lfpc.storage.files import FolderLock

        samples = read_samples(self.folder)
        records = failure_counts(record for run in self.runs for record in own_records(run))
        known = [sample for sample in samples if sample.id in records]
        if not known:
            raise RunError(
                f"no sample of {self.folder} was asked in {', '.join(map(str, self.runs))}; name "
                f"a run that was trained or evaluated on this folder"
            )
        picked = hardest_first(known, records)[: self.count]
        failed = sum(records[one.id].failed for one in picked)
        asked = sum(records[one.id].asked for one in picked)
        print(
            f"{len(known)} of {len(samples)} samples were asked; the {len(picked)} picked "
            f"were answered wrongly {failed} of {asked} times"
        )
        with FolderLock(self.out):
            return f"hardest samples: {write_samples(picked, self.out, replace=False)}"


@dataclass(frozen=True, kw_only=True)
class MergeBoxes:
    """Merge two people's copies of a samples folder, and measure the agreement of their boxes."""

    EXAMPLES: ClassVar = ("lfpc data merge-boxes data/anna data/ben --out data/boxed",)

    first: Annotated[Positional[Path], arg(metavar="FOLDER")]
    """Samples folder of one person."""
    second: Annotated[Positional[Path], arg(metavar="FOLDER")]
    """Samples folder of the other person."""
    out: Path | None = None
    """Samples folder to write, with agreement.json. Default: print only."""
    least: float = 0.5
    """Mean IoU of the tightest boxes below which a sample is flagged."""

    def run(self) -> str:
        from lfpc.boxing.merge import merged, summary
        from lfpc.samples import read_samples, write_samples
        from lfpc.storage.files import FolderLock, write_json

        found = merged(read_samples(self.first), read_samples(self.second), least=self.least)
        numbers = summary(found.agreements.values())
        print(
            f"both boxed: {numbers['samples']} samples, {numbers['targets']} targets, "
            f"{numbers['one_sided']} seen by one of them only"
        )
        for name, title in (
            ("iou_tightest", "IoU of B1"),
            ("at_least_half", "share of B1 with IoU of at least 0.5"),
            ("iou_wider", "IoU of B2 and wider"),
        ):
            print(f"{title}: {'none' if numbers[name] is None else format(numbers[name], '.3f')}")
        flagged = f"{len(found.flagged)} samples to look at again" + (
            f": {', '.join(found.flagged[:10])}" if found.flagged else ""
        )
        if self.out is None:
            return f"{flagged}; give --out to write the merged samples"
        with FolderLock(self.out):
            file = write_samples(found.samples, self.out, replace=False)
            write_json(
                self.out / "agreement.json",
                {**numbers, "by_sample": dict(found.agreements), "flagged": found.flagged},
            )
        print(flagged)
        return f"merged samples: {file}"


@dataclass(frozen=True, kw_only=True)
class ExportBoxes:
    """Export the boxes of a samples folder to another tool's file."""

    EXAMPLES: ClassVar = ("lfpc data export-boxes data/boxed boxes.json --format coco",)

    folder: Annotated[Positional[Path], arg(metavar="FOLDER")]
    """Samples folder."""
    out: Annotated[Positional[Path], arg(metavar="FILE")]
    """JSON file to write. COCO has picture paths relative to FOLDER."""
    format: Literal["coco", "label-studio"] = "coco"
    """The tool's format."""

    def run(self) -> str:
        from lfpc.boxing.files import FORMATS
        from lfpc.boxing.files.label_studio import CONFIG, LocalStorage
        from lfpc.errors import PictureError, SampleError
        from lfpc.images import upright_size
        from lfpc.samples import Sample, read_samples
        from lfpc.storage.files import write_json

        samples: list[Sample] = []
        problems: list[str] = []
        for sample in read_samples(self.folder):
            try:
                upright_size(sample.image)
                samples.append(sample)
            except PictureError as error:
                problems.append(f"sample {sample.id!r}: {error}")
        if len(samples) < max(1, len(problems)):
            first = f"; the first problem: {problems[0]}" if problems else ""
            raise SampleError(
                f"{len(samples)} of {len(samples) + len(problems)} samples could be exported, so "
                f"nothing is written{first}"
            )
        for problem in problems:
            print(f"left out: {problem}")
        self.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.out, FORMATS[self.format].exported(samples, self.folder))
        if self.format == "label-studio":
            local = LocalStorage.of(samples)
            print(f"labelling interface for the project:\n{CONFIG}")
            print("start Label Studio with LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true")
            print(f"and LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={local.document_root}")
            print(f"add to the project the local storage {local.storage}")
        return f"boxes of {len(samples)} samples: {self.out}"


@dataclass(frozen=True, kw_only=True)
class ImportBoxes:
    """Import boxes from another tool's file into a samples folder. Samples that the file does not
    name are unchanged.
    """

    EXAMPLES: ClassVar = (
        "lfpc data import-boxes data/hard boxes.json --format coco --out data/boxed",
    )

    folder: Annotated[Positional[Path], arg(metavar="FOLDER")]
    """Samples folder of the file's pictures."""
    file: Annotated[Positional[Path], arg(metavar="FILE")]
    """JSON file to read."""
    format: Literal["coco", "label-studio"] = "coco"
    """The tool's format."""
    out: Path | None = None
    """Samples folder to write. Default: FOLDER itself."""

    def run(self) -> str:
        import json

        from lfpc.boxing.files import FORMATS, Reading, SampleIndex, with_entries
        from lfpc.errors import SampleError
        from lfpc.samples import read_samples, write_samples
        from lfpc.storage.files import FolderLock

        lock = FolderLock(self.out or self.folder, again=False)  # somebody may be drawing there
        samples = read_samples(self.folder)
        problems: list[SampleError] = []
        index = SampleIndex(samples, self.folder)
        reading = Reading(index.frame_at, problems)
        try:
            content = json.loads(self.file.read_bytes())
            entries = FORMATS[self.format].imported(content, reading)
            changed, unknown = with_entries(samples, entries, self.folder, reading)
        except (ValueError, RecursionError) as error:  # a SampleError is a ValueError
            raise SampleError(f"{self.file}: {error}") from error
        problems += [
            SampleError(f"no sample is about {entry.sample or entry.picture!r}")
            for entry in unknown
        ]
        used = [one for one in entries if len(index.ids(one.sample, one.picture)) == 1]
        known = len(used)
        boxes = sum(len(target) for entry in used for target in entry.boxes)
        if known < len(problems) or not (boxes or any(one.state == "skipped" for one in used)):
            first = f"; the first problem: {problems[0]}" if problems else ""
            raise SampleError(
                f"{self.file}: {boxes} boxes in {known} of {known + len(problems)} entries, so "
                f"nothing is imported{first}"
            )
        for problem in problems[:10]:
            print(f"{self.file}: {problem}")
        out = self.out or self.folder
        written = write_samples(changed, out, replace=out.resolve() == self.folder.resolve())
        lock.release()
        return (
            f"{boxes} boxes for {known} of {len(samples)} samples "
            f"({len(problems)} entries left out): {written}"
        )


VERBS: dict[str, type[Verb]] = {
    "annotate": Annotate,
    "data hardest": Hardest,
    "data merge-boxes": MergeBoxes,
    "data export-boxes": ExportBoxes,
    "data import-boxes": ImportBoxes,
}
