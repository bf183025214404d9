"""Statements of a reply: how an answer is announced, confirmed and explained, and where free text
concludes. The words of this file are common to options and free answers.
"""

import re
from collections.abc import Iterator
from itertools import pairwise

from lfpc.answers.marks import lines_of
from lfpc.answers.wording import plain

_THEREFORE = (
    r"(?:(?:so|therefore|thus|hence|consequently|accordingly|and|then|finally|in conclusion|"
    r"in summary|overall|clearly|conclusion)\b[,:]? ?){0,3}"
)
_ADJECTIVES = r"(?:(?:the|my|single|correct|right|best|final|most|likely|suitable) ){0,4}"
_NOUN = r"(?:answer|option|choice|selection|conclusion|response)"
_OF_WHAT = r"(?: (?:to|for) (?:the|this|your) question)?"
_IS = r"(?: ?(?:is|was|would be|should be|must be|will be|being)\b| ?(?:[:=]|->)){1,2} ?"
_PREFER = (
    r"i(?: would|'d|'ll| will)? (?:choose|pick|select|go with|answer|say)\b(?: with)?:? ?(?:that )?"
)
_BELIEVE = r"(?:i (?:think|believe|conclude|am sure|am confident|see)(?: that)? )?"
_CHINESE = (
    r"(?:\u6700\u7ec8|\u6b63\u786e|\u6b63\u786e\u7684)?(?:\u7b54\u6848|\u9009\u9879)"
    r"(?:\u5e94\u8be5|\u5e94)?(?:\u662f|\u4e3a|:)(?:\u9009\u9879|:)? ?"
    r"|(?:\u5e94\u8be5?|\u6545|\u6240\u4ee5)?\u9009(?:\u62e9)?:? ?(?!\u9879)"
)
_ANNOUNCED = re.compile(
    rf"(?<![\w-])(?:{_ADJECTIVES}{_NOUN}{_OF_WHAT}{_IS}|{_PREFER})|{_CHINESE}", re.IGNORECASE
)
"""Words that introduce an answer in running text."""
_LEAD = re.compile(
    rf"{_THEREFORE}{_BELIEVE}(?:{_ANNOUNCED.pattern}|final answer |(?:it|this|that) (?:is|must be) "
    r"|it's |\u662f)?",
    re.IGNORECASE,
)
"""Words in front of an answer that is the whole statement."""
_CONFIRMED = re.compile(
    r"(?: (?:is|must be|would be) (?:(?:the|my) )?(?:(?:final|best|most likely) )?"
    rf"(?:(?:correct|right)(?: {_NOUN})?|{_NOUN})"
    r"| ?(?:\u662f)?(?:\u6b63\u786e|\u5bf9)\u7684?(?:\u7b54\u6848|\u9009\u9879)?)[.! ]*\Z",
    re.IGNORECASE,
)
"""Words behind an answer that say that it is the answer."""
_BEFORE_ANNOUNCED = re.compile(
    rf"{_THEREFORE}{_BELIEVE}"
    r"(?:\u6240\u4ee5|\u56e0\u6b64|\u7efc\u4e0a\u6240\u8ff0|\u6545|\u6211|[, ])*",
    re.IGNORECASE,
)
_SEEN = re.compile(
    r"\b(?:it is (?:clear|evident|obvious)|(?:we|i)(?: can)? (?:see|conclude|confirm)|"
    r"this (?:means|shows|confirms|indicates)) that \Z",
    re.IGNORECASE,
)
_EXPLAINED = re.compile(
    r"(?:this|that|it|the|as(?! well)|because|since|there|in|from|based|after|looking|i can|i see|"
    r"we|you|explanation:?|reason:?)\b",
    re.IGNORECASE,
)
_DOUBT = re.compile(
    r"n't\b|\?|\b(?:not|no|none|never|nobody|nothing|wrong|incorrect|false|or|either|neither|nor|"
    r"both|but|however|though|although|yet|except|maybe|perhaps|possib\w*|probab\w*|might|may|"
    r"could|would|should|unless|if|whether|instead|rather|wait|actually|unsure|uncertain|guess\w*|"
    r"cannot|another|others?|else|alternativ\w*|unlikely|doubt\w*|mistake\w*|sorry|also|equally|"
    r"as well|say|says|said|assum\w*|suppos\w*|correct\w*|right answer|ambiguous|unclear|sure)\b"
    r"|\u4e0d|\u6ca1|\u5426|\u6216|\u8fd8\u662f|\u4f46|\u53ef\u80fd|\u5982\u679c|\u975e",
    re.IGNORECASE,
)
_CORRECTED = re.compile(r"not (.{1,80}?),? but (.{1,80})", re.IGNORECASE)
_LIST_MARK = re.compile(r"(?<![A-Za-z0-9])\(?[A-Za-z]\)?[.:)]\Z")
_SUBJECT = re.compile(
    r"(it|this|that|there|they|(?:the|this|that|these|those) [\w' -]{1,60}?)(?:'s| is| are| was| "
    r"were| says| reads| shows| appears to be| seems to be) (.+)",
    re.IGNORECASE,
)
_YES_NO = re.compile(r"(yes|no)[,.!] (.+ (?!an?\b|the\b)[^ ]+)", re.IGNORECASE)
_COUNTED = re.compile(r"(\d+|[a-z]+) (.+)", re.IGNORECASE)
_ECHO = frozenset(
    (
        *("it", "this", "that", "there", "they", "he", "she", "is", "are", "was", "were", "does"),
        *("do", "did", "has", "have", "can", "a", "an", "the", "of", "on", "in", "at", "to"),
        *("picture", "image", "photo"),
    )
)
_DENIAL = frozenset(
    (
        *("not", "isn't", "aren't", "wasn't", "weren't", "doesn't", "don't", "hasn't"),
        *("haven't", "can't"),
    )
)
_SENTENCE_END = re.compile(r"[.!?:;] ")
_CLAUSE_END = re.compile(r"[.,:;!] | - ")
_CLAUSES = 4
"""An explanation begins after one of so many clauses."""


