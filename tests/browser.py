"""Chromium for tests of pages, and servers that run as a person would start them."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = (
    os.environ.get("LFPC_CHROMIUM")
    or shutil.which("chromium")
    or shutil.which("chromium-browser")
    or shutil.which("google-chrome")
)
OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextmanager
def chromium() -> Iterator["Browser"]:
    """A headless Chromium; without one the test is skipped, and says why."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install 'lfpc[dev]'"
    )
    if not CHROMIUM:
        pytest.skip(
            "no Chromium on this machine: apt-get install chromium, or name one in LFPC_CHROMIUM"
        )
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=list(OPTIONS))
        yield browser
        browser.close()


@contextmanager
def open_page(
    browser: "Browser", *, expected: Sequence[str] = (), **options: Any
) -> Iterator["Page"]:
    """An empty page of its own context. What it complains about in its console fails the test,
    except texts with one of `expected`.

    `options` are those of Playwright's `new_context`: viewport, color_scheme, ...
    """
    context = browser.new_context(**options)
    page = context.new_page()
    complaints = list[str]()
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "console",
        lambda message: (
            complaints.append(message.text) if message.type in ("error", "warning") else None
        ),
    )
    page.set_default_timeout(10_000)
    yield page
    context.close()
    unexpected = [text for text in complaints if not any(known in text for known in expected)]
    assert not unexpected, "\n".join(unexpected)


@dataclass(frozen=True)
class Served:
    """A running `lfpc VERB` that serves pages."""

    process: "subprocess.Popen[str]"
    address: str
    """http://127.0.0.1:PORT, without a slash at the end."""

    @property
    def port(self) -> int:
        return int(self.address.rsplit(":", 1)[1])

    def kill(self) -> None:
        """As a power cut would: no handler runs."""
        self.process.kill()
        self.process.wait()

    def interrupt(self) -> str:
        """Ctrl-C; returns what was printed after the address."""
        self.process.send_signal(signal.SIGINT)
        return self.process.communicate(timeout=20)[0]


def wait_until(page: "Page", holds: str, *, seconds: float = 15.0) -> None:
    """Wait until a JavaScript expression is true; the content policy of the pages refuses
    Playwright's own wait_for_function."""
    ends = time.monotonic() + seconds
    while not page.evaluate(holds):
        assert time.monotonic() < ends, f"not true within {seconds:g} s: {holds}"
        page.wait_for_timeout(20)


def served(*arguments: str) -> AbstractContextManager[Served]:
    """`lfpc` with `arguments`, in a process of its own, once it has said where it answers."""
    return started_server([sys.executable, "-W", "error", "-m", "lfpc", *arguments])


@contextmanager
def started_server(command: Sequence[str]) -> Iterator[Served]:
    """`command` in a process of its own, once it has said where it answers."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout
    said = ""
    for line in process.stdout:
        said += line
        if found := re.search(r"http://127\.0\.0\.1:\d+", line):
            break
    else:
        pytest.fail(f"{' '.join(command)} ended with {process.wait()} and said: {said}")
    try:
        yield Served(process, found[0])
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
