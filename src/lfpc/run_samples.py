"""The samples of a run, and whether they are still those that its results are about.

    samples.jsonl     the samples
    pictures.jsonl    {"key": sample id, "size", "changed", "sha256"} of their pictures, for runs
                      that need them all unchanged

Only what a model is shown or judged by is compared: question, options, answer, boxes, budget and
the content of the picture, wherever it lies.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lfpc.errors import RunError, SampleError
from lfpc.samples import Sample, read_samples, write_samples
from lfpc.storage.files import write_text
from lfpc.storage.identity import file_hashes, value_hash
from lfpc.storage.journal import Journal, line_of, read_lines
from lfpc.storage.runs import EPISODES_FILE, Kind, RunFolder, has_results

PICTURES_FILE = "pictures.jsonl"
COMPARED = ("question", "options", "answer", "boxes", "budget")


def run_samples(run: RunFolder) -> list[Sample]:
    """The samples of a run.

    Raises:
        RunError: its `samples.jsonl` is unreadable.
    """
    try:
        return read_samples(run.samples_file) if run.samples_file.exists() else []
    except SampleError as error:
        raise RunError(str(error)) from error


def keep_samples(run: RunFolder, samples: Sequence[Sample]) -> None:
    """Add samples to the run's `samples.jsonl`; those of the same id are replaced."""
    there = {sample.id: sample for sample in run_samples(run)}
    wanted = there | {sample.id: sample for sample in samples}
    if wanted != there:
        write_samples(wanted.values(), run.samples_file.parent)


def sample_hashes(samples: Sequence[Sample], budget: int | None = None) -> dict[str, str]:
    """Hash of each sample by id: "TEXTS.PICTURE", without a picture that cannot be read.

    Args:
        samples: the samples.
        budget: first-view budget in place of each sample's own.
    """
    pictures = file_hashes(sample.image for sample in samples)
    return {
        sample.id: f"{value_hash(_compared(_at(sample, budget)))}.{pictures[sample.image]}"
        for sample in samples
    }


def check_asked(run: RunFolder, samples: Sequence[Sample], budget: int | None = None) -> None:
    """Check that the recorded answers of an evaluation are answers to these samples.

    Args:
        run: the evaluation.
        samples, budget: see `sample_hashes`.
    Raises:
        RunError: a sample has changed since it was answered; names what differs.
    """
    hashes = sample_hashes(samples, budget)
    now = {sample.id: _at(sample, budget) for sample in samples}
    before = {sample.id: _at(sample, budget) for sample in run_samples(run)}
    for row in Journal(run.path / EPISODES_FILE).rows():
        sample = now.get(row.get("sample", ""))
        if sample is None or "error" in row:
            continue
        then = before.get(sample.id)
        texts, _, picture = row.get("asked", "").partition(".")
        texts_now, _, picture_now = hashes[sample.id].partition(".")
        if texts and texts != texts_now:
            raise _changed(run, sample, (then and _difference(then, sample)) or "text")
        if not texts and then and (name := _difference(then, sample)):
            raise _changed(run, sample, name)
        if picture and picture_now and picture != picture_now:
            raise _changed(run, sample, "picture")


def keep_whole_set(run: RunFolder, samples: Sequence[Sample]) -> None:
    """Store the samples of a run whose result depends on all of them and on their order, with their
    pictures' hashes; compare them with the stored ones if the run has results.

    Pictures of unchanged size and time are not read again.

    Raises:
        RunError: a sample has changed, is new or missing, or stands elsewhere.
    """
    rows = read_lines(run.path / PICTURES_FILE)
    before = {row["key"]: row for row in rows}
    pictures = _picture_rows(samples, before)
    if has_results(run.path, Kind.TRAIN):
        stored = run_samples(run)
        if stored and len(stored) != len(samples):
            raise RunError(
                f"{run.path}: the existing run has {len(stored)} samples, but the data here has "
                f"{len(samples)}; restore the data, or use another folder"
            )
        for then, sample in zip(stored, samples, strict=False):
            if then.id != sample.id:
                raise _changed(run, then, "place in the data")
            if name := _difference(then, sample):
                raise _changed(run, sample, name)
            was = before.get(sample.id, {}).get("sha256")
            if was and was != pictures[sample.id]["sha256"]:
                raise _changed(run, sample, "picture")
    if list(before.values()) != list(pictures.values()):
        write_text(run.path / PICTURES_FILE, "".join(map(line_of, pictures.values())))
    if run_samples(run) != samples:
        write_samples(samples, run.samples_file.parent)


def _picture_rows(
    samples: Sequence[Sample], before: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    facts = {sample.id: _facts(sample.image) for sample in samples}
    new = [
        sample.image
        for sample in samples
        if {**before.get(sample.id, {}), **facts[sample.id]} != before.get(sample.id)
    ]
    hashes = file_hashes(new)
    return {
        sample.id: {
            "key": sample.id,
            **facts[sample.id],
            "sha256": hashes[sample.image]
            if sample.image in hashes
            else before.get(sample.id, {}).get("sha256", ""),
        }
        for sample in samples
    }


def _facts(picture: Path) -> dict[str, int]:
    try:
        facts = picture.stat()
    except OSError:
        return {}
    return {"size": facts.st_size, "changed": facts.st_mtime_ns}


def _at(sample: Sample, budget: int | None) -> Sample:
    return sample if budget is None else replace(sample, budget=budget)


def _compared(sample: Sample) -> dict[str, Any]:
    return {
        **{name: getattr(sample, name) for name in COMPARED},
        "boxes": [[tuple(map(float, box.corners)) for box in nested] for nested in sample.boxes],
    }


def _difference(then: Sample, now: Sample) -> str | None:
    """Name of the first compared field that differs; None: all agree."""
    return next((name for name in COMPARED if getattr(then, name) != getattr(now, name)), None)


def _changed(run: RunFolder, sample: Sample, what: str) -> RunError:
    verb = "have" if what in ("options", "boxes") else "has"
    return RunError(
        f"{run.path}: the {what} of sample {sample.id!r} {verb} changed since the existing run; "
        f"restore the data, or use another folder"
    )
