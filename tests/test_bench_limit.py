"""The share of its limit that the table of the benchmarks prints."""

from bench.results import share, table


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
