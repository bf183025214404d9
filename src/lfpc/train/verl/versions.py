"""Are the packages those this was written for. verl's plug-in interfaces change with every release,
so its version is exact.
"""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from lfpc.errors import ConfigError
from lfpc.train.verl.clusters import Cluster

NEEDED: Mapping[str, tuple[str, str]] = {
    "verl": ("0.9.1", "0.9.2"),
    "ray": ("2.41", "3"),
    "tensordict": ("0.8", "0.11"),
    "transferqueue": ("0.1.10", "0.2"),
    "transformers": ("5.9", "5.11"),
}
"""Package -> first version that will do, and the first that will not."""
VLLM = {"vllm": ("0.24", "0.25")}
FLASH_ATTENTION = {"flash-attn": ("2.8", "3")}


def needed(cluster: Cluster) -> dict[str, tuple[str, str]]:
    """What a run on `cluster` needs."""
    return {
        **NEEDED,
        **(VLLM if cluster.rollout == "vllm" else {}),
        **(FLASH_ATTENTION if cluster.padding_free else {}),
    }


def check_versions(packages: Mapping[str, tuple[str, str]]) -> None:
    """See to it that `packages` are installed.

    Raises:
        ConfigError: a package is missing, too old or too new; all of them are named in one
            sentence.
    """
    wrong = [sentence for name, bounds in packages.items() if (sentence := _wrong(name, *bounds))]
    if wrong:
        raise ConfigError(
            f"--engine verl cannot run here: {'; '.join(wrong)}. Start lfpc from an "
            f"environment made as docs/cluster.md says"
        )


def installed_verl() -> str | None:
    """The version of verl in this environment; None: there is none."""
    try:
        return version("verl")
    except PackageNotFoundError:
        return None


def _wrong(name: str, first: str, end: str) -> str:
    try:
        found = version(name)
    except PackageNotFoundError:
        return f"{name} is not installed (needed: {first} or newer, below {end})"
    return (
        ""
        if _parts(first) <= _parts(found) < _parts(end)
        else f"{name} is {found} (needed: {first} or newer, below {end})"
    )


def _parts(text: str) -> tuple[int, ...]:
    """(2, 60, 0) of "2.60.0+cpu"; what is no number ends it."""
    found: list[int] = []
    for part in text.partition("+")[0].split("."):
        if not part.isdigit():
            break
        found.append(int(part))
    return tuple(found)
