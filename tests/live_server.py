"""A scripted model that tells what it was shown, and `lfpc serve`'s application about it, listening
in this process."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import uvicorn
from PIL import Image

from lfpc.ask.live import LiveModel
from lfpc.dialogue import Context, Usage
from lfpc.evaluation.config import EvaluationConfig
from lfpc.images import CropRules
from lfpc.policies.scripted import ScriptedPolicy
from lfpc.policies.threaded import ThreadedPolicy
from lfpc.web.ask.app import LARGEST_BODY, ask_app
from lfpc.web.guard import LOOPBACK, guarded
from lfpc.web.serving import bound_socket

CALL = (
    '<tool_call>{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [0, 0, 56, '
    "56]}}</tool_call>"
)
CONFIG = EvaluationConfig(
    model="script", budget=16, probe="own", crop=CropRules(min_tokens=1, max_tokens=16), max_turns=4
)


def colour_of(image: Image.Image) -> tuple[int, int, int]:
    """The mean colour of a picture."""
    return image.convert("RGB").resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))  # pyright: ignore


def looks_at(context: Context) -> str:
    """Two crops, then an answer that tells the mean colour of each."""
    if len(context.turns) < 2:
        return CALL
    return (
        f"<answer>"
        f"{[colour_of(turn.view.image) if turn.view else None for turn in context.turns]}</answer>"
    )


class CountingScript(ScriptedPolicy):
    """A script that counts: 100 tokens read a turn, one written a letter."""

    def reply(self, contexts):
        return [
            replace(reply, usage=Usage(100, len(reply.text))) for reply in super().reply(contexts)
        ]


def scripted_model(
    script: Callable[[Context], str] = looks_at,
    config: EvaluationConfig = CONFIG,
    *,
    gate: threading.Semaphore | None = None,
) -> LiveModel:
    """A model that says what `script` says, each time once `gate` lets it; `asked_with` are the
    configs it was asked with."""
    thread = ThreadPoolExecutor(1)

    def say(context: Context) -> str:
        if gate and not gate.acquire(timeout=60):
            raise TimeoutError(
                "nobody opened the gate"
            )  # a thread that waits for ever would keep the tests from ending
        return script(context)

    def make(config: EvaluationConfig) -> ThreadedPolicy:
        model.asked_with.append(config)
        return ThreadedPolicy(CountingScript(say), thread)

    model = LiveModel("script", config, make)
    model.asked_with = []
    return model


@contextmanager
def listening(model: LiveModel, folder: Path) -> Iterator[str]:
    """The address at which `model` is served."""
    with bound_socket(0) as listener:
        app = guarded(ask_app(model, folder, examples="test"), largest_body=LARGEST_BODY)
        server = uvicorn.Server(
            uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://{LOOPBACK}:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)
