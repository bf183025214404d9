"""Routes of the demo page: upload a picture, ask, stream the turns, swap a crop."""

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from lfpc.ask.live import Busy, LiveModel, LiveQuestion
from lfpc.caches import byte_cache
from lfpc.errors import LfpcError, PictureError
from lfpc.images import open_picture, upright_size
from lfpc.web.ask.asked import Questions, events
from lfpc.web.ask.completions import api_error
from lfpc.web.ask.page_requests import PictureSources, read_question, read_swap
from lfpc.web.ask.store import FileStore

PAGE = Path(str(files("lfpc.web.ask") / "static" / "index.html"))
LONGEST_SIDE = 1600
"""Maximum side of an original on the page, in pixels."""
BROWSABLE_BYTES = 2**27


def ask_routes(model: LiveModel, pictures: PictureSources, views: FileStore) -> list[Route]:
    """Routes of the page. A failure is answered with {"problem": one sentence}."""
    questions = Questions()

    async def index(request: Request) -> Response:
        return FileResponse(PAGE)

    async def about(request: Request) -> Response:
        examples = [
            {
                "id": name,
                "size": await size_of(name),
                "question": sample.question,
                "options": sample.options,
                "answer": sample.answer if sample.choice is None else sample.options[sample.choice],
            }
            for name, sample in pictures.examples.items()
        ]
        return JSONResponse(
            {"model": model.name, "budget": model.config.budget, "examples": examples}
        )

    async def size_of(name: str) -> tuple[int, int]:
        return await run_in_threadpool(upright_size, pictures.find(name))

    async def send_in(request: Request) -> Response:
        try:
            name = await run_in_threadpool(pictures.uploads.add, await request.body())
            return JSONResponse({"id": name, "size": await size_of(name)})
        except Exception as error:
            return _problem(error)

    async def picture(request: Request) -> Response:
        try:
            return Response(
                await run_in_threadpool(browsable, pictures.find(request.path_params["name"])),
                media_type="image/jpeg",
            )
        except PictureError as error:
            return _problem(error, 404)

    async def view(request: Request) -> Response:
        path = views.find(request.path_params["name"])
        return (
            _problem(PictureError("the picture is no longer stored; ask again"), 404)
            if path is None
            else FileResponse(path)
        )

    async def ask(request: Request) -> Response:
        try:
            return _told(read_question(await _body(request), pictures, model.config))
        except Exception as error:
            return _problem(error)

    async def swap(request: Request) -> Response:
        try:
            return _told(await run_in_threadpool(read_swap, await _body(request), questions))
        except Exception as error:
            return _problem(error)

    def _told(asked: LiveQuestion) -> Response:
        lines = _lines(events(model, *questions.add(asked), views))
        return StreamingResponse(
            lines, media_type="application/x-ndjson", headers={"cache-control": "no-store"}
        )

    return [
        Route("/", index),
        Route("/about", about),
        Route("/pictures", send_in, methods=["POST"]),
        Route("/pictures/{name}", picture),
        Route("/views/{name}", view),
        Route("/ask", ask, methods=["POST"]),
        Route("/swap", swap, methods=["POST"]),
    ]


async def _lines(found: AsyncGenerator[dict[str, Any], None]) -> AsyncIterator[bytes]:
    """Events as lines of JSON; a failure is the last line."""
    try:
        async with aclosing(found):
            async for event in found:
                yield json.dumps(event).encode() + b"\n"
    except Exception as error:
        yield json.dumps({"kind": "problem", "problem": str(api_error(error))}).encode() + b"\n"


async def _body(request: Request) -> dict[str, Any]:
    """The JSON object in a request's body; empty for any other body."""
    try:
        body = json.loads(await request.body())
    except (ValueError, RecursionError):
        body = None
    return body if isinstance(body, dict) else {}


def _problem(error: Exception, status: int | None = None) -> Response:
    found = api_error(error)
    mistake = isinstance(error, LfpcError) and not isinstance(error, Busy)
    return JSONResponse({"problem": str(found)}, status or (400 if mistake else found.status))


@byte_cache(BROWSABLE_BYTES, len)
def browsable(path: Path) -> bytes:
    """The original as a JPEG of at most `LONGEST_SIDE` pixels a side."""
    picture = open_picture(path)
    out = BytesIO()
    if max(picture.size) > LONGEST_SIDE:
        picture = ImageOps.contain(picture, (LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    picture.save(out, "JPEG", quality=90)
    return out.getvalue()
