"""Published training sets, one file each: `IMPORTERS` is the index. Benchmarks join them in `lfpc.importing`."""

from lfpc.data.importers.base import Importer, Pending, Places
from lfpc.data.importers.chain_of_focus import read_chain_of_focus
from lfpc.data.importers.deepeyes import read_deepeyes
from lfpc.data.importers.generic import FIELDS, read_generic
from lfpc.data.importers.pixel_reasoner import read_pixel_reasoner
from lfpc.data.importers.thinklite import read_thinklite
from lfpc.data.importers.visualprobe import read_visualprobe

IMPORTERS: dict[str, Importer] = {
    "deepeyes": Importer(read=read_deepeyes, about="DeepEyes-47k: parquet files with their pictures inside."),
    "verl": Importer(read=read_deepeyes, about="Any parquet file in verl's layout."),
    "pixel-reasoner": Importer(read=read_pixel_reasoner, about="Parquet with picture names: unpack the archive beside it; no videos."),
    "chain-of-focus": Importer(read=read_chain_of_focus, about="JSON with picture names: --root for the pictures, --strip for old paths."),
    "thinklite-vl": Importer(read=read_thinklite, about="Parquet files with their pictures inside."),
    "visualprobe": Importer(read=read_visualprobe, about="JSON lists beside their pictures, training and test parts."),
    "mini-o3": Importer(read=read_visualprobe, about="Mini-o3's training files, the same layout."),
    "table": Importer(
        read=read_generic,
        about=f"JSONL, JSON, CSV, TSV, parquet or a saved Hugging Face data set; --map names columns of {', '.join(FIELDS)}.",
    ),
}

__all__ = ["IMPORTERS", "Importer", "Pending", "Places"]
