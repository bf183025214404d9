"""A policy that is asked once where several episodes ask the same."""

from collections.abc import Sequence

from lfpc.dialogue import Context, Reply
from lfpc.episode import AsyncPolicy, Policy, all_together
from lfpc.policies.config import ModelPolicy


class AskingOnce:
    """`policy` with one reply to equal contexts of a call, such as those of one question under
    several probes until their crops differ.
    """

    def __init__(self, policy: ModelPolicy) -> None:
        self.policy = policy
        self.copies: int = getattr(policy, "copies", 1)

    def reply(self, contexts: Sequence[Context]) -> list[Reply]:
        """One reply per context, in the same order."""
        distinct = list(dict.fromkeys(contexts))
        replies = dict(zip(distinct, self.policy.reply(distinct), strict=True))
        return [replies[context] for context in contexts]

    def together(self, contexts: Sequence[Context]) -> list[Sequence[int]]:
        """See `lfpc.episode.play`."""
        return getattr(self.policy, "together", all_together)(contexts)


def asking_once(policy: Policy | AsyncPolicy) -> Policy | AsyncPolicy:
    """`policy`, which replies once to equal contexts if it is a model in this process: its replies
    to them are equal, as their seeds are (`lfpc.policies.config.reply_seed`).
    """
    if isinstance(policy, AsyncPolicy) or not isinstance(policy, ModelPolicy):
        return policy
    return AskingOnce(policy)
