import sys
import time
from pathlib import Path
from typing import Any

import pytest
from shown import FIRST, RIGHT, emitted, reason, talk

from lfpc.boxes import Box
from lfpc.dialogue import Answer, Crop
from lfpc.protocols import protocol_named
from lfpc.protocols.syntax import LONGEST_CODE, last_cut
from lfpc.protocols.thyme import SYSTEM, THYME, remind

CODE = """<think>The plate is small; I crop it.
<code>
```python
import cv2, os
from uuid import uuid4

image_path = "image.jpg"
image = cv2.imread(image_path)
x1, y1, x2, y2 = 1000, 500, 2000, 1500
plate = image[y1:y2, x1:x2]
plate = cv2.resize(plate, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
path = os.path.join("/tmp", f"plate_{uuid4()}.jpg")
cv2.imwrite(path, plate)
print(path)
```
</code>"""
PLATE = Crop(Box(0.25, 0.25, 0.5, 0.75))


def code(*lines: str) -> str:
    return "<code>\n```python\n" + "\n".join(lines) + "\n```\n</code>"


def read(*lines: str) -> object:
    return THYME.parse(code(*lines), [FIRST])


OPEN = "from PIL import Image", "img = Image.open('image.jpg')"


def test_a_dialogue_with_its_crop_inside_the_assistants_turn() -> None:
    messages = talk(THYME, (CODE, RIGHT))
    assert messages == [
        ("system", (SYSTEM,)),
        ("user", (FIRST, "Which letter is on the van?\nA. K\nB. L" + remind(FIRST))),
        ("assistant", (CODE,)),
        ("assistant", ("<sandbox_output>", RIGHT, "</sandbox_output>")),
    ]
    assert "Size of the picture: 4000x2000" in remind(FIRST)
    assert THYME.parse("It reads S QT.</think>\n<answer> S QT </answer>", [FIRST, RIGHT]) == Answer(
        "S QT"
    )
    assert not THYME.whole_turns


def test_coordinates_are_pixels_of_the_original() -> None:
    action = THYME.parse(CODE, [FIRST])
    assert action == PLATE
    assert emitted(action) == ((1000, 500, 2000, 1500), 0)
    assert THYME.parse(CODE.removesuffix("\n```\n</code>"), [FIRST]) == PLATE


@pytest.mark.parametrize(
    "lines",
    [
        ("img.crop((1000, 500, 2000, 1500)).resize((2000, 2000)).save('a.png')",),
        ("img.crop(box=[1000, 500, 2000, 1500]).show()",),
        ("box = (1000, 500, 2000, 1500)", "part = img.convert('RGB').crop(box)"),
        ("w, h = img.size", "img.crop((w // 4, h / 4, int(0.5 * w), round(h * 0.75)))"),
        ("img.crop((img.width * 0.25, img.height - 1500, max(1, 2000), min(1500.0, img.height)))",),
        (
            "import numpy as np",
            "a = np.array(img)",
            "h, w = a.shape[:2]",
            "b = a[h // 4 : -500, 1000:2000]",
            "Image.fromarray(b).save('b.png')",
        ),
        ("small = img.resize((400, 200))", "small.crop((100, 50, 200, 150))"),
        ("half = img.crop((0, 0, 2000, 2000))", "half.crop((1000, 500, 2000, 1500))"),
        (
            "x = 500",
            "x += 500",
            "if x > 900:",
            "    y = 500",
            "else:",
            "    y = 0",
            "img.crop((x, y, x + 1000, y + 1000))",
        ),
        (
            "import os",
            "if os.path.exists('image.jpg'):",
            "    part = img.crop((1000, 500, 2000, 1500))",
            "else:",
            "    print('none')",
        ),
        (
            "try:",
            "    part = img.crop((1000, 500, 2000, 1500))",
            "except OSError:",
            "    part = None",
        ),
        ("with Image.open('image.jpg') as other:", "    other.crop((1000, 500, 2000, 1500))"),
        (
            "from PIL import ImageEnhance",
            "sharp = ImageEnhance.Sharpness(img).enhance(2.0)",
            "sharp.crop((1000, 500, 2000, 1500))",
        ),
        ("img.crop((0, 0, 9, 9))", "img.crop((1000, 500, 2000, 1500))"),
    ],
)
def test_what_the_code_cuts_is_known_from_its_syntax(lines: tuple[str, ...]) -> None:
    assert read(*OPEN, *lines) == PLATE


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (("print(17 * 23)",), "no_crop"),
        ((*OPEN, "img.rotate(90).save('a.png')"), "no_crop"),
        ((*OPEN, "img.crop(find_plate(img))"), "no_crop"),
        ((*OPEN, "for x in range(3):", "    img.crop((x, 0, x + 9, 9))"), "no_crop"),
        ((*OPEN, "def cut(box):", "    return img.crop(box)", "cut((0, 0, 9, 9))"), "no_crop"),
        (
            (
                *OPEN,
                "if guess():",
                "    img.crop((0, 0, 9, 9))",
                "else:",
                "    img.crop((0, 0, 5, 5))",
            ),
            "no_crop",
        ),
        ((*OPEN, "x = 1", "if guess():", "    x = 2", "img.crop((x, 0, 9, 9))"), "no_crop"),
        ((*OPEN, "box = [0, 0, 9, 9]", "box[0] = guess()", "img.crop(box)"), "no_crop"),
        ((*OPEN, "box = [0, 0, 9]", "box.append(9)", "img.crop(box)"), "no_crop"),
        ((*OPEN, "img.crop((0, 0, 9, 9))", "img.crop(guess())"), "no_crop"),
        ((*OPEN, "img.thumbnail((40, 20))", "img.crop((0, 0, 9, 9))"), "no_crop"),
        ((*OPEN, "img.crop((0, 0, 1 / 0, 9))"), "no_crop"),
        ((*OPEN, "img.crop((5, 5, 5, 9))"), "empty_box"),
        ((*OPEN, "img.crop((0, 0, 1e999, 9))"), "empty_box"),
        (("import cv2", "cv2.imread('a')[9:9, 0:9]"), "empty_box"),
        (("crop the plate, please",), "bad_code"),
        (("x = '\0'",), "bad_code"),
        (("x = '\ud800'",), "bad_code"),
        (("x = " + "9" * 5000,), "bad_code"),
        (("#" * (LONGEST_CODE + 1),), "bad_code"),
    ],
)
def test_an_unknown_cut_is_not_shown(lines: tuple[str, ...], why: str) -> None:
    action = THYME.parse(code(*lines), [FIRST])
    assert reason(action) == why
    assert str(getattr(action, "detail", "")).startswith("<sandbox_output>Error: ")


