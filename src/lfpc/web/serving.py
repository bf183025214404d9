"""A server of an application until Ctrl-C, and the files that all pages share."""

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
"""Address that listens on every interface."""
SECONDS_TO_FINISH = 2
"""Time limit of unfinished answers after Ctrl-C."""


def shared_files() -> StaticFiles:
    """A route to `lfpc/web/static` and the report's style sheet, which it extends."""
    return StaticFiles(packages=[("lfpc.web", "static"), ("lfpc.report", "static")])


def serve(
    app: "ASGIApp",
    name: str,
    *,
    port: int = 0,
    largest_body: int = LARGEST_BODY,
    public: bool = False,
    listening: socket.socket | None = None,
) -> None:
    """Serve `app`, guarded, until Ctrl-C, and print its address.

    Args:
        app: a Starlette application.
        name: name in the printed line.
        port: 0 takes a free one.
        largest_body: maximum bytes of a request.
        public: whether other machines may send requests; `app` must check who they are.
        listening: a bound socket, which is closed at the end; None: `port` is bound here.
    Raises:
        ConfigError: the port is in use or forbidden.
    """
    with listening or bound_socket(port, address_for(public)) as listening:
        address = f"http://{LOOPBACK}:{listening.getsockname()[1]}/"
        others = ", and at this machine's other addresses" if public else ""
        print(f"{name}: {address}{others} (Ctrl-C ends it)", flush=True)
        config = uvicorn.Config(
            guarded(app, largest_body=largest_body, public=public),
            log_level="warning",
            access_log=False,
            proxy_headers=False,  # no header may claim another origin of the request
            server_header=False,
            timeout_graceful_shutdown=SECONDS_TO_FINISH,
        )
        try:
            uvicorn.Server(config).run(sockets=[listening])
        except KeyboardInterrupt:  # the server finishes its answers, then raises the signal again
            return


def address_for(public: bool) -> str:
    """The address to listen at."""
    return EVERYWHERE if public else LOOPBACK


def usual_port(folder: Path) -> int:
    """The usual port of `folder`, so that an open page finds a restarted server; 0 (any) if it is
    in use.
    """
    port = 20_000 + crc32(str(folder.resolve()).encode("utf-8", "surrogateescape")) % 10_000
    try:
        bound_socket(port).close()
    except ConfigError:
        return 0
    return port


def bound_socket(port: int, host: str = LOOPBACK) -> socket.socket:
    """A socket that listens at `host`; connections wait until the server accepts them.

    Raises:
        ConfigError: the port is in use or forbidden.
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
