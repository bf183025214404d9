"""The application of `lfpc serve`: the demo page and the endpoint, with one model and one picture
store.
"""

from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from lfpc.ask.live import LiveModel
from lfpc.mini.folders import write_split
from lfpc.web.ask.completions import completions_app, refusal_answer
from lfpc.web.ask.page import ask_routes
from lfpc.web.ask.page_requests import PictureSources
from lfpc.web.ask.store import FileStore
from lfpc.web.ask.uploads import LARGEST_FILE, Uploads
from lfpc.web.guard import API
from lfpc.web.serving import shared_files

LARGEST_BODY = LARGEST_FILE * 4 // 3 + 2**20
"""Maximum bytes of a request: a picture in base64, and texts."""
VIEW_BYTES = 2**28
"""Maximum bytes of stored views, as PNG files."""
EXAMPLES = 6


def ask_app(model: LiveModel, folder: Path, *, examples: str) -> Starlette:
    """The application.

    Args:
        model: the model.
        folder: folder for pictures at run time; the caller removes it.
        examples: split of the miniature's scenes (`lfpc.mini.folders.SPLITS`) for the example
            pictures.
    """
    samples = write_split(folder / "examples", examples, EXAMPLES)
    pictures = PictureSources(
        {sample.id: sample for sample in samples}, Uploads(folder / "uploads")
    )
    return Starlette(
        routes=[
            *ask_routes(model, pictures, FileStore(folder / "views", VIEW_BYTES)),
            Mount("/v1", completions_app(model, pictures.uploads)),
            Mount("/static", StaticFiles(packages=[("lfpc.web.ask", "static")])),
            Mount("/shared", shared_files()),
        ],
        exception_handlers={HTTPException: unknown_path},
    )


async def unknown_path(request: Request, error: Exception) -> Response:
    """The response at a path that is neither a page nor the endpoint."""
    if request.url.path.endswith(("/chat/completions", "/models")):
        error = HTTPException(404, f"the endpoint is at {API.rstrip('/')}: end the address with it")
    return await refusal_answer(request, error)
