"""One question about one picture: the turns as text, the crops as files, the episode as a page."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from lfpc.dialogue import Crop, Malformed, Turn
from lfpc.episode import Policy, episode, play
from lfpc.errors import ConfigError, RunError
from lfpc.evaluation.opened import first_view
from lfpc.images import CropRules, View
from lfpc.looks import original_look
from lfpc.protocols import ChatProtocol
from lfpc.records import record_of
from lfpc.report.episode_page import write_episode_page
from lfpc.samples import Sample


def ask(
    picture: Path,
    question: str,
    policy: Policy,
    out: Path,
    *,
    protocol: ChatProtocol,
    model: str,
    crop: CropRules,
    options: Sequence[str] = (),
    budget: int | None = None,
    max_turns: int = 6,
    write: Callable[[str], None] = print,
) -> Path:
    """Ask the question and print each turn. Writes `first.png`, `crop1.png`, ... and the page into
    `out`; returns the page's path.

    Raises:
        ConfigError: a value out of range.
        PictureError: unusable picture.
        PolicyError: the policy does not reply.
        RunError: `out` cannot be written.
    """
    for name, value in (("budget", budget), ("max_turns", max_turns)):
        if value is not None and value < 1:
            raise ConfigError(f"`{name}` must be at least 1, got {value}")
    sample = Sample(
        id="question", image=picture, question=question, answer="not known", options=tuple(options)
    )
    look = original_look(crop)
    view = first_view(sample, budget, factor=protocol.factor)
    played = play(
        [episode(sample, view, look=look, protocol=protocol, max_turns=max_turns)], policy
    )[0]
    _save(view, out / "first.png")
    for number, turn in enumerate(played.turns, 1):
        write(f"{number}. {_printable(turn.reply.text)}")
        if turn.reply.truncated:
            write("   the token limit ended this reply; raise --max-new-tokens")
        _write_turn(turn, out / f"crop{number}.png", write)
    write(
        f"Answer: {_printable(played.answer)}"
        if played.answer is not None
        else f"No answer in {len(played.turns)} turns."
    )
    record = replace(record_of(played, factor=protocol.factor), correct=None)
    return write_episode_page(out, record, look, model=model)


def _printable(text: str) -> str:
    """`text` without control characters of a terminal."""
    return "".join(
        character if character.isprintable() or character == "\n" else "\N{REPLACEMENT CHARACTER}"
        for character in text
    )


def _write_turn(turn: Turn, file: Path, write: Callable[[str], None]) -> None:
    match turn.action:
        case Malformed(detail=detail):
            write(f"   malformed: {_printable(detail)}")
        case Crop() if turn.view is not None:
            _save(turn.view, file)
            width, height = turn.view.size
            write(f"   shown: {file}, pixels {turn.view.cut} of the original at {width} x {height}")
        case _:
            pass


def _save(view: View, file: Path) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        view.image.save(file)
    except OSError as error:
        raise RunError(
            f"{file}: the picture cannot be written: {error.strerror or error}"
        ) from error