def without_lead(text: str) -> str:
    """A plain statement without the words that introduce or confirm the answer."""
    text = _LEAD.sub("", text, count=1)
    return _CONFIRMED.sub("", text, count=1)


def is_confirmed(text: str) -> bool:
    """Whether the statement ends in "is correct" or the like."""
    return _CONFIRMED.search(text[-80:]) is not None


def is_doubtful(text: str) -> bool:
    """Whether a text denies, weighs or supposes."""
    return _DOUBT.search(text) is not None


def explained(text: str) -> Iterator[tuple[str, str]]:
    """Every (answer, explanation) into which a statement can be divided, the shortest answer first.

    The explanation follows the end of a clause, is a sentence by its first word, and raises no
    doubt.
    """
    for number, end in enumerate(_CLAUSE_END.finditer(text)):
        if number == _CLAUSES:
            return
        reason = text[end.end() :]
        doubtful = is_doubtful(reason) or _ANNOUNCED.search(reason)
        if _EXPLAINED.match(reason) and " " in reason and not doubtful:
            yield text[: end.start()], reason


def corrected(text: str) -> tuple[str, str] | None:
    """The denied and the given answer of "not A but B"."""
    found = _CORRECTED.fullmatch(text.rstrip(". "))
    return (found.group(1), found.group(2)) if found else None


def announcements(text: str) -> list[str]:
    """What follows each announcement in the text, up to its sentence's end, and up to the end of
    the text for the last. The last is empty if its sentence denies, weighs or supposes.
    """
    one_line = " ".join(lines_of(text))
    marks = list(_ANNOUNCED.finditer(one_line))
    found: list[str] = []
    for mark, follower in pairwise(marks):
        part = one_line[mark.end() : follower.start()]
        end = _SENTENCE_END.search(part)
        found.append(part[: end.start() if end else len(part)][:200].rstrip(", "))
    if marks:
        before = _sentence_before(one_line, marks[-1].start())
        found.append(one_line[marks[-1].end() :] if _introduces(before) else "")
    return found


def _sentence_before(text: str, place: int) -> str:
    window = text[max(0, place - 300) : place]
    ends = list(_SENTENCE_END.finditer(window))
    return window[ends[-1].end() :] if ends else window


def _introduces(before: str) -> bool:
    """Whether an announcement behind these words states an answer."""
    if _BEFORE_ANNOUNCED.fullmatch(before):
        return True
    closed = before.endswith(", ") or _SEEN.search(before)
    return bool(closed) and not is_doubtful(before) and not _ANNOUNCED.search(before)


def sentences(line: str) -> list[str]:
    """Sentences of a plain line; the mark of a list, as in "B. red", is no sentence."""
    parts = re.split(r"(?<=[.!?;]) ", line)
    if len(parts) > 1 and _LIST_MARK.fullmatch(parts[0]):
        parts[:2] = [" ".join(parts[:2])]
    return [part.rstrip(";, ") for part in parts]


def last_sentence(line: str) -> str:
    """The last sentence of a plain line; the whole line if the one before may end in a letter's
    mark ("D or A. red").
    """
    parts = sentences(line)
    return line if len(parts) > 1 and _LIST_MARK.search(parts[-2][-4:]) else parts[-1]


def words(text: str) -> frozenset[str]:
    """The words of a text in lower case."""
    return frozenset(re.findall(r"[\w']+", plain(text).casefold()))


def without_echo(text: str, question: str) -> str:
    """The statement without words that only repeat the question: "white" for "The lamp is white"
    after "What colour is the lamp?".
    """
    asked = words(question)
    if found := _YES_NO.fullmatch(text):
        known = asked | _ECHO | (_DENIAL if found.group(1).casefold() == "no" else frozenset())
        return found.group(1) if words(found.group(2)) <= known else text
    if found := _SUBJECT.fullmatch(text):
        subject, said = found.groups()
        if words(subject) <= asked | _ECHO and not words(said) <= asked | _ECHO:
            text = said
    if {"how", "many"} <= asked and (found := _COUNTED.fullmatch(text.rstrip(".! "))):
        return found.group(1) if words(found.group(2)) <= asked | _ECHO else text
    return text
