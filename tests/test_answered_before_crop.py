import pytest

from lfpc.answers import answered_before_crop

CALL = (
    '<tool_call>{"name": "zoom", "arguments": {"bbox_2d": [7, 0, 42, 9], "label": "red '
    'car"}}</tool_call>'
)
OPTIONS = ("red", "dark red", "blue", "An olive tree.")


@pytest.mark.parametrize(
    ("text", "said", "expected"),
    [
        ("The car is Red. I check.", "red", True),
        ("The car is red", "The red.", True),  # articles and full stops do not count
        ("I was bored.", "red", False),  # whole words only
        ("I look closer.", "red", False),  # what the call says is no answer
        ("I see 42 birds", "42", True),
        ("I look.", "42", False),
        ("It reads  2026\u2019s   best", "2026's best", True),
    ],
)
def test_open_answers_are_found_as_whole_words_before_the_call(
    text: str, said: str, expected: bool
) -> None:
    assert answered_before_crop([text + CALL], said, question="What is it?") is expected


@pytest.mark.parametrize(
    ("text", "said", "expected"),
    [
        ("It looks like (B), I check.", "B", True),
        ("The answer is B", "b", True),
        ("B. dark red", "B. dark red", True),
        ("It is dark red.", "B", True),  # the option's text, and not also "red"
        ("It is red.", "B", False),
        ("It is red or blue.", "C", False),  # another option is named too
        ("A closer look is needed", "A", False),  # an article
        ("I think it is an olive tree", "D", True),
        ("It is (B)", "E", None),  # no such option
    ],
)
def test_options_are_found_by_letter_or_text_and_alone(
    text: str, said: str, expected: bool | None
) -> None:
    assert (
        answered_before_crop([text + CALL], said, question="What is it?", options=OPTIONS)
        is expected
    )


def test_earlier_replies_count_and_other_protocols_calls_do_not() -> None:
    assert answered_before_crop(["It is blue, I think.", CALL], "blue", question="Colour?") is True
    assert (
        answered_before_crop(["<grounding>{blue}</grounding>"], "blue", question="Colour?") is False
    )
    assert (
        answered_before_crop(
            ['{"name": "zoom", "arguments": {"label": "blue"}}'], "blue", question="Colour?"
        )
        is False
    )
    assert answered_before_crop(["<code>blue = crop()</code>"], "blue", question="Colour?") is False


def test_what_the_text_does_not_show_is_none() -> None:
    assert answered_before_crop([], "blue", question="Colour?") is None  # no crop
    assert answered_before_crop([CALL], None, question="Colour?") is None  # no answer
    assert (
        answered_before_crop(["Blue or red?" + CALL], "blue", question="Is it blue or red?") is None
    )  # the question's words
