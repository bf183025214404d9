"""An import: rows of published files into a samples folder, one after the other, whatever is in
them.

Every row ends in one line of a journal, a sample or the reason why it is none. An import that was
killed reads on behind the last whole line. Only rows under way are in memory; `samples.jsonl` and
`rejected.jsonl` are made of the journal at the end.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import chain, islice
from pathlib import Path
from typing import Any

from lfpc.errors import ConfigError, DiskError, LfpcError, SampleError
from lfpc.playing.progress import progress_bar
from lfpc.playing.threads import THREADS, in_order
from lfpc.published.importers import Importer, Pending, Places
from lfpc.published.pictures import PictureStore
from lfpc.published.rejections import Rejected, RejectReason, reason_of
from lfpc.published.soundness import sound_picture
from lfpc.samples import Sample, row_of_sample, sample_from_row, write_samples
from lfpc.storage.files import atomic_file, write_json
from lfpc.storage.journal import Journal
from lfpc.storage.runs import Kind, RunFolder

REJECTED_FILE = "rejected.jsonl"
SUMMARY_FILE = "summary.json"
JOURNAL = "journal"
JOURNAL_FILE = "journal.jsonl"
PICTURES = "pictures"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportConfig:
    """What an import reads, and what it takes."""

    format: str
    src: Path
    """Folder or file."""
    roots: tuple[Path, ...] = ()
    """Further folders with pictures; a picture outside all folders that were given is rejected."""
    strip: tuple[str, ...] = ()
    """Beginnings of picture names that are taken off, as in /mnt/data/."""
    columns: Mapping[str, str] | None = None
    """Field of a sample -> column, for the format "table"."""
    min_side: int = 28
    """Pixels of a picture's shorter side, at the least: one visual token."""
    link: bool = False
    """Whether picture files are hard links, where the disk allows it; else they are copied."""
    seed: int = 0
    """Of the order of options, where a benchmark's own order gives the answer away."""
    files: Mapping[str, int] | None = None
    """Bytes of every file at import: an import that goes on must find the same."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What came of an import."""

    folder: Path
    samples: int
    rejected: dict[str, int]
    """Rows by reason."""
    sources: dict[str, dict[str, Any]]
    """By source: "samples", "with_options", "with_boxes", "rejected"."""


def import_samples(
    importer: Importer, config: ImportConfig, out: Path, *, progress: bool = True
) -> Imported:
    """Read everything that `importer` finds and write a samples folder with its pictures.

    Raises:
        ConfigError: `out` lies inside the folder that is read.
        SampleError: the files are not there, or of another layout.
        RunError: `out` holds another import, or the disk refuses.
    """
    if config.src.is_dir() and out.resolve().is_relative_to(config.src.resolve()):
        raise ConfigError(
            f"{out} lies in {config.src}, so what is written would be read; name a folder outside"
        )
    pictures = (out / PICTURES).absolute()
    config = replace(config, files=_sizes(config.src))
    places = Places(
        pictures=pictures,
        roots=(*config.roots, _folder(config.src)),
        strip=config.strip,
        columns=config.columns or {},
    )
    rows = importer(config.src, places)
    first = list(
        islice(rows, 1)
    )  # a wrong folder or option is told of here, before `out` is this import's
    with RunFolder.open(out / JOURNAL, Kind.IMPORT, config) as run:
        journal = Journal.open(run.path / JOURNAL_FILE)
        done = 0
        seen = set[int]()
        for line in journal.rows():
            done += 1
            if "sample" in line:
                seen.add(short_hash(line["sample"]["id"]))
        found = islice(chain(first, rows), done, None)
        keeper = Keeper(config, pictures)
        label = f"import {config.format}"
        with (
            progress_bar(None, done, label, unit="row", shown=progress) as advance,
            ThreadPoolExecutor(THREADS) as threads,
        ):
            made = in_order(threads, keeper.keep, found, 2 * THREADS)
            for number, one in enumerate(made, done + 1):
                journal.append(str(number), _line(one, number, seen, out))
                advance(1)
        return _finish(journal, out, config)


@dataclass(frozen=True, slots=True)
class Rejection:
    """A row that is left out."""

    where: str
    reason: RejectReason
    detail: str
    source: str = ""


