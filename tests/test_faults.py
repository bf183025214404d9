"""Kills and full disks at the file-system events of whole commands. `LFPC_ALL_FAULTS=1` tries every
event, in parts that each stay below the time limit of a test; otherwise a few spread over the
command.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

MATRIX = Path(__file__).parent / "fault_matrix.py"
EVERY = {"train": 40, "select": 20, "eval": 16, "import": 16}
"""Distance of the tried events; a fifth of it between file sizes."""
ALL = bool(os.environ.get("LFPC_ALL_FAULTS"))
MODES = ("killed", "refused", "limited")
TOGETHER = [(mode,) for mode in MODES] if ALL else [MODES]
"""Modes that a test tries."""
PARTS = {"train": 8 if ALL else 1}
"""Tests that share the events of a command; one, if it is not named."""
LONG = ("train", "select", "eval")
"""Commands whose stops test_train_faults.py, test_select.py and test_served.py hold too."""


@pytest.mark.parametrize("modes", TOGETHER, ids="-".join)
@pytest.mark.parametrize(
    ("command", "part"),
    [
        pytest.param(name, part, marks=[pytest.mark.long] if name in LONG else [])
        for name in EVERY
        for part in range(PARTS.get(name, 1))
    ],
)
def test_a_command_with_a_fault_at_any_file_event_ends_the_same_when_it_is_called_again(
    tmp_path, command, part, modes
):
    sampled = {mode: EVERY[command] // (5 if mode == "limited" else 1) for mode in modes}
    every = dict.fromkeys(modes, PARTS.get(command, 1)) if ALL else sampled
    words = [f"{mode}:{part}:{every[mode]}" for mode in modes]
    done = subprocess.run(
        [sys.executable, str(MATRIX), str(tmp_path), command, *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # a forked process has one thread
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    reports = json.loads(done.stdout.splitlines()[-1])
    assert set(reports) == set(modes)
    for mode, report in reports.items():
        assert report["places"] > 5, mode
        assert report["tried"] == len(range(part, report["places"], every[mode])), mode
        assert ALL or report["tried"] > 1, mode
        assert report["bad"] == [], mode
