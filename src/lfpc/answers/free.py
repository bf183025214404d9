"""What a free answer says: its text without the words around it."""

from lfpc.answers.marks import lines_of, stated_answers
from lfpc.answers.statements import (
    announcements,
    explained,
    sentences,
    without_echo,
    without_lead,
)
from lfpc.answers.wording import number, text_key

_LONGEST_STATEMENT = 600
"""Characters; a longer statement holds more than an answer."""
_LONGEST_REPLY = 8_000
"""Characters of free text: a longer reply is read only if it is marked."""


def free_answer(reply: str, question: str = "") -> str:
    """What a free answer says, in its own words; empty: it says nothing, or two things.

    The question counts: words that only repeat it are no part of the answer ("The lamp is white").
    """
    stated = stated_answers(reply)
    found = {text_key(said): said for said in (_read(text, question) for text in stated.texts)}
    if len(found) != 1:
        return ""
    key, said = found.popitem()
    around = {*map(text_key, announcements(stated.before)[:-1])}
    around |= {near for near in map(text_key, (stated.before, stated.after)) if number(near)}
    return said if around <= {key} else ""


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
    if len(text) > _LONGEST_STATEMENT:
        return text
    text = without_lead(text)
    for short, reason in explained(text):
        if text[len(short)] == "," and not any(map(str.isdigit, reason)):
            text = short
            break
    return without_echo(text, question) if len(sentences(text)) == 1 else text