class Keeper:
    """Makes rows into samples whose pictures are sound and in the store."""

    def __init__(self, config: ImportConfig, pictures: Path) -> None:
        self._config = config
        self._store = PictureStore(pictures)
        self._inside = [
            folder.resolve() for folder in (*config.roots, _folder(config.src), pictures)
        ]

    def keep(self, found: Pending | Sample | SampleError) -> Sample | Rejection:
        """The sample, or why there is none."""
        if isinstance(found, SampleError):
            return Rejection("", reason_of(found), str(found))
        where = found.record.where if isinstance(found, Pending) else f"sample {found.id!r}"
        source = (
            found.source
            if isinstance(found, Sample)
            else str(found.record.values.get("data_source") or "")
        )
        try:
            sample = found if isinstance(found, Sample) else found.make(found.record, found.store)
            return replace(sample, image=self._kept(sample.image))
        except DiskError:  # whatever the row is
            raise
        except LfpcError as error:
            return Rejection(where, reason_of(error), str(error), source)
        except (
            TypeError,
            ValueError,
            LookupError,
            AttributeError,
        ) as error:  # a value of another kind than the layout has
            return Rejection(
                where,
                RejectReason.ROW,
                f"a value of the wrong kind ({type(error).__name__}: {error})",
                source,
            )

    def _kept(self, picture: Path) -> Path:
        real = picture.resolve()
        if not any(real.is_relative_to(folder) for folder in self._inside):
            raise Rejected(
                RejectReason.OUTSIDE,
                f"{picture} is in none of the folders that were given; name its folder with --root",
            )
        return self._store.adopt(
            picture, sound_picture(picture, self._config.min_side), link=self._config.link
        )


def _line(made: Sample | Rejection, number: int, seen: set[int], out: Path) -> dict[str, Any]:
    if isinstance(made, Rejection):
        where = {"where": made.where} if made.where else {}
        return {
            "rejected": {
                "row": number,
                **where,
                "reason": made.reason.value,
                "detail": made.detail,
                "source": made.source,
            }
        }
    if short_hash(made.id) in seen:
        made = replace(made, id=f"{made.id}#{number}")
    seen.add(short_hash(made.id))
    return {"sample": row_of_sample(made, out.absolute())}


def _finish(journal: Journal, out: Path, config: ImportConfig) -> Imported:
    """Make the folder's files of the journal, a line at a time."""
    counts = _Counts(config)

    def samples() -> Iterator[Sample]:
        for line in journal.rows():
            if "sample" in line:
                counts.add(sample := sample_from_row(line["sample"], out))
                yield sample

    write_samples(samples(), out)
    with atomic_file(out / REJECTED_FILE) as lines:
        for line in journal.rows():
            if "rejected" in line:
                counts.reject(line["rejected"])
                lines.write(json.dumps(line["rejected"], ensure_ascii=False) + "\n")
    found = Imported(out, counts.samples, dict(counts.rejected.most_common()), counts.sources())
    write_json(
        out / SUMMARY_FILE,
        {"samples": found.samples, "rejected": found.rejected, "sources": found.sources},
    )
    return found


class _Counts:
    """What a summary says, counted sample by sample."""

    def __init__(self, config: ImportConfig) -> None:
        self._config = config
        self.samples = 0
        self.rejected: Counter[str] = Counter()
        self._by_source: dict[str, Counter[str]] = {}

    def add(self, sample: Sample) -> None:
        self.samples += 1
        facts = {
            "samples": True,
            "with_options": bool(sample.options),
            "with_boxes": bool(sample.boxes),
        }
        self._source(sample.source).update(name for name, holds in facts.items() if holds)

    def reject(self, rejected: Mapping[str, Any]) -> None:
        self.rejected[str(rejected["reason"])] += 1
        self._source(str(rejected["source"]))["rejected"] += 1

    def _source(self, name: str) -> Counter[str]:
        return self._by_source.setdefault(name or self._config.format, Counter())

    def sources(self) -> dict[str, dict[str, int]]:
        names = ("samples", "with_options", "with_boxes", "rejected")
        return {
            name: {fact: found[fact] for fact in names}
            for name, found in sorted(self._by_source.items())
        }


def short_hash(text: str) -> int:
    """Eight bytes in place of a long id: millions of them fit into memory."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest())


def _folder(src: Path) -> Path:
    return src if src.is_dir() else src.parent


def _sizes(src: Path) -> dict[str, int]:
    """Bytes of every table file at `src`; pictures may come and go.

    Raises:
        SampleError: there is nothing.
    """
    if not src.exists():
        raise SampleError(f"{src}: no such file or folder")
    endings = (".parquet", ".jsonl", ".json", ".tsv", ".csv", ".arrow")
    files = (
        [src]
        if src.is_file()
        else sorted(
            file for file in src.rglob("*") if file.suffix.lower() in endings and file.is_file()
        )
    )
    files = (
        files if len(files) <= 1000 else []
    )  # a file beside each picture: the names alone would fill a book
    return {file.relative_to(_folder(src)).as_posix(): file.stat().st_size for file in files}
