"""One model, asked while somebody watches: an episode told step by step, and played again with
another thing shown for a crop.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count

from lfpc.boxes import Box
from lfpc.dialogue import Context, Crop, Reply, Turn
from lfpc.episode import AsyncPolicy, Episode, Game, advance, episode
from lfpc.errors import ConfigError, PolicyError, RunError
from lfpc.evaluation.config import EvaluationConfig
from lfpc.evaluation.probes import PROBES
from lfpc.evaluation.replay import replayed
from lfpc.evaluation.run import first_view
from lfpc.looks import Look, fixed_look
from lfpc.policies.backends import Backend, VllmEngine
from lfpc.policies.loading import local_policies, served_policy
from lfpc.policies.threaded import ThreadedPolicy
from lfpc.samples import Sample

SWAPS = ("own", "noise", "none", "mean", "blur", "truth")
"""Probes that one crop can be swapped for. The others need further pictures, or differ only over
many crops."""
LONGEST_QUEUE = 64
"""Questions in play and waiting, beyond which a further one is refused."""
Replacement = str | Box
"""What is shown for a call in place of the requested crop: by the probe of that name, or this
region of the original."""


class Busy(PolicyError):
    """Too many questions wait already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveQuestion:
    """A question as it is put to the model."""

    sample: Sample
    config: EvaluationConfig
    """The budget, the sampling, the crop rules, the turns."""
    shown: Mapping[int, Replacement] = field(default_factory=dict[int, Replacement])
    """What is shown for the nth call, from 1; others show the requested crop."""
    before: tuple[Reply, ...] = ()
    """Replies that are given again before the policy is asked."""

    @property
    def most_turns(self) -> int:
        """Replies that the episode can have."""
        return min(self.config.max_turns, self.config.chat.turns or self.config.max_turns)


class LiveModel:
    """A model that answers questions one by one.

    Args:
        name: what the model is called.
        config: how it is asked where a question does not say otherwise.
        make: a policy that is sampled as a config says.
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
        self._asked = 0

    async def tell(self, asked: LiveQuestion) -> AsyncGenerator[Context | Episode, None]:
        """Each context that the policy is asked in, and at last the Episode. Close it (`aclosing`)
        to stop asking.

        Raises:
            Busy: too many questions wait.
            LfpcError: the picture is not usable, the model does not reply, a look has nothing to
                show.
        """
        if self._asked >= LONGEST_QUEUE:
            raise Busy(
                f"{self._asked} questions are being answered or wait already; ask again in a moment"
            )
        self._asked += 1
        try:
            async with self._slots, await asyncio.to_thread(self._make, asked.config) as policy:
                game = await asyncio.to_thread(_begin, asked)
                found = await advance(game)
                while isinstance(found, Context):
                    yield found
                    found = await advance(game, await policy.reply_to(found))
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
    """What the crop tool shows in one episode of this question. It counts the calls, so it serves
    one episode only.
    """
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
    """The question played again up to its `call`th crop call (from 1), for which `what` is shown;
    the policy goes on from there.

    What had been shown for earlier calls is shown again; later calls show what they ask for.

    Args:
        asked: the question as it was put.
        turns: what became of it.
        call: which of its crop calls.
        what: what is shown for it now.
    Raises:
        RunError: there is no such call, or no turn is left after it.
    """
    calls = [number for number, turn in enumerate(turns, 1) if isinstance(turn.action, Crop)]
    if not 1 <= call <= len(calls):
        raise RunError(f"there is no crop {call} to swap; the model made {len(calls)}")
    replies = tuple(turn.reply for turn in turns[: calls[call - 1]])
    if len(replies) >= asked.most_turns:
        raise RunError(
            f"crop {call} came with the last of {asked.most_turns} turns, so the model "
            f"says nothing after it; allow more turns"
        )
    shown = {earlier: was for earlier, was in asked.shown.items() if earlier < call}
    return LiveQuestion(
        sample=asked.sample, config=asked.config, shown={**shown, call: what}, before=replies
    )


def led(asked: LiveQuestion, region: Box) -> LiveQuestion:
    """The question asked again, begun with a call for `region` as if the model had written it: it
    goes on from that crop.

    Raises:
        PictureError: the picture is not usable.
        RunError: the model's protocol has no such call, its tool does not take this region, or no
            turn is left after it.
    """
    chat = asked.config.chat
    if asked.most_turns < 2:
        raise RunError(
            "the crop would come with the last turn, so the model says nothing after it; "
            "allow more turns"
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
    """A model that is asked live. With `backend` None its checkpoint is loaded now.

    Raises:
        CheckpointError: the checkpoint cannot be loaded.
        ConfigError: `backend` is vLLM in this process, which takes its sampling once and for all.
    """
    if isinstance(backend, VllmEngine):
        raise ConfigError(
            "questions one by one are for transformers or a server; start vLLM's own "
            "server and give --base-url and --model"
        )
    if backend is not None:
        return LiveModel(
            name,
            config,
            lambda config: served_policy(config, backend),
            concurrency=backend.concurrency,
        )
    policies = local_policies(config)
    thread = ThreadPoolExecutor(1, thread_name_prefix="model")
    return LiveModel(name, config, lambda config: ThreadedPolicy(policies(config), thread))
