import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfpc.answers import Verdict, check_answer, normalise
from lfpc.samples import Sample

Make = Callable[..., Sample]


@pytest.mark.parametrize(
    ("said", "answer", "verdict"),
    [
        ("K", "k", Verdict(True, "text")),
        ("The red  Kite.", "red kite", Verdict(True, "text")),
        ('"stop"', "STOP", Verdict(True, "text")),
        (r"It is \boxed{a kite}", "kite", Verdict(True, "text")),
        (r"first \boxed{a dog}, no: \boxed{\text{red kite}}", "red kite", Verdict(True, "text")),
        ("<think>12?</think> <answer> 13 </answer>", "13", Verdict(True, "text")),
        ("The answer is: **red kite**", "red kite", Verdict(True, "text")),
        ("Answer: 1,200", "1200", Verdict(True, "number")),
        ("<answer></answer>", "K", Verdict(False, "unparsed")),
        ("red kite or blue kite", "red kite", Verdict(False, "text")),
        ("1,200", "1200.0", Verdict(True, "number")),
        ("12", "13", Verdict(False, "number")),
        ("", "K", Verdict(False, "unparsed")),
        (None, "K", Verdict(False, "unparsed")),
        ("!", "!", Verdict(True, "text")),
        ("?", "!", Verdict(False, "unparsed")),
        ("a", "A", Verdict(True, "text")),  # the letter is no article when it stands alone
    ],
)
def test_free_answers(sample: Make, said: str | None, answer: str, verdict: Verdict) -> None:
    assert check_answer(said, sample(answer=answer)) == verdict


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        ("B", Verdict(True, "option")),
        ("(b)", Verdict(True, "option")),
        ("B. blue", Verdict(True, "option")),
        ("blue", Verdict(True, "option")),
        ("The blue.", Verdict(True, "option")),
        (r"\boxed{B}", Verdict(True, "option")),
        ("<answer>(B) blue</answer>", Verdict(True, "option")),
        ("**B**", Verdict(True, "option")),
        ("The correct answer is (B).", Verdict(True, "option")),
        ("The answer is B because of the sea", Verdict(False, "unparsed")),
        ("A", Verdict(False, "option")),
        ("B. red", Verdict(False, "unparsed")),  # letter and text disagree: nothing is guessed
        ("C", Verdict(False, "unparsed")),
        ("either", Verdict(False, "unparsed")),
        ("Bright", Verdict(False, "unparsed")),
    ],
)
def test_multiple_choice(sample: Make, said: str, verdict: Verdict) -> None:
    assert check_answer(said, sample(options=("red", "blue"), answer="B")) == verdict
    assert check_answer(said, sample(options=("red", "blue"), answer="blue")) == verdict


@pytest.mark.parametrize("signs", [(".", "!", "?"), ("'", '"', "`"), ("*", "**", "#")])
def test_options_that_are_signs_are_told_apart(sample: Make, signs: tuple[str, ...]) -> None:
    for place, letter in enumerate("ABC"):
        question = sample(options=signs, answer=letter)
        for other, said in enumerate(signs):
            assert check_answer(said, question).correct == (other == place)
            assert check_answer(f"<answer>{said}</answer>", question).correct == (other == place)
            # a letter with the text of another option is not read
            assert check_answer(f"{letter}. {said}", question).correct == (other == place)


@given(st.text())
def test_normalising_twice_changes_nothing_for_plain_words(text: str) -> None:
    word = "".join(c for c in text if c.isalpha())
    assert normalise(normalise(word)) == normalise(word)


@given(st.text())
def test_any_text_gets_a_verdict(said: str) -> None:
    for answer, options in (("K", ()), ("12", ()), ("A", ("red", "blue"))):
        question = Sample(
            id="s", image=Path("none.png"), question="?", answer=answer, options=options
        )
        assert isinstance(check_answer(said, question), Verdict)


def test_the_time_to_read_a_reply_grows_no_faster_than_its_length() -> None:
    for part in ("\\boxed{ ", "<answer>", "answer is ", "the ", " " * 9):
        question = Sample(
            id="s", image=Path("none.png"), question="?", answer="A", options=("red", "blue")
        )

        def seconds(parts: int, part: str = part, question: Sample = question) -> float:
            """CPU seconds of this thread, which other programs do not lengthen."""
            began = time.thread_time()
            assert not check_answer(part * parts + "x", question).correct
            return time.thread_time() - began

        short, long = (min(seconds(parts) for _ in range(3)) for parts in (5_000, 100_000))
        assert long < 100 * short  # 20 times as long: 20 if linear, 400 if quadratic
