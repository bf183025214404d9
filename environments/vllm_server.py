"""A real vLLM server on this machine's CPUs, for tests and measurements.

with VllmServer(checkpoint, log=Path("vllm.log")) as server: ... server.base_url ...
"""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.error import URLError
from urllib.request import urlopen

from environments import interpreter

MODEL = "mini"
"""The name the server knows its checkpoint by."""
SETTINGS = (
    "--dtype",
    "float32",
    "--enforce-eager",
    "--max-model-len",
    "2048",
    "--limit-mm-per-prompt",
    '{"image": 8, "video": 0}',
)
ENV = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
}
START_S = 300.0
"""Seconds the server may take to answer; about 25 on two idle cores."""


class ServerError(Exception):
    """The server did not come up; the end of its log is in the text."""


class VllmServer:
    """The server in a process of its own, up and answering between `with` and the end of its block.

    Args:
        checkpoint: folder of the weights it serves, under the name `MODEL`.
        log: file for what it prints.
        pictures: folder that it may read pictures from; None: none.
        settings: further options of its command line.
    """

    def __init__(
        self,
        checkpoint: Path,
        *,
        log: Path,
        pictures: Path | None = None,
        settings: Sequence[str] = (),
    ) -> None:
        self.log = log
        self.port = _free_port()
        more = [
            *settings,
            *(["--allowed-local-media-path", str(pictures.resolve())] if pictures else []),
        ]
        # not `vllm serve`: that command of the CPU build looks for a distribution named vllm
        server = [
            str(interpreter("vllm")),
            "-m",
            "vllm.entrypoints.openai.api_server",
            "--host",
            "127.0.0.1",
            "--port",
            str(self.port),
        ]
        self.command = [
            *server,
            "--model",
            str(checkpoint.resolve()),
            "--served-model-name",
            MODEL,
            *SETTINGS,
            *more,
        ]

    @property
    def base_url(self) -> str:
        """Address of its API."""
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> Self:
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        with self.log.open("wb") as out:  # a session of its own, so that its workers end with it
            self._process = subprocess.Popen(
                self.command, env={**kept, **ENV}, stdout=out, stderr=out, start_new_session=True
            )
        try:
            self._wait()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def _wait(self) -> None:
        until = time.monotonic() + START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > until:
                tail = "\n".join(
                    self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:]
                )
                raise ServerError(
                    f"the vLLM server did not come up; the end of {self.log}:\n{tail}"
                )
            time.sleep(0.5)

    def _answers(self) -> bool:
        try:
            with urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5) as answer:
                return answer.status == 200
        except (URLError, OSError):
            return False

    def _end(self) -> None:
        for sign, patience_s in ((signal.SIGTERM, 20.0), (signal.SIGKILL, 20.0)):
            try:
                os.killpg(self._process.pid, sign)
                self._process.wait(patience_s)
            except ProcessLookupError:
                break
            except subprocess.TimeoutExpired:
                continue
        self._process.wait()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
