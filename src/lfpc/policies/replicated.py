"""One checkpoint on several devices: a process per device, each with a copy of the model.

Torch-free here; the processes import it. The conversations of an episode stay in one process, which
keeps their pictures and first prompts. Replies do not depend on the number of devices but by
rounding, because each has its own random numbers.
"""

import pickle
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager, nullcontext
from copy import copy
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Self

from lfpc.dialogue import Context, Reply
from lfpc.errors import PolicyError
from lfpc.images import View
from lfpc.policies.backends import Backend, Transformers
from lfpc.policies.config import PolicyConfig
from lfpc.policies.spawning import be_worker, model_context, sending, without_main

if TYPE_CHECKING:
    from lfpc.policies.loading import LocalPolicy


class ReplicatedPolicy:
    """Samples replies on all devices of `engine` at once.

    Args:
        config: the model, its protocol and its sampling.
        engine: its devices and their precision.
        tools: whether to offer the tool.
    Raises:
        CheckpointError, ConfigError: a process cannot load the checkpoint, has no such device, or
            cannot be sent the configuration.
    """

    def __init__(self, config: PolicyConfig, engine: Transformers, *, tools: bool = True) -> None:
        self._config = config
        self.backend: Backend = engine
        self.tools = tools
        context = model_context(cuda=any(device != "cpu" for device in engine.devices))
        self._workers = [
            ProcessPoolExecutor(1, mp_context=context, initializer=be_worker)
            for _ in engine.devices
        ]
        self._home: dict[str, int] = {}
        _check_sent(config, "the settings")
        places = [replace(engine, device=device) for device in engine.devices]
        with without_main():  # a process starts with its first task
            loading = [
                worker.submit(_load, config, place)
                for worker, place in zip(self._workers, places, strict=True)
            ]
        try:
            for loaded in loading:
                self._result(loaded)
        except BaseException:
            self.close()
            raise

    @property
    def config(self) -> PolicyConfig:
        """The model, its protocol and its sampling."""
        return self._config

    @property
    def copies(self) -> int:
        """Copies of the model, each of which can play a batch."""
        return len(self._workers)

    def without_tools(self) -> Self:
        """Another policy of the same processes, shown the system message without the tool."""
        other = copy(self)
        other.tools = False
        other.reseed(self._config.sampling_seed)
        return other

    def reseed(self, seed: int | None) -> None:
        """Sample further replies with `seed`; None: 0."""
        self._all(_reseed, self.tools, seed)

    def reply(self, contexts: Sequence[Context]) -> list[Reply]:
        """One reply per context, in the same order.

        Raises:
            PolicyError: a process has ended, or a conversation does not fit into its device.
            ConfigError: the questions cannot be sent to a process.
        """
        parts: dict[int, list[int]] = {}
        for number, context in enumerate(contexts):
            parts.setdefault(self._home_of(context), []).append(number)
        asked = {
            home: self._workers[home].submit(_reply, [contexts[n] for n in part], self.tools)
            for home, part in parts.items()
        }
        replies: dict[int, Reply] = {}
        for home, part in parts.items():
            try:
                found = self._result(asked[home])
            except Exception:
                _check_sent([contexts[n] for n in part], "the questions")
                raise
            replies.update(zip(part, found, strict=True))
        return [replies[number] for number in range(len(contexts))]

    @contextmanager
    def cached_views(self) -> Iterator[None]:
        """Compute each picture and each first prompt once per process in this block."""
        self._all(_begin)
        try:
            yield
        finally:
            self._all(_end)
            self._home.clear()

    def close(self) -> None:
        """End the processes."""
        for worker in self._workers:
            worker.shutdown(wait=True, cancel_futures=True)

    def _home_of(self, context: Context) -> int:
        """The process of an episode; new episodes take turns."""
        key = context.key or context.question
        return self._home.setdefault(key, len(self._home) % len(self._workers))

    def _all(self, task: Any, *arguments: Any) -> None:
        for future in [worker.submit(task, *arguments) for worker in self._workers]:
            self._result(future)

    def _result(self, future: "Future[Any]") -> Any:
        try:
            return future.result()
        except BrokenProcessPool as error:
            raise PolicyError(
                f"a process with a copy of {self._config.model} has ended, perhaps for lack of "
                f"memory; use fewer devices or a smaller --batch-tokens"
            ) from error


def _check_sent(value: object, what: str) -> None:
    with sending(what, "use one `device`"):
        pickle.dumps(value)


class _Worker:
    """What a process holds."""

    policies: "dict[bool, LocalPolicy]"
    block: ExitStack | None = None
    images: dict[bytes, Any]


def _load(config: PolicyConfig, engine: Transformers) -> None:
    from lfpc.policies.loading import load_policy

    policy = load_policy(config, engine=engine)
    _Worker.policies = {True: policy, False: policy.without_tools()}
    _Worker.images = {}


def _reply(contexts: Sequence[Context], tools: bool) -> list[Reply]:
    return _Worker.policies[tools].reply([_shared(context) for context in contexts])


def _shared(context: Context) -> Context:
    """The context with one object per distinct picture, by which pictures are known as equal."""
    turns = tuple(
        turn if turn.view is None else replace(turn, view=_known(turn.view))
        for turn in context.turns
    )
    return replace(context, first_view=_known(context.first_view), turns=turns)


def _known(view: View) -> View:
    image = view.image
    key = sha256(image.tobytes() + str((image.mode, image.size)).encode()).digest()
    return replace(view, image=_Worker.images.setdefault(key, image))


def _reseed(tools: bool, seed: int | None) -> None:
    _Worker.policies[tools].reseed(seed)


def _begin() -> None:
    _Worker.block = ExitStack()
    for policy in _Worker.policies.values():
        _Worker.block.enter_context(getattr(policy, "cached_views", nullcontext)())


def _end() -> None:
    _Worker.images.clear()
    if _Worker.block is not None:
        _Worker.block.close()
