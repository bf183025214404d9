"""Imports: rows of published files, of any content, into a samples folder, one at a time.

Every row becomes a line of a journal: a sample, or the reason of its rejection. A killed import
resumes after the last complete line. Only rows in progress are in memory; `samples.jsonl` and
`rejected.jsonl` are written from the journal at the end.
"""

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b
from itertools import chain, islice
from pathlib import Path
from typing import Any

from lfpc.errors import ConfigError, RunError, SampleError
from lfpc.picture_files import real_path
from lfpc.playing.progress import progress_bar
from lfpc.playing.threads import THREADS, in_order
from lfpc.published import suggest
from lfpc.published.config import ImportConfig
from lfpc.published.index import published_set
from lfpc.published.pictures import PictureStore
from lfpc.published.published_set import ReadOptions
from lfpc.published.reading import sample_of
from lfpc.published.rejections import Rejected, Rejection, RejectReason
from lfpc.published.soundness import sound_picture
from lfpc.samples import SAMPLES_FILE, Sample, row_of_sample, sample_from_row, write_samples
from lfpc.storage.files import FolderLock, atomic_file, read_json, remove_drafts, write_json
from lfpc.storage.journal import Journal
from lfpc.storage.runs import Kind, RunFolder, is_run

REJECTED_FILE = "rejected.jsonl"
SUMMARY_FILE = "summary.json"
BESIDE_THE_POINT = (RejectReason.VIDEO, RejectReason.SEVERAL_PICTURES)
"""Reasons of rows that are sound and only not for questions about one picture."""
JOURNAL = "journal"
JOURNAL_FILE = "journal.jsonl"
PICTURES = "pictures"


@dataclass(frozen=True, slots=True)
class Imported:
    """Counts of an import."""

    folder: Path
    samples: int
    rejected: dict[str, int]
    """Rejected rows by reason."""
    sources: dict[str, dict[str, Any]]
    """Counts by source: "samples", "with_options", "with_boxes", "rejected"."""
    already: bool = False
    """Whether an earlier call finished this import: its files are unchanged."""


def import_published(
    config: ImportConfig, out: Path, *, min_share: float = 0.5, progress: bool = True
) -> Imported:
    """Import the files of `config` into a samples folder with its pictures. A finished import is
    not repeated, so boxes drawn there since are kept.

    Args:
        config: files, format and options.
        out: samples folder to write.
        min_share: minimum share of samples among the rows, without those about videos and several
            pictures. Below, nothing is imported: `out` gets no samples and can be used again.
        progress: whether to show the progress.
    Raises:
        ConfigError: unknown format, or `out` inside the source folder.
        SampleError: missing files, another layout, or fewer samples than `min_share`; the message
            names the columns to use, if a guess works; or `out` holds other samples.
        RunError: `out` holds another import or is in use, or the disk refuses.
    """
    chosen = published_set(config.format)
    if config.src.is_dir() and out.resolve().is_relative_to(config.src.resolve()):
        raise ConfigError(
            f"{out} is inside {config.src}, which the import reads; name a folder outside"
        )
    there = out / SAMPLES_FILE
    if there.exists() and not is_run(out / JOURNAL):
        raise SampleError(f"{there} is not from an import; name another output folder")
    pictures = (out / PICTURES).absolute()
    config = replace(config, files=_sizes(config.src))
    options = ReadOptions(
        pictures=pictures,
        roots=(*config.roots, _folder(config.src)),
        strip=config.strip,
        columns=config.columns or {},
        option_seed=config.seed,
    )
    rows = chosen.read(config.src, options)
    # Raises for a wrong folder or option before `out` is created.
    first = list(islice(rows, 1))
    inside = [folder.resolve() for folder in (*options.roots, pictures)]
    store_picture = partial(_with_stored_picture, config, PictureStore(pictures), inside)
    work = partial(sample_of, finish=store_picture)
    label = f"import {config.format}"
    # `out` too: somebody may be drawing boxes there
    with FolderLock(out), RunFolder.open(out / JOURNAL, Kind.IMPORT, config) as run:
        for folder in (out, *pictures.glob("*/")):
            remove_drafts(folder)
        journal = Journal.open(run.path / JOURNAL_FILE)
        done = set[int]()
        seen = set[int]()
        for line in journal.rows():
            done.add(int(line["key"]))
            if "sample" in line:
                seen.add(short_hash(line["sample"]["id"]))
        numbered = enumerate(chain(first, rows), 1)
        new = (pair for pair in numbered if pair[0] not in done)
        with (
            progress_bar(None, len(done), label, unit="row", shown=progress) as advance,
            ThreadPoolExecutor(THREADS) as threads,
        ):
            made = in_order(threads, lambda pair: (pair[0], work(pair[1])), new, 2 * THREADS)
            for number, one in made:
                journal.append(str(number), _line(one, number, seen, out))
                advance(1)
        found = _imported(journal, out, config)
        if there.exists() and _finished(found):
            return replace(found, already=True)
        problem = _too_few(journal, config, min_share)
        if problem is None:
            _finish(journal, found)
            return found
        _write_rejected(journal, out)
        paste = suggest.command(config, out, options)
    shutil.rmtree(out / JOURNAL)
    if not (out / SAMPLES_FILE).exists():
        shutil.rmtree(pictures, ignore_errors=True)
    raise SampleError(f"{problem}{f'; try: {paste}' if paste else ''}")


