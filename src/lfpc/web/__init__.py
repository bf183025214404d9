"""Pages in a browser, served by this machine to itself.

Needs the extra `web` (starlette and uvicorn). Texts of data sets and models are untrusted: the
server sends them as JSON, and scripts set them with `textContent`.
"""

from importlib.util import find_spec

from lfpc.errors import ConfigError


def need_web() -> None:
    """Check that the extra `web` is installed.

    Raises:
        ConfigError: it is missing.
    """
    for package in ("starlette", "uvicorn"):
        if find_spec(package) is None:
            raise ConfigError(
                f"pages need {package}, which is not installed: pip install 'lfpc[web]'"
            )
