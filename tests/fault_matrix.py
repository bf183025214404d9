"""Short commands with a fault at each of their file-system events, each called again to its end.

python fault_matrix.py WORK COMMAND MODE:FIRST:EVERY ...

COMMAND is train, select, eval or import. MODE: killed or refused at an event, or limited, where no
file may reach one of the sizes that the files have in the end. Every EVERY-th place is
tried, from FIRST (0: the first).
Prints {MODE: {"places": number, "tried": number, "bad": [what differed]}} as JSON. A process of its
own, as it forks, which must not happen beside the threads of a test run; one for all modes, as
loading the libraries takes longer than most commands.
"""

import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any

import published
from fault_points import KILLED, forked

from lfpc import cli
from lfpc.rewards import RewardTerms
from lfpc.samples import write_samples
from lfpc.training import trainer

SHORT = ["--max-new-tokens", "4"]
CROPS = ["--crop.min-tokens", "4", "--crop.max-tokens", "16"]
FORGOTTEN = ("seconds", "per_second", "command", "bytes", "created", "files", "git")
"""Beginnings of the keys of a JSON file that may differ between two runs."""


def early_tokens(played: Any, config: Any) -> RewardTerms:
    ids = played.turns[0].reply.token_ids
    return RewardTerms(accuracy=sum(i < 400 for i in ids) / len(ids))


def prepared(work: Path, command: str) -> None:
    """A published file to import, or a checkpoint and a samples folder."""
    if command == "import":
        rows = [
            published.deepeyes_row(i, published.picture_bytes(i, (64, 48) if i % 3 else (9, 9)))
            for i in range(5)
        ]
        published.write_parquet(work / "published" / "d.parquet", rows)
        return
    import tiny  # these import torch

    from lfpc.policies.qwen.checkpoint import load_checkpoint, save_checkpoint

    save_checkpoint(tiny.model(), tiny.tokenizer(), work / "init")
    (work / "data").mkdir()
    write_samples([tiny.sample(work / "data", n, answer=str(n)) for n in range(4)], work / "data")
    load_checkpoint(work / "init")  # what transformers imports on first use
    trainer.episode_reward = early_tokens


def words_of(work: Path, command: str, out: Path) -> list[str]:
    model = ["--checkpoint", str(work / "init"), *SHORT]
    data = str(work / "data")
    match command:
        case "train":
            words = ["train", "stage1", "--data", data, "--init", str(work / "init"), *CROPS]
            words += ["--validation", data, "--validate-every", "2", "--max-turns", "2", *SHORT]
            words += ["--steps", "3", "--save-every", "1", "--keep", "1", "--device", "cpu"]
            words += ["--prompts-per-step", "2", "--group-size", "2", "--learning-rate", "1e-3"]
            return [*words, "--out", str(out)]
        case "select":
            return ["select", data, *model, "--ladder", "16", "9", "4", "--out", str(out)]
        case "eval":
            words = ["eval", data, *model, "--probes", "own", "noise", "--budget", "9"]
            return [*words, "--timed", "0", "--out", str(out)]
        case "import":
            return ["data", "import", "deepeyes", str(work / "published"), str(out)]
    raise ValueError(command)


def end_of(out: Path) -> dict[str, Any]:
    """What a run leaves, without what may differ between two: files by their relative path."""
    found: dict[str, Any] = {}
    for file in sorted(path for path in out.rglob("*") if path.is_file()):
        name = file.relative_to(out).as_posix()
        if name.startswith(("tensorboard", "report")) or file.name in (".lock", "environment.json"):
            continue
        if file.suffix == ".jsonl":
            rows = [_kept(json.loads(line), out) for line in file.read_text().splitlines()]
            found[name] = {row.get("key", row.get("id", row.get("step"))): row for row in rows}
        elif file.suffix == ".json":
            found[name] = _kept(json.loads(file.read_text()), out)
            if file.name == "config.json":
                found[name].pop("id", None)  # drawn anew for every training run
        elif file.suffix != ".pt":
            found[name] = hashlib.sha256(file.read_bytes()).hexdigest()
        else:
            found[name] = "an optimiser"
    return found


def _kept(value: Any, out: Path) -> Any:
    """`value` without times and the name of the run folder."""
    if isinstance(value, dict):
        return {
            key: _kept(inner, out) for key, inner in value.items() if not key.startswith(FORGOTTEN)
        }
    if isinstance(value, list):
        return [_kept(inner, out) for inner in value]
    return value.replace(out.name, "OUT") if isinstance(value, str) else value


def differences(found: Any, wanted: Any, name: str = "") -> list[str]:
    """Names of the values that differ."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        return [
            text
            for key in sorted({*found, *wanted}, key=str)
            for text in differences(found.get(key), wanted.get(key), f"{name}/{key}")
        ]
    return [] if found == wanted else [f"{name} is {found}, not {wanted},"]


def fault_at(
    place: int, mode: str, run: Callable[[], int], out: Path, wanted: dict[str, Any]
) -> str:
    """What is wrong after a fault at `place` and a second call; empty: nothing."""
    if mode == "limited":
        code, _, said = forked(run, out, largest=place)
    else:
        code, _, said = forked(run, out, place, refuse=mode == "refused")
    if mode == "killed":
        if code != KILLED:
            return f"{place}: not killed: {code} {said[-600:]}"
    elif code not in (0, 1) or "Traceback" in said:
        return f"{place}: exit code {code}: {said[-600:]}"
    code, _, said = forked(run, out)
    if code:
        return f"{place}, resumed: exit code {code}: {said[-600:]}"
    different = " ".join(differences(end_of(out), wanted))
    return f"{place}: {different}" if different else ""


def noted(run: Callable[[], int], modules: Path) -> int:
    """The exit code of `run`, after which the names of all modules are in a file."""
    code = run()
    modules.write_text("\n".join(sys.modules))
    return code


def main(work: Path, command: str, modes: list[str]) -> None:
    prepared(work, command)
    whole, modules = work / "run-000", work / "modules"
    run = partial(noted, partial(cli.main, words_of(work, command, whole)), modules)
    code, events, said = forked(run, whole)
    assert code == 0, said
    for name in modules.read_text().split():  # imported once, here, and not by every fork
        with suppress(Exception):
            import_module(name)
    wanted = end_of(whole)
    sizes = {file.stat().st_size for file in whole.rglob("*") if file.is_file()} - {0}
    numbers = count(1)
    found = {}
    for mode, first, every in (words.split(":") for words in modes):
        places = sorted(size - 1 for size in sizes) if mode == "limited" else range(1, events + 1)
        tried = places[int(first) :: int(every)]
        bad = []
        for place in tried:
            out = work / f"run-{next(numbers):03d}"
            run = partial(cli.main, words_of(work, command, out))
            if why := fault_at(place, mode, run, out, wanted):
                bad.append(why)
            shutil.rmtree(out, ignore_errors=True)
        found[mode] = {"places": len(places), "tried": len(tried), "bad": bad}
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
