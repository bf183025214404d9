"""Whether seconds and memory of work on a data set grow with its rows:
`python -m bench scale [--rows N]`.

Two sizes, a quarter of the rows and all, each in a process of its own; what ten times as many would
take is extrapolated. Rows of an import have pictures of their own; a mixture is of three parts.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from shutil import rmtree

from PIL import Image

from bench.results import Result
from bench.side_by_side import BenchError, peak_memory_mib
from lfpc.data.config import MixConfig, MixPart
from lfpc.data.mix import mix
from lfpc.published.config import ImportConfig
from lfpc.published.importing import import_published
from lfpc.samples import Sample, write_samples

ROOT = Path(__file__).resolve().parents[1]
PICTURES = 200
"""Pictures that the rows of a mixture share."""
SLACK = 1.3
"""Factor above the growth of the rows up to which seconds count as linear."""


@dataclass(frozen=True)
class Cost:
    """What a number of rows costs."""

    rows: int
    cpu_seconds: float
    peak_mib: float


def measure(out: Path, rows: int) -> Result:
    """Costs of an import of a tenth of `rows` and a mixture of `rows`, each beside a quarter."""
    found: Result = {}
    for name, most in (("import", rows // 10), ("mix", rows)):
        few, many = (_process(name, out / "scale", count) for count in (most // 4, most))
        per_row = (many.cpu_seconds - few.cpu_seconds) / (many.rows - few.rows)
        memory = (many.peak_mib - few.peak_mib) / (many.rows - few.rows)
        found[name] = {
            "costs": [asdict(few), asdict(many)],
            "growth": many.cpu_seconds / few.cpu_seconds,
            "kib_per_row": 1024 * memory,
            "rows_extrapolated": 10 * most,
            "cpu_seconds_extrapolated": many.cpu_seconds + per_row * 9 * most,
            "peak_mib_extrapolated": many.peak_mib + memory * 9 * most,
        }
    return found


def lines(found: Result) -> str:
    """The figures as text."""
    return "\n".join(
        f"{name}: {few['rows']:,} rows {few['cpu_seconds']:.1f} CPU s and {few['peak_mib']:.0f} "
        f"MiB, {many['rows']:,} rows {many['cpu_seconds']:.1f} CPU s and {many['peak_mib']:.0f} "
        f"MiB: {part['growth']:.1f} times the seconds for 4 times the rows, "
        f"{part['kib_per_row']:.2f} KiB a row; {part['rows_extrapolated']:,} rows would take "
        f"{part['cpu_seconds_extrapolated']:.0f} s and {part['peak_mib_extrapolated']:.0f} MiB"
        for name, part in found.items()
        for few, many in [part["costs"]]
    )


def _process(name: str, folder: Path, rows: int) -> Cost:
    done = subprocess.run(
        [sys.executable, "-m", "bench.scale", name, str(folder), str(rows)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    if done.returncode:
        raise BenchError(f"{name} of {rows} rows failed: {done.stderr[-500:]}")
    return Cost(**json.loads(done.stdout.splitlines()[-1]))


def importing(folder: Path, rows: int) -> Callable[[], object]:
    """An import of `rows` rows with a small picture each."""
    source = folder / f"source-{rows}"
    pictures = source / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    with (source / "rows.jsonl").open("w", encoding="utf-8") as out:
        for n in range(rows):
            picture = pictures / f"{n}.png"
            if not picture.exists():
                Image.new("RGB", (64, 64), (n % 256, n // 256 % 256, n // 65536)).save(picture)
            row = {
                "id": str(n),
                "image": f"pictures/{n}.png",
                "question": f"What is thing {n}?",
                "answer": str(n),
            }
            out.write(json.dumps(row) + "\n")
    made = folder / f"imported-{rows}"
    rmtree(made, ignore_errors=True)
    config = ImportConfig(format="table", src=source / "rows.jsonl")
    return lambda: import_published(config, made, progress=False)


def mixing(folder: Path, rows: int) -> Callable[[], object]:
    """A mixture of `rows` rows in three parts, half of which are drawn."""
    sets = folder / f"sets-{rows}"
    rmtree(sets, ignore_errors=True)
    pictures = folder / "mixed"
    pictures.mkdir(parents=True, exist_ok=True)
    for n in range(PICTURES):
        if not (pictures / f"{n}.png").exists():
            Image.new("RGB", (224, 224), (n, 9, 9)).save(pictures / f"{n}.png")
    parts = tuple(MixPart(name, count=rows // 6) for name in ("one", "two", "three"))
    for part in parts:
        write_samples(_samples(part.name, pictures, rows // 3), sets / part.name)
    config = MixConfig(parts=parts)
    made = folder / f"mixture-{rows}"
    rmtree(made, ignore_errors=True)
    return lambda: mix(sets, config, made, progress=False)


def _samples(part: str, pictures: Path, count: int) -> Iterator[Sample]:
    for n in range(count):
        yield Sample(
            id=str(n),
            image=pictures / f"{n % PICTURES}.png",
            question=f"What is thing {n} of {part}?",
            answer=str(n),
            category=str(n % 7),
        )


WORK = {"import": importing, "mix": mixing}


def main() -> None:
    """Do one piece of work and print its cost."""
    name, folder, rows = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    work = WORK[name](folder, rows)
    began = time.process_time()
    work()
    print(json.dumps(asdict(Cost(rows, time.process_time() - began, peak_memory_mib()))))


if __name__ == "__main__":
    main()
