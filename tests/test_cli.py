import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any, ClassVar, get_args, get_type_hints

import pytest
import tyro
from PIL import Image

from lfpc import __version__, cli
from lfpc.cli import data, story
from lfpc.cli.selecting import Select
from lfpc.cli.training import Train
from lfpc.data.config import MixConfig, MixPart
from lfpc.errors import RunError
from lfpc.mini.config import DemoConfig, PretrainConfig
from lfpc.options import fields_of
from lfpc.policies import human
from lfpc.published.config import ImportConfig
from lfpc.samples import Sample, write_samples
from lfpc.selection.config import SelectConfig
from lfpc.training.presets import PRESETS

Capture = pytest.CaptureFixture[str]


def verb_that(error: BaseException) -> type[cli.Verb]:
    @dataclass(frozen=True)
    class Failing:
        """Fail."""

        def run(self) -> str:
            raise error

    return Failing


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (RunError("the folder\nis another's"), 1, "lfpc: the folder is another's"),
        (OSError(28, os.strerror(28), "out/x.png"), 1, "lfpc: out/x.png: No space left on device"),
        (OSError("odd"), 1, "lfpc: odd"),
        (
            KeyboardInterrupt(),
            130,
            "lfpc: interrupted; the same command resumes from what is written",
        ),
    ],
)
def test_a_failure_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, error: BaseException, code: int, says: str
) -> None:
    monkeypatch.setitem(cli.VERBS, "fail", verb_that(error))
    assert cli.main(["fail"]) == code
    assert capsys.readouterr().err == says + "\n"


def test_debug_shows_the_traceback_behind_the_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setitem(cli.VERBS, "fail", verb_that(RunError("no room")))
    monkeypatch.setenv("LFPC_DEBUG", "1")
    assert cli.main(["fail"]) == 1
    heard = capsys.readouterr().err.splitlines()
    assert heard[0] == "Traceback (most recent call last):"
    assert heard[-2:] == ["lfpc.errors.RunError: no room", "lfpc: no room"]


def test_version_is_printed(capsys: Capture) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"lfpc {__version__}\n"


