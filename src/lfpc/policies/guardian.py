"""Processes of other packages that end with this one, even if it is killed."""

import os
import subprocess
import sys
from collections.abc import Sequence

_WAIT_AND_KILL = """
import os, signal, sys
guarded = [os.pidfd_open(int(pid)) for pid in sys.argv[1:]]
sys.stdin.read()  # ends with the process at the other end, however that ends
for process in guarded:
    try:
        signal.pidfd_send_signal(process, signal.SIGKILL)
    except ProcessLookupError:
        pass
"""
_guardians: list["subprocess.Popen[bytes]"] = []
"""Kept until this process ends: a closed input would end the guarded processes."""


def end_with_this_process(pids: Sequence[int]) -> None:
    """Kill the processes `pids` once this process has ended. Without effect where the system has no
    handles for processes (before Linux 5.3, other systems).
    """
    if not pids or not hasattr(os, "pidfd_open"):
        return
    _guardians.append(
        subprocess.Popen(
            [sys.executable, "-c", _WAIT_AND_KILL, *map(str, pids)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is not for it
        )
    )
