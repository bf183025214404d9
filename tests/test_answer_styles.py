"""Replies in the styles that models write, and replies that must not count as right."""

from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from lfpc.answers import answer_key, check_answer
from lfpc.data.exporters.base import asked_text
from lfpc.errors import SampleError
from lfpc.published.options import split_options
from lfpc.samples import LETTERS, Sample, option_of

Make = Callable[..., Sample]
VEHICLES = ("a red car", "a blue car", "a bus", "no vehicle")
ASKED = "Which vehicle stands beside the tree?"


@pytest.mark.parametrize(
    "reply",
    [
        "The answer is **B**.",
        "**Answer: B**",
        "**Answer:** (B) a blue car",
        "[B]",
        "\uff08B\uff09",
        "B - a blue car",
        "B \u2014 a blue car",
        "a blue car (B)",
        "Option B",
        "Option (B) is the right choice.",
        "B is correct.",
        "It's B.",
        "It is a blue car.",
        "The vehicle is a blue car.",
        "I would go with option B.",
        "Not A but B.",
        "B?",
        "B. This can be seen next to the trunk.",
        "B\n\nExplanation: the roof is blue.",
        "\u7b54\u6848\u662fB",
        "\u56e0\u6b64\uff0c\u6b63\u786e\u7b54\u6848\u662fB\u3002",
        "\u9009B",
        r"\boxed{\text{B}}",
        r"$\boxed{\mathbf{(B)} \text{ a blue car}}$",
        r"The final answer is $\boxed{B}$.",
        r"<answer>\boxed{B}</answer>",
        "<think>A or C?</think><answer>The answer is B, as the crop shows it.</answer>",
        '{"answer": "B"}',
        "A says red and C says bus. I see a roof in the crop.\n\nThe answer is B.",
        "- A. a red car: no.\n- B. a blue car: yes.\n\nTherefore, the correct option is **B**.",
        "The crop shows the street clearly.\n\n**B**",
        "The crop shows the street clearly. Therefore, B is correct.",
        "### Final Answer\n**B**",
        "After zooming in, it is clear that the answer is B.",
    ],
)
def test_common_styles_name_their_option(sample: Make, reply: str) -> None:
    asked = sample(question=ASKED, options=VEHICLES, answer="B")
    assert check_answer(reply, asked).correct
    assert answer_key(reply, VEHICLES, ASKED) == "B"
    assert not check_answer(reply, sample(question=ASKED, options=VEHICLES, answer="D")).correct


@pytest.mark.parametrize(
    "reply",
    [
        "not B",
        "B is wrong.",
        "A or B",
        "B, C",
        "The answer is not B",
        "I don't think the answer is B.",
        "The answer may be B.",
        "Is the answer B?",
        "If it is night, the answer is B.",
        "Somebody said the answer is B. I disagree.",
        "The wrong answer is B",
        "The answer is A. The answer is B.",
        "The answer is B. Wait, the answer is A.",
        "A. a red car\nB. a blue car",
        "A\nB\nC\nD",
        r"\boxed{A, B}",
        r"\boxed{A \text{ or } B}",
        r"\boxed{A} or \boxed{B}",
        r"not \boxed{B}",
        "<answer>A</answer><answer>B</answer>",
        "<answer>not a blue car</answer>",
        "B. a red car",
        "A blue",
        "The car is not blue.",
        "A closer look shows nothing.",
        "\u4e0d\u9009B",
        "\u7b54\u6848\u53ef\u80fd\u662fB\u6216C",
    ],
)
def test_denied_weighed_and_double_answers_stay_unread(sample: Make, reply: str) -> None:
    asked = sample(question=ASKED, options=VEHICLES, answer="B")
    assert check_answer(reply, asked).method == "unparsed"


SETS = (
    VEHICLES,
    ("red", "blue", "green", "dark red"),
    ("12.50", "1.25", "125", "The price is not shown"),
    ("a net and two oars", "a net", "two oars", "nothing"),
    ("yes", "no"),
    ("S", "T", "U", "V"),
    ("two", "three", "four"),
    ("North Gate", "South Gate", "East Gate"),
)
NAMES = (
    *("{X}", "({X})", "**{X}**", "{X}.", "{X})", "[{X}]", "{X}. {t}", "({X}) {t}", "{t}"),
    *("{x} {t}", "{x}", "{x}. {t}", "({x})"),
    *("{t} ({X})", "{X}: {t}", "{X} - {t}", "Option {X}", "option ({X})", "'{t}'", '"{X}"'),
)
JOINTS = (
    *(" or ", " and ", ", ", " / ", " & ", "; ", "\n", "\n\n", " vs ", " but maybe ", ", or "),
    *(". ", ". Or ", " then ", " and/or ", "/", " not ", ", not ", "? ", ". Hmm, ", ", unless "),
    *(" = ", "\uff0c", "\u6216", "\u548c", " as well as ", ", because of ", ": ", " rather than "),
)
FRAMES = (
    *("{}", "The answer is {}.", "Answer: {}", r"\boxed{{{}}}", "<answer>{}</answer>"),
    *("It is {}.", "Either {}.", "Both {} are correct.", "{} is correct.", "It could be {}."),
    *("\u7b54\u6848\u662f{}", "I see a thing. The answer is {}.", "I looked.\n\n{}", "So, {}."),
)
PAIRS = (
    ("The answer is {}", "The answer is {}"),
    (r"\boxed{{{}}}", r"\boxed{{{}}}"),
    ("<answer>{}</answer>", "<answer>{}</answer>"),
    (r"\boxed{{{}}}", "{}"),
    ("{}", r"\boxed{{{}}}"),
    ("{} is correct", "{} is correct"),
    ("Answer: {}", "Final answer: {}"),
    ("It is {}", "The answer is {}"),
    ("I think {}", "maybe {}"),
    ("The answer is {}", "The answer could also be {}"),
)


