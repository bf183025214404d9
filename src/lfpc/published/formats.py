"""Everything that can be imported: training sets, and the published benchmarks."""

from pathlib import Path

from lfpc.errors import ConfigError
from lfpc.published.benchmarks import BENCHMARKS
from lfpc.published.config import ImportConfig
from lfpc.published.importers import IMPORTERS, Importer
from lfpc.published.importing import Imported, import_samples


def importer(name: str, seed: int = 0) -> Importer:
    """The importer called `name`: that of a training set, else that of a benchmark.

    Raises:
        ConfigError: there is none; the known ones are named.
    """
    if name in IMPORTERS:
        return IMPORTERS[name]
    if name not in BENCHMARKS:
        raise ConfigError(f"unknown format {name!r}; known are {', '.join(formats())}")
    benchmark = BENCHMARKS[name]  # "samples", a samples folder, among them

    return lambda src, places: benchmark.read(src, places.pictures.parent, seed)


def formats() -> tuple[str, ...]:
    """Names of everything that can be imported."""
    return tuple(dict.fromkeys([*IMPORTERS, *BENCHMARKS]))


def import_published(config: ImportConfig, out: Path, *, progress: bool = True) -> Imported:
    """Import by the name of a format; see `import_samples`."""
    return import_samples(importer(config.format, config.seed), config, out, progress=progress)