def test_a_mistake_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cli.VERBS, "fail", verb_that(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        cli.main(["fail"])


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["data"],
        ["data", "nonsense"],
        ["play"],
        ["play", "x", "--budgte", "3"],
        ["play", "x", "--budget", "many"],
    ],
)
def test_wrong_usage_exits_with_2(capsys: Capture, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(arguments)
    assert left.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("name", list(cli.VERBS))
def test_every_verb_has_help_for_every_option(capsys: Capture, name: str) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main([*name.split(), "--help"])
    assert left.value.code == 0
    shown = capsys.readouterr().out
    verb = cli.VERBS[name]
    assert verb.__doc__ is not None
    assert not verb.__doc__.startswith(
        f"{verb.__name__}("
    )  # what dataclass writes when there is none
    entries = help_entries(shown)
    assert len(entries) == 1 + len(list(option_fields(verb)))  # 1: --help
    for entry in entries:
        spelling, _, text = entry.partition("  ")
        # tyro adds (default: ...) or (required) to the docstring of a field
        assert re.sub(r"\((default|required).*$", "", text).strip(), spelling


FIRST = {
    "eval": "--tasks --data --out --checkpoint --base-url --model --protocol --budget --probes",
    "probe": "--probes --replay --draws --gain --search",
    "select": "--out --checkpoint --base-url --model --protocol",
    "ask": "--out --checkpoint --base-url --model --protocol --options --budget",
    "serve": "--checkpoint --base-url --model --protocol --budget --port --public",
    "annotate": "--proposals --hardest --pictures --by --checkpoint --base-url --model",
    "train stage1": "--data --init --out --validation --protocol --steps --lora --seed",
    "train stage2": "--data --init --out --validation --protocol --steps --lora --seed",
}
"""Options that the help of a verb shows first."""


def shown_help(name: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit):
        cli.main([*name.split(), "--help"])
    return capsys.readouterr().out


@pytest.mark.parametrize("name", FIRST)
def test_the_options_that_a_person_needs_come_first(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    shown = shown_help(name, capsys, monkeypatch)
    options = re.findall(r"^[│ ] (--[a-z-]+)", shown, re.MULTILINE)
    wanted = FIRST[name].split()
    assert options[: len(wanted)] == wanted


@pytest.mark.parametrize("name", [*cli.VERBS, "train stage1"])
def test_an_option_has_one_default(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for entry in help_entries(shown_help(name, capsys, monkeypatch)):
        text = " ".join(entry.split())
        assert not ("Default" in text and "(default:" in text), text
        assert not re.search(r"\(default: ('')?\)", text), text


def option_fields(config: Any) -> Iterator[str]:
    """Names of the fields that are options, those of embedded configurations too."""
    for name, hint in get_type_hints(config, include_extras=True).items():
        marks = getattr(hint, "__metadata__", ())
        if tyro.conf.Suppress in marks or hint is ClassVar:
            continue
        if is_dataclass(get_args(hint)[0] if marks else hint):
            yield from option_fields(get_args(hint)[0])
        else:
            yield name


def help_entries(shown: str) -> list[str]:
    """Arguments of a help page: spelling, two spaces, text. A group has its title, and perhaps a
    description, above a rule.
    """
    entries: list[str] = []
    for group in re.split(r"\n(?:╭─|\s*\n(?= [a-z]))", shown)[1:]:
        rows = [line.strip("│").rstrip() for line in group.splitlines()]
        rules = [n for n, row in enumerate(rows) if re.fullmatch(r" +[-─]+", row)]
        for row in rows[rules[-1] + 1 if rules else 1 :]:
            if re.match(r" {1,2}\S", row):
                entries.append(row.strip())
            elif row.strip():
                entries[-1] += "  " + row.strip()
    return entries


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("evla x", "no command 'evla'; did you mean `lfpc eval`? (`lfpc --help` lists them)"),
        ("nonsense", "no command 'nonsense' (`lfpc --help` lists them)"),
    ],
)
def test_a_mistyped_verb_gets_the_nearest(capsys: Capture, words: str, says: str) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(words.split())
    assert left.value.code == 2
    assert capsys.readouterr().err == f"lfpc: {says}\n"


def test_the_help_spells_what_a_person_types(capsys: Capture) -> None:
    for words in ("eval", "select", "train", "train stage1", "data import"):
        with pytest.raises(SystemExit):
            cli.main([*words.split(), "--help"])
        shown = capsys.readouterr().out
        assert not re.search(r"\{?None\}?\||--no-no-", shown), words
        assert ("Examples:" in shown) == (words != "train stage1")
    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    shown = capsys.readouterr().out
    assert all(f"  {name}: " in shown for name in PRESETS)


@pytest.mark.parametrize(
    ("verb", "words", "config"),
    [
        (story.Demo, [], DemoConfig()),
        (story.MiniPretrain, [], PretrainConfig()),
        (story.MiniPretrain, ["--hit", "0.5"], PretrainConfig(hit=0.5)),
        (Select, ["in", "--out", "out"], SelectConfig()),
        (
            Select,
            ["in", "--out", "out", "--ladder", "64", "16", "--every-level"],
            SelectConfig(ladder=(64, 16), every_level=True),
        ),
        (data.DataMix, ["in", "out"], MixConfig()),
        (
            data.DataMix,
            ["in", "out", "--parts", "a=3", "b=all"],
            MixConfig(parts=(MixPart("a", 3), MixPart("b", None))),
        ),
    ],
)
def test_a_verb_asks_for_the_configuration_it_embeds(
    verb: Any, words: list[str], config: object
) -> None:
    assert tyro.cli(verb, args=words).config == config


def test_words_of_an_import_become_its_configuration() -> None:
    words = "table src out --map question=q answer=a.b --root r1 r2 --option-seed 3 --link"
    found = tyro.cli(data.DataImport, args=words.split())
    assert found.out == Path("out")
    assert ImportConfig(**fields_of(ImportConfig, found)) == ImportConfig(
        format="table",
        src=Path("src"),
        roots=(Path("r1"), Path("r2")),
        columns={"question": "q", "answer": "a.b"},
        seed=3,
        link=True,
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("data import table src out --map question", "--map takes FIELD=COLUMN"),
        ("data mix in out --parts a", "--parts takes NAME=COUNT or NAME=all; got a"),
        ("data mix in out --parts a=few", "--parts a=few: COUNT must be a number above 0, or all"),
        ("demo --questions 0", "--questions must be at least 1, got 0"),
        (
            "select in --out out --ladder 4 16",
            "--ladder must be at least two falling positive",
        ),
    ],
)
def test_a_value_that_a_configuration_refuses_is_one_sentence(
    capsys: Capture, words: str, says: str
) -> None:
    assert cli.main(words.split()) == 1
    heard = capsys.readouterr().err
    assert says in heard
    assert len(heard.splitlines()) == 1