@pytest.mark.parametrize(
    "line",
    [
        "(" * 9000,
        "{a:" * 5000,
        "f(a=" * 4000,
        "x = " + "-" * 9000 + "1",
        "x = " + "a." * 9000 + "a",
        "x = " + "1+" * 9000 + "1",
        "x = " + "not " * 4000 + "1",
        "x = " + "lambda:" * 2500 + "1",
        "x = " + "1if 1else " * 1900 + "1",
        "if x: pass" + "\nelif x: pass" * 1200,
    ],
)
def test_deep_code_is_refused_or_read_but_never_breaks_the_reader(line: str) -> None:
    assert reason(THYME.parse(code(line), [FIRST])) in ("bad_code", "no_crop")


def test_nothing_is_executed(tmp_path: Path) -> None:
    victim = tmp_path / "victim.txt"
    made = tmp_path / "made.txt"
    victim.write_text("here")
    before = set(sys.modules)
    wipe = (
        f"import os, "
        f"shutil\nos.remove({str(victim)!r})\nshutil.rmtree({str(tmp_path)!r})\nopen("
        f"{str(made)!r}, 'w').write('x')"
    )
    for lines in (
        wipe,
        f"exec({wipe!r})",
        f"eval(\"__import__('os').remove({str(victim)!r})\")",
        f"(lambda: __import__('os').remove({str(victim)!r}))()",
        f"class A:\n    __import__('os').remove({str(victim)!r})",
        f"x = [__import__('os').remove({str(victim)!r}) for _ in [1]]",
        f"@__import__('os').remove\ndef f(): {str(victim)!r}",
        "import antigravity, this",
        "while True: pass",
        "raise SystemExit",
        "9 ** 9 ** 9 ** 9",
        "x = 'a' * 10**12",
    ):
        assert reason(THYME.parse(code(lines), [FIRST])) == "no_crop"
        cropped = THYME.parse(code(lines, *OPEN, "img.crop((1000, 500, 2000, 1500))"), [FIRST])
        assert cropped == PLATE
    assert victim.read_text() == "here"
    assert not made.exists()
    assert {"antigravity", "this"}.isdisjoint(set(sys.modules) - before)


def test_shared_values_do_not_grow(tmp_path: Path) -> None:
    doubling = [
        "a = (1, 1)",
        "b = (1, 1)",
        *["a = (a, a)", "b = (b, b)"] * 200,
        "if guess():",
        "    a = b",
    ]
    assert last_cut("\n".join(doubling), (10, 10)) is None


