"""Resolution selection: how far each sample's global picture is reduced before Stage I (offline).

From the original downwards, level by level, the model that is going to be trained answers at once,
without the tool. The first level at which its answer is no longer the one it gave at the original
becomes the sample's budget: there the picture has lost what the answer needs, and a crop has
something to add.
"""

import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lfpc.boxes import Size
from lfpc.episode import AsyncPolicy, Policy
from lfpc.errors import LfpcError, RunError
from lfpc.images import smart_resize, upright_size, visual_tokens
from lfpc.playing.driver import Failure, Item, Played, play_samples
from lfpc.playing.progress import progress_bar
from lfpc.protocols import ChatProtocol
from lfpc.samples import Sample
from lfpc.selection.asking import Asking
from lfpc.selection.config import SelectConfig
from lfpc.selection.ladder import RULES, AnswerRules, SearchResult, ladder_of_ratios, search
from lfpc.storage.files import write_json
from lfpc.storage.journal import Journal
from lfpc.storage.runs import Kind, RunFolder

SUMMARY_FILE = "selection.json"
ANSWERS_FOLDER = "answers"
"""Run folder of the model's answers, inside the one of the selection."""
ANSWERS_FILE = "answers.jsonl"
MAX_FAILURES = 20


@dataclass(frozen=True, slots=True)
class Level:
    """What was seen at one level of the ladder."""

    name: float
    """Its budget in visual tokens, or its ratio."""
    asked: int
    """Samples that got this far."""
    right: int
    """Of those, answered rightly here."""
    right_before: int
    """Of those, answered rightly at the original."""
    changed: int
    """Samples whose answer first differed here."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The samples with their budgets, and how many went where."""

    samples: list[Sample] = field(repr=False)
    levels: dict[float, int]
    """Budget (or ratio) -> samples whose answer first changed there."""
    never: int
    """Samples whose answer never changed."""
    wrong: int
    """Samples answered wrongly at the original."""
    dropped: int
    ladder: tuple[Level, ...] = ()
    """Level by level, the original first."""
    failed: dict[str, str] | None = None
    """Sample -> why it could not be asked about; it is left out."""


def select(
    samples: Sequence[Sample],
    policy: Policy | AsyncPolicy,
    *,
    protocol: ChatProtocol,
    config: SelectConfig,
    out: Path,
    answers: Path | None = None,
    rules: AnswerRules = RULES,
    batch: int = 64,
    max_failures: int = MAX_FAILURES,
    progress: bool = True,
) -> Selection:
    """Choose every sample's budget. Answers are kept as they come, so a run that was killed goes
    on.

    Args:
        samples: what to choose budgets for.
        policy: answers without the tool: greedily, or with `config.votes` sampled. A served one is
            asked `policy.concurrency` questions at once, another one `batch` at a time.
        protocol: how it is spoken to.
        config: ladder and options.
        out: run folder of `selection.json`.
        answers: folder of answers, which selections with the same model may share; None: inside
            `out`.
        rules: when two answers are the same, and when one is right.
        batch: questions that a policy of this process is asked together.
        max_failures: so many samples may fail in the policy before the run is given up.
        progress: whether to say what it will cost, and how far it is.
    Returns:
        Samples in their order, each with its budget, without the dropped ones.
    Raises:
        RunError: the folder holds another selection, the disk refuses, or too many samples failed.
    """
    run = RunFolder.open(out, Kind.SELECTION, config)
    answered = RunFolder.open(answers or out / ANSWERS_FOLDER, Kind.ANSWERS, config.answers)
    journal = Journal.open(answered.path / ANSWERS_FILE)
    asking = Asking(journal, protocol, config.votes)
    if progress:
        tqdm.write(cost_line(samples, config, protocol, len(asking.known)), file=sys.stderr)
    budgets = _level_budgets(config, protocol.factor)
    results: dict[str, SearchResult | Failure] = {}
    failed: list[str] = []

    def item(sample: Sample) -> Item[SearchResult]:
        return search(
            sample, budgets, protocol, rules, asking.ask, stop_early=not config.every_level
        )

    def record(some: Sequence[Played[SearchResult]]) -> None:
        for sample, result, _ in some:
            results[sample.id] = result
            if isinstance(result, Failure) and result.counts:
                failed.append(result.why)
                _give_up(failed, len(results), len(samples), out, max_failures)
        advance(len(some))

    concurrency = (
        max(1, policy.concurrency // config.votes) if isinstance(policy, AsyncPolicy) else None
    )
    bar = progress_bar(len(samples), 0, "select", unit="sample", shown=progress)
    with run, answered, bar as advance:
        play_samples(samples, item, policy, record, batch=batch, concurrency=concurrency)
    selection = _selection({sample.id: results[sample.id] for sample in samples}, config)
    write_json(out / SUMMARY_FILE, summary(selection))
    return selection


def _level_budgets(config: SelectConfig, factor: int) -> Callable[[Size], Sequence[int]]:
    """A function from the size of an original in pixels to the visual tokens of its levels."""
    if config.ratios:
        return ladder_of_ratios(config.ratios, config.ladder[0], factor)
    return lambda original: config.ladder


def _give_up(failed: Sequence[str], done: int, total: int, out: Path, max_failures: int) -> None:
    if len(failed) > max_failures or len(failed) == total:
        raise RunError(
            f"{out}: {len(failed)} of {done} samples failed, the last with: {failed[-1]}"
        )


def _selection(found: Mapping[str, SearchResult | Failure], config: SelectConfig) -> Selection:
    """`found` is by sample."""
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
    )


def _level(place: int, name: float, results: Sequence[SearchResult], changed: int) -> Level:
    there = [result for result in results if len(result.steps) > place]
    right = sum(result.steps[place].right for result in there)
    return Level(name, len(there), right, sum(result.steps[0].right for result in there), changed)


def summary(selection: Selection) -> dict[str, Any]:
    """What `selection.json` holds: counts, and each level with its accuracy."""
    failed = selection.failed or {}
    return {
        "samples": len(selection.samples) + selection.dropped + len(failed),
        "levels": selection.levels,
        "never": selection.never,
        "wrong": selection.wrong,
        "dropped": selection.dropped,
        "failed": failed,
        "ladder": selection.ladder,
    }


def cost_line(
    samples: Sequence[Sample], config: SelectConfig, protocol: ChatProtocol, known: int = 0
) -> str:
    """What a selection will ask at the least and at the most, in a sentence; only headers of
    pictures are read.

    Equal sizes are asked about once, so a small picture costs fewer requests than there are levels.
    """
    least = most = least_tokens = most_tokens = 0
    budgets = _level_budgets(config, protocol.factor)
    for sample in samples:
        try:
            original = upright_size(sample.image)
            sizes = [
                smart_resize(original, min_tokens=1, max_tokens=budget, factor=protocol.factor)
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
    kept = f"; {known:,} answers are there already" if known else ""
    return (
        f"select: {len(samples):,} samples, {least * votes:,} to {most * votes:,} requests of "
        f"{least_tokens * votes:,} to {most_tokens * votes:,} visual tokens together{kept}"
    )
