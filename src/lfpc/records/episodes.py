"""What an episode leaves behind: typed data without pixels.

Verdict, boxes and IoU are computed once, with the record. Missing values are None (no crop: no
IoU). Sizes are (width, height) in pixels, boxes fractions of the original.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from lfpc.answers import answered_before_crop
from lfpc.boxes import Box, Corners, Size, coverage, target_iou
from lfpc.dialogue import Action, Crop, Reply, Turn, crop_boxes
from lfpc.episode import Episode, Stop
from lfpc.images import visual_tokens
from lfpc.rewards import RewardTerms
from lfpc.samples import Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnRecord:
    """A turn without pixels."""

    text: str
    """The reply."""
    action: Action
    view: Size | None = None
    """Size of the shown crop; None: no crop."""
    region: Box | None = None
    """Region of the shown crop."""
    cut: Corners | None = None
    """Cut pixels of the original, xyxy."""
    tokens: int = 0
    """Tokens of the reply; 0 for a policy without tokens."""
    prompt_tokens: int | None = None
    """Tokens of the conversation before the reply, by the server's count."""
    finish: str = ""
    """The finish reason: "stop", "length", or a server's own; empty: unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeRecord:
    """The record of an episode, or of a failed question.

        {"v": 2, "sample": "q7", "first_view": [140, 140], "turns": [...], "stop": "answered",
         "said": "B", "correct": true, "method": "option", "iou": 0.41, "visual_tokens": 29, ...}

    Empty fields are left out of the line.
    """

    sample: Sample
    turns: tuple[TurnRecord, ...] = ()
    first_view: Size | None = None
    stop: Stop | None = None
    said: str | None = None
    """The final answer; None: the policy never answered."""
    correct: float | None = False
    """The verdict; for averaged draws the share of right ones; None: no reference answer."""
    method: str = ""
    """Decider of the verdict: a rule's name, "judge", "unparsed", "undecided"."""
    judge: str = ""
    """Name of the judge, if it decided."""
    undecided: str = ""
    """Reason why the judge did not decide."""
    error: str = ""
    """Reason of a failed question, which counts as wrong."""
    asked: str = ""
    """`lfpc.run_samples.sample_hashes` of the sample when it was asked; empty: unknown."""

    tool: bool | None = None
    """Whether a crop was shown."""
    calls: int | None = None
    """Number of requested boxes."""
    crops: int | None = None
    """Number of shown crops."""
    n_turns: int | None = None
    global_tokens: int | None = None
    """Visual tokens of the first view."""
    crop_tokens: int | None = None
    """Visual tokens of all crops."""
    visual_tokens: int | None = None
    """Visual tokens of first view and crops."""
    iou_first: float | None = None
    """IoU of the first crop with the best fitting nested truth box, mean over targets."""
    iou: float | None = None
    """The same for the last crop."""
    iou_best: float | None = None
    """The same with the best crop for each target."""
    coverage: float | None = None
    """Share of B_1 inside the last crop, mean over targets."""
    crop_area: float | None = None
    """Area of the last crop, as share of the picture."""
    truncated: int | None = None
    """Number of replies that the token limit ended; None: the finish reasons are unknown."""
    malformed: tuple[str, ...] = ()
    """Reason codes of malformed replies, in order."""
    answered_before_crop: bool | None = None
    """Whether the answer is in the text before the first crop; see `lfpc.answers`."""

    reward: RewardTerms | None = None
    budget: int | None = None
    """First-view budget; None: unlimited."""
    seconds: float | None = None
    """Seconds from first view to answer; in a batch, each question's share."""
    concurrency: int | None = None
    """Number of concurrent episodes; None: batches."""
    replayed: int | None = None
    """Number of replayed turns; None: not a replay."""
    step: int | None = None
    """Training step."""
    advantage: float | None = None
    """Advantage within the rollout group."""
    seed: int | None = None
    """Seed of the run in pooled results. Not written."""

    @property
    def failed(self) -> bool:
        """Whether the question failed, so there is no episode."""
        return bool(self.error)

    @property
    def score(self) -> float:
        """1 for a right answer, else 0; for averaged draws the share of right ones."""
        return float(self.correct or 0)

    @property
    def text_tokens(self) -> int | None:
        """Tokens of all replies; None for a policy without tokens."""
        return sum(turn.tokens for turn in self.turns) or None

    @property
    def boxes(self) -> tuple[Box, ...]:
        """Every requested box, in order, but for a last turn's; see `lfpc.dialogue.crop_turns`."""
        return crop_boxes(self.turns)

    @property
    def cluster(self) -> str:
        """Cluster of dependent records: the data set's "cluster" in `meta`, else the picture."""
        return str(self.sample.meta.get("cluster") or self.sample.image)


