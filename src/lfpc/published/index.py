"""Published training sets and benchmarks as samples, one file each: `PUBLISHED` is the index.

Files are read from a folder; nothing is downloaded.
"""

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
        raise ConfigError(f"unknown data set {name!r}; known are {', '.join(PUBLISHED)}")
    return PUBLISHED[name]


__all__ = ["PUBLISHED", "PublishedSet", "published_set"]