def _too_few(journal: Journal, config: ImportConfig, min_share: float) -> str | None:
    """The sentence for an import with too few samples; None: enough."""
    samples = sum("sample" in line for line in journal.rows())
    others = sum(row["reason"] not in BESIDE_THE_POINT for row in _rejected(journal))
    if samples >= min_share * (samples + others) and (samples or not min_share):
        return None
    faults = (
        row for row in _rejected(journal) if not others or row["reason"] not in BESIDE_THE_POINT
    )
    row = next(faults, None)
    first = f"the first: {row['detail']}" if row else "it has no rows"
    if not samples:
        return f"{config.src}: no row could be read as a sample of {config.format}; {first}"
    return (
        f"{config.src}: only {samples:,} of {samples + others:,} rows could be read as samples "
        f"of {config.format}, so nothing is imported (--min-share takes fewer); of the others, "
        f"{first}"
    )


def _with_stored_picture(
    config: ImportConfig, store: PictureStore, inside: Sequence[Path], sample: Sample
) -> Sample:
    """`sample` with its picture in the store.

    Raises:
        Rejected: the picture is outside the folders `inside`, or has no usable size.
        PictureError: the picture is damaged, or cannot be copied.
    """
    picture = sample.image
    real = real_path(picture)
    if not any(real.is_relative_to(folder) for folder in inside):
        raise Rejected(
            RejectReason.OUTSIDE,
            f"{picture} is outside the given folders; name its folder with --root",
        )
    kind = sound_picture(picture, config.min_side)
    return replace(sample, image=store.adopt(picture, kind, link=config.link))


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


def _finish(journal: Journal, found: Imported) -> None:
    """Write the folder's files from the journal, a line at a time; the summary comes last."""
    write_samples(_samples(journal, found.folder), found.folder, replace=False)
    _write_rejected(journal, found.folder)
    write_json(found.folder / SUMMARY_FILE, _summary(found))


def _finished(found: Imported) -> bool:
    """Whether the folder has the summary of `found`."""
    try:
        return read_json(found.folder / SUMMARY_FILE) == _summary(found)
    except RunError:
        return False


def _summary(found: Imported) -> dict[str, Any]:
    return {"samples": found.samples, "rejected": found.rejected, "sources": found.sources}


def _imported(journal: Journal, out: Path, config: ImportConfig) -> Imported:
    """Counts of the journal."""
    counts = _Counts(config)
    for sample in _samples(journal, out):
        counts.add(sample)
    for row in _rejected(journal):
        counts.reject(row)
    rejected = dict(counts.rejected.most_common())
    return Imported(out, counts.samples, rejected, counts.sources())


def _samples(journal: Journal, out: Path) -> Iterator[Sample]:
    return (sample_from_row(line["sample"], out) for line in journal.rows() if "sample" in line)


def _rejected(journal: Journal) -> Iterator[dict[str, Any]]:
    return (line["rejected"] for line in journal.rows() if "rejected" in line)


def _write_rejected(journal: Journal, out: Path) -> None:
    with atomic_file(out / REJECTED_FILE) as lines:
        for row in _rejected(journal):
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")


class _Counts:
    """Counts of the summary, sample by sample."""

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
    """Eight-byte hash of a long id: millions of them fit into memory."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest())


def _folder(src: Path) -> Path:
    return src if src.is_dir() else src.parent


def _sizes(src: Path) -> dict[str, int]:
    """Bytes of every table file at `src`; pictures may change.

    Raises:
        SampleError: no such file or folder.
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
    )  # one file per picture: the list of names would be too long
    return {file.relative_to(_folder(src)).as_posix(): file.stat().st_size for file in files}