def turn_record(turn: Turn) -> TurnRecord:
    """The record of a turn."""
    reply = turn.reply
    view = turn.view
    return TurnRecord(
        text=reply.text,
        action=turn.action,
        view=view and view.size,
        region=view and view.region,
        cut=view and view.cut,
        tokens=reply.tokens,
        prompt_tokens=reply.usage.prompt_tokens if reply.usage else None,
        finish=reply.finish,
    )


def record_of(
    episode: Episode, reward: RewardTerms | None = None, *, factor: int = 28, **more: Any
) -> EpisodeRecord:
    """The record of a finished episode.

    Args:
        episode: the episode.
        reward: its reward terms; None: none.
        factor: side of a visual token in pixels, from the protocol.
        more: further fields: seconds, budget, step, ...
    """
    boxes = episode.boxes
    targets = episode.sample.boxes
    global_tokens = visual_tokens(episode.first_view.size, factor)
    crop_tokens = sum(visual_tokens(view.size, factor) for view in episode.views[1:])
    return EpisodeRecord(
        sample=episode.sample,
        turns=tuple(map(turn_record, episode.turns)),
        first_view=episode.first_view.size,
        stop=episode.stop,
        said=episode.answer,
        correct=episode.verdict.correct,
        method=episode.verdict.method,
        tool=episode.shown_crops > 0,
        calls=len(boxes),
        crops=episode.shown_crops,
        n_turns=len(episode.turns),
        global_tokens=global_tokens,
        crop_tokens=crop_tokens,
        visual_tokens=global_tokens + crop_tokens,
        iou_first=target_iou(boxes[:1], targets),
        iou=target_iou(boxes[-1:], targets),
        iou_best=target_iou(boxes, targets),
        coverage=fmean(coverage(boxes[-1], nested[0]) for nested in targets)
        if boxes and targets
        else None,
        crop_area=boxes[-1].area if boxes else None,
        truncated=truncated_replies(turn.reply for turn in episode.turns),
        malformed=tuple(action.reason.value for action in episode.malformed),
        answered_before_crop=episode_answered_before_crop(episode),
        reward=reward,
        **more,
    )


def truncated_replies(replies: Iterable[Reply]) -> int | None:
    """Number of the replies that the token limit ended; None if no finish reason is known."""
    known = [reply.truncated for reply in replies if reply.finish]
    return sum(known) if known else None


def episode_answered_before_crop(episode: Episode) -> bool | None:
    """Whether the text before an episode's first crop holds its answer; None without a crop or an
    answer, or if undecidable. See `lfpc.answers.answered_before_crop`.
    """
    crops = [n for n, turn in enumerate(episode.turns, 1) if isinstance(turn.action, Crop)]
    before = episode.turns[: crops[0]] if crops else ()
    return answered_before_crop(
        [turn.reply.text for turn in before],
        episode.answer,
        question=episode.sample.question,
        options=episode.sample.options,
    )


def failed_record(sample: Sample, error: str, **more: Any) -> EpisodeRecord:
    """The record of a failed question."""
    return EpisodeRecord(sample=sample, error=error, **more)
