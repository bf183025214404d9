"""The demo: data, selection, three runs of reinforcement learning, evaluation, probes, one page.

Every part stores its result and is not repeated, so an interrupted demo can resume.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.resources import files
from pathlib import Path

from tqdm import tqdm

from lfpc.episode import Game, Policy, episode
from lfpc.errors import CheckpointError
from lfpc.evaluation.places import Known
from lfpc.evaluation.probes import OWN, PROBES
from lfpc.evaluation.protocol import prompt_hash
from lfpc.evaluation.run import first_view
from lfpc.evaluation.stored import update_results
from lfpc.evaluation.timing import read_timings, time_by_turns, write_timings
from lfpc.looks import original_look
from lfpc.metrics.summary import Records
from lfpc.mini.config import ABLATIONS, CONTINUED, CONTROLS, DemoConfig, StudyConfig
from lfpc.mini.folders import BASE_SETTINGS, CROPS, write_split
from lfpc.mini.trials import Asked, Probes, Trials, last_checkpoint, miniature
from lfpc.playing.driver import Start
from lfpc.policies.identity import model_identity
from lfpc.policies.loading import load_policy
from lfpc.policies.qwen.checkpoint import load_checkpoint
from lfpc.policies.sampling import Sampling
from lfpc.policies.transformers import TransformersPolicy
from lfpc.protocols import PROTOCOLS
from lfpc.report.markup import results_markdown
from lfpc.report.page import write_report
from lfpc.report.reading import read_runs
from lfpc.report.strip import episode_strip
from lfpc.run_samples import sample_hashes
from lfpc.samples import SAMPLES_FILE, Sample, read_samples, write_samples
from lfpc.selection.config import SelectConfig
from lfpc.selection.run import select
from lfpc.storage.files import FolderLock, write_text
from lfpc.storage.runs import Kind, check_formats, check_run
from lfpc.training.config import TrainConfig
from lfpc.training.presets import preset
from lfpc.training.state import checkpoint_folder

PROBES_BY_BUDGET: Probes = {
    "small": ("own", "noise", "repeat", "truth", "other", "none"),
    "full": ("own", "noise"),
}
"""Probes of the first seed's arms, by budget."""
FURTHER_PROBES: Probes = {"small": ("own", "noise"), "full": ("own", "noise")}
"""Probes of the other seeds, and of the controls."""
ABLATION_PROBES: Probes = {"small": ("own", "noise")}
"""Probes of the ablations, for their rows of the table."""
PROTOCOL = PROTOCOLS["qwen2_5_vl"]
SELECTED = "selected"
"""Folder of a split's samples with their budgets, inside the split."""
TABLE_FILE = "table.md"
MAX_TURNS = BASE_SETTINGS.max_turns
MAX_NEW_TOKENS = BASE_SETTINGS.max_new_tokens


def base_checkpoint() -> Path:
    """The base checkpoint in the package.

    Raises:
        CheckpointError: this copy of the package was built without it.
    """
    folder = Path(str(files("lfpc.mini") / "checkpoint"))
    if not (folder / "config.json").is_file():
        raise CheckpointError(
            f"{folder}: no base checkpoint; make it with `lfpc mini pretrain --out {folder}`"
        )
    return folder


def demo(config: DemoConfig, *, progress: bool = True) -> Path:
    """Run the missing parts of the demo. Returns the page; `results.json` is two folders up.

    Raises:
        RunError: another process writes in `config.out`.
    """
    with FolderLock(config.out):
        return _demo(config, progress=progress)


def _demo(config: DemoConfig, *, progress: bool) -> Path:
    base = config.base or base_checkpoint()
    data = config.out / "data"
    train_folder, hard_folder = data / "train", data / "hard"
    chosen = (train_folder / SELECTED, hard_folder / SELECTED)
    runs = {
        (arm, seed): run_config(arm, seed, config, *chosen, base)
        for seed in range(config.seeds)
        for arm in config.arms
    }
    check_formats(config.out)
    for run in runs.values():  # before anything is written
        check_run(run.out, Kind.TRAIN, run, inputs={"prompts": prompt_hash(run.chat)})
    _print("data and resolution selection", progress)
    select_budgets(data, "train", config.train_samples, base, config, progress=progress)
    select_budgets(data, "hard", config.hard_samples, base, config, progress=progress)
    questions = write_split(data / config.split, config.split, config.asked)
    _print(f"train and evaluate {', '.join(config.arms)}", progress)
    trials = _trials(runs, config)
    known = trials.run(questions, config.parallel, label="lfpc demo", progress=progress)
    _print("seconds per question, one at a time", progress)
    _time(trials, questions)
    stage2 = next(one for one in trials.asked if (one.arm, one.seed) == ("stage2", 0))
    return _write(config, known, known[trials.place(stage2, "small") / OWN])