def test_odd_escapes_in_the_code_warn_nobody() -> None:
    assert read(*OPEN, r"x = '\d'", "img.crop((1000, 500, 2000, 1500))") == PLATE


RELEASED = protocol_named("thyme", "as-released")
SAVE = "part.save('/mnt/data/temp_processed_images/part.png')"


def saved(*lines: str) -> Any:
    return RELEASED.parse(code(*OPEN, *lines), [FIRST])


@pytest.mark.parametrize(
    ("lines", "cut", "sides"),
    [
        # whole pixels, halves to even; black beyond the edges of 4000 x 2000
        (("part = img.crop((100.5, 200.6, 699.5, 650.5))", SAVE), (100, 201, 700, 650), (600, 449)),
        (("part = img.crop((3900, 1900, 4100, 2100))", SAVE), (3900, 1900, 4100, 2100), (200, 200)),
        # what is assigned as a box is put in order, moved inside, and has sides of 64 at least
        (("box = (700, 650, 100, 200)", "part = img.crop(box)", SAVE), (100, 200, 700, 650), None),
        (("bbox = (3990, 5, 4100, 20)", "part = img.crop(bbox)", SAVE), (3936, 5, 4000, 69), None),
        # which it does not see in a negative number
        (("bbox = (-5, 5, 10, 20)", "part = img.crop(bbox)", SAVE), (-5, 5, 10, 20), None),
        (
            ("x1, y1, x2, y2 = 5, 6, 9, 300", "part = img.crop((x1, y1, x2, y2))", SAVE),
            (5, 6, 69, 300),
            None,
        ),
        (("box = [100, 200, 110, 210]", "part = img.crop(box)", SAVE), (100, 200, 110, 210), None),
        (
            ("where = (100, 200, 110, 210)", "part = img.crop(where)", SAVE),
            (100, 200, 110, 210),
            None,
        ),
        # the last picture that is saved, not the last that is cut
        (
            ("part = img.crop((1, 2, 301, 402))", "img.crop((0, 0, 9, 9))", SAVE),
            (1, 2, 301, 402),
            None,
        ),
        (
            ("part = img.resize((400, 200)).crop((100, 50, 200, 150))", SAVE),
            (1000, 500, 2000, 1500),
            (100, 100),
        ),
        (
            ("part = img.crop((0, 0, 600, 400)).rotate(90, expand=True)", SAVE),
            (0, 0, 600, 400),
            (400, 600),
        ),
        (("part = ImageOps.crop(img, border=100)", SAVE), (100, 100, 3900, 1900), (3800, 1800)),
        (
            ("for b in [(1, 2, 30, 40), (5, 6, 70, 80)]:", "    part = img.crop(b)", SAVE),
            (5, 6, 70, 80),
            None,
        ),
        (("part = ImageEnhance.Contrast(img).enhance(2)", SAVE), (0, 0, 4000, 2000), (4000, 2000)),
        (
            ("import cv2", "a = cv2.imread('x.png')", "cv2.imwrite('y.png', a[1900:2100, 3900:])"),
            (3900, 1900, 4000, 2000),
            (100, 100),
        ),
    ],
)
def test_as_released_the_saved_picture_is_shown(lines: Any, cut: Any, sides: Any) -> None:
    action = saved(*lines)
    assert action.shown.cut == cut
    assert action.shown.sides == (sides or (cut[2] - cut[0], cut[3] - cut[1]))


@pytest.mark.parametrize(
    "lines",
    [
        ("img.crop((0, 0, 90, 90))",),
        ("print(12 * 7)",),
        ("part = img.crop((700, 650, 100, 200))", SAVE),
        ("part = img.crop(find())", SAVE),
        ("part = img.crop((0, 0, 9, 9)).rotate(30, expand=True)", SAVE),
        ("part = img.crop((10**30, 0, 10**30 + 5, 9))", SAVE),
    ],
)
def test_as_released_code_that_saves_nothing_known_shows_nothing(lines: Any) -> None:
    assert reason(saved(*lines)) in {"no_crop", "empty_box"}


def test_as_released_code_is_read_in_bounded_time() -> None:
    began = time.monotonic()
    saved("part = img" + ".crop((0, 0, 900, 900))" * 60, SAVE)
    deep = [f"{'  ' * i}for i{i} in [1, 2, 3, 4, 5, 6, 7, 8, 9]:" for i in range(15)]
    saved(*deep, "  " * 15 + "part = img.crop((0, 0, 9, 9))")
    assert time.monotonic() - began < 5
