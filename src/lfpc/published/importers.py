"""Published training sets, one file each: `IMPORTERS` is the index. Benchmarks join them in
`lfpc.published.formats`.
"""

from lfpc.published.base import Importer, Pending, Places
from lfpc.published.chain_of_focus import read_chain_of_focus
from lfpc.published.deepeyes import read_deepeyes
from lfpc.published.pixel_reasoner import read_pixel_reasoner
from lfpc.published.table import read_generic
from lfpc.published.thinklite import read_thinklite
from lfpc.published.visualprobe import read_visualprobe

IMPORTERS: dict[str, Importer] = {
    "deepeyes": read_deepeyes,
    "verl": read_deepeyes,
    "pixel-reasoner": read_pixel_reasoner,
    "chain-of-focus": read_chain_of_focus,
    "thinklite-vl": read_thinklite,
    "visualprobe": read_visualprobe,
    "mini-o3": read_visualprobe,
    "table": read_generic,
}

__all__ = ["IMPORTERS", "Importer", "Pending", "Places"]
