"""What a free answer says: its text without the words around it."""

import re

from lfpc.answers.marks import lines_of, stated_answers
from lfpc.answers.statements import announcements, explained, sentences, without_lead
from lfpc.answers.wording import plain, text_key

_SUBJECT = re.compile(
    r"(it|this|that|there|they|(?:the|this|that|these|those) [\w' -]{1,60}?)(?:'s| is| are| was| "
    r"were| says| reads| shows) (.+)",
    re.IGNORECASE,
)
_YES_NO = re.compile(r"(yes|no)[,.!] (.+)", re.IGNORECASE)
_COUNTED = re.compile(r"(\d+) (.+)")
_ECHO = frozenset(
    "it this that there they he she is are was were does do did has have can a an the of on in at "
    "to".split()
)
_DENIAL = frozenset("not isn't aren't wasn't weren't doesn't don't hasn't haven't can't".split())
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
    return _without_echo(text, _words(question)) if len(sentences(text)) == 1 else text


def _without_echo(text: str, asked: frozenset[str]) -> str:
    """The statement without words that only repeat the question."""
    if found := _YES_NO.fullmatch(text):
        rest = _words(found.group(2))
        known = asked | _ECHO | (_DENIAL if found.group(1).casefold() == "no" else frozenset())
        return found.group(1) if rest <= known else text
    if found := _SUBJECT.fullmatch(text):
        subject, said = found.groups()
        if _words(subject) <= asked | _ECHO and not _words(said) <= asked | _ECHO:
            text = said
    if "how" in asked and "many" in asked and (found := _COUNTED.fullmatch(text_key(text))):
        return found.group(1) if _words(found.group(2)) <= asked | _ECHO else text
    return text


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"[\w']+", plain(text).casefold()))
