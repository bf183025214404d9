"""An application served on 127.0.0.1 until Ctrl-C, and the files that all pages share."""

import socket
from pathlib import Path
from typing import TYPE_CHECKING
from zlib import crc32

import uvicorn
from starlette.staticfiles import StaticFiles

from lfpc.errors import ConfigError
from lfpc.web.guard import LARGEST_BODY, LOOPBACK, guarded

if TYPE_CHECKING:
    from starlette.types import ASGIApp

EVERYWHERE = "0.0.0.0"
"""Every address of this machine."""
SECONDS_TO_FINISH = 2
"""How long answers under way may take after Ctrl-C."""


def shared_files() -> StaticFiles:
    """`web.css` and the other files of `lfpc/web/static`, and the report's style sheet that they
    build on.
    """
    return StaticFiles(packages=[("lfpc.web", "static"), ("lfpc.report", "static")])


def serve(
    app: "ASGIApp",
    name: str,
    *,
    port: int = 0,
    largest_body: int = LARGEST_BODY,
    public: bool = False,
) -> None:
    """Serve `app`, guarded, until Ctrl-C; one line says where.

    Args:
        app: a Starlette application.
        name: what the line calls it.
        port: 0 takes a free one.
        largest_body: bytes a request may have.
        public: whether other machines may ask; `app` has to check who they are.
    Raises:
        ConfigError: the port is taken or not allowed.
    """
    with bound_socket(port, EVERYWHERE if public else LOOPBACK) as listening:
        address = f"http://{LOOPBACK}:{listening.getsockname()[1]}/"
        others = ", and at this machine's other addresses" if public else ""
        print(f"{name}: {address}{others} (Ctrl-C ends it)", flush=True)
        config = uvicorn.Config(
            guarded(app, largest_body=largest_body, public=public),
            log_level="warning",
            access_log=False,
            proxy_headers=False,  # no header may say that the request came from elsewhere
            server_header=False,
            timeout_graceful_shutdown=SECONDS_TO_FINISH,
        )
        try:
            uvicorn.Server(config).run(sockets=[listening])
        except KeyboardInterrupt:  # the server has finished its answers, then passes the signal on
            return


def usual_port(folder: Path) -> int:
    """A port that `folder` always gets, so that an open page finds a server that was started again;
    0 (any) where it is taken.
    """
    port = 20_000 + crc32(str(folder.resolve()).encode("utf-8", "surrogateescape")) % 10_000
    try:
        bound_socket(port).close()
    except ConfigError:
        return 0
    return port


def bound_socket(port: int, host: str = LOOPBACK) -> socket.socket:
    """A socket that listens at `host`; connections wait in it until the server takes them.

    Raises:
        ConfigError: the port is taken or not allowed.
    """
    listening = socket.socket()
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen()
    except (OSError, OverflowError) as error:
        listening.close()
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(
            f"port {port} of {host} cannot be used: {reason}; name another --port, or none "
            f"for a free one"
        ) from error
    return listening
