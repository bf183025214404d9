"""The limits of the benchmarks: counts by hand, and the share that the table prints."""

import pytest

from bench.limit import Costs, model_seconds
from bench.results import share, table


def test_seconds_at_best_by_hand():
    least = {
        "tower": 5,
        "read": 100,
        "token": 30,
        "tower, update": 2,
        "read, update": 40,
    }
    # 1 s a view, 0.1 s a token read, 0.5 s a token sampled; an update costs three passes
    costs = Costs(view=1.0, read=0.1, token=0.5)
    assert model_seconds(least, costs) == pytest.approx(5 + 6 + 10 + 12 + 15)


def test_the_share_of_the_limit_of_seconds_and_of_rates():
    slow = {"ours": 80.0, "theirs": 119.0, "ratio": 1.5, "at_best": 28.0, "unit": "ms"}
    rate = {"ours": 30.0, "theirs": 10.0, "ratio": 3.0, "at_best": 40.0, "unit": "rollouts/s"}
    assert share(slow) == 0.35
    assert share(rate) == 0.75
    assert share({"ours": 1.0, "theirs": 2.0}) is None
    assert share({**slow, "at_best": 90.0}) == 1.0  # a limit that was measured in a worse moment
    lines = table({"a": {**slow, "b": rate}, "c": {"ours": 1.0, "theirs": 2.0}}).splitlines()
    assert lines[0].split()[-3:] == ["at", "best", "share"]
    assert lines[1].split()[-3:] == ["28", "35", "%"]
    assert lines[2].split()[-3:] == ["40", "75", "%"]
    assert lines[3].split()[-1] == "2.00"
