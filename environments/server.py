"""Other people's servers in processes of their own, for tests and measurements."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

START_S = 300.0
"""Seconds a server may take to answer."""


class ServerError(Exception):
    """The server did not come up; the end of its log is in the text."""


class Server:
    """A server in a process of its own, up and answering between `with` and the end of its block.

    Args:
        command: its command line.
        health: address that answers with 200 once the server is up.
        log: file for what it prints.
        env: environment variables besides this process's own; `PYTHONPATH` is left out.
    """

    def __init__(
        self, command: Sequence[str], *, health: str, log: Path, env: Mapping[str, str]
    ) -> None:
        self.command = list(command)
        self.log = log
        self._health = health
        self._env = env

    def __enter__(self) -> Self:
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        with self.log.open("wb") as out:  # a session of its own, so that its workers end with it
            self._process = subprocess.Popen(
                self.command,
                env={**kept, **self._env},
                stdout=out,
                stderr=out,
                start_new_session=True,
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
                raise ServerError(f"the server did not come up; the end of {self.log}:\n{tail}")
            time.sleep(0.5)

    def _answers(self) -> bool:
        try:
            with build_opener(ProxyHandler({})).open(self._health, timeout=5) as answer:
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


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
