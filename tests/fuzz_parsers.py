"""Replies that no model should write, through every parser: none may raise, execute anything, or
give an action that is not sound.

    python tests/fuzz_parsers.py --replies 1000000 --seed 0        # make fuzz

Replies are mutations of a seed corpus. An audit hook ends the run at the first file, process,
socket or `exec` while a parser is at work. `one_input` takes bytes: `fuzz_coverage` drives the same
checks with a coverage-guided fuzzer.
"""

import argparse
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from PIL import Image

from lfpc.boxes import WHOLE, Box
from lfpc.dialogue import Action, Answer, Crop, Malformed, Reason
from lfpc.images import View
from lfpc.protocols import PROTOCOLS, ChatProtocol

SEEDS = (
    'I look closer. <tool_call>{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": '
    '[10, 20, 150, 90], "label": "van"}}</tool_call>',
    "<tool_call>\n<function=image_zoom_in_tool>\n<parameter=bbox_2d>\n[250, 500, 750, "
    "1000]\n</parameter>\n</function>\n</tool_call>",
    '{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [250, 500, 750, 1000], "img_idx": 0}}',
    '<think>on the right</think><grounding>{"bbox_2d": [0.5, 0.0, 1.0, 1.0], "source": '
    '"observation_1"}</grounding>',
    '<tool_call>{"name": "crop_image_normalized", "arguments": {"bbox_2d": [0.1, 0.2, 0.5, '
    '0.6], "target_image": 2}}</tool_call>',
    "<think>there</think><zoom>[100, 0, 200, 100]</zoom>",
    "<code>\n```python\nimg = Image.open('image.jpg')\nw, h = img.size\nx = 10\npart = "
    "img.crop((x, 20, x + w // 2, int(h * 0.5)))\n"
    "part = part.resize((400, 300))\npart.save('a.png')\nprint('a.png')\n```\n</code>",
    "<code>import cv2\na = cv2.imread('image.jpg')\nif a.shape[0] > 100:\n    b = "
    "a[10:500, 20:-30]\nelse:\n    b = a\n"
    "b = cv2.resize(b, None, fx=2, fy=2)\n</code>",
    "<think>A K, then.</think>\n<answer>K</answer>",
    "So it is \\boxed{\\text{K}}.",
    "The letter is K.",
)
TOKENS = (
    *(
        "<tool_call>",
        "</tool_call>",
        "<answer>",
        "</answer>",
        "<think>",
        "</think>",
        "<grounding>",
        "</grounding>",
        "<zoom>",
        "</zoom>",
    ),
    *(
        "<code>",
        "</code>",
        "```",
        "<function=",
        "<parameter=bbox_2d>",
        "\\boxed{",
        "observation_99",
        "null",
        "true",
        "NaN",
        "Infinity",
    ),
    *(
        "-Infinity",
        "0.001",
        "0.5",
        "40",
        "2500",
        "1e999",
        "-1e308",
        "5e-324",
        "0",
        "-1",
        "1",
        "999",
        "1000",
        "9" * 400,
        "9" * 5000,
    ),
    *(
        "[[",
        "]]",
        "{{",
        "}}",
        '"',
        "'",
        "\\",
        "\0",
        "\ud800",
        "\udfff",
        "\u202e",
        "\uff11",
        "[0, 0, 1, 1]",
        "[1, 0, 0, 1]",
        ", ",
        "\n",
    ),
    *(
        "\t",
        "    ",
        " = ",
        ": ",
        "def f():",
        "img.crop((0, 0, 9, 9))",
        "a[1:2, 3:4]",
        "eval('1')",
        "__import__('os').remove('x')",
    ),
    *(
        "open('x', 'w')",
        "for i in x:\n",
        "lambda: ",
        "x",
        "*",
        "**",
        "//",
        "(",
        ")",
        "[",
        "]",
        "exec('1')",
        "import os\n",
        "\\ud800",
    ),
    *("\\u0000", "img_idx", "target_image", "source"),
)
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_ORIGINAL = (4000, 2000)
SHOWN: tuple[tuple[View, ...], ...] = tuple(
    (
        View(Image.new("RGB", (200, 100)), WHOLE, original),
        *(View(Image.new("RGB", (56, 28)), region, original) for region in regions),
    )
    for original, regions in (
        (_ORIGINAL, ()),
        (_ORIGINAL, (Box(0.5, 0, 1, 1),)),
        (None, (Box(0.5, 0, 1, 1), Box(0.75, 0.5, 1, 1))),
        (_ORIGINAL, (Box(0, 0, 5e-324, 5e-324), Box(1 - 1e-16, 0.3, 1, 0.3 + 1e-16))),
    )
)
"""What may have been shown before a reply, down to crops of no size to speak of."""
ALL: tuple[ChatProtocol, ...] = (
    *PROTOCOLS.values(),
    *(
        protocol.with_coords("as-released")
        for protocol in PROTOCOLS.values()
        if protocol.as_released
    ),
)
FLUENT = {
    text: [
        one
        for one in ALL
        if any(not isinstance(one.parse(text, views), Malformed) for views in SHOWN)
    ]
    for text in SEEDS
}
"""The parsers that can read each seed."""


