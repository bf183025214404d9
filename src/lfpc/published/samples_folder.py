"""Any samples folder."""

from lfpc.metrics.summary import summarise
from lfpc.published.published_set import PublishedSet
from lfpc.samples import scan_samples

SAMPLES = PublishedSet(
    name="samples",
    fetch="Any samples folder: samples.jsonl beside its pictures. Check it "
    "with `lfpc data check DIR`.",
    read=lambda src, options: scan_samples(src),
    score=summarise,
)
