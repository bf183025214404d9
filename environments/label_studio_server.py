"""A real Label Studio server with its local files, for tests.

with LabelStudioServer(pictures, data=folder, log=Path("log")) as server: server.ask("GET", path)
"""

from pathlib import Path
from typing import Any

import httpx

from environments import interpreter
from environments.server import Server, free_port

TOKEN = "0" * 40
OFFLINE = {
    "COLLECT_ANALYTICS": "false",
    "LATEST_VERSION_CHECK": "false",
    "SENTRY_DSN": "",
    "FRONTEND_SENTRY_DSN": "",
}


class LabelStudioServer(Server):
    """Label Studio with one user and an empty database.

    Args:
        document_root: its setting `LOCAL_FILES_DOCUMENT_ROOT`.
        data: folder for its database.
        log: file for what it prints.
    """

    def __init__(self, document_root: Path, *, data: Path, log: Path) -> None:
        port = free_port()
        self.address = f"http://127.0.0.1:{port}"
        settings = {
            "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true",
            "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(document_root),
        }
        options = {
            "--port": port,
            "--internal-host": "127.0.0.1",
            "--data-dir": data,
            "--username": "user@example.org",
            "--password": TOKEN,
            "--user-token": TOKEN,
        }
        words = [str(word) for pair in options.items() for word in pair]
        program = interpreter("annotation").with_name("label-studio")
        flags = ["--no-browser", "--enable-legacy-api-token"]
        super().__init__(
            [str(program), "start", *flags, *words],
            health=f"{self.address}/health",
            log=log,
            env={**OFFLINE, **settings},
        )

    def ask(self, method: str, path: str, **request: Any) -> httpx.Response:
        """What the server answers.

        Args:
            method: of HTTP.
            path: path and query of the address.
            request: what httpx takes besides: `json`, `files`, `params`.
        Raises:
            httpx.HTTPStatusError: the server refuses, and says why in its log.
        """
        answer = httpx.request(
            method,
            self.address + path,
            headers={"Authorization": f"Token {TOKEN}"},
            timeout=60,
            trust_env=False,
            **request,
        )
        return answer.raise_for_status()
