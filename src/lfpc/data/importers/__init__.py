"""Published training sets, one file each: `IMPORTERS` is the index. Benchmarks join them in `lfpc.importing`."""

from lfpc.data.importers.base import Importer, Pending, Places
from lfpc.data.importers.chain_of_focus import read_chain_of_focus
from lfpc.data.importers.deepeyes import read_deepeyes
from lfpc.data.importers.generic import read_generic
from lfpc.data.importers.pixel_reasoner import read_pixel_reasoner
from lfpc.data.importers.thinklite import read_thinklite
from lfpc.data.importers.visualprobe import read_visualprobe

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
