"""A mixture of training sets: filtered, without duplicates and without the benchmarks' pictures,
drawn evenly over categories.

`stage1` is the paper's: Pixel Reasoner 2.7k, Chain-of-Focus 2.1k and ThinkLite-VL, pictures with
questions and answers only. How it was filtered is not published; every choice is a field of
`MixConfig`.
"""

import json
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import IO

from lfpc.answers import check_answer
from lfpc.data.check import question_key
from lfpc.data.config import MixConfig, MixPart
from lfpc.data.hashes import SIDE, KnownHashes, hashes_of, known_hashes
from lfpc.errors import LfpcError, SampleError
from lfpc.images import smart_resize, upright_size, visual_tokens
from lfpc.published.rejections import Rejected, RejectReason, reason_of
from lfpc.samples import SAMPLES_FILE, Sample, iter_samples, write_samples
from lfpc.storage.files import FolderLock, atomic_file, write_json
from lfpc.storage.seen import Seen, seen_texts

LEFT_OUT_FILE = "left_out.jsonl"
SUMMARY_FILE = "mix.json"
HASHES = "hashes"
SHOWN_LEAKS = 12
_COUNTED = ("read", "samples")
_PASSED = (*_COUNTED, RejectReason.NOT_DRAWN.value)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A sample that is not in the mixture."""

    part: str
    sample: Sample
    reason: RejectReason
    detail: str = ""


@dataclass
class Mixed:
    """What a mixture holds and lacks; its samples are in its folder."""

    folder: Path
    samples: int = 0
    parts: dict[str, dict[str, int]] = field(default_factory=dict[str, dict[str, int]])
    """By part: number of samples read ("read"), in the mixture ("samples"), and left out, by
    reason."""
    first: dict[str, LeftOut] = field(default_factory=dict[str, LeftOut])
    """By part: the first sample that does not pass the filters."""
    leaks: list[LeftOut] = field(default_factory=list[LeftOut])
    """The first `SHOWN_LEAKS` samples with a benchmark's picture."""

    @property
    def left_out(self) -> Counter[str]:
        """Numbers of samples that are not in the mixture, by reason."""
        found: Counter[str] = Counter()
        for counts in self.parts.values():
            found.update({name: n for name, n in counts.items() if name not in _COUNTED})
        return found


def mix(
    folder: Path,
    config: MixConfig,
    out: Path,
    *,
    against: Sequence[Path] = (),
    min_share: float = 0.5,
    progress: bool = True,
) -> Mixed:
    """Mix the samples folders in `folder` and write the samples, what was left out, and the counts
    into `out`.

    Pictures stay where they are; ids begin with the name of their part. Of duplicates the first is
    kept.

    Args:
        folder: holds a samples folder named after each part.
        config: parts and filters.
        out: samples folder to write, with the hashes of pictures, so an interrupted mixture can
            resume.
        against: folders of benchmarks whose pictures are left out of the mixture.
        min_share: minimum share of samples that pass the filters; below, or if a part has none,
            nothing is written.
        progress: whether to show the progress.
    Raises:
        SampleError: a part is missing, has an invalid sample, or too few that pass the filters; or
            `out` holds other samples.
        RunError: another process writes in `out`, or the disk refuses.
    """
    missing = [
        part.name for part in config.parts if not (folder / part.name / SAMPLES_FILE).is_file()
    ]
    if missing:
        first = folder / missing[0]
        raise SampleError(
            f"{first}: no {SAMPLES_FILE} there; import the set first: lfpc data import "
            f"{missing[0]} FILES {first}"
        )
    with FolderLock(out):
        known = known_hashes(against, out / HASHES, progress=progress) if against else None
        mixed = Mixed(out)
        with atomic_file(out / LEFT_OUT_FILE) as lines, seen_texts() as seen:
            work = _Mixing(folder, config, known, mixed, lines, seen, progress=progress)
            write_samples(work.samples(min_share), out, replace=False)
        write_json(
            out / SUMMARY_FILE,
            {
                "config": config,
                "samples": mixed.samples,
                "parts": mixed.parts,
                "compared_with": None if known is None else len(known),
            },
        )
    return mixed