def _trials(runs: Mapping[tuple[str, int], TrainConfig], config: DemoConfig) -> Trials:
    ordered = sorted(runs.items(), key=lambda item: item[0][0] in ABLATIONS)
    return Trials(
        out=config.out,
        budgets={"small": config.small, "full": config.full},
        runs=dict(ordered),
        parents=CONTINUED,
        asked=[
            Asked(
                arm=arm,
                seed=seed,
                checkpoint=last_checkpoint(run),
                probes=_probes(arm, seed),
                after=arm,
            )
            for (arm, seed), run in runs.items()
        ],
    )


def _probes(arm: str, seed: int) -> Probes:
    """Probes by budget."""
    if arm in ABLATIONS:
        return ABLATION_PROBES
    return FURTHER_PROBES if seed or arm in CONTROLS else PROBES_BY_BUDGET


def _time(trials: Trials, questions: Sequence[Sample]) -> None:
    """Measure seconds per question with the first seed's models, one question at a time and the
    models by turns. All are measured again if one is missing.
    """
    first = [one for one in trials.asked if one.seed == 0]
    places = {
        (one.arm, budget): trials.place(one, budget) for one in first for budget in one.probes
    }
    if all(map(read_timings, places.values())):
        return
    look = PROBES[OWN](questions, CROPS, 0)

    def start(budget: int | None, sample: Sample) -> Game:
        view = first_view(sample, budget, factor=PROTOCOL.factor)
        return episode(sample, view, look=look, protocol=PROTOCOL, max_turns=MAX_TURNS)

    asked = dict[tuple[str, str], tuple[Policy, Start]]()
    for one in first:
        policy = load_policy(trials.evaluation(one, "small", OWN))
        for budget in one.probes:
            asked[one.arm, budget] = policy, partial(start, trials.budgets[budget])
    for cell, timing in time_by_turns(questions, asked, questions=15).items():
        write_timings(places[cell], [timing])


def run_config(
    arm: str, seed: int, config: DemoConfig, train_folder: Path, hard_folder: Path, base: Path
) -> TrainConfig:
    """The training configuration of `arm`: its preset, at the miniature's size."""
    parent = CONTINUED.get(arm)
    return replace(
        miniature(preset(arm)),
        data=hard_folder if parent and arm != "stage2-easy-data" else train_folder,
        init=checkpoint_folder(config.out / f"seed{seed}" / parent, config.steps)
        if parent
        else base,
        out=config.out / f"seed{seed}" / arm,
        original_budget=config.full,
        fixed_budget=config.small,
        steps=config.stage2_steps if parent else config.steps,
        learning_rate=config.learning_rate,
        temperature=config.temperature,
        seed=seed,
    )


def select_budgets(
    data: Path,
    split: str,
    count: int,
    base: Path,
    config: DemoConfig | StudyConfig,
    *,
    progress: bool,
) -> Path:
    """Write a split below `data`, and a samples folder of it with budgets selected by the base
    model. Returns that folder.
    """
    folder = data / split
    chosen = folder / SELECTED
    samples = write_split(folder, split, count)
    sampling = Sampling(max_new_tokens=MAX_NEW_TOKENS)
    rules = SelectConfig(
        ladder=config.ladder, model=str(base), protocol=PROTOCOL.name, sampling=sampling
    )
    inputs = model_identity(str(base))
    check_run(chosen, Kind.SELECTION, rules, inputs=inputs)
    if not _is_selected(chosen, samples):
        model, tokenizer = load_checkpoint(base)
        policy = TransformersPolicy(model, tokenizer, PROTOCOL, sampling=sampling, tools=False)
        found = select(
            samples,
            policy,
            protocol=PROTOCOL,
            config=rules,
            out=chosen,
            inputs=inputs,
            progress=progress,
        )
        write_samples(found.samples, chosen)
    return chosen


def _is_selected(chosen: Path, samples: Sequence[Sample]) -> bool:
    """Whether `chosen` has the budgets of these samples."""
    there = read_samples(chosen) if (chosen / SAMPLES_FILE).is_file() else []
    hashes = sample_hashes([replace(sample, budget=None) for sample in there])
    return hashes == sample_hashes(samples)


def _write(config: DemoConfig, known: Known, pictured: Records) -> Path:
    results = update_results(config.out, known=known)
    write_text(config.out / TABLE_FILE, results_markdown(results))
    _picture(pictured, config.out / "episode.png")
    return write_report(
        config.out / "report",
        read_runs([config.out]),
        title="LFPC in miniature",
        notes=[
            "An arm is a trained policy; every arm starts from the same base checkpoint. A budget "
            f"is the visual tokens of the first view: small {config.small}, full {config.full}. "
            "Crops always come from the original."
        ],
    )


def _picture(records: Records, file: Path) -> None:
    """Draw the first question about a mark with a right answer after a crop."""
    for record in records:
        if record.correct and record.crops and record.sample.category == "attribute":
            episode_strip(record, original_look(CROPS)).save(file)
            return


def _print(what: str, progress: bool) -> None:
    if progress:
        tqdm.write(f"[lfpc demo] {what}", file=sys.stderr)
