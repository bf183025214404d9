"""Live questions to one model: an episode step by step, and the same episode with something else
shown for a crop.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count

from lfpc.boxes import Box
from lfpc.dialogue import Context, Crop, Reply, Turn
from lfpc.episode import AsyncPolicy, Episode, Game, advance, episode
from lfpc.errors import ConfigError, PolicyError, RunError
from lfpc.evaluation.config import EvaluationConfig
from lfpc.evaluation.opened import first_view
from lfpc.evaluation.probes import PROBES
from lfpc.evaluation.replay import replayed
from lfpc.looks import Look, fixed_look
from lfpc.policies.backends import Backend, Server, VllmEngine
from lfpc.policies.loading import local_policies, served_policy
from lfpc.policies.threaded import ThreadedPolicy
from lfpc.samples import Sample

SWAPS = ("own", "noise", "none", "mean", "blur", "truth")
"""Probes for swapping one crop. The others need further pictures, or differ only over many
crops."""
LONGEST_QUEUE = 256
"""Maximum number of questions in play and waiting; more are refused."""
RECENT = 20
"""Number of finished questions from which the pace is estimated."""
Replacement = str | Box
"""Replacement of a requested crop: the probe of that name, or this region of the original."""


class Busy(PolicyError):
    """Too many questions are waiting. `retry_after_s`: seconds until a place is expected to be
    free.
    """

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Pace:
    """How fast questions finish, and the free places promised to refused clients: one each."""

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self._seconds: deque[float] = deque(maxlen=RECENT)
        self._promised = 0.0

    def finished(self, seconds: float) -> None:
        """Note a question that took `seconds` in play."""
        self._seconds.append(seconds)

    def wait_s(self, now: float) -> float:
        """Seconds until the next place that is promised to nobody else; `now` is monotonic."""
        each = sum(self._seconds) / len(self._seconds) / self._concurrency if self._seconds else 1.0
        self._promised = max(now, self._promised) + each
        return self._promised - now


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveQuestion:
    """A question with its configuration and replacements."""

    sample: Sample
    config: EvaluationConfig
    """Budget, sampling, crop rules and turn limit."""
    shown: Mapping[int, Replacement] = field(default_factory=dict[int, Replacement])
    """Replacement by number of the call, from 1; other calls show the requested crop."""
    before: tuple[Reply, ...] = ()
    """Replies to replay before the policy is asked."""

    @property
    def most_turns(self) -> int:
        """Turn limit of the episode."""
        return min(self.config.max_turns, self.config.chat.turns or self.config.max_turns)


class LiveModel:
    """A model that answers single questions.

    Args:
        name: name of the model.
        config: default configuration of its questions.
        make: function from a configuration to a policy.
        concurrency: episodes in play at once.
    """

    def __init__(
        self,
        name: str,
        config: EvaluationConfig,
        make: Callable[[EvaluationConfig], AsyncPolicy],
        *,
        concurrency: int = 8,
    ) -> None:
        self.name = name
        self.config = config
        self._make = make
        self._slots = asyncio.Semaphore(concurrency)
        self._pace = Pace(concurrency)
        self._asked = 0

    async def steps(self, asked: LiveQuestion) -> AsyncGenerator[Context | Episode, None]:
        """Each context of the policy, then the Episode. Close the generator (`aclosing`) to stop.

        Raises:
            Busy: too many questions are waiting.
            LfpcError: unusable picture, no reply of the model, or a look without a view.
        """
        if self._asked >= LONGEST_QUEUE:
            raise Busy(
                f"{self._asked} questions are in play or waiting; ask again in a moment",
                self._pace.wait_s(time.monotonic()),
            )
        self._asked += 1
        try:
            async with self._slots, await asyncio.to_thread(self._make, asked.config) as policy:
                began = time.monotonic()
                game = await asyncio.to_thread(_begin, asked)
                found = await advance(game)
                while isinstance(found, Context):
                    yield found
                    found = await advance(game, await policy.reply_to(found))
                self._pace.finished(time.monotonic() - began)
                yield found
        finally:
            self._asked -= 1


def _begin(asked: LiveQuestion) -> Game:
    sample = asked.sample
    config = asked.config
    view = first_view(sample, config.budget, factor=config.chat.factor)
    game = episode(
        sample, view, look=look_by_call(asked), protocol=config.chat, max_turns=config.max_turns
    )
    return replayed(game, asked.before)


def look_by_call(asked: LiveQuestion) -> Look:
    """The look of one episode of this question. It counts calls, so it is for one episode only."""
    rules = asked.config.crop_rules
    seed = asked.config.seed
    named = {name: PROBES[name]([asked.sample], rules, seed) for name in SWAPS}
    looks = {
        call: fixed_look(rules, what) if isinstance(what, Box) else named[what]
        for call, what in asked.shown.items()
    }
    calls = count(1)
    return lambda sample, box: looks.get(next(calls), named["own"])(sample, box)


def swapped(
    asked: LiveQuestion, turns: Sequence[Turn], call: int, what: Replacement
) -> LiveQuestion:
    """The question with its turns replayed up to the `call`th crop call (from 1), for which `what`
    is shown; the policy continues from there.

    Earlier calls keep what was shown for them; later calls show the requested crop.

    Args:
        asked: the question.
        turns: turns of its episode.
        call: number of the crop call.
        what: the replacement.
    Raises:
        RunError: no such call, or no turn left after it.
    """
    calls = [number for number, turn in enumerate(turns, 1) if isinstance(turn.action, Crop)]
    if not 1 <= call <= len(calls):
        raise RunError(f"no crop {call} to swap; the episode has {len(calls)}")
    replies = tuple(turn.reply for turn in turns[: calls[call - 1]])
    if len(replies) >= asked.most_turns:
        raise RunError(
            f"crop {call} came with the last of {asked.most_turns} turns, so no reply follows; "
            f"raise `max_turns`"
        )
    shown = {earlier: was for earlier, was in asked.shown.items() if earlier < call}
    return LiveQuestion(
        sample=asked.sample, config=asked.config, shown={**shown, call: what}, before=replies
    )


def led(asked: LiveQuestion, region: Box) -> LiveQuestion:
    """The question with a call for `region` as its first reply, as if the model had written it; the
    policy continues from that crop.

    Raises:
        PictureError: unusable picture.
        RunError: the protocol cannot write a call, its tool rejects this region, or no turn is left
            after it.
    """
    chat = asked.config.chat
    if asked.most_turns < 2:
        raise RunError(
            "the crop would come with the last turn, so no reply follows; raise `max_turns`"
        )
    view = first_view(asked.sample, asked.config.budget, factor=chat.factor)
    if chat.write_call is None:
        raise RunError(
            f"how a call is written is not known for {chat.name}; swap a crop that the "
            f"model makes itself"
        )
    reply = Reply(chat.write_call(region, view))
    action = chat.parse(reply.text, (view,))
    if not isinstance(action, Crop):
        raise RunError(
            f"the model's crop tool does not take this region "
            f"({getattr(action, 'detail', '')}); draw a larger one"
        )
    return LiveQuestion(
        sample=asked.sample, config=asked.config, shown={1: region}, before=(reply,)
    )


def live_model(name: str, config: EvaluationConfig, backend: Backend) -> LiveModel:
    """A model for live questions. A checkpoint in this process is loaded now.

    Raises:
        CheckpointError: the checkpoint does not load.
        ConfigError: `backend` is vLLM in this process, whose sampling is fixed.
    """
    if isinstance(backend, VllmEngine):
        raise ConfigError(
            "live questions need transformers or a server; start vLLM's own "
            "server and give --base-url and --model"
        )
    if isinstance(backend, Server):
        return LiveModel(
            name,
            config,
            lambda config: served_policy(config, backend),
            concurrency=backend.concurrency,
        )
    policies = local_policies(config, backend)
    thread = ThreadPoolExecutor(1, thread_name_prefix="model")
    return LiveModel(name, config, lambda config: ThreadedPolicy(policies(config), thread))
