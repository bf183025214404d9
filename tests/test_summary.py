from pathlib import Path

import pytest

from lfpc.boxes import WHOLE
from lfpc.dialogue import Answer
from lfpc.metrics.summary import Timing, flat_figures, summarise
from lfpc.records import EpisodeRecord, TurnRecord, failed_record
from lfpc.samples import Sample


def sample(name: str, *, picture: str = "", category: str = "c", options=()) -> Sample:
    return Sample(
        id=name,
        image=Path(picture or f"{name}.png"),
        question="?",
        answer="A" if options else "red",
        boxes=((WHOLE,),),
        category=category,
        options=options,
    )


def record(name: str, correct: bool, *, picture: str = "", category: str = "c", **more):
    about = sample(name, picture=picture, category=category)
    tool = "iou" in more
    return EpisodeRecord(sample=about, correct=correct, method="text", tool=tool, **more)


def test_summary_keeps_failures_in_the_denominator_and_leaves_missing_facts_out_of_means():
    records = [
        record("a", True, iou=0.8, crop_area=0.1),
        record("b", False, iou=0.4, crop_area=0.3),
        record("c", True, category="d"),
        failed_record(sample("e"), "broken"),
    ]
    summary = summarise(records)
    assert (summary["n"], summary["failed"]) == (4, 1)
    assert (summary["accuracy"], summary["tool_rate"]) == (0.5, 0.5)
    assert summary["iou"] == pytest.approx(0.6)
    assert summary["iou_all"] == pytest.approx(0.3)
    assert summary["crop_area"] == pytest.approx(0.2)
    assert summary["categories"]["c"]["accuracy"] == pytest.approx(1 / 3)
    decided = {"rule": 0.75, "failed": 0.25, "judge": 0, "unparsed": 0, "undecided": 0}
    assert summary["decided"] == decided
    assert summary["visual_tokens"] is None


def test_questions_with_a_reply_cut_at_the_token_limit_are_counted():
    records = [
        record("a", False, truncated=2),
        record("b", True, truncated=0),
        record("c", True),
        failed_record(sample("e"), "broken"),
    ]
    summary = summarise(records)
    assert summary["truncated"] == 1
    assert flat_figures(summary)["truncated"] == 1


def test_summary_of_costs_has_mean_median_and_p95():
    turns = tuple(TurnRecord(text="x", action=Answer("x"), tokens=tokens) for tokens in (30, 10))
    records = [
        record(f"q{i}", True, visual_tokens=i, seconds=1.0, turns=turns if i else ())
        for i in range(21)
    ]
    timing = Timing(concurrency=8, questions=20, median=1.0, p95=2.0, per_second=4.0)
    summary = summarise(records, [timing])
    assert summary["cost"]["visual_tokens"] == {"mean": 10, "median": 10, "p95": 19}
    # a policy without tokens has no such fact
    assert summary["cost"]["text_tokens"] == {"mean": 40, "median": 40, "p95": 40}
    assert summary["cost"]["calls"] is None
    assert summary["timings"] == [
        {
            "concurrency": 8,
            "questions": 20,
            "median": 1.0,
            "p95": 2.0,
            "per_second": 4.0,
            "cpu": None,
            "each": (),
        }
    ]


def test_records_about_one_picture_are_one_cluster():
    verdicts = [True] * 12 + [False] * 8
    apart = summarise([record(f"q{i}", right) for i, right in enumerate(verdicts)])
    together = summarise(
        [record(f"q{i}", right, picture=f"p{i // 4}.png") for i, right in enumerate(verdicts)]
    )

    # five pictures whose four questions agree: n_eff = 20 * 4 / 19
    def width(summary):
        return summary["accuracy_ci"][1] - summary["accuracy_ci"][0]

    assert width(together) > 1.7 * width(apart)
    assert (apart["clusters"], together["clusters"]) == (20, 5)


def test_answers_given_before_the_crop_are_a_rate_over_texts_that_show_it():
    records = [
        record("a", True, answered_before_crop=True),
        record("b", True, answered_before_crop=False),
        record("c", True),
    ]
    summary = summarise(records)
    assert (summary["answered_before_crop"], summary["answered_before_crop_n"]) == (0.5, 2)


def test_summary_of_nothing_is_empty_not_an_error():
    assert summarise([])["accuracy"] is None


def test_flat_figures_are_the_summary_under_the_same_words():
    with_options = [
        EpisodeRecord(
            sample=sample(f"q{n}", options=("red", "blue"), category=kind),
            correct=n > 0,
            method="option",
        )
        for n, kind in enumerate("aab")
    ]
    flat = flat_figures(summarise(with_options) | {"figures": {"miou": 0.5}})
    assert (flat["accuracy"], flat["n"], flat["clusters"]) == (pytest.approx(2 / 3), 3, 3)
    assert (flat["accuracy/a"], flat["accuracy/b"]) == (0.5, 1.0)
    assert (flat["chance"], flat["miou"], flat["decided/rule"]) == (0.5, 0.5, 1.0)
