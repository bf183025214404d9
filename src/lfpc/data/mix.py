"""A mixture of training sets: filtered, without duplicates and without the benchmarks' pictures,
drawn evenly over categories.

`stage1` is the paper's: Pixel Reasoner 2.7k, Chain-of-Focus 2.1k and ThinkLite-VL, pictures with
questions and answers only. How it was filtered is not published; every choice is a field of
`MixConfig`.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from lfpc.answers import check_answer
from lfpc.data.check import question_key
from lfpc.data.config import MixConfig
from lfpc.data.hashes import SIDE, KnownHashes, hashes_of, known_hashes
from lfpc.errors import LfpcError, SampleError
from lfpc.images import smart_resize, upright_size, visual_tokens
from lfpc.published.rejections import Rejected, RejectReason, reason_of
from lfpc.samples import SAMPLES_FILE, Sample, read_samples, write_samples
from lfpc.storage.files import FolderLock, atomic_file, write_json

LEFT_OUT_FILE = "left_out.jsonl"
SUMMARY_FILE = "mix.json"
HASHES = "hashes"


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A sample that is not in the mixture."""

    part: str
    sample: Sample
    reason: RejectReason
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Mixed:
    """A mixture."""

    samples: list[Sample]
    left_out: list[LeftOut]
    parts: dict[str, dict[str, int]]
    """By part: number of samples read ("read"), in the mixture ("samples"), and left out, by
    reason."""


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
        kept: list[Sample] = []
        left_out: list[LeftOut] = []
        parts: dict[str, dict[str, int]] = {}
        seen: set[int] = set()
        for part in config.parts:
            samples = read_samples(folder / part.name)
            sieve = _sieve(part.name, samples, config, known, seen, out, progress=progress)
            fit: list[Sample] = []
            for found in sieve:
                (fit if isinstance(found, Sample) else left_out).append(found)  # pyright: ignore[reportArgumentType]
            drawn = draw_evenly(fit, part.count, config.seed)
            chosen = {sample.id for sample in drawn}
            left_out += [
                LeftOut(part.name, sample, RejectReason.NOT_DRAWN)
                for sample in fit
                if sample.id not in chosen
            ]
            kept += [
                replace(sample, id=f"{part.name}/{sample.id}", source=sample.source or part.name)
                for sample in drawn
            ]
            reasons = Counter(each.reason.value for each in left_out if each.part == part.name)
            parts[part.name] = {"read": len(samples), "samples": len(drawn), **reasons}
        mixed = Mixed(kept, left_out, parts)
        _check_share(mixed, min_share)
        _write(mixed, config, out, known)
    return mixed


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
    out = [
        each
        for each in mixed.left_out
        if each.part in parts and each.reason != RejectReason.NOT_DRAWN
    ]
    reasons = Counter(each.reason.value for each in out).most_common()
    listed = ", ".join(f"{count:,} {reason}" for reason, count in reasons) or "no samples"
    first = f"; the first: sample {out[0].sample.id!r}: {out[0].detail}" if out else ""
    return SampleError(
        f"{subject} passed the filters, so nothing is written; left out: {listed}{first}"
    )


def _sieve(
    part: str,
    samples: Sequence[Sample],
    config: MixConfig,
    known: KnownHashes | None,
    seen: set[int],
    out: Path,
    *,
    progress: bool,
) -> Iterator[Sample | LeftOut]:
    """Every sample, unchanged or with the first reason to leave it out."""
    hashes: Mapping[Path, bytes | None] = {}
    if known is not None:
        pictures = dict.fromkeys(sample.image for sample in samples)
        hashes = dict(
            hashes_of(pictures, out / HASHES, label=f"hashes of {part}", progress=progress)
        )
    questions: Counter[Path] = Counter()
    for sample in samples:
        try:
            _refuse(sample, config)
            if known is not None and (
                near := known.nearest(hashes.get(sample.image), config.max_distance)
            ):
                raise Rejected(
                    RejectReason.LEAK,
                    f"copy of {near[0]} ({near[1]} of {SIDE * SIDE} bits differ)",
                )
            key = question_key(sample)
            if key in seen:
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
            seen.add(key)
            questions[sample.image] += 1
            yield sample


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


def draw_evenly(samples: Sequence[Sample], wanted: int | None, seed: int) -> list[Sample]:
    """`wanted` samples in their order, drawn as evenly over categories as possible: small
    categories are taken whole.

    Args:
        samples: what to draw from.
        wanted: how many; None: all.
        seed: seed of the draw within a category.
    """
    if wanted is None or wanted >= len(samples):
        return list(samples)
    piles: defaultdict[str, list[int]] = defaultdict(list)
    for place, sample in enumerate(samples):
        piles[sample.category].append(place)
    taken: list[int] = []
    by_size = sorted(piles.items(), key=lambda pile: (len(pile[1]), pile[0]))
    for number, (name, places) in enumerate(by_size):
        share = min(len(places), (wanted - len(taken)) // (len(by_size) - number))
        taken += Random(f"{seed}/{name}").sample(places, share)
    return [samples[place] for place in sorted(taken)]


def _write(mixed: Mixed, config: MixConfig, out: Path, known: KnownHashes | None) -> None:
    write_samples(mixed.samples, out, replace=False)
    with atomic_file(out / LEFT_OUT_FILE) as lines:
        for each in mixed.left_out:
            row: dict[str, Any] = {
                "part": each.part,
                "sample": each.sample.id,
                "reason": each.reason.value,
                "detail": each.detail,
            }
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")
    compared = None if known is None else len(known)
    write_json(
        out / SUMMARY_FILE,
        {
            "config": config,
            "samples": len(mixed.samples),
            "parts": mixed.parts,
            "compared_with": compared,
        },
    )
