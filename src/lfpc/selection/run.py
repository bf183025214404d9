"""Resolution selection: how far each sample's first view is reduced before Stage I (offline).

The model to be trained answers each question without the tool, level by level from the original
downwards. The first level with a different answer from the original's becomes the sample's budget:
there the picture has lost what the answer needs, and a crop adds it.
"""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from tqdm import tqdm

from lfpc.episode import AsyncPolicy, Policy
from lfpc.errors import ConfigError, LfpcError, RunError
from lfpc.images import check_budget, shown_size, upright_size, visual_tokens
from lfpc.playing.driver import Failure, Played, play_samples
from lfpc.playing.progress import progress_bar
from lfpc.policies.backends import Server
from lfpc.policies.config import ModelPolicy
from lfpc.protocols import ChatProtocol
from lfpc.samples import Sample
from lfpc.selection.asking import Asking
from lfpc.selection.config import SelectConfig
from lfpc.selection.ladder import RULES, AnswerRules, SearchResult, level_budgets
from lfpc.selection.processes import ask_in_processes
from lfpc.storage.files import write_json
from lfpc.storage.journal import Journal
from lfpc.storage.runs import NO_INPUTS, Inputs, Kind, RunFolder, check_run

SUMMARY_FILE = "selection.json"
ANSWERS_FOLDER = "answers"
"""Run folder of the model's answers, inside that of the selection."""
ANSWERS_FILE = "answers.jsonl"
MAX_FAILURES = 20


@dataclass(frozen=True, slots=True)
class Level:
    """Counts at one level of the ladder."""

    name: float
    """Budget in visual tokens, or ratio."""
    asked: int
    """Samples asked at this level."""
    right: int
    """Number of them answered rightly here."""
    right_before: int
    """Number of them answered rightly at the original."""
    changed: int
    """Samples whose answer first differed here."""
    tokens: float | None = None
    """Median visual tokens of the pictures at this level."""
    right_all: int = 0
    """Of all samples, those answered rightly here, or at the last level above that they were asked
    at."""
    changed_right: int = 0
    """Of the samples whose answer first differed here, those answered rightly at the original. Only
    these lost something here; the others changed one wrong answer for another."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Samples with their budgets, and counts by level."""

    samples: list[Sample] = field(repr=False)
    levels: dict[float, int]
    """Budget (or ratio) -> samples whose answer first changed there."""
    never: int
    """Samples whose answer never changed."""
    wrong: int
    """Samples answered wrongly at the original."""
    dropped: int
    ladder: tuple[Level, ...] = ()
    """Levels, the original first."""
    failed: dict[str, str] | None = None
    """Sample id -> reason of its failure; failed samples are left out."""
    truncated: int = 0
    """Samples with a reply that the token limit ended."""
    open: tuple[str, ...] = ()
    """Ids of the failed samples whose model or judge failed: another call asks them again."""
    one_size: int = 0
    """Samples whose picture has the same size at all levels, so that no answer can change."""


