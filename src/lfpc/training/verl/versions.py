"""Checks of the installed packages. verl's plug-in interfaces change with every release, so its
version is exact.
"""

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from packaging.requirements import Requirement

from lfpc.errors import ConfigError
from lfpc.training.verl.clusters import Cluster

NEEDED = (
    "verl==0.9.1",
    "ray>=2.41,<3",
    "tensordict>=0.8,<0.11",
    "transferqueue>=0.1.10,<0.2",
    "transformers>=5.9,<5.11",
)
VLLM = "vllm>=0.24,<0.25"
FLASH_ATTENTION = "flash-attn>=2.8,<3"


def needed(cluster: Cluster) -> list[str]:
    """Package requirements of a run on `cluster`."""
    vllm = [VLLM] if cluster.rollout == "vllm" else []
    flash_attention = [FLASH_ATTENTION] if cluster.padding_free else []
    return [*NEEDED, *vllm, *flash_attention]


def check_versions(requirements: Sequence[str]) -> None:
    """Check that the required packages are installed.

    Raises:
        ConfigError: packages are missing, too old or too new; one sentence names them all.
    """
    wrong = [sentence for one in requirements if (sentence := _wrong(Requirement(one)))]
    if wrong:
        raise ConfigError(
            f"--engine verl cannot run here: {'; '.join(wrong)}. Start lfpc from an "
            f"environment made as in docs/cluster.md"
        )


def installed_version(package: str) -> str | None:
    """The version of `package` in this environment; None: not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _wrong(required: Requirement) -> str:
    found = installed_version(required.name)
    if found is None:
        return f"{required.name} is not installed (needed: {required})"
    fits = required.specifier.contains(found, prereleases=True)
    return "" if fits else f"{required.name} is {found} (needed: {required})"
