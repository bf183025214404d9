"""A policy in this process for an event loop: one thread computes the replies."""

import asyncio
from concurrent.futures import Executor
from contextlib import nullcontext
from types import TracebackType
from typing import Self

from lfpc.dialogue import Context, Reply
from lfpc.episode import Policy


class ThreadedPolicy:
    """An AsyncPolicy around `policy`.

    Args:
        policy: policy that gets one context at a time.
        thread: executor with one thread, shared by all policies of a model. Cancelled replies are
            skipped.
        concurrency: maximum number of concurrent episodes.
    """

    def __init__(self, policy: Policy, thread: Executor, *, concurrency: int = 8) -> None:
        self.policy = policy
        self.concurrency = concurrency
        self._thread = thread
        self._cached = getattr(policy, "cached_views", nullcontext)()

    async def __aenter__(self) -> Self:
        self._cached.__enter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._cached.__exit__(kind, error, trace)

    async def reply_to(self, context: Context) -> Reply:
        """The reply to one context."""
        return (
            await asyncio.get_running_loop().run_in_executor(
                self._thread, self.policy.reply, [context]
            )
        )[0]
