"""Pages that a person works on in a browser, served on this machine to this machine.

Needs the extra `web` (starlette and uvicorn). Everything that data sets and models wrote is text to
a page: the server sends it as JSON, and scripts set it with `textContent`.
"""

from importlib.util import find_spec

from lfpc.errors import ConfigError


def need_web() -> None:
    """Say what to install where the extra `web` is missing.

    Raises:
        ConfigError: it is.
    """
    for package in ("starlette", "uvicorn"):
        if find_spec(package) is None:
            raise ConfigError(
                f"pages need {package}, which is not installed: pip install 'lfpc[web]'"
            )