def check(action: Action, views: Sequence[View], *, released: bool = False) -> None:
    """The action is sound. A published script may end with an empty answer."""
    match action:
        case Crop(box):
            wide = action.shown
            for corner in (*box.corners, *wide.corners):
                assert 0 <= corner <= 1, action
            assert wide.x0 <= box.x0 + 1e-9, action
            assert wide.x1 >= box.x1 - 1e-9, action
            assert 0 <= action.source < len(views), action
            assert len(action.emitted) in (0, 4), action
            assert all(map(isfinite, action.emitted)), action
        case Answer(text):
            assert text or released, action
            assert text == text.strip(), action
        case Malformed(reason, detail):
            assert isinstance(reason, Reason), action
            assert 0 < len(detail) < 500, action
        case _:
            raise AssertionError(f"not an action: {action!r}")


def parse(text: str, protocol: ChatProtocol, views: Sequence[View]) -> Action:
    """What `protocol` makes of `text`, checked."""
    with _Watched():
        action = protocol.parse(text, views)
    check(action, views, released=protocol.coords == "as-released")
    return action


def one_input(data: bytes) -> None:
    """For a coverage-guided fuzzer: the first byte picks the parser, the second what was shown, the
    rest is the reply."""
    if len(data) > 2:
        parse(
            data[2:].decode("utf-8", "surrogateescape"),
            ALL[data[0] % len(ALL)],
            SHOWN[data[1] % len(SHOWN)],
        )


def write_corpus(folder: Path) -> None:
    """The seeds as files for `one_input`, each for every parser."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, text in enumerate(SEEDS):
        for parser in range(len(ALL)):
            (folder / f"{number}-{parser}").write_bytes(bytes([parser, 1]) + text.encode())


class _Watched:
    """While it is entered, nothing may be opened, started, connected or executed."""

    on = False
    hooked = False

    def __enter__(self) -> None:
        if not _Watched.hooked:
            sys.addaudithook(_forbid)
            _Watched.hooked = True
        _Watched.on = True

    def __exit__(self, *_: object) -> None:
        _Watched.on = False


def _forbid(event: str, arguments: Any) -> None:
    if _Watched.on and event.startswith(
        ("exec", "open", "os.", "subprocess.", "socket.", "shutil.", "ctypes.", "pty.")
    ):
        _Watched.on = False
        raise AssertionError(f"a parser did {event} {arguments!r:.200}")


def mutated(rng: random.Random, seed: str) -> str:
    """The seed, changed at up to eight places."""
    text = seed
    for _ in range(rng.choice((0, 1, 1, 1, 2, 2, 3, 5, 8))):
        a, b = sorted((rng.randint(0, len(text)), rng.randint(0, len(text))))
        match rng.choice((0, 0, 1, 2, 3, 4, 4, 4, 4, 4, 5, 6, 6)):
            case 0:
                text = text[:a] + rng.choice(TOKENS) + text[a:]
            case 1:
                text = text[:a] + text[min(b, a + 12) :]
            case 2:
                text = text[:a] + text[a:b] * rng.randint(1, 3) + text[b:]
            case 3:
                text = text[:a]
            case 4:
                numbers = list(_NUMBER.finditer(text))
                if numbers:
                    start, end = rng.choice(numbers).span()
                    text = text[:start] + rng.choice(TOKENS) + text[end:]
            case 5:
                text = text[:a] + rng.choice(SEEDS)[rng.randint(0, 40) :]
            case _:
                text = (
                    text[:a]
                    + chr(rng.choice((rng.randrange(128), rng.randrange(0x110000))))
                    + text[a + 1 :]
                )
    return text


def run(replies: int, seed: int) -> Counter[str]:
    """Parse `replies` mutations, each with one parser; counts what became of them."""
    rng = random.Random(seed)
    counts: Counter[str] = Counter()
    for number in range(replies):
        seed_text = rng.choice(SEEDS)
        views = rng.choice(SHOWN)
        protocol = rng.choice(ALL if rng.random() < 0.3 else FLUENT[seed_text])
        text = mutated(rng, seed_text)
        try:
            action = parse(text, protocol, views)
        except Exception as error:
            raise AssertionError(
                f"reply {number} of seed {seed} through {protocol.name}: {error!r} for {text!r}"
            ) from error
        counts[action.reason if isinstance(action, Malformed) else type(action).__name__] += 1
    return counts


def main() -> None:
    """Read the command line and run."""
    options = argparse.ArgumentParser(description="Mutated replies through every parser.")
    options.add_argument("--replies", type=int, default=1_000_000)
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    began = time.perf_counter()
    counts = run(given.replies, given.seed)
    print(
        f"{given.replies} replies in {time.perf_counter() - began:.1f} s through "
        f"{len(ALL)} parsers, none of them a failure"
    )
    for name, count in counts.most_common():
        print(f"{count:>10}  {name}")


if __name__ == "__main__":
    main()
