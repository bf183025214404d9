"""What a free answer says: its text without the words around it."""

from lfpc.answers.marks import lines_of, stated_answers
from lfpc.answers.statements import (
    announcements,
    explained,
    sentences,
    without_echo,
    without_lead,
)
from lfpc.answers.wording import text_key

_LONGEST_REPLY = 8_000
"""Characters of free text: a longer reply is read only if it is marked."""


def free_answer(reply: str, question: str = "") -> str:
    """What a free answer says, in its own words; empty: it says nothing, or two things.

    The question counts: words that only repeat it are no part of the answer ("The lamp is white").
    """
    found = {text_key(said): said for said in _read_all(reply, question)}
    return found.popitem()[1] if len(found) == 1 else ""


def _read_all(reply: str, question: str) -> list[str]:
    return [_read(text, question) for text in stated_answers(reply).texts]


def _read(text: str, question: str) -> str:
    if len(text) > _LONGEST_REPLY:
        return text
    one_line = " ".join(lines_of(text))
    *earlier, last = announcements(text) or [""]
    if last:
        concluded = [_statement(part, question) for part in (*earlier, last)]
        if len(set(map(text_key, concluded))) == 1:
            return concluded[-1]
    return _statement(one_line, question)


def _statement(text: str, question: str) -> str:
    """A statement without the words that introduce, explain or repeat."""
    text = without_lead(text)
    for short, reason in explained(text):
        if text[len(short)] == "," and not any(map(str.isdigit, reason)):
            text = short
            break
    return without_echo(text, question) if len(sentences(text)) == 1 else text
