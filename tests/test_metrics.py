import pytest
from lfpc.metrics.episodes import Timing, episode_facts, summarise, target_iou
from PIL import Image

from lfpc.boxes import WHOLE, Box
from lfpc.dialogue import Answer, Crop, Malformed, Reply, Turn
from lfpc.episode import Episode, Stop
from lfpc.images import View
from lfpc.samples import Sample

INNER = Box(0.2, 0.2, 0.4, 0.4)
OUTER = Box(0.0, 0.0, 0.5, 0.5)
WIDE = Box(0.0, 0.0, 0.5, 1.0)


def view(width: int, height: int, region: Box = WHOLE) -> View:
    return View(Image.new("RGB", (width, height)), region)


def crop(box: Box, shown: bool = True) -> Turn:
    return Turn(Reply("crop"), Crop(box), view(56, 56, box) if shown else None)


def played(*turns: Turn, targets=((INNER, OUTER),), said: str | None = "red") -> Episode:
    sample = Sample(id="s", image=None, question="?", answer="red", boxes=targets)  # pyright: ignore[reportArgumentType]
    end = (Turn(Reply("a"), Answer(said)),) if said else ()
    return Episode(sample, view(112, 84), (*turns, *end), Stop.ANSWERED if said else Stop.MAX_TURNS)


def test_facts_of_an_episode_with_two_crops():
    facts = episode_facts(played(crop(OUTER), crop(WIDE)))
    assert facts["correct"]
    assert (facts["tool"], facts["calls"], facts["crops"], facts["n_turns"]) == (True, 2, 2, 3)
    assert (facts["global_tokens"], facts["crop_tokens"], facts["visual_tokens"]) == (
        4 * 3,
        2 * 2 * 2,
        20,
    )
    assert facts["iou_first"] == pytest.approx(1.0)  # OUTER is one of the nested boxes
    assert facts["iou"] == pytest.approx(0.5)  # WIDE is twice OUTER
    assert facts["iou_best"] == pytest.approx(1.0)
    assert facts["coverage"] == pytest.approx(1.0)
    assert facts["crop_area"] == pytest.approx(0.5)


def test_one_crop_answers_for_every_target_but_the_best_is_taken_for_each():
    other = Box(0.6, 0.6, 1.0, 1.0)
    facts = episode_facts(played(crop(OUTER), crop(other), targets=((INNER, OUTER), (other,))))
    assert facts["iou"] == pytest.approx(0.5)  # mean of 0 and 1
    assert facts["iou_best"] == pytest.approx(1.0)
    assert facts["coverage"] == pytest.approx(0.5)


def test_without_crop_there_is_no_iou_and_malformed_replies_are_named():
    facts = episode_facts(played(Turn(Reply("?"), Malformed("no_action", "Error")), said=None))
    assert facts["iou"] is facts["crop_area"] is facts["coverage"] is facts["said"] is None
    assert facts["malformed"] == ["no_action"]
    assert not facts["tool"]
    assert not facts["correct"]
    assert target_iou([OUTER], []) is None


def test_a_call_that_showed_nothing_is_no_use_of_the_tool():
    facts = episode_facts(played(crop(OUTER, shown=False)))
    assert not facts["tool"]
    assert facts["iou"] == pytest.approx(1.0)


def row(sample: str, correct: bool, **more):
    return {
        "sample": sample,
        "correct": correct,
        "tool": "iou" in more,
        "boxes": [[[0, 0, 1, 1]]],
        "category": "c",
        "method": "text",
        **more,
    }


def test_summary_keeps_failures_in_the_denominator_and_leaves_missing_facts_out_of_means():
    rows = [
        row("a", True, iou=0.8, crop_area=0.1),
        row("b", False, iou=0.4, crop_area=0.3),
        row("c", True, category="d"),
        {
            "sample": "e",
            "correct": False,
            "error": "broken",
            "boxes": [[[0, 0, 1, 1]]],
            "category": "c",
        },
    ]
    summary = summarise(rows)
    assert (summary["n"], summary["errors"], summary["accuracy"], summary["tool_rate"]) == (
        4,
        1,
        0.5,
        0.5,
    )
    assert summary["iou"] == pytest.approx(0.6)
    assert summary["iou_all"] == pytest.approx(0.3)
    assert summary["crop_area"] == pytest.approx(0.2)
    assert summary["categories"]["c"]["accuracy"] == pytest.approx(1 / 3)
    assert summary["decided_by"] == {"text": 3, "error": 1}
    assert summary["visual_tokens"] is None


def test_summary_of_costs_has_mean_median_and_p95():
    turns = [{"text": "x", "tokens": 30}, {"text": "y", "tokens": 10}]
    rows = [
        row(f"q{i}", True, visual_tokens=i, seconds=1.0, turns=turns if i else [])
        for i in range(21)
    ]
    summary = summarise(
        rows, [Timing(concurrency=8, questions=20, median=1.0, p95=2.0, per_second=4.0)]
    )
    assert summary["cost"]["visual_tokens"] == {"mean": 10, "median": 10, "p95": 19}
    assert summary["cost"]["text_tokens"] == {
        "mean": 40,
        "median": 40,
        "p95": 40,
    }  # a policy without tokens has no such fact
    assert summary["cost"]["calls"] is None
    assert summary["timings"] == [
        {"concurrency": 8, "questions": 20, "median": 1.0, "p95": 2.0, "per_second": 4.0}
    ]


def test_rows_about_one_picture_are_one_cluster():
    verdicts = [True] * 12 + [False] * 8
    apart = summarise([row(f"q{i}", right) for i, right in enumerate(verdicts)])
    together = summarise(
        [row(f"q{i}", right, image=f"p{i // 4}.png") for i, right in enumerate(verdicts)]
    )

    # five pictures whose four questions agree: n_eff = 20 * 4 / 19
    def width(summary):
        return summary["accuracy_ci"][1] - summary["accuracy_ci"][0]

    assert width(together) > 1.7 * width(apart)


def test_an_answer_given_before_the_crop_is_a_fact_and_a_rate():
    early = Turn(Reply("It is red, I check."), Crop(OUTER), view(56, 56, OUTER))
    assert episode_facts(played(early))["answered_before_crop"] is True
    assert episode_facts(played(crop(OUTER)))["answered_before_crop"] is False
    assert episode_facts(played())["answered_before_crop"] is None
    rows = [
        row("a", True, answered_before_crop=True),
        row("b", True, answered_before_crop=False),
        row("c", True),
    ]
    assert summarise(rows)["answered_before_crop"] == 0.5


def test_summary_of_nothing_is_empty_not_an_error():
    assert summarise([])["accuracy"] is None
