"""A piece of work, stopped or refused at its n-th file-system event, in a forked process.

An event is a call that opens a file for writing, or creates, renames, flushes or removes something,
below one folder. Python announces them to audit hooks, whichever library makes them. `killed` ends
the process before the event, as kill -9 would; `refused` fails the event as a full disk does.
"""

import errno
import os
import resource
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

KILLED = 137
NAMED = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link")


class _Points:
    def __init__(self, below: Path, stop_at: int, refuse: bool) -> None:
        self.below = str(below.resolve())
        self.count = 0
        self.stop_at = stop_at
        self.refuse = refuse

    def seen(self) -> None:
        self.count += 1
        if self.count != self.stop_at:
            return
        if not self.refuse:
            os._exit(KILLED)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def audit(self, event: str, arguments: tuple) -> None:
        if event not in NAMED or not isinstance(arguments[0], str | os.PathLike):
            return
        path = os.fspath(arguments[0])
        if not isinstance(path, str) or not os.path.realpath(path).startswith(self.below):
            return
        writes = event != "open" or arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if writes:
            self.seen()


def forked(
    work: Callable[[], object],
    below: Path,
    stop_at: int = 0,
    *,
    refuse: bool = False,
    largest: int | None = None,
):
    """Run `work` in a forked process with its `stop_at`-th event below the folder killed or
    refused (0: none), or with every write refused that would make a file larger than `largest`
    bytes, by native code too. Returns (exit code, number of events, what was printed); the exit
    code is 1 after an exception, whose traceback is printed.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        with os.fdopen(reader, errors="replace") as told:
            said = told.read()
        _, status = os.waitpid(child, 0)
        printed, mark, count = said.rpartition("\n#")  # a killed process does not count
        code = os.waitstatus_to_exitcode(status)
        return (code, int(count), printed) if mark else (code, 0, said)
    os.close(reader)
    os.dup2(writer, 1)
    os.dup2(writer, 2)
    sys.stdout = sys.stderr = os.fdopen(writer, "w", buffering=1, errors="replace")
    if largest is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    points = _Points(below, stop_at, refuse)
    sys.addaudithook(points.audit)
    sync = os.fsync

    def synced(descriptor: int) -> None:
        points.seen()
        sync(descriptor)

    os.fsync = synced
    code = 1
    try:
        code = work() or 0
    except BaseException:
        traceback.print_exc()
    sys.stdout.write(f"\n#{points.count}")
    sys.stdout.flush()
    os._exit(code if isinstance(code, int) else 0)
