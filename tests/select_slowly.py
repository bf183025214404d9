"""Selects resolutions with a policy that takes its time; killed and started again by test_select.

python select_slowly.py PICTURES OUT      prints the budgets
"""

import json
import sys
import time
from pathlib import Path

from test_select import LADDER, PROTOCOL, guess

from lfpc.policies.scripted import ScriptedPolicy
from lfpc.samples import Sample
from lfpc.selection.config import SelectConfig
from lfpc.selection.run import select


def main(pictures: Path, out: Path) -> None:
    def reply(context):
        time.sleep(0.005)
        return guess(context)

    files = sorted(pictures.glob("*.png"), key=lambda file: int(file.stem))
    samples = [
        Sample(id=f"s{i}", image=files[i // 2], question=f"q{i}", answer="A")
        for i in range(2 * len(files))
    ]
    found = select(
        samples,
        ScriptedPolicy(reply),
        protocol=PROTOCOL,
        config=SelectConfig(ladder=LADDER),
        out=out,
        batch=4,
        progress=False,
    )
    print(json.dumps({sample.id: sample.budget for sample in found.samples}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
