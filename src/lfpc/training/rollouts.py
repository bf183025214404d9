"""Episodes as rollouts: tokens, and which of them the policy wrote."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lfpc.dialogue import Context
from lfpc.episode import Episode
from lfpc.images import View
from lfpc.policies.qwen.encode import Encoded, Encoder


@dataclass(frozen=True, slots=True, eq=False)
class Rollout:
    """One rollout as tokens, mask and sampled log-probabilities.

    system + user    reply 0    end, user     reply 1
    P P V V V P P    a a a      o V V o P     a a       P prompt, V picture, a reply, o observation
    0 0 0 0 0 0 0    1 1 1      0 0 0 0 0     1 1       mask: only sampled tokens are trained
    """

    encoded: Encoded
    """The whole conversation."""
    logprobs: np.ndarray
    """(policy tokens,) float32: log pi(token) when it was sampled."""
    overlong: bool
    """Whether the conversation is too long, and therefore not trained on."""
    masked: bool = False
    """Whether it is not trained on for another reason; see `TrainConfig.unanswered`."""

    @property
    def input_ids(self) -> list[int]:
        """All tokens."""
        return self.encoded.ids.tolist()

    @property
    def views(self) -> tuple[View, ...]:
        """The pictures behind the placeholders, in order."""
        return self.encoded.views

    @property
    def mask(self) -> list[int]:
        """1 at trained tokens, else 0."""
        mask = np.zeros(len(self.encoded.ids), dtype=int)
        mask[self.places] = 1
        return mask.tolist()

    @property
    def places(self) -> np.ndarray:
        """(policy tokens,) positions of the trained tokens."""
        spans = () if self.overlong or self.masked else self.encoded.replies
        return np.concatenate(
            [np.arange(*span) for span in spans if span[1] > span[0]]
            or [np.zeros(0, dtype=np.int64)]
        )


def rollout_of(
    episode: Episode, encoder: Encoder, *, max_rollout_tokens: int, masked: bool = False
) -> Rollout:
    """The rollout of an episode, without trained tokens if it is `masked` or overlong: longer than
    `max_rollout_tokens`, or too long to be sampled further.

    Raises:
        ValueError: a reply without sampled tokens or log-probabilities, which cannot be trained on.
    """
    replies = [turn.reply for turn in episode.turns]
    cut = any(reply.truncated and not reply.token_ids for reply in replies)
    for reply in replies:
        if not cut and (not reply.token_ids or len(reply.token_ids) != len(reply.logprobs)):
            raise ValueError(
                f"episode of {episode.sample.id!r}: a reply without sampled tokens cannot "
                f"be trained"
            )
    before = Context(
        episode.sample.question, episode.sample.options, episode.first_view, episode.turns[:-1]
    )
    encoded = encoder.episode(before, episode.turns[-1].reply)
    overlong = cut or len(encoded.ids) > max_rollout_tokens
    sampled = [logprob for reply in replies for logprob in reply.logprobs]
    logprobs = np.asarray([] if overlong or masked else sampled, dtype=np.float32)
    return Rollout(encoded, logprobs, overlong, masked)


def rollouts_of(
    episodes: Sequence[Episode],
    encoder: Encoder,
    *,
    max_rollout_tokens: int,
    masks: Callable[[Episode], bool] = lambda episode: False,
) -> list[Rollout]:
    """One rollout per episode; `masks` says which are not trained on."""
    return [
        rollout_of(episode, encoder, max_rollout_tokens=max_rollout_tokens, masked=masks(episode))
        for episode in episodes
    ]