def two_names(random: Random) -> tuple[tuple[str, ...], list[int], str]:
    """Options, the places of two of them, and a reply that names both."""
    options = random.choice(SETS)
    places = random.sample(range(len(options)), 2)
    names = [
        random.choice(NAMES).format(X=LETTERS[at], x=LETTERS[at].lower(), t=options[at])
        for at in places
    ]
    if random.random() < 0.6:
        return options, places, random.choice(FRAMES).format(random.choice(JOINTS).join(names))
    halves = [half.format(name) for half, name in zip(random.choice(PAIRS), names, strict=True)]
    return options, places, random.choice((" or ", " ", "\n", ". ", ", ", "; ")).join(halves)


def test_a_reply_that_names_two_options_is_never_right() -> None:
    random = Random(20)
    for _ in range(4_000):
        options, places, reply = two_names(random)
        asked = Sample(
            id="s",
            image=Path("none.png"),
            question=ASKED,
            options=options,
            answer=LETTERS[random.choice(places)],
        )
        assert not check_answer(reply, asked).correct, (reply, options)


@pytest.mark.parametrize(
    ("reply", "answer", "question", "right"),
    [
        ("The lamp is white.", "White.", "What colour is the lamp?", True),
        ("The other lamp is white.", "white", "What colour is the lamp?", False),
        ("The right door is open", "The left door is open", "Which door is open?", False),
        ("There are 3 cups.", "three", "How many cups are there?", True),
        ("Yes, the door is open.", "yes", "Is the door open?", True),
        ("Yes, the door is not open.", "yes", "Is the door open?", False),
        ("I read the sign. The answer is 12.", "12", "?", True),
        ("The answer is 13. The answer is 12.", "12", "?", False),
        ("twenty-one", "21", "?", True),
        ("two three", "2", "?", False),
        ("\uff11\uff12", "12", "?", True),
        ("\u22125", "-5", "?", True),
        ("5", "-5", "?", False),
        ("gray", "grey", "?", True),
        ("light grey", "grey", "?", False),
        ("50 percent", "50 %", "?", True),
        ("5 km", "5km", "?", True),
        (".5", "0.5", "?", True),
        (".5", "5", "?", False),
        ('11"', "11'", "?", False),
        ("11", "11'", "?", False),
        ("5*", "5", "?", False),
        ("9,007", "9007", "?", True),
        ("9,00", "900", "?", False),
        ("9007199254740992", "9007199254740993", "?", False),
        ("7", "007", "?", False),
        ("#07", "07", "?", True),
        ("B12", "12", "?", False),
        ("5\u00b2", "52", "?", False),
        ("The 12", "A 12", "?", False),
        ("the B", "A B", "?", False),
        ("a kite", "the kite", "?", True),
        (r"\boxed{\frac{1}{2}}", "1", "?", False),
        (r"\boxed{\frac{1}{2}}", "1/2", "?", True),
        (r"\boxed{\text{red}\ \text{kite}}", "red kite", "?", True),
        ("12 or 13", "12", "?", False),
        ("12 13", "1213", "?", False),
        (r"\boxed{12} or \boxed{13}", "13", "?", False),
    ],
)
def test_free_answers_mean_what_they_say(
    sample: Make, reply: str, answer: str, question: str, right: bool
) -> None:
    assert check_answer(reply, sample(question=question, answer=answer)).correct is right


def test_a_letter_is_a_letter_where_options_look_like_letters(sample: Make) -> None:
    asked = sample(options=("B", "A"), answer="A")
    assert asked.choice == 0
    assert check_answer("A", asked).correct
    assert check_answer("A. B", asked).correct
    assert not check_answer("B", asked).correct
    assert check_answer("S", sample(options=("S", "T"), answer="A")).correct


def test_options_with_one_meaning_are_told_apart_by_their_letter(sample: Make) -> None:
    asked = sample(options=("the net", "net", "a rope"), answer="B")
    assert check_answer("B. net", asked).correct
    assert not check_answer("A. the net", asked).correct
    assert check_answer("net", asked).method == "unparsed"


def test_the_answer_of_a_sample_becomes_the_index_of_one_option(sample: Make) -> None:
    for answer in ("B", "b", "(B)", "B.", "B. blue", "blue", "Blue"):
        assert sample(options=("red", "blue"), answer=answer).choice == 1
    assert sample(options=("red", "blue"), answer="green").choice is None
    assert sample(answer="B").choice is None
    assert option_of("net", ("the net", "Net", "net")) == 2
    with pytest.raises(SampleError, match="the maximum is 26"):
        sample(options=tuple(map(str, range(27))), answer="A")


def test_options_beyond_the_tenth_have_letters_too(sample: Make) -> None:
    options = tuple(f"line {number}" for number in range(12))
    asked = sample(options=options, answer="line 10")
    assert asked.choice == 10
    assert check_answer("(K) line 10", asked).correct
    assert not check_answer("J", asked).correct
    assert split_options(asked_text(asked)) == (asked.question, options)