class _Mixing:
    """The work on a mixture. Every part is read twice, to filter and to write, so that no rows
    are in memory.
    """

    def __init__(
        self,
        folder: Path,
        config: MixConfig,
        known: KnownHashes | None,
        mixed: Mixed,
        lines: IO[str],
        seen: Seen,
        *,
        progress: bool,
    ) -> None:
        self._folder = folder
        self._config = config
        self._known = known
        self._mixed = mixed
        self._lines = lines
        self._progress = progress
        self._seen = seen

    def samples(self, min_share: float) -> Iterator[Sample]:
        """The samples of the mixture. What is left out is written meanwhile.

        Raises:
            SampleError: after the last sample, if too few pass the filters.
        """
        for part in self._config.parts:
            yield from self._part(part)
        _check_share(self._mixed, min_share)

    def _part(self, part: MixPart) -> Iterator[Sample]:
        fit = bytearray()
        piles: defaultdict[str, array[int]] = defaultdict(lambda: array("Q"))
        reasons: Counter[str] = Counter()
        for found in self._sieve(part.name):
            if isinstance(found, Sample):
                piles[found.category].append(len(fit))
            else:
                self._leave_out(found, reasons)
            fit.append(isinstance(found, Sample))
        drawn = bytearray(len(fit))
        for place in draw_evenly(piles, part.count, self._config.seed):
            drawn[place] = True
        for sample, fits, chosen in zip(self._read(part.name), fit, drawn, strict=True):
            if chosen:
                name = f"{part.name}/{sample.id}"
                yield replace(sample, id=name, source=sample.source or part.name)
            elif fits:
                self._leave_out(LeftOut(part.name, sample, RejectReason.NOT_DRAWN), reasons)
        self._mixed.samples += sum(drawn)
        self._mixed.parts[part.name] = {"read": len(fit), "samples": sum(drawn), **reasons}

    def _read(self, part: str) -> Iterator[Sample]:
        return iter_samples(self._folder / part)

    def _leave_out(self, one: LeftOut, reasons: Counter[str]) -> None:
        reasons[one.reason.value] += 1
        if one.reason != RejectReason.NOT_DRAWN:
            self._mixed.first.setdefault(one.part, one)
        if one.reason == RejectReason.LEAK and len(self._mixed.leaks) < SHOWN_LEAKS:
            self._mixed.leaks.append(one)
        row = {
            "part": one.part,
            "sample": one.sample.id,
            "reason": one.reason.value,
            "detail": one.detail,
        }
        self._lines.write(json.dumps(row, ensure_ascii=False) + "\n")

    def _sieve(self, part: str) -> Iterator[Sample | LeftOut]:
        """Every sample, unchanged or with the first reason to leave it out."""
        known, config = self._known, self._config
        hashes: Mapping[Path, bytes | None] = {}
        if known is not None:
            pictures = dict.fromkeys(sample.image for sample in self._read(part))
            kept = self._mixed.folder / HASHES
            label = f"hashes of {part}"
            hashes = dict(hashes_of(pictures, kept, label=label, progress=self._progress))
        questions: Counter[Path] = Counter()
        for sample in self._read(part):
            try:
                _refuse(sample, config)
                if known is not None and (
                    near := known.nearest(hashes.get(sample.image), config.max_distance)
                ):
                    raise Rejected(
                        RejectReason.LEAK,
                        f"copy of {near[0]} ({near[1]} of {SIDE * SIDE} bits differ)",
                    )
                key = str(question_key(sample))
                if key in self._seen:
                    raise Rejected(
                        RejectReason.DUPLICATE,
                        "duplicate of an earlier question about the same picture",
                    )
                if config.per_picture is not None and questions[sample.image] >= config.per_picture:
                    raise Rejected(
                        RejectReason.NOT_DRAWN,
                        f"the picture already has {config.per_picture} questions",
                    )
            except LfpcError as error:
                yield LeftOut(part, sample, reason_of(error), str(error))
            else:
                self._seen.add(key)
                if config.per_picture is not None:
                    questions[sample.image] += 1
                yield sample


def _check_share(mixed: Mixed, min_share: float) -> None:
    """Raise SampleError if a part has no sample that passes the filters, or all parts together less
    than `min_share`.
    """
    read = passed = 0
    for name, counts in mixed.parts.items():
        fit = counts["samples"] + counts.get(RejectReason.NOT_DRAWN.value, 0)
        read += counts["read"]
        passed += fit
        if min_share and not fit:
            raise _too_few(mixed, f"no sample of part {name!r}", [name])
    if passed < min_share * read:
        said = f"only {passed:,} of {read:,} samples (--min-share takes fewer)"
        raise _too_few(mixed, said, list(mixed.parts))


def _too_few(mixed: Mixed, subject: str, parts: Sequence[str]) -> SampleError:
    reasons: Counter[str] = Counter()
    for name in parts:
        counts = mixed.parts[name]
        reasons.update({reason: n for reason, n in counts.items() if reason not in _PASSED})
    listed = ", ".join(f"{n:,} {reason}" for reason, n in reasons.most_common()) or "no samples"
    out = [mixed.first[name] for name in parts if name in mixed.first]
    first = f"; the first: sample {out[0].sample.id!r}: {out[0].detail}" if out else ""
    return SampleError(
        f"{subject} passed the filters, so nothing is written; left out: {listed}{first}"
    )


def _refuse(sample: Sample, config: MixConfig) -> None:
    """Raise the reason to leave a sample out, judged by itself."""
    size = upright_size(sample.image)
    tokens = visual_tokens(smart_resize(size, min_tokens=1, max_tokens=1 << 30))
    if tokens < config.min_tokens:
        raise Rejected(
            RejectReason.TINY,
            f"{size[0]} x {size[1]} pixels are {tokens} visual tokens; the minimum is "
            f"{config.min_tokens}",
        )
    if not check_answer(sample.answer, sample).correct:
        raise Rejected(RejectReason.ANSWER, f"no reply can match the answer {sample.answer!r}")


def draw_evenly(piles: Mapping[str, Sequence[int]], wanted: int | None, seed: int) -> Iterator[int]:
    """`wanted` numbers, drawn as evenly over categories as possible: small categories are taken
    whole.

    Args:
        piles: numbers of samples by category.
        wanted: how many; None: all.
        seed: seed of the draw within a category.
    """
    left = sum(map(len, piles.values())) if wanted is None else wanted
    by_size = sorted(piles.items(), key=lambda pile: (len(pile[1]), pile[0]))
    for number, (name, pile) in enumerate(by_size):
        share = min(len(pile), left // (len(by_size) - number))
        left -= share
        yield from (pile[n] for n in Random(f"{seed}/{name}").sample(range(len(pile)), share))
