"""A person at a terminal as the policy, with the same pictures and texts as a model.

Pictures are saved as PNG files, whose paths are printed. Four numbers are a crop call, protocol
text (Qwen2.5-VL's) is passed on unchanged, and any other line is an answer.
"""

import json
import re
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

from lfpc.answers import check_answer
from lfpc.dialogue import Context, Malformed, Reply
from lfpc.episode import episode, play
from lfpc.errors import ConfigError
from lfpc.images import View, global_view, open_picture
from lfpc.looks import original_look
from lfpc.protocols import qwen2_5_vl
from lfpc.protocols.qwen2_5_vl import QWEN2_5_VL
from lfpc.samples import iter_samples

DEFAULT_BUDGET = 1024
"""Visual tokens of the first view of a sample without a budget."""

_NUMBER = r"-?\d+(?:\.\d+)?"
_BOX = re.compile(
    rf"\s*[\[(]?\s*({_NUMBER})[\s,]+({_NUMBER})[\s,]+({_NUMBER})[\s,]+({_NUMBER})\s*[\])]?\s*"
)
_RAW = ("<tool_call>", "<answer>")


def reply_text(line: str) -> str:
    """A typed line as Qwen2.5-VL's reply: `x0 y0 x1 y1` is a call, protocol text itself, anything
    else an answer.
    """
    if any(tag in line for tag in _RAW):
        return line
    if match := _BOX.fullmatch(line):
        call = {
            "name": qwen2_5_vl.TOOL,
            "arguments": {"bbox_2d": [json.loads(number) for number in match.groups()]},
        }
        return f"<tool_call>{json.dumps(call)}</tool_call>"
    return f"<answer>{line.strip()}</answer>"


class HumanPolicy:
    """Asks a person for every reply. End of input raises EOFError, Ctrl-C KeyboardInterrupt."""

    def __init__(
        self,
        folder: Path,
        *,
        read: Callable[[str], str] = input,
        write: Callable[[str], None] = print,
    ) -> None:
        """Ask through `read` and `write`.

        Args:
            folder: folder for the shown pictures.
            read: prints a prompt, returns the typed line.
            write: prints a line.
        """
        self._folder = folder
        self._read = read
        self._write = write
        self._questions = 0

    def reply(self, contexts: Sequence[Context]) -> list[Reply]:
        """One typed reply per context, one after the other."""
        return [self._ask(context) for context in contexts]

    def _ask(self, context: Context) -> Reply:
        if not context.turns:
            self._questions += 1
            self._write(
                f"\nQuestion {self._questions}: {qwen2_5_vl.ask(context.question, context.options)}"
            )
            self._show(context.first_view, "first", "the whole picture")
            width, height = context.first_view.size
            self._write(
                f"Type a region as x0 y0 x1 y1 in pixels of this {width} x {height} "
                f"picture, or an answer."
            )
        else:
            self._show_turn(context)
        return Reply(reply_text(self._read("> ")))

    def _show_turn(self, context: Context) -> None:
        turn = context.turns[-1]
        if isinstance(turn.action, Malformed):
            self._write(turn.action.detail)
        elif turn.view is None:
            self._write("No picture.")
        else:
            self._show(turn.view, f"crop{len(context.turns)}", "the region")

    def _show(self, view: View, name: str, what: str) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        file = self._folder / f"question{self._questions}-{name}.png"
        view.image.save(file)
        self._write(f"{file}: {what}, {view.size[0]} x {view.size[1]} pixels")


def play_folder(
    folder: Path,
    out: Path,
    *,
    budget: int | None = None,
    questions: int | None = None,
    max_turns: int = 6,
) -> str:
    """Let a person answer the questions of a samples folder, and print each verdict, until Ctrl-C
    or the end of input.

    Args:
        folder: samples folder.
        out: folder for the shown pictures.
        budget: visual tokens of the first view; None: the sample's own, else `DEFAULT_BUDGET`.
        questions: number of questions; None: all.
        max_turns: turn limit of an episode.
    Returns:
        A line with the number of right answers and the folder of the pictures.
    """
    for name, value in (("budget", budget), ("questions", questions), ("max_turns", max_turns)):
        if value is not None and value < 1:
            raise ConfigError(f"`{name}` must be at least 1, got {value}")
    print("Ctrl-C ends the game.")
    policy = HumanPolicy(out)
    right = 0
    asked = 0
    look = original_look(QWEN2_5_VL.crop)
    try:
        for sample in islice(iter_samples(folder), questions):
            first = global_view(
                open_picture(sample.image),
                budget or sample.budget or DEFAULT_BUDGET,
                factor=QWEN2_5_VL.factor,
            )
            game = episode(sample, first, look=look, protocol=QWEN2_5_VL, max_turns=max_turns)
            correct = check_answer(play([game], policy)[0].answer, sample).correct
            right = right + correct
            asked = asked + 1
            print("Right." if correct else f"Wrong: the answer is {sample.answer}.")
    except (EOFError, KeyboardInterrupt):
        print()
    return f"{right} of {asked} right; the pictures are in {out}"
