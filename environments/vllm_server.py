"""A real vLLM server on this machine's CPUs, for tests and measurements.

with VllmServer(checkpoint, log=Path("vllm.log")) as server: ... server.base_url ...
"""

from collections.abc import Sequence
from pathlib import Path

from environments import interpreter
from environments.server import Server, free_port

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


class VllmServer(Server):
    """vLLM's OpenAI-compatible server.

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
        self.port = free_port()
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
        command = [
            *server,
            "--model",
            str(checkpoint.resolve()),
            "--served-model-name",
            MODEL,
            *SETTINGS,
            *more,
        ]
        health = f"http://127.0.0.1:{self.port}/health"
        super().__init__(command, health=health, log=log, env=ENV)

    @property
    def base_url(self) -> str:
        """Address of its API."""
        return f"http://127.0.0.1:{self.port}/v1"
