"""SIGTERM and time limits."""

import os
import signal
import time
from collections.abc import Callable

import pytest

from lfpc import cli
from lfpc.playing.stopping import Terminated, held, interruptible, sigterm_raises


def sigterm() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def run(work: Callable[[], None]) -> None:
    with sigterm_raises():
        work()


def test_sigterm_raises_in_the_block_and_only_once() -> None:
    def work() -> None:
        try:
            sigterm()
        finally:
            sigterm()  # as queues repeat it: the clean-up goes on

    with pytest.raises(Terminated) as ended:
        run(work)
    assert ended.value.code == 143
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_sigterm_waits_for_held_work_except_in_its_interruptible_parts() -> None:
    done = []

    def held_part() -> None:
        with held():
            sigterm()
            done.append("held")
            with interruptible():
                done.append("interruptible")

    def interruptible_part() -> None:
        with held(), interruptible():
            sigterm()
            time.sleep(10)  # a signal is handled between two instructions
            done.append("slept")

    for work in (held_part, interruptible_part):
        with pytest.raises(Terminated):
            run(work)
    assert done == ["held"]


def test_held_work_ends_before_the_exception() -> None:
    done = []

    def work() -> None:
        with held():
            with held():
                sigterm()
            done.append("outer")

    with pytest.raises(Terminated):
        run(work)
    assert done == ["outer"]


def test_a_handler_of_somebody_else_is_kept() -> None:
    heard = []
    signal.signal(signal.SIGTERM, lambda *_: heard.append(1))
    try:
        with sigterm_raises():
            sigterm()
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    assert heard == [1]


@pytest.mark.slow
def test_the_verl_engine_stops_at_a_step_not_after_minutes(capsys: pytest.CaptureFixture) -> None:
    words = ["train", "stage1", "--engine", "verl", "--dry-run", "--stop-after", "5"]
    assert cli.main(words) == 1
    assert "--cluster.stop-at" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("minutes", ["0", "-5", "nan"])
def test_a_limit_that_is_no_time_is_refused(capsys: pytest.CaptureFixture, minutes: str) -> None:
    assert cli.main(["train", "stage1", "--dry-run", "--stop-after", minutes]) == 1
    assert f"--stop-after must be above 0 minutes, got {minutes}" in capsys.readouterr().err
