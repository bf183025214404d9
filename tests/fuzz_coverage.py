"""Coverage-guided replies through every parser: atheris changes bytes where that reaches code not
yet reached.

    python tests/fuzz_coverage.py --seconds 60        # make fuzz

The checks are those of `fuzz_parsers`. Without atheris (it has no build for every machine) it says
so and ends with 0.
"""

import argparse
import sys
import tempfile
from pathlib import Path

LONGEST = 20_000
"""Bytes of a reply."""


def main() -> None:
    """Read the command line and run; a failing input ends it with atheris' exit code and the
    input's bytes."""
    options = argparse.ArgumentParser(description="Coverage-guided replies through every parser.")
    options.add_argument("--seconds", type=int, default=60)
    options.add_argument(
        "--corpus", type=Path, help="folder of inputs, which grows; none given: a new one"
    )
    given = options.parse_args()
    try:
        import atheris  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        print(f"coverage-guided fuzzing is left out: {error}; `pip install atheris` adds it")
        return
    with atheris.instrument_imports(include=["lfpc.protocols", "lfpc.answers"]):
        import fuzz_parsers
    with tempfile.TemporaryDirectory() as folder:
        corpus = given.corpus or Path(folder)
        fuzz_parsers.write_corpus(corpus)
        atheris.Setup(
            [
                sys.argv[0],
                str(corpus),
                f"-max_total_time={given.seconds}",
                f"-max_len={LONGEST}",
                "-verbosity=0",
                "-print_final_stats=1",
            ],
            fuzz_parsers.one_input,
        )
        atheris.Fuzz()


if __name__ == "__main__":
    main()
