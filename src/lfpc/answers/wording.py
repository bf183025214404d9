"""Keys of texts: two texts have the same key if they say the same in other characters, another
spelling or another form of a number. A code, such as "007" or "B12", is not a number.
"""

import re
import unicodedata

_CHARACTERS = str.maketrans(
    {chr(0xFF01 + n): chr(0x21 + n) for n in range(94)}  # full-width forms
    | dict.fromkeys("\u2018\u2019\u00b4", "'")
    | dict.fromkeys("\u201c\u201d", '"')
    | dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212\ufe63", "-")
    | {
        "\u3002": ". ",
        "\u3001": ", ",
        "\uff0c": ", ",
        "\u3010": "[",
        "\u3011": "]",
        "\u300c": '"',
        "\u300d": '"',
    }
    | {"\u200b": "", "\u200c": "", "\ufeff": "", "\u2192": "->"}
)
_PAIRS = {'"': '"', "'": "'", "`": "`", "*": "*", "_": "_", "$": "$"}
_BRACKETS = {"(": ")", "[": "]", "{": "}"}
_ARTICLE = re.compile(r"(?:the (?=\w))?(?:an? (?=[^\W\d_]{2}))?")
_BULLET = re.compile(r"\A(?:[-*\u2022]|#{1,6}) (?!\d)")
_NUMBER = re.compile(r"([-+]?)(0|[1-9]\d{0,2}(?:,\d{3})+(?!\d)|[1-9]\d*|(?=\.\d))(?:\.(\d+))?")
_NUMBERED = re.compile(r"(?:# ?|no\. ?|number )(?=\d)")
_SMALL = {
    word: value
    for value, word in enumerate(
        (
            *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
            *("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen"),
            *("seventeen", "eighteen", "nineteen"),
        )
    )
}
_TENS = {
    word: 10 * value
    for value, word in enumerate(
        ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"), 2
    )
}
_SPELLINGS = {
    "grey": "gray",
    "colour": "color",
    "coloured": "colored",
    "centre": "center",
    "theatre": "theater",
    "metre": "meter",
    "metres": "meters",
    "litre": "liter",
    "litres": "liters",
    "aluminium": "aluminum",
    "tyre": "tire",
    "tyres": "tires",
    "harbour": "harbor",
    "jewellery": "jewelry",
    "favourite": "favorite",
    "licence": "license",
    "catalogue": "catalog",
    "programme": "program",
    "moustache": "mustache",
    "pyjamas": "pajamas",
}
_UNITS = {
    "percent": "%",
    "per cent": "%",
    "degrees": "\u00b0",
    "degree": "\u00b0",
    "kilometers": "km",
    "meters": "m",
    "meter": "m",
    "centimeters": "cm",
    "millimeters": "mm",
    "kilograms": "kg",
    "grams": "g",
    "liters": "l",
}


def plain(text: str) -> str:
    """The text on one line, with ASCII punctuation, quotes, minus signs and digits."""
    return " ".join(unicodedata.normalize("NFC", text).translate(_CHARACTERS).split())


def unwrapped(text: str, *, brackets: bool = False) -> str:
    """A plain text without closing punctuation and without the marks around it.

    Marks go in pairs only: "5*" and "11'" keep what belongs to them.
    """
    pairs = _PAIRS | _BRACKETS if brackets else _PAIRS
    for _ in range(6):
        before = text
        text = text.strip().rstrip(".!?,;: ")
        if (
            len(text) > 2
            and pairs.get(text[0]) == text[-1]
            and text[-1] not in text[1:-1].strip(text[-1])
        ):
            text = text[1:-1]
        if text == before:
            break
    return text


def normalise(text: str) -> str:
    """Lower case, one space between words, no article in front ("a" only before a word), no closing
    punctuation and no quotes around the text.
    """
    text = unwrapped(_BULLET.sub("", plain(text), count=1)).casefold()
    return text[found.end() :] if (found := _ARTICLE.match(text)) else text


def number(text: str) -> str | None:
    """The key of a whole text that is a number, of any length; None: it is none.

    Commas count as thousands only, and a number with leading zeros is a code.
    """
    found = _NUMBER.fullmatch(text)
    return _number_key(found) if found else None


def _number_key(found: re.Match[str]) -> str:
    sign = found.group(1)
    whole = found.group(2).replace(",", "") or "0"
    fraction = (found.group(3) or "").rstrip("0")
    digits = f"{whole}.{fraction}" if fraction else whole
    return f"-{digits}" if sign == "-" and digits != "0" else digits


def text_key(text: str) -> str:
    """The key of a text: `normalise`, then one spelling, digits for number words at the start, and
    no space between a number and its unit.
    """
    words = normalise(text)
    words = _NUMBERED.sub("", words, count=1) if _NUMBERED.match(words) else words
    words = _in_digits(one_spelling(words))
    if not (found := _NUMBER.match(words)):
        return re.sub(r"^([$\u20ac\u00a3\u00a5]) (?=\d)", r"\1", words)
    rest = words[found.end() :]
    if rest[:1].isdigit() or rest[:1] in (".", ",", "-", "/", ":"):
        return words  # a date, a time, a code
    unit = rest.strip()
    if unit[:1].isdigit():
        return words  # two numbers
    return _number_key(found) + _UNITS.get(unit, unit)


def one_spelling(words: str) -> str:
    """Lower-case words in American spelling."""
    return re.sub(r"[a-z]+", lambda found: _SPELLINGS.get(found.group(), found.group()), words)


def _in_digits(words: str) -> str:
    """Number words at the start in digits: "twenty-one dogs" as "21 dogs"."""
    sign = "-" if words.startswith(("minus ", "negative ")) else ""
    parts = words.partition(" ")[2].split(" ") if sign else words.split(" ")
    if "-" in parts[0]:
        parts = [*parts[0].split("-"), *parts[1:]]
    value: int | None = None
    used = 0
    if parts[0] in _TENS:
        small = _SMALL.get(parts[1], 0) if len(parts) > 1 else 0
        both = 0 < small < 10
        value = _TENS[parts[0]] + small * both
        used = 1 + both
    elif parts[0] in _SMALL:
        value = _SMALL[parts[0]]
        used = 1
    elif sign and _NUMBER.match(parts[0]):
        return sign + " ".join(parts)
    if value is None:
        return words
    for word, factor in (("hundred", 100), ("thousand", 1000)):
        if parts[used : used + 1] == [word]:
            value *= factor
            used += 1
    if any(part in _SMALL or part in _TENS for part in parts[used:]):
        return words  # "one hundred and five", "two three": not read
    return " ".join([f"{sign}{value}", *parts[used:]])
