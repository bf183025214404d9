"""One question at a time, to a model or to you. Imports stay inside `run`, see `lfpc.cli`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from tyro.conf import Positional, arg

from lfpc.cli.model import AskedModel
from lfpc.cli.verb import Verb


@dataclass(frozen=True, kw_only=True)
class Ask(AskedModel):
    """Ask a model one question about one picture; prints the turns, saves the crops and a page."""

    EXAMPLES: ClassVar = (
        'lfpc ask photo.jpg "What does the sign say?" --checkpoint CHECKPOINT',
        'lfpc ask photo.jpg "Which colour is the kite?" --options red blue '
        "--base-url http://127.0.0.1:8000/v1 --model NAME",
        'lfpc ask photo.jpg "How many boats?" --checkpoint CHECKPOINT --budget 256',
    )

    picture: Annotated[Positional[Path], arg(metavar="PICTURE")]
    """Picture file."""
    question: Annotated[Positional[str], arg(metavar="QUESTION")]
    """Question about the picture."""
    options: tuple[str, ...] = ()
    """Options of a multiple choice question, shown as A, B, ..."""
    budget: int | None = None
    """Visual tokens of the first view. Default: the checkpoint's (lfpc.json), else 1024."""
    out: Path = Path("out/ask")
    """Folder for the crops and the page."""

    def run(self) -> str:
        from lfpc.ask.once import ask
        from lfpc.policies.loading import any_policy

        config, backend = self.asked()
        page = ask(
            self.picture,
            self.question,
            any_policy(config, backend),
            self.out,
            protocol=config.chat,
            model=config.model,
            crop=config.crop_rules,
            options=self.options,
            budget=self.defaults().budget if self.budget is None else self.budget,
            max_turns=config.max_turns,
        )
        return f"open {page}"


@dataclass(frozen=True, kw_only=True)
class Play:
    """Answer the questions of a samples folder yourself, from the same pictures and texts as a
    model.
    """

    EXAMPLES: ClassVar = (
        "lfpc play data/test",
        "lfpc play data/test --questions 5 --budget 256",
    )

    folder: Annotated[Positional[Path], arg(metavar="FOLDER")]
    """Samples folder: samples.jsonl beside its pictures."""
    out: Path = Path("out/play")
    """Folder for the pictures that are shown."""
    budget: int | None = None
    """Visual tokens of the first view. Default: each sample's own, or 1024 if it has none."""
    questions: int | None = None
    """Number of questions. Default: all."""
    max_turns: int = 6
    """Turn limit of an episode."""

    def run(self) -> str:
        from lfpc.policies.human import play_folder

        return play_folder(
            self.folder,
            self.out,
            budget=self.budget,
            questions=self.questions,
            max_turns=self.max_turns,
        )


VERBS: dict[str, type[Verb]] = {
    "ask": Ask,
    "play": Play,
}