def select(
    samples: Sequence[Sample],
    policy: Policy | AsyncPolicy,
    *,
    protocol: ChatProtocol,
    config: SelectConfig,
    out: Path,
    inputs: Inputs = NO_INPUTS,
    answers: Path | None = None,
    rules: AnswerRules = RULES,
    batch: int = 64,
    max_failures: int = MAX_FAILURES,
    processes: int | None = 1,
    progress: bool = True,
) -> Selection:
    """Choose every sample's budget. Answers are stored at once, so a killed run can resume.

    Args:
        samples: samples to choose budgets for.
        policy: answers without the tool, greedily or with `config.votes` samples. A served policy
            gets `policy.concurrency` questions at once, any other `batch` at a time.
        protocol: the model family's protocol.
        config: ladder and options.
        out: run folder of `selection.json`.
        inputs: the model; see `lfpc.policies.identity.model_identity`.
        answers: folder of answers, which selections with the same model may share; None: inside
            `out`.
        rules: comparison of answers.
        batch: questions per batch of a policy in this process.
        max_failures: failures of the policy to accept before giving up.
        processes: number of processes that ask a server; None: as many as the pictures are worth.
        progress: whether to print the expected cost and show the progress.
    Returns:
        Samples with their budgets, in their order, without dropped ones.
    Raises:
        ConfigError: `batch` is below 1.
        RunError: the folder holds another selection, the disk refuses, too many samples failed, or
            a process was killed.
    """
    if batch < 1:
        raise ConfigError(f"`batch` must be at least 1, got {batch}")
    if not config.ratios:
        check_budget(config.ladder[-1], protocol.factor, "the last budget of `ladder`")
    stored = answers or out / ANSWERS_FOLDER
    check_run(stored, Kind.ANSWERS, config.answers, inputs=inputs)
    run = RunFolder.open(out, Kind.SELECTION, config, inputs=inputs)
    try:
        answered = RunFolder.open(stored, Kind.ANSWERS, config.answers, inputs=inputs)
    except BaseException:
        run.close()
        raise
    journal = Journal.open(answered.path / ANSWERS_FILE)
    asking = Asking(journal.rows(), protocol, config, journal.append)
    if progress:
        tqdm.write(cost_line(samples, config, protocol, len(asking.known)), file=sys.stderr)
    results: dict[str, SearchResult | Failure] = {}
    reasons: list[str] = []

    def failed(sample: Sample, failure: Failure, done: int) -> None:
        results[sample.id] = failure
        if failure.counts:
            reasons.append(failure.why)
            _give_up(reasons, done, len(samples), out, max_failures)

    def record(some: Sequence[Played[Sample, SearchResult]]) -> None:
        for sample, result, _ in some:
            if isinstance(result, Failure):
                failed(sample, result, len(results) + 1)
            else:
                results[sample.id] = result
        advance(len(some))

    concurrency = (
        max(1, policy.concurrency // config.votes) if isinstance(policy, AsyncPolicy) else None
    )
    with run, answered:
        if (
            processes != 1
            and concurrency is not None
            and isinstance(policy, ModelPolicy)
            and isinstance(server := policy.backend, Server)
        ):
            ask_in_processes(
                samples,
                asking,
                policy.config,
                server,
                config,
                journal.path,
                failed,
                concurrency=concurrency,
                processes=processes,
                progress=progress,
            )
        todo = [sample for sample in samples if sample.id not in results]
        bar = progress_bar(len(samples), len(results), "select", unit="sample", shown=progress)
        with bar as advance:
            play_samples(
                todo,
                partial(asking.search, rules=rules),
                policy,
                record,
                batch=batch,
                concurrency=concurrency,
            )
    found = {sample.id: results[sample.id] for sample in samples}
    selection = replace(_selection(found, config), truncated=len(asking.truncated))
    write_json(out / SUMMARY_FILE, summary(selection))
    return selection


def _give_up(failed: Sequence[str], done: int, total: int, out: Path, max_failures: int) -> None:
    if len(failed) > max_failures or len(failed) == total:
        raise RunError(
            f"{out}: {len(failed)} of {done} samples failed, the last with: {failed[-1]}"
        )


def _selection(found: Mapping[str, SearchResult | Failure], config: SelectConfig) -> Selection:
    """The selection from the search results by sample id."""
    results = [result for result in found.values() if isinstance(result, SearchResult)]
    failed = {name: result.why for name, result in found.items() if isinstance(result, Failure)}
    changed = Counter(
        config.levels[level] for result in results if (level := result.changed_at) is not None
    )
    kept = [
        replace(
            result.sample,
            budget=result.budgets[-1 if result.changed_at is None else result.changed_at],
        )
        for result in results
        if (result.changed_at is not None or config.never == "keep")
        and (result.steps[0].right or config.wrong == "keep")
    ]
    return Selection(
        samples=kept,
        levels=dict(sorted(changed.items(), reverse=True)),
        never=len(results) - changed.total(),
        wrong=sum(not result.steps[0].right for result in results),
        dropped=len(results) - len(kept),
        ladder=tuple(
            _level(i, name, results, changed[name]) for i, name in enumerate(config.levels)
        ),
        failed=failed,
        open=tuple(
            name for name, result in found.items() if isinstance(result, Failure) and result.counts
        ),
        one_size=sum(result.sizes == 1 for result in results),
    )


def _level(place: int, name: float, results: Sequence[SearchResult], changed: int) -> Level:
    there = [result for result in results if len(result.steps) > place]
    return Level(
        name,
        asked=len(there),
        right=sum(result.steps[place].right for result in there),
        right_before=sum(result.steps[0].right for result in there),
        changed=changed,
        tokens=median(result.tokens[place] for result in results) if results else None,
        right_all=sum(result.right_at(place) for result in results),
        changed_right=sum(
            result.steps[0].right for result in results if result.changed_at == place
        ),
    )


def summary(selection: Selection) -> dict[str, Any]:
    """The content of `selection.json`: counts, and accuracy by level."""
    failed = selection.failed or {}
    return {
        "samples": len(selection.samples) + selection.dropped + len(failed),
        "levels": selection.levels,
        "never": selection.never,
        "one_size": selection.one_size,
        "truncated": selection.truncated,
        "wrong": selection.wrong,
        "dropped": selection.dropped,
        "failed": failed,
        "open": selection.open,
        "ladder": selection.ladder,
    }


def cost_line(
    samples: Sequence[Sample], config: SelectConfig, protocol: ChatProtocol, known: int = 0
) -> str:
    """A sentence with the minimum and maximum number of requests; reads only the headers of
    pictures.

    Equal sizes are asked once, so a small picture needs fewer requests than levels.
    """
    least = most = least_tokens = most_tokens = 0
    budgets = level_budgets(config, protocol.factor)
    for sample in samples:
        try:
            original = upright_size(sample.image)
            sizes = [
                shown_size(original, max_tokens=budget, factor=protocol.factor)
                for budget in budgets(original)
            ]
        except LfpcError:
            continue
        tokens = [visual_tokens(size, protocol.factor) for size in dict.fromkeys(sizes)]
        few = tokens[: None if config.every_level else 2]
        least = least + len(few)
        most = most + len(tokens)
        least_tokens = least_tokens + sum(few)
        most_tokens = most_tokens + sum(tokens)
    votes = config.votes
    kept = f"; {known:,} answers are stored" if known else ""
    return (
        f"select: {len(samples):,} samples, {_range(least * votes, most * votes)} requests of "
        f"{_range(least_tokens * votes, most_tokens * votes)} visual tokens in total{kept}"
    )


def _range(least: int, most: int) -> str:
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"
