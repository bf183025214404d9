"""Published training sets and benchmarks as samples, one file each: `PUBLISHED` is the index.

Files are read from a folder; nothing is downloaded.
"""

from collections.abc import Iterable
from difflib import get_close_matches

from lfpc.errors import ConfigError
from lfpc.published.chain_of_focus import CHAIN_OF_FOCUS
from lfpc.published.deepeyes import DEEPEYES, VERL
from lfpc.published.hrbench import HRBENCH_4K, HRBENCH_8K
from lfpc.published.mme_realworld import MME_REALWORLD_LITE
from lfpc.published.pixel_reasoner import PIXEL_REASONER
from lfpc.published.published_set import PublishedSet
from lfpc.published.samples_folder import SAMPLES
from lfpc.published.table import TABLE
from lfpc.published.thinklite import THINKLITE_VL
from lfpc.published.treebench import TREEBENCH
from lfpc.published.visualprobe import MINI_O3, VISUALPROBE
from lfpc.published.vstar import VSTAR
from lfpc.published.zoombench import ZOOMBENCH

PUBLISHED: dict[str, PublishedSet] = {
    each.name: each
    for each in (
        DEEPEYES,
        VERL,
        PIXEL_REASONER,
        CHAIN_OF_FOCUS,
        THINKLITE_VL,
        MINI_O3,
        VSTAR,
        HRBENCH_4K,
        HRBENCH_8K,
        VISUALPROBE,
        TREEBENCH,
        ZOOMBENCH,
        MME_REALWORLD_LITE,
        SAMPLES,
        TABLE,
    )
}


def published_set(name: str) -> PublishedSet:
    """The training set or benchmark called `name`.

    Raises:
        ConfigError: unknown data set; the message lists the known ones.
    """
    if name not in PUBLISHED:
        raise unknown("data set", name, PUBLISHED)
    return PUBLISHED[name]


def unknown(what: str, name: str, known: Iterable[str]) -> ConfigError:
    """The error for a name that is none of the known ones, with the nearest as a hint."""
    known = list(known)
    near = get_close_matches(name.lower(), known, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return ConfigError(f"unknown {what} {name!r}; known are {', '.join(known)}{hint}")


__all__ = ["PUBLISHED", "PublishedSet", "published_set", "unknown"]
