"""Records of episodes, and their lines of JSON in a run's `episodes.jsonl`.

A record has everything for pages, rescoring, probes and summaries, except pixels. A line names its
sample by id, and the run's `samples.jsonl` holds it. `episodes` has the data, `lines` their JSON.
"""

from collections.abc import Iterable
from pathlib import Path

from lfpc.errors import RunError
from lfpc.records.episodes import (
    EpisodeRecord,
    TurnRecord,
    episode_answered_before_crop,
    failed_record,
    record_of,
    truncated_replies,
    turn_record,
)
from lfpc.records.lines import (
    RECORD_VERSION,
    record_from_json,
    record_to_json,
    terms_to_json,
    turn_to_json,
)
from lfpc.run_samples import run_samples
from lfpc.samples import Sample
from lfpc.storage.journal import Journal
from lfpc.storage.runs import EPISODES_FILE, RunFolder, read_run

__all__ = [
    "RECORD_VERSION",
    "EpisodeRecord",
    "TurnRecord",
    "episode_answered_before_crop",
    "failed_record",
    "log_record",
    "read_records",
    "record_from_json",
    "record_of",
    "record_to_json",
    "terms_to_json",
    "truncated_replies",
    "turn_record",
    "turn_to_json",
]


def log_record(run: RunFolder, key: str, record: EpisodeRecord) -> None:
    """Append a record under `key`, which identifies it within the run."""
    run.log_episode(key, record_to_json(record))


def read_records(
    run: RunFolder | Path | str, samples: Iterable[Sample] | None = None
) -> dict[str, EpisodeRecord]:
    """Records of a run by key, in the order first written; the last line of a key counts.

    Args:
        run: the run folder, or its path.
        samples: samples whose records to read; None: all samples of the run's `samples.jsonl`.
    Raises:
        RunError: a line is not a record of this version; names file and line.
    """
    if not isinstance(run, RunFolder):
        run = read_run(Path(run))
    known = {sample.id: sample for sample in (run_samples(run) if samples is None else samples)}
    found: dict[str, EpisodeRecord] = {}
    for number, row in enumerate(Journal(run.path / EPISODES_FILE).rows(), 1):
        try:
            if samples is None or row.get("sample") in known:
                found[row["key"]] = record_from_json(row, known)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            file = run.path / EPISODES_FILE
            raise RunError(
                f"{file}:{number}: not a record ({type(error).__name__}: {error}); delete the line "
                f"to have the question asked again"
            ) from error
    return found
