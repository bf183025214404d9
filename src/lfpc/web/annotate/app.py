"""Routes of the annotation page: the list, a sample, tiles of its picture, saved changes."""

import json
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from lfpc.boxing.decisions import boxing_of
from lfpc.boxing.merge import other_proposals
from lfpc.boxing.proposals import MOST, Proposal
from lfpc.caches import file_state
from lfpc.errors import DiskError, LfpcError, PictureError
from lfpc.samples import Sample
from lfpc.web.annotate.session import AnnotationSession, Change, ChangedElsewhere, as_json
from lfpc.web.annotate.tiles import TILE, last_level, original, tile
from lfpc.web.serving import shared_files

PAGE = Path(str(files("lfpc.web.annotate") / "static" / "index.html"))
KEPT = {"cache-control": "private, max-age=86400, immutable"}
"""Cache header of tiles, whose address changes with the picture."""


def annotation_app(session: AnnotationSession) -> Starlette:
    """The application of `session`; serve it with `lfpc.web.serving.serve`, which guards it."""
    routes = _Routes(session)
    return Starlette(
        routes=[
            Route("/", lambda request: FileResponse(PAGE)),
            Mount("/static", StaticFiles(packages=[("lfpc.web.annotate", "static")])),
            Mount("/vendor", StaticFiles(packages=[("lfpc.web", "vendor")])),
            Mount("/shared", shared_files()),
            Route("/api/samples", routes.listing),
            Route("/api/samples/{number:int}", routes.sample, methods=["GET"]),
            Route("/api/samples/{number:int}", routes.save, methods=["PUT"]),
            Route("/api/samples/{number:int}/ask", routes.ask, methods=["POST"]),
            Route("/tiles/{number:int}/{key}/{level:int}/{column:int}_{row:int}.jpg", routes.tile),
        ],
        exception_handlers={LfpcError: _refused, OSError: _refused},
    )


@dataclass(frozen=True, slots=True)
class _Routes:
    session: AnnotationSession

    def listing(self, request: Request) -> Response:
        samples = [
            {"id": sample.id, "question": sample.question[:200], **_progress(sample)}
            for sample in self.session.samples()
        ]
        return _json(
            {
                "folder": str(self.session.folder),
                "asks": self.session.ask is not None,
                "samples": samples,
            }
        )

    def sample(self, request: Request) -> Response:
        number = request.path_params["number"]
        sample = self.session.sample(number)
        shown = {
            "id": sample.id,
            "question": sample.question,
            "answer": sample.answer,
            "options": sample.options,
            "category": sample.category,
            "source": sample.source,
        }
        proposals = _proposals(
            [*other_proposals(sample), *self.session.proposals.get(sample.id, ())][:MOST]
        )
        return _json({**shown, **as_json(sample), **self._picture(number), "proposals": proposals})

    def _picture(self, number: int) -> dict[str, Any]:
        try:
            path = self.session.picture(number)
            key = _key(path)  # before the size: tiles of a picture replaced in between are refused
            width, height = original(path).size
        except LfpcError as error:
            return {"picture": None, "problem": str(error)}
        return {
            "picture": {
                "width": width,
                "height": height,
                "tiles": f"/tiles/{number}/{key}",
                "tile": TILE,
                "levels": last_level((width, height)),
            }
        }

    async def save(self, request: Request) -> Response:
        change = Change.from_json(await request.body(), self.session.by)
        return _json(
            as_json(
                await run_in_threadpool(self.session.save, request.path_params["number"], change)
            )
        )

    def ask(self, request: Request) -> Response:
        sample = self.session.sample(request.path_params["number"])
        return _json(
            {"proposals": _proposals(self.session.ask(sample) if self.session.ask else ())}
        )

    def tile(self, request: Request) -> Response:
        at = request.path_params
        try:
            path = self.session.picture(at["number"])
            content = tile(path, at["level"], at["column"], at["row"])
            if _key(path) != at["key"]:  # last: the picture may be replaced meanwhile
                raise PictureError("the picture was replaced; reload the page")
            return Response(content, media_type="image/jpeg", headers=KEPT)
        except LfpcError as error:
            return _json({"problem": str(error)}, 404)


def _progress(sample: Sample) -> dict[str, Any]:
    boxing = boxing_of(sample)
    return {"state": boxing.state, "flagged": boxing.flagged, "targets": len(sample.boxes)}


def _proposals(proposals: Any) -> list[dict[str, Any]]:
    found: list[Proposal] = list(proposals)
    return [
        {"box": list(one.box.corners), "source": one.source, "count": one.count} for one in found
    ]


def _key(path: Path) -> str:
    """Key of a picture file's content in the address of its tiles."""
    named = f"{path}:{file_state(path)}"
    return sha256(named.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _json(value: Any, status: int = 200) -> Response:
    """A JSON response in ASCII, which can carry any text of a data set, lone surrogates
    included.
    """
    return Response(
        json.dumps(value),
        status,
        media_type="application/json",
        headers={"cache-control": "no-store"},
    )


def _refused(request: Request, error: Exception) -> Response:
    status = 409 if isinstance(error, ChangedElsewhere) else 400
    if isinstance(error, DiskError | OSError):
        status = 500
    return _json({"problem": str(error)}, status)
