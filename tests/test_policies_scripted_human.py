from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from lfpc.boxes import WHOLE, Box
from lfpc.dialogue import Answer, Crop
from lfpc.episode import episode, play
from lfpc.images import CropRules, View, global_view, open_picture
from lfpc.looks import original_look
from lfpc.policies.human import HumanPolicy, reply_text
from lfpc.policies.scripted import ScriptedPolicy
from lfpc.protocols import PROTOCOLS
from lfpc.samples import Sample

PROTOCOL = PROTOCOLS["qwen2_5_vl"]
SHOWN = [View(Image.new("RGB", (200, 100)), WHOLE)]


@pytest.mark.parametrize(
    "line", ["50 25 150 100", " 50, 25, 150, 100 ", "[50, 25, 150, 100]", "(50.0 25.0 150 100)"]
)
def test_four_numbers_are_a_crop_call(line: str) -> None:
    assert PROTOCOL.parse(reply_text(line), SHOWN) == Crop(Box(0.25, 0.25, 0.75, 1))


@pytest.mark.parametrize(
    ("line", "said"),
    [("red kite", "red kite"), (" 42 ", "42"), ("1 2 3", "1 2 3"), ("<answer>raw</answer>", "raw")],
)
def test_any_other_line_is_an_answer(line: str, said: str) -> None:
    assert PROTOCOL.parse(reply_text(line), SHOWN) == Answer(said)


def test_a_person_sees_what_a_model_sees(tmp_path: Path, sample: Callable[..., Sample]) -> None:
    one = sample(options=("K", "L"), answer="A")
    typed = iter(["", "0 0 28 28", "A"])
    printed = list[str]()
    policy = HumanPolicy(tmp_path / "shown", read=lambda _: next(typed), write=printed.append)
    game = episode(
        one,
        global_view(open_picture(one.image), 16),
        look=original_look(CropRules()),
        protocol=PROTOCOL,
    )
    (done,) = play([game], policy)
    assert done.answer == "A"
    assert printed[0] == "\nQuestion 1: Which letter?\nA. K\nB. L"
    assert "x0 y0 x1 y1 in pixels of this 112 x 84 picture" in printed[2]
    assert printed[3] == "Error: The answer is empty."
    for line, name, size in ((printed[1], "first", (112, 84)), (printed[4], "crop2", (112, 112))):
        path = tmp_path / "shown" / f"question1-{name}.png"
        assert line.startswith(f"{path}: ")
        assert open_picture(path).size == size


def test_a_script_repeats_its_last_text_and_needs_one(sample: Callable[..., Sample]) -> None:
    one = sample()
    game = episode(
        one,
        global_view(open_picture(one.image), 16),
        look=original_look(CropRules()),
        protocol=PROTOCOL,
        max_turns=3,
    )
    (done,) = play([game], ScriptedPolicy(["a", "b"]))
    assert [turn.reply.text for turn in done.turns] == ["a", "b", "b"]
    with pytest.raises(ValueError, match="at least one text"):
        ScriptedPolicy([])
