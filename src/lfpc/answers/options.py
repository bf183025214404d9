"""Which option of a multiple choice question a reply names.

An answer is read only if nothing is left over: a statement is a letter, a letter with its text, or
the text of one option, in words that introduce, confirm or explain it (`statements`). Free text is
read by its conclusion, unless it concludes twice. Every reading has to name the same option.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

from lfpc.answers.marks import lines_of, stated_answers
from lfpc.answers.statements import (
    announcements,
    explained,
    is_confirmed,
    is_doubtful,
    sentences,
    without_lead,
)
from lfpc.answers.wording import plain, text_key, unwrapped
from lfpc.samples import LETTERS

_NAMED = r"(?:(?:the )?(?:option|choice|answer|letter) |\u9009\u9879 ?)?"
_LETTER = re.compile(
    rf"{_NAMED}(?:\(([a-z])\)|\[([a-z])\]|\{{([a-z])\}}|<([a-z])>|\"([a-z])\"|'([a-z])'|([a-z])\)?)"
    r"[.,:;!? ]*",
    re.IGNORECASE,
)
_WITH_TEXT = re.compile(
    rf"{_NAMED}(?:\(([a-z])\)|\[([a-z])\]|([a-z])(?![\w']))( ?[).:]+ ?| ?[-,=]+ ?| )(.+)",
    re.IGNORECASE,
)
_TEXT_FIRST = re.compile(
    r"(.+?) ?(?:[(\[](?:option |choice )?([a-z])[)\]]|[,-] ?(?:option |choice )([a-z]))",
    re.IGNORECASE,
)
_ALONE = re.compile(r"(?<![\w'])[A-Za-z](?![\w'])")
_LONGEST_STATEMENT = 600
"""Characters; a longer statement holds more than an answer."""
_LONGEST_REPLY = 8_000
"""Characters of free text: a longer reply is read only if it is marked."""


@lru_cache(maxsize=4096)
def _exact(options: tuple[str, ...]) -> dict[str, int | None]:
    """The option of each text, articles included; None: of several."""
    return _by_key(tuple(unwrapped(plain(option)).casefold() for option in options))


@lru_cache(maxsize=4096)
def _keys(options: tuple[str, ...]) -> dict[str, int | None]:
    """The option of each text key; None: of several, which only letters tell apart."""
    return _by_key(tuple(map(text_key, options)))


def _by_key(keys: tuple[str, ...]) -> dict[str, int | None]:
    return {key: place if keys.count(key) == 1 else None for place, key in enumerate(keys)}


def named_option(reply: str, options: Sequence[str]) -> int | None:
    """The index of the option that the reply names; None: it names none, or more than one."""
    options = tuple(options)
    stated = stated_answers(reply)
    read = {_read(text, options) for text in stated.texts}
    chosen = read.pop() if len(read) == 1 else None
    if chosen is None or _names_other(stated.after, chosen, options):
        return None
    return chosen


def _read(text: str, options: tuple[str, ...]) -> int | None:
    if not text or len(text) > _LONGEST_REPLY:
        return None
    lines = lines_of(text)
    whole = _statement(" ".join(lines), options)
    return whole if whole is not None else _conclusion(text, lines, options)


def _statement(text: str, options: tuple[str, ...]) -> int | None:
    """The option of a statement that holds nothing but the answer and an explanation of it."""
    if len(text) > _LONGEST_STATEMENT:
        return None
    for answer in dict.fromkeys((text, without_lead(text))):
        if (chosen := _answer(answer, options)) is not None:
            return chosen
        for short, reason in explained(answer):
            chosen = _answer(short, options)
            if chosen is not None and not _names_other(reason, chosen, options):
                return chosen
    return None


def _answer(text: str, options: tuple[str, ...]) -> int | None:
    """The option of an answer without any further words."""
    text = text.strip()
    if found := _LETTER.fullmatch(text) or _LETTER.fullmatch(unwrapped(text, brackets=True)):
        letter = _place(found.group(found.lastindex or 0), options)
        if letter is not None:  # a letter is a letter, even where another option's text is "B"
            return letter
    read = {
        _letter_with_text(text, options),
        _text_with_letter(text, options),
        _text(text, options),
    } - {None}
    return read.pop() if len(read) == 1 else None


def _place(letter: str, options: tuple[str, ...]) -> int | None:
    place = LETTERS.find(letter.upper())
    return place if 0 <= place < len(options) else None


def _letter_with_text(text: str, options: tuple[str, ...]) -> int | None:
    """ "B. red", "(B) red", "B - red". Letters as texts ("A. B") need a mark of a list."""
    if not (found := _WITH_TEXT.fullmatch(text)):
        return None
    *letters, mark, rest = found.groups()
    place = _place(next(filter(None, letters)), options)
    if place is None or not _same_text(rest, options[place]):
        return None
    listed = letters[2] is None or mark.strip(" ")[:1] in tuple(").:")
    return place if listed or not _is_letter(rest) else None


def _text_with_letter(text: str, options: tuple[str, ...]) -> int | None:
    """ "red (B)", "red, option B"."""
    if not (found := _TEXT_FIRST.fullmatch(unwrapped(text))):
        return None
    place = _place(found.group(2) or found.group(3), options)
    if place is None or _is_letter(found.group(1)):
        return None
    return place if _same_text(found.group(1), options[place]) else None


def _text(text: str, options: tuple[str, ...]) -> int | None:
    """The text of one option. "A red" is no text of "red" where A is a letter as well."""
    bare = unwrapped(text)
    exact = _exact(options).get(bare.casefold())
    key = _keys(options).get(text_key(text))
    if key is None or (exact is None and bare.startswith("A ")):
        return None
    return key


def _same_text(said: str, option: str) -> bool:
    key = text_key(option)
    return text_key(said) == key or text_key(unwrapped(said, brackets=True)) == key


def _is_letter(text: str) -> bool:
    return len(unwrapped(text, brackets=True)) == 1


def _conclusion(text: str, lines: list[str], options: tuple[str, ...]) -> int | None:
    """The option in which free text concludes; None if an earlier statement names another."""
    *earlier, last = announcements(text) or [""]
    parts = [(line, part) for line in lines for part in sentences(line)]
    chosen = _statement(last, options) if last else None
    if chosen is None and is_confirmed(lines[-1]):
        last = sentences(lines[-1])[-1]
        chosen = _statement(last, options) if is_confirmed(last) else None
    if chosen is None and len(lines) > 1 and _is_closed(text, lines[-2]):
        before = sentences(lines[-2])[-1]
        chosen = _statement(lines[-1], options)
        if chosen is not None and _names_other(before, chosen, options):
            return None
    if chosen is None:
        return None
    stated = {_statement(part, options) for part in earlier}
    stated |= {_statement(part, options) for _, part in parts}
    stated |= {_statement(line, options) for line in lines}
    return chosen if stated <= {None, chosen} else None


def _is_closed(text: str, line: str) -> bool:
    """Whether the line before the last one is complete: a sentence, or a paragraph."""
    blank = not text.rstrip().splitlines()[-2].strip()
    return (line.endswith((".", "!")) or blank) and not line.endswith(("?", ":", ",", " or"))


_VERB = re.compile(r" (?:is|and|or|was|are|fits|says|shows|seems|looks|matches|has)\b")


def _names_other(text: str, chosen: int, options: tuple[str, ...]) -> bool:
    """Whether the text names another option than `chosen`, by its letter or its text."""
    text = plain(text)
    for found in _ALONE.finditer(text):
        place = _place(found.group(), options)
        if place is not None and place != chosen and not _is_word(text, found):
            return True
    folded = text.casefold()
    own = text_key(options[chosen])
    for place, option in enumerate(options):
        key = text_key(option)
        if place != chosen and len(key) > 1 and key not in own:
            if re.search(rf"(?<!\w){re.escape(key)}(?!\w)", folded):
                return True
    return False


def _is_word(text: str, found: re.Match[str]) -> bool:
    """Whether a letter is the article or the pronoun before a word."""
    rest = text[found.end() :]
    return found.group() in "AaI" and bool(re.match(r" [a-z]", rest)) and not _VERB.match(rest)
