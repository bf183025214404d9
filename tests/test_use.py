"""What a model does with its crops, by hand: 10 questions, three of them known without the tool."""

from dataclasses import replace

import pytest
from reports import made_up_record

from lfpc.evaluation.results import condition_results
from lfpc.evaluation.terminal import use_lines
from lfpc.evaluation.use import crop_use, same_answer
from lfpc.records import EpisodeRecord
from lfpc.report.names import namer
from lfpc.report.use_tables import known_table, use_table

OWN = (1, 1, 1, 1, 1, 1, 0, 0, 1, 0)
ALONE = (1, 1, 0, 0, 0, 0, 1, 0, 0, 0)
NOISE = (1, 0, 0, 0, 1, 0, 0, 0, 0, 0)
NO_CROP = {8, 9}
"""Questions that were answered without asking for a crop."""


def answers(right: tuple[int, ...]) -> list[EpisodeRecord]:
    """A record per verdict; wrong answers of one question are the same."""
    return [
        made_up_record(f"q{n}", bool(one), said="red" if one else "blue", tool=n not in NO_CROP)
        for n, one in enumerate(right)
    ]


PROBES = {"own": answers(OWN), "no-tool": answers(ALONE), "noise": answers(NOISE)}


def test_measures_by_hand():
    use = crop_use(PROBES)
    assert use["call_gain"]["share"] == 0.5  # q2 to q5, q8
    assert use["call_harm"]["share"] == 0.1  # q6
    assert use["call_gain"]["n"] == 10
    # of q0 to q7, which had a crop: q0, q4, q6 and q7 say the same
    assert (use["unlooked"]["share"], use["unlooked"]["n"]) == (0.5, 8)
    assert use["unlooked"]["low"] < 0.5 < use["unlooked"]["high"]
    # known: q0, q1, q6: right 2, under noise 1
    assert (use["known"]["n"], use["known"]["delta"]) == (3, pytest.approx(1 / 3))
    # unknown: q2, q3, q4, q5, q7, q8, q9: right 5, under noise 1
    assert (use["unknown"]["n"], use["unknown"]["delta"]) == (7, pytest.approx(4 / 7))


def test_gain_less_harm_is_what_the_tool_is_worth():
    results = condition_results(PROBES)
    worth = results["probes"]["no-tool"]["all"]["delta"]
    use = results["use"]
    assert use["call_gain"]["share"] - use["call_harm"]["share"] == pytest.approx(worth)


@pytest.mark.parametrize("left_out", ["no-tool", "noise"])
def test_what_a_missing_probe_would_tell_is_absent(left_out):
    some = {name: records for name, records in PROBES.items() if name != left_out}
    missing = {"no-tool": {"call_gain", "call_harm", "known", "unknown"}}.get(
        left_out, {"unlooked", "known", "unknown", "swapped"}
    )
    assert set(crop_use(PROBES)) - set(crop_use(some)) == missing
    assert crop_use({"own": PROBES["own"]}) == {}


def test_questions_without_an_answer_are_neither_same_nor_changed():
    silent = made_up_record("q0", False, said=None)
    assert same_answer(silent, PROBES["noise"][0]) is None
    assert same_answer(made_up_record("q", said="Red."), made_up_record("q", said="red")) is True


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("B", "(B) red", True),
        ("B", "red", True),
        ("The answer is B.", "b", True),
        ("A", "red", False),
        ("A", "B. red", False),
    ],
)
def test_an_option_is_the_same_answer_however_it_is_written(one, other, same):
    said = [made_up_record("q", said=text, options=("blue", "red")) for text in (one, other)]
    assert same_answer(*said) is same
    own, noise = ([replace(record, tool=True)] for record in said)
    assert crop_use({"own": own, "noise": noise})["unlooked"]["share"] == float(same)


def test_the_view_is_printed_and_a_row_of_the_page():
    results = condition_results(PROBES)
    lines = use_lines(results)
    assert lines[0].startswith("wrong without the tool, right with it: 50.0 % [")
    assert lines[0].endswith("] of 10 questions")
    assert lines[2].startswith("same answer with noise for the crop: 50.0 % [")
    page = {"conditions": {"a": {"25": results}}}
    (use,) = use_table(page, namer([("a", "25")])).rows
    (known,) = known_table(page, namer([("a", "25")])).rows
    texts = [cell.text.split(" [")[0] for cell in (*use[1:5], *known[1:3])]
    assert texts == ["30.0 %", "50.0 %", "10.0 %", "50.0 %", "+33.3", "+57.1"]
    bare = condition_results({"own": PROBES["own"]})
    assert use_lines(bare) == []
    for table in (use_table, known_table):
        assert table({"conditions": {"a": {"25": bare}}}, namer([("a", "25")])).rows == ()


def test_of_averaged_draws_every_pair_of_draws_counts():
    mixed = {
        "own": [made_up_record("a", 0.75), made_up_record("b", 0.5)],
        "no-tool": [made_up_record("a", 0.5), made_up_record("b", 0.5)],
    }
    use = crop_use(mixed)
    assert use["call_gain"]["share"] == pytest.approx((0.75 * 0.5 + 0.5 * 0.5) / 2)
    assert use["call_harm"]["share"] == pytest.approx((0.5 * 0.25 + 0.5 * 0.5) / 2)
    assert use["call_gain"]["share"] - use["call_harm"]["share"] == pytest.approx(0.125)


def test_questions_that_were_not_asked_without_the_tool_are_neither_known_nor_unknown():
    seeds = {
        name: [replace(one, seed=seed) for seed in (0, 1) for one in records]
        for name, records in PROBES.items()
    }
    seeds["no-tool"] = [
        replace(one, error="no reply") if one.sample.id == "q9" else one
        for one in seeds["no-tool"]
        if one.seed == 0
    ]
    use = crop_use(seeds)
    assert (use["known"]["n"], use["unknown"]["n"], use["call_gain"]["n"]) == (3, 6, 9)
