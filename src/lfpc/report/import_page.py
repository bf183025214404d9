"""Results of an import by source, as lines for a terminal and as a page."""

from pathlib import Path

from lfpc.published.importing import Imported
from lfpc.report.data_page import SampleCard, TextTable, write_data_page
from lfpc.samples import Sample, iter_samples

SHOWN = 12


def import_lines(found: Imported) -> list[str]:
    """Lines for a terminal: counts by source, then by reason."""
    lines = [
        f"{name}: {counts['samples']:,} samples, {counts['rejected']:,} rejected"
        for name, counts in found.sources.items()
    ]
    lines += [f"rejected, {reason}: {count:,} rows" for reason, count in found.rejected.items()]
    return [
        *lines,
        f"in total: {found.samples:,} samples, {sum(found.rejected.values()):,} rejected rows",
    ]


def write_import_page(out: Path, found: Imported) -> Path:
    """Write the page into `out`; returns the path of `index.html`."""
    columns = ("Source", "Samples", "With options", "With boxes", "Rejected rows")
    names = ("samples", "with_options", "with_boxes", "rejected")
    rows = [
        (name, *(f"{counts[fact]:,}" for fact in names)) for name, counts in found.sources.items()
    ]
    return write_data_page(
        out,
        title="Import",
        facts=[
            f"{found.samples:,} samples from {len(found.sources):,} sources; "
            f"{sum(found.rejected.values()):,} rows were rejected."
        ],
        bars={
            "Samples by source": {
                name: counts["samples"] for name, counts in found.sources.items()
            },
            "Rejected rows by reason": found.rejected,
        },
        tables=[TextTable("Sources", columns, tuple(rows))],
        groups={"Samples": [SampleCard(sample) for sample in _spread(found, SHOWN)]},
    )


def _spread(found: Imported, count: int) -> list[Sample]:
    """`count` samples at equal distances."""
    step = max(1, found.samples // count)
    return [sample for i, sample in enumerate(iter_samples(found.folder)) if i % step == 0][:count]