@pytest.mark.parametrize(
    ("modules", "slow"),
    [
        ("lfpc.cli", {"numpy", "PIL", "pyarrow", "pydantic", "starlette", "torch"}),
        (
            "lfpc.cli, lfpc.evaluation.run, lfpc.published.index",
            {"torch", "transformers", "openai", "pyarrow"},
        ),
        (
            "lfpc.cli, lfpc.storage.runs, lfpc.policies.human, lfpc.policies.scripted, "
            "lfpc.data.check",
            {"torch", "transformers", "matplotlib", "scipy"},
        ),
    ],
)
def test_help_lists_every_verb_without_loading_slow_libraries(
    tmp_path: Path, modules: str, slow: set[str]
) -> None:
    code = (
        f"import sys, {modules}\n"
        "try: lfpc.cli.main(['--help'])\n"
        f"finally: print('SLOW', sorted({slow} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert "SLOW []" in done.stdout
    assert all(name in done.stdout for name in cli.VERBS)


@pytest.mark.slow
def test_the_module_is_the_command(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lfpc", "data", "check", "nowhere"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert done.stderr == (
        "lfpc: nowhere: no such folder (a samples folder holds samples.jsonl beside its pictures)\n"
    )


def test_a_sound_folder_passes_and_a_bad_one_lists_its_problems(
    tmp_path: Path, capsys: Capture, sample: Callable[..., Sample]
) -> None:
    good = write_samples(
        [sample(id="a"), sample(id="b", question="Which number?")], tmp_path
    ).parent
    assert cli.main(["data", "check", str(good)]) == 0
    assert capsys.readouterr().out == f"{good}: 2 samples, all usable\n"
    bad = write_samples(
        [sample(id="a"), sample(id="b", image=tmp_path / "gone.png")], tmp_path / "bad"
    ).parent
    assert cli.main(["data", "check", str(bad)]) == 1
    heard = capsys.readouterr()
    assert heard.out == f"sample 'b': {tmp_path / 'gone.png'}: no such picture\n"
    assert heard.err == f"lfpc: {bad}: 1 of 2 samples are unusable\n"


@pytest.mark.parametrize("ending", [EOFError, KeyboardInterrupt])
def test_play_asks_judges_and_ends_cleanly(
    tmp_path: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
    sample: Callable[..., Sample],
    ending: type[BaseException],
) -> None:
    folder = write_samples([sample(id=name) for name in "abc"], tmp_path).parent
    typed = iter(["0 0 28 28", "k", "L"])

    def read(_: str) -> str:
        for line in typed:
            return line
        raise ending

    monkeypatch.setattr(
        human.HumanPolicy.__init__, "__kwdefaults__", {"read": read, "write": print}
    )
    assert cli.main(["play", str(folder), "--out", str(tmp_path / "shown"), "--budget", "16"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "Right." in lines
    assert "Wrong: the answer is K." in lines
    assert lines[0] == "Ctrl-C ends the game."
    assert lines[-1] == f"1 of 2 right; the pictures are in {tmp_path / 'shown'}"


def test_play_refuses_numbers_below_one(tmp_path: Path, capsys: Capture) -> None:
    assert cli.main(["play", str(tmp_path), "--budget", "0"]) == 1
    assert capsys.readouterr().err == "lfpc: --budget must be at least 1, got 0\n"


def test_every_verb_has_examples_that_parse() -> None:
    from lfpc.training.options import parsed
    from lfpc.training.presets import preset

    for name, verb in cli.VERBS.items():
        examples = getattr(verb, "EXAMPLES", ())
        assert examples or name.startswith("mini "), name
        for line in examples:
            words = shlex.split(line.partition(" > ")[0])[1:]
            found = cli._parse(words)
            if isinstance(found, Train):
                parsed(preset(found.preset), found.options, prog="lfpc train")
            else:
                assert isinstance(found, (verb, *cli.VERBS.values()))


@pytest.mark.parametrize(
    ("words", "hint"),
    [("data chek", "lfpc data check"), ("mini galery", "lfpc mini gallery"), ("evl", "lfpc eval")],
)
def test_a_mistyped_verb_has_a_hint_also_within_its_group(
    capsys: Capture, words: str, hint: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(words.split())
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert f"no command {words!r}; did you mean `{hint}`?" in said
    assert len(said.splitlines()) == 1


@pytest.mark.slow
def test_a_wrong_checkpoint_is_found_out_before_torch_is_imported(tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    Image.new("RGB", (56, 56)).save(picture)
    sample = Sample(id="a", image=picture, question="?", answer="x", budget=4)
    write_samples([sample], tmp_path / "data")
    for words in (
        ["eval", "data", "--checkpoint", "nowhere", "--out", "out/eval"],
        ["ask", "a.png", "?", "--checkpoint", "nowhere", "--engine", "vllm"],
        ["train", "stage1", "--data", "data", "--init", "nowhere", "--out", "out/train"],
    ):
        code = (
            f"import sys, lfpc.cli\nprint(lfpc.cli.main({words}))\n"
            "print('TORCH', 'torch' in sys.modules)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
        )
        assert done.stdout == "1\nTORCH False\n", done.stderr
        assert "nowhere: no such folder" in done.stderr


def test_a_reader_that_leaves_early_gets_no_error(tmp_path: Path) -> None:
    command = f"{sys.executable} -m lfpc eval --help | head -n 1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, cwd=tmp_path)
    assert (len(done.stdout.splitlines()), done.stderr) == (1, "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("train --data x stage1", "name the preset first: lfpc train PRESET [options]"),
        ("mini scenes out --count 0", "--count must be at least 1, got 0"),
    ],
)
def test_words_in_the_wrong_order_or_of_no_use_get_a_sentence(capsys: Capture, words, said):
    assert cli.main(words.split()) == 1
    assert said in capsys.readouterr().err
