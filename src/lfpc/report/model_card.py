"""A model card for the hub: base, data, settings, and results with intervals and crop dependence,
read from the folders of a training run and its evaluations.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lfpc
from lfpc.errors import CheckpointError, RunError
from lfpc.evaluation.places import Place, find_places, study_records
from lfpc.evaluation.results import lost
from lfpc.evaluation.stored import fresh_results, results_of
from lfpc.evaluation.verdict import verdict_lines
from lfpc.policies.identity import WEIGHTS, checkpoint_identity
from lfpc.policies.settings import SETTINGS_FILE, read_settings, there
from lfpc.report.cells import conditions, interval_text
from lfpc.report.markup import markdown
from lfpc.report.numbers import number, percent, points
from lfpc.storage.files import write_text
from lfpc.storage.runs import Kind, is_run, read_run
from lfpc.storage.typed import plain

TRAINING = (
    "steps",
    "prompts_per_step",
    "group_size",
    "first_view",
    "fixed_budget",
    "learning_rate",
    "temperature",
    "reward",
    "lora",
    "seed",
)
"""Fields of a training configuration that the card lists."""


def model_card(checkpoint: Path, evaluations: Sequence[Path] = (), *, title: str = "") -> str:
    """The card of `checkpoint` as Markdown.

    Args:
        checkpoint: a folder that `lfpc train` wrote.
        evaluations: folders that `lfpc eval` wrote.
        title: heading; empty: the names of run and checkpoint.
    Raises:
        CheckpointError: no `lfpc.json`, or an unreadable one.
        RunError: no evaluation at or below a folder, an unreadable one, or one of other weights.
    """
    settings = read_settings(there(checkpoint))
    if settings is None:
        raise CheckpointError(
            f"{checkpoint} has no {SETTINGS_FILE}; name a checkpoint that lfpc train wrote"
        )
    places = {folder: list(find_places(folder).values()) for folder in evaluations}
    _check_weights(checkpoint, [place for some in places.values() for place in some])
    trained = _training(checkpoint)
    run = checkpoint.resolve().parent.parent.name
    parts = [
        "---\nlibrary_name: transformers\npipeline_tag: image-text-to-text\ntags: [lfpc]\n---\n",
        f"# {title or f'{run}, {checkpoint.name}'}\n",
        "A vision-language model that asks for crops, trained with LFPC, an open implementation of "
        '"Learning to Focus and Precise Cropping" ([arXiv 2603.27494]'
        "(https://arxiv.org/abs/2603.27494)).\n",
        "## Training\n" if trained else "",
        markdown(("setting", "value"), _cells(trained), left=2) if trained else "",
        "## Use\n",
        f"`lfpc eval`, `ask` and `serve` read the settings of training from `{SETTINGS_FILE}`.\n",
        markdown(("setting", "value"), _cells(plain(settings)), left=2),
        *(_results(folder, some) for folder, some in places.items()),
        "## Limits\n",
        "Accuracy does not say whether the model looks; the verdicts on crops do. Intervals are at "
        "95 % over pictures, of one training run unless several seeds are named.\n",
        f"Written by lfpc {lfpc.__version__}.\n",
    ]
    return "\n".join(part for part in parts if part)


def write_model_card(file: Path, card: str) -> Path:
    """Write the card.

    Raises:
        RunError: the file exists, or cannot be written.
    """
    if file.exists():
        raise RunError(f"{file} exists already; delete it or name another --out")
    write_text(file, card)
    return file


def _training(checkpoint: Path) -> dict[str, Any]:
    """Base, data and settings of the run that the checkpoint is in; empty outside of one."""
    folder = checkpoint.resolve().parent.parent
    if not is_run(folder) or (run := read_run(folder)).kind != Kind.TRAIN:
        return {}
    found = {"base": _name(run.config.get("init")), "data": _name(run.config.get("data"))}
    return found | {name: run.config[name] for name in TRAINING if name in run.config}


def _name(path: Any) -> str:
    """The last two parts of a path: a card shows nothing of the machine."""
    return "/".join(Path(str(path)).parts[-2:])


def _cells(settings: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    for name, value in settings.items():
        if name == "protocol" and isinstance(value, Mapping):
            yield name, f"{value['name']}, on {value['base']} ({SETTINGS_FILE} holds its file)"
        elif isinstance(value, Mapping):
            yield name, ", ".join(f"{key} {one}" for key, one in value.items())
        elif value is not None:
            yield name, str(value)


def _check_weights(checkpoint: Path, places: Sequence[Place]) -> None:
    """Check that the evaluations are of this checkpoint, as far as they know their weights: those
    of a server do not.

    Raises:
        RunError: one is of other weights.
    """
    known = {place.path: place.own for place in places if WEIGHTS in place.own.run.inputs}
    if not known or not (weights := checkpoint_identity(checkpoint).get(WEIGHTS)):
        return
    for folder, own in known.items():
        if own.run.inputs[WEIGHTS] != weights:
            raise RunError(
                f"{folder}: evaluates other weights than those of {checkpoint} (its model was "
                f"{own.config.model}); name evaluations of this checkpoint"
            )


def _evaluated(place: Place) -> str:
    """The model of an evaluation, and whether it is known to be this checkpoint."""
    known = (
        "" if WEIGHTS in place.own.run.inputs else " (by its name; the weights are not recorded)"
    )
    return f"`{_name(place.own.config.model)}`{known}"


def _results(folder: Path, places: Sequence[Place]) -> str:
    results = fresh_results(folder) or results_of(places, study_records(places))
    rows: list[tuple[str, ...]] = []
    verdicts: list[str] = []
    for arm, budget, found in conditions(results):
        name = ", ".join(filter(None, (arm, budget)))
        summary = found["summary"]
        rows.append(
            (
                name,
                number(summary["n"], 0),
                interval_text(found, "accuracy"),
                percent(summary["chance"]),
                points(lost(found, "noise")),
                number(summary["visual_tokens"], 0),
            )
        )
        verdicts += [f"* {name}: {line}" for line in verdict_lines(found)]
    columns = (
        "budget",
        "questions",
        "accuracy",
        "chance",
        "lost under noise, points",
        "visual tokens",
    )
    models = ", ".join(dict.fromkeys(map(_evaluated, places)))
    said = "\n".join(verdicts)
    return (
        f"## Results: {folder.name}\n\nEvaluated: {models}.\n\n"
        + markdown(columns, rows, left=1)
        + (f"\n{said}\n" if said else "")
    )
