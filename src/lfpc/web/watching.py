"""A report that is updated while runs are written: `lfpc report --watch`."""

import threading
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from lfpc.errors import LfpcError, PictureError
from lfpc.report.page import write_report
from lfpc.report.reading import read_runs
from lfpc.storage.runs import EPISODES_FILE, METRICS_FILE
from lfpc.web.guard import file_within
from lfpc.web.serving import serve

if TYPE_CHECKING:
    from starlette.requests import Request

SHOWN = 24
"""Number of questions with pictures in a live report, which is written again and again."""


class LiveReport:
    """The report of unfinished runs, written again into `folder` on a request after a change."""

    def __init__(self, runs: Sequence[Path], folder: Path, title: str) -> None:
        self.runs = runs
        self.folder = folder
        self.title = title
        self.pages: Path | None = None
        """Folder of the last written report."""
        self._written = ""
        self._lock = threading.Lock()

    def state(self) -> str:
        """A value that changes with the files of the runs."""
        files = sorted(
            file
            for run in self.runs
            for name in (METRICS_FILE, EPISODES_FILE)
            for file in run.rglob(name)
        )
        return "/".join(str(file.stat().st_size) for file in files)

    def fresh(self) -> Path:
        """The folder of an up-to-date report.

        Raises:
            LfpcError: an unreadable run.
        """
        with self._lock:
            state = self.state()
            if self.pages is None or state != self._written:
                pages = self.folder / (
                    "b" if self.pages and self.pages.name == "a" else "a"
                )  # a report in use stays complete
                write_report(pages, read_runs(self.runs), title=self.title, shown=SHOWN, live=True)
                self.pages = pages
                self._written = state
            return self.pages


def watching_app(report: LiveReport) -> Starlette:
    """Application with the report's files; /state changes when a page needs a reload."""

    async def state(request: "Request") -> Response:
        return JSONResponse(
            {"state": await run_in_threadpool(report.state)}, headers={"cache-control": "no-store"}
        )

    async def file(request: "Request") -> Response:
        path = request.path_params["path"] or "index.html"
        try:
            pages = report.pages
            if path == "index.html" or pages is None:  # other files belong to the last index
                pages = await run_in_threadpool(report.fresh)
            found = file_within(pages / path, [pages])
        except PictureError:
            return PlainTextResponse("no such file", 404)
        except LfpcError as error:
            return PlainTextResponse(str(error), 503)
        return (
            FileResponse(found, headers={"cache-control": "no-store"})
            if found.is_file()
            else PlainTextResponse("no such file", 404)
        )

    return Starlette(routes=[Route("/state", state), Route("/{path:path}", file)])


def watch(runs: Sequence[Path], *, title: str, port: int = 0) -> None:
    """Serve the report of `runs` until Ctrl-C.

    Raises:
        LfpcError: a run cannot be read, or the port is taken.
    """
    with TemporaryDirectory(prefix="lfpc-report-") as folder:
        report = LiveReport(runs, Path(folder), title)
        report.fresh()
        serve(watching_app(report), title, port=port)
