"""Any samples folder, as it is written here."""

from lfpc.metrics.summary import summarise
from lfpc.published.published_set import PublishedSet
from lfpc.samples import scan_samples

SAMPLES = PublishedSet(
    name="samples",
    fetch="Any samples folder: samples.jsonl beside its pictures. `lfpc data check DIR` "
    "says whether it can be played.",
    read=lambda src, options: scan_samples(src),
    score=summarise,
)
