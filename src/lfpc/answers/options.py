"""Which option of a multiple choice question a reply names.

An answer is read only if nothing is left over: a statement is a letter, a letter with its text, or
the text of one option, in words that introduce, confirm or explain it (`statements`). Free text is
read by its conclusion, unless it concludes twice. Every reading has to name the same option.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from lfpc.answers.marks import lines_of, stated_answers
from lfpc.answers.statements import (
    announcements,
    corrected,
    explained,
    is_confirmed,
    is_doubtful,
    last_sentence,
    sentences,
    without_echo,
    without_lead,
)
from lfpc.answers.wording import normalise, one_spelling, plain, text_key, unwrapped
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
_LETTER_AND_SIGN = re.compile(r"\(?([A-Za-z])[).:]+ ([^\w\s]+)")
_TEXT_FIRST = re.compile(
    r"(.+?) ?(?:[(\[](?:option |choice )?([a-z])[)\]]|[,-] ?(?:option |choice )([a-z]))",
    re.IGNORECASE,
)
_LIST_LINE = re.compile(r"(?:[Oo]ption |[Cc]hoice )?\(?([A-Za-z])(?:\)|[.:]|\)[.:]) ?")
_WORD_CHARACTER = r"[^\W\u4e00-\u9fff]"
_ALONE = re.compile(rf"(?<!{_WORD_CHARACTER})(?<!')[A-Za-z](?!{_WORD_CHARACTER}|'\w)")
_CLAUSE = re.compile(r"[,;.!?] | but also | - ")
_SHORT = 4
"""Words around the name of an option in a part of a text that is hardly more than an answer."""
_LONGEST_ANSWER = 12
"""Words of an answer that names an option neither by its letter nor by its text ("2" for "two")."""
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


def named_option(reply: str, options: Sequence[str], question: str = "") -> int | None:
    """The index of the option that the reply names; None: it names none, or more than one."""
    shown = _Shown(tuple(options), question)
    stated = stated_answers(reply)
    read = {_read(text, shown) for text in stated.texts}
    chosen = read.pop() if len(read) == 1 else None
    if chosen is None or _names_other(stated.after, chosen, shown.options):
        return None
    return chosen if _agrees(stated.before, chosen, shown) else None


@dataclass(frozen=True, slots=True)
class _Shown:
    """The options of a question, and the question."""

    options: tuple[str, ...]
    question: str


def _read(text: str, shown: _Shown) -> int | None:
    if not text or len(text) > _LONGEST_REPLY:
        return None
    if any(not re.search(r"\w", option) for option in shown.options):
        if (sign := _sign(text, shown.options)) is not None:
            return sign
        if found := _LETTER_AND_SIGN.fullmatch(plain(text)):
            place = _place(found.group(1), shown.options)
            return place if place == _sign(found.group(2), shown.options) else None
    if not (lines := lines_of(text)):
        return None
    for joint in (" ", ". "):
        if (whole := _statement(joint.join(lines), shown)) is not None:
            return whole if len(lines) == 1 or _agrees(text, whole, shown, listed=False) else None
    return _conclusion(text, lines, shown)


def _statement(text: str, shown: _Shown) -> int | None:
    """The option of a statement that holds nothing but the answer and an explanation of it."""
    if len(text) > _LONGEST_STATEMENT:
        return None
    options = shown.options
    bare = without_lead(text)
    for answer in dict.fromkeys((text, bare)):
        if (chosen := _answer(answer, options)) is not None:
            return chosen
        for short, reason in explained(answer):
            chosen = _answer(short, options)
            if chosen is not None and not _names_other(reason, chosen, options):
                return chosen
    if pair := corrected(bare):
        denied, given = (_answer(part, options) for part in pair)
        return given if denied not in (None, given) else None
    short = without_echo(bare, shown.question)
    chosen = _answer(short, options) if short != bare else None
    return None if chosen is None or _names_other(bare, chosen, options) else chosen


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
    """Reads "B. red", "(B) red", "B - red". Letters as texts ("A. B") need a mark of a list."""
    if not (found := _WITH_TEXT.fullmatch(text)):
        return None
    *letters, mark, rest = found.groups()
    place = _place(next(filter(None, letters)), options)
    if place is None or not _same_text(rest, options[place]):
        return None
    listed = letters[2] is None or mark.strip(" ")[:1] in tuple(").:")
    return place if listed or not _is_letter(rest) else None


def _text_with_letter(text: str, options: tuple[str, ...]) -> int | None:
    """Reads "red (B)", "red, option B"."""
    if not (found := _TEXT_FIRST.fullmatch(unwrapped(text))):
        return None
    place = _place(found.group(2) or found.group(3), options)
    if place is None or _is_letter(found.group(1)) or found.group(1).startswith("A "):
        return None
    return place if _same_text(found.group(1), options[place]) else None


def _text(text: str, options: tuple[str, ...]) -> int | None:
    """The text of one option. "A red" is no text of "red" where A is a letter as well, and "a South
    Gate" none of "South Gate": nobody writes an article before a name.
    """
    bare = unwrapped(text)
    exact = _exact(options).get(bare.casefold())
    words = text_key(text)
    key = _keys(options).get(words) if words else None
    if key is None or (exact is None and re.match("A |a [A-Z]", bare)):
        return None
    return key


def _sign(text: str, options: tuple[str, ...]) -> int | None:
    """The option that is this sign, such as "!" or "**", which would be a mark in a text."""
    sign = plain(text)
    if re.search(r"\w", sign):
        return None
    signs = [plain(option) for option in options]
    return signs.index(sign) if signs.count(sign) == 1 else None


def _same_text(said: str, option: str) -> bool:
    key = text_key(option)
    if not key:  # nothing but signs
        return plain(said) == plain(option)
    return text_key(said) == key or text_key(unwrapped(said, brackets=True)) == key


def _is_letter(text: str) -> bool:
    return len(unwrapped(text, brackets=True)) == 1


def _conclusion(text: str, lines: list[str], shown: _Shown) -> int | None:
    """The option in which free text concludes; None if an earlier statement names another."""
    said = announcements(text)
    if said and (chosen := _statement(said[-1], shown)) is not None:
        return chosen if _agrees(text, chosen, shown) else None
    last = last_sentence(lines[-1])
    if is_confirmed(last) and (chosen := _statement(last, shown)) is not None:
        return chosen if _agrees(text, chosen, shown) else None
    if len(lines) == 1 or not _is_closed(text, lines[-2]):
        return None
    chosen = _statement(lines[-1], shown)
    if chosen is None or _names_other(sentences(lines[-2])[-1], chosen, shown.options):
        return None
    return chosen if _agrees(text, chosen, shown, listed=False) else None


def _agrees(text: str, chosen: int, shown: _Shown, *, listed: bool = True) -> bool:
    """Whether no statement in free text names another option than `chosen`.

    With `listed`, lines that list two options or more do not count.
    """
    if len(text) > _LONGEST_REPLY:
        return True
    lines = lines_of(text)
    in_list = {_listed(line, shown.options) for line in lines} - {None}
    if not listed or len(in_list) < 2:
        in_list = set[int | None]()
    for line in lines:
        if in_list and _listed(line, shown.options) is not None:
            continue
        parts = {line, *sentences(line), *_CLAUSE.split(line + " ")}
        if any(_disagrees(part, chosen, shown) for part in parts):
            return False
    said = announcements(text)
    return not any(_names_other(part, chosen, shown.options) for part in said[:-1]) and (
        not said or _statement(said[-1], shown) in (None, chosen)
    )


def _disagrees(part: str, chosen: int, shown: _Shown) -> bool:
    """Whether a part of a text is an answer that is not `chosen`, or too short to be more than an
    answer and names another option without a doubt.
    """
    others = _other_names(part, chosen, shown.options)
    if (others or part.count(" ") < _LONGEST_ANSWER) and _statement(part, shown) not in (
        None,
        chosen,
    ):
        return True
    if not others:
        return False
    if is_confirmed(part):
        return True
    rests = [plain(part).casefold().replace(name.casefold(), "", 1) for name in others]
    return any(len(rest.split()) <= _SHORT and not is_doubtful(rest) for rest in rests)


def _listed(line: str, options: tuple[str, ...]) -> int | None:
    """The option that a line of a list begins with: "B. blue: too dark"."""
    found = _LIST_LINE.match(line)
    place = _place(found.group(1), options) if found else None
    if found is None or place is None or is_confirmed(line):
        return None
    rest = line[found.end() :].casefold()
    return place if rest.startswith(unwrapped(plain(options[place])).casefold()) else None


def _is_closed(text: str, line: str) -> bool:
    """Whether the line before the last one is complete: a sentence, or a paragraph."""
    blank = not text.rstrip().rpartition("\n")[0].rpartition("\n")[2].strip()
    return (line.endswith((".", "!")) or blank) and not line.endswith(("?", ":", ",", " or"))


_VERB = re.compile(r" (?:is|and|or|was|are|fits|says|shows|seems|looks|matches|has)\b")


def _names_other(text: str, chosen: int, options: tuple[str, ...]) -> bool:
    """Whether the text names another option than `chosen`, by its letter or its text."""
    return bool(_other_names(text, chosen, options))


def _other_names(text: str, chosen: int, options: tuple[str, ...]) -> list[str]:
    """Letters and texts of other options than `chosen` in a text."""
    text = plain(text)
    names: list[str] = []
    for found in _ALONE.finditer(text):
        place = _place(found.group(), options)
        if place is not None and place != chosen and not _is_word(text, found):
            names.append(found.group())
    folded = one_spelling(text.casefold())
    own = _spoken(options[chosen])
    without_own = _whole_words(own).sub("|", folded) if own else folded
    for place, option in enumerate(options):
        other = _spoken(option)
        if place == chosen or not other or other in ("a", "i"):
            continue
        if _whole_words(other).search(folded if own in other else without_own):
            names.append(other)
    return names


@lru_cache(maxsize=4096)
def _spoken(option: str) -> str:
    return one_spelling(normalise(option))


@lru_cache(maxsize=4096)
def _whole_words(words: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!{_WORD_CHARACTER}){re.escape(words)}(?!{_WORD_CHARACTER})")


def _is_word(text: str, found: re.Match[str]) -> bool:
    """Whether a letter is the article or the pronoun before a word."""
    rest = text[found.end() :]
    return found.group() in "AaI" and bool(re.match(r" [a-z]", rest)) and not _VERB.match(rest)
