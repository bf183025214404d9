"""The paper in miniature: data, selection, three runs of reinforcement learning, evaluation,
probes, one page.

Every part leaves its result on disk and is not done again, so an interrupted demo goes on where it
stopped.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from lfpc.errors import CheckpointError, ConfigError
from lfpc.evaluate.config import EvaluationConfig
from lfpc.evaluate.probes import PROBES
from lfpc.evaluate.results import AllRows, Setting, comparisons, demo_results
from lfpc.evaluate.run import evaluate_probe
from lfpc.evaluate.timing import time_questions
from lfpc.looks import original_look
from lfpc.mini.folders import BASE_SETTINGS, CROPS, write_split
from lfpc.playing.jobs import Job, bar_over_files, run_jobs
from lfpc.policies.loading import load_policy
from lfpc.policies.qwen.checkpoint import load_checkpoint
from lfpc.policies.transformers import TransformersPolicy
from lfpc.protocols import PROTOCOLS
from lfpc.report.page import write_report
from lfpc.report.reading import read_runs
from lfpc.report.strip import episode_strip
from lfpc.report.tables import results_markdown
from lfpc.samples import SAMPLES_FILE, Sample, write_samples
from lfpc.select.selection import SelectConfig, select
from lfpc.storage.runs import EPISODES_FILE, METRICS_FILE, RunFolder, write_json
from lfpc.train.config import TrainConfig
from lfpc.train.local import train
from lfpc.train.presets import PRESETS, preset
from lfpc.train.state import checkpoint_folder

ARMS = ("baseline", "stage1", "stage2")
ABLATIONS = ("stage1-fixed-budget", "stage2-easy-data", "stage2-no-l1", "stage2-plain-iou")
SETTINGS: dict[str, tuple[str, ...]] = {
    "small": ("own", "noise", "repeat", "truth", "other", "none"),
    "full": ("own", "noise"),
}
"""Probes at each budget, of the first seed's arms."""
FURTHER_SETTINGS: dict[str, tuple[str, ...]] = {"small": ("own", "noise"), "full": ("own", "noise")}
"""Probes of the other seeds."""
ABLATION_SETTINGS: dict[str, tuple[str, ...]] = {"small": ("own", "noise")}
"""Probes of the ablations: enough for their rows of the table."""
PROTOCOL = PROTOCOLS["qwen2_5_vl"]
TABLE_FILE = "table.md"
MAX_TURNS = BASE_SETTINGS.max_turns
MAX_NEW_TOKENS = BASE_SETTINGS.max_new_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoConfig:
    """The demo's size. Defaults fit a laptop; several seeds are the full version."""

    out: Path = Path("out/demo")
    """Where everything goes."""
    base: Path | None = None
    """Checkpoint to start from; None: the one in the package."""
    seeds: int = 1
    """Training runs per arm, each with another seed."""
    questions: int | None = None
    """Held-out questions; None: 160 with one seed, 500 with several."""
    split: Literal["test", "hard-test", "transfer"] = "hard-test"
    """Scenes the questions are about: those of `hard-test` have smaller marks and more distractors
    than Stage I's."""
    ablations: bool | None = None
    """Whether the paper's ablations run too; None: with several seeds."""
    steps: int = 80
    """Steps of the baseline and of Stage I."""
    stage2_steps: int = 80
    """Further steps of Stage II, from Stage I's checkpoint."""
    train_samples: int = 320
    """Questions the baseline and Stage I learn from."""
    hard_samples: int = 768
    """Boxed hard questions of Stage II."""
    small: int = 25
    """Visual tokens of the small budget."""
    full: int = 256
    """Visual tokens of the full budget: the original's resolution."""
    ladder: tuple[int, ...] = (256, 36, 25)
    """Levels of resolution selection, in visual tokens; the base checkpoint has seen pictures of
    these sizes. Without 64: most hard samples would be trained there, while the small budget is
    `small`."""
    learning_rate: float = 3e-4
    """Of every run, at its highest."""
    temperature: float = 0.6
    """Of sampling in training. The base spreads its corners widely; at 1 their noise drowns what an
    answer could teach."""
    processes: int = field(default_factory=lambda: min(4, os.cpu_count() or 1))
    """Runs trained or evaluated side by side, each with its share of the cores. Small models gain
    nothing from more threads."""

    def __post_init__(self) -> None:
        for name in (
            "seeds",
            "steps",
            "stage2_steps",
            "train_samples",
            "hard_samples",
            "processes",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")

    @property
    def asked(self) -> int:
        """Held-out questions."""
        return self.questions or (160 if self.seeds == 1 else 500)

    @property
    def arms(self) -> tuple[str, ...]:
        """What is trained, in this order."""
        with_ablations = self.seeds > 1 if self.ablations is None else self.ablations
        return ARMS + (ABLATIONS if with_ablations else ())


def base_checkpoint() -> Path:
    """The base checkpoint in the package.

    Raises:
        CheckpointError: this copy of the package was built without it.
    """
    folder = Path(str(files("lfpc.mini") / "checkpoint"))
    if not (folder / "config.json").is_file():
        raise CheckpointError(
            f"{folder}: the base checkpoint is not there; make it with `lfpc mini pretrain "
            f"--out {folder}`"
        )
    return folder


def demo(config: DemoConfig, *, progress: bool = True) -> Path:
    """Run the demo, or what is missing of it. Returns the page; `results.json` lies two folders
    above it.
    """
    base = config.base or base_checkpoint()
    data = config.out / "data"
    _say("data and resolution selection", progress)
    train_folder = _selected(
        data / "train", "train", config.train_samples, base, config, progress=progress
    )
    hard_folder = _selected(
        data / "hard", "hard", config.hard_samples, base, config, progress=progress
    )
    questions = write_split(data / config.split, config.split, config.asked)
    runs = {
        (arm, seed): run_config(arm, seed, config, train_folder, hard_folder, base)
        for seed in range(config.seeds)
        for arm in config.arms
    }
    _say(f"train and evaluate {', '.join(config.arms)}", progress)
    rows = _run_all(runs, questions, config, progress=progress)
    _say("seconds per question, one at a time", progress)
    seconds = {
        (arm, size): _seconds(config, runs, arm, size, questions)
        for arm in config.arms
        for size in _settings(arm, 0)
    }
    curves = {arm: RunFolder(runs[arm, 0].out).metrics() for arm in config.arms}
    return _write(config, rows, seconds, curves, questions)


Run = tuple[str, int]
"""(arm, seed)."""


def _run_all(
    runs: Mapping[Run, TrainConfig],
    questions: Sequence[Sample],
    config: DemoConfig,
    *,
    progress: bool,
) -> AllRows:
    """Train and evaluate every run, side by side; what is on disk already is not done again."""
    jobs: list[Job] = []
    files: dict[Path, tuple[int, float]] = {}
    for (arm, seed), run in sorted(
        runs.items(), key=lambda item: item[0][0] in ABLATIONS
    ):  # the paper's arms first
        parent = ("train", "stage1", seed) if arm.startswith("stage2") else None
        jobs.append(Job(("train", arm, seed), train_quietly, (run,), after=parent))
        jobs.append(
            Job(
                ("evaluate", arm, seed),
                evaluate_run,
                (arm, seed, run, questions, config),
                after=("train", arm, seed),
            )
        )
        files[run.out / METRICS_FILE] = (
            run.steps,
            30.0,
        )  # a step takes about as long as 30 questions
        for size, probes in _settings(arm, seed).items():
            files |= {
                _evaluation(config, arm, seed, size) / probe / EPISODES_FILE: (len(questions), 1.0)
                for probe in probes
            }
    with bar_over_files(files, "lfpc demo", shown=progress) as update:
        results = run_jobs(jobs, config.processes, update)
    rows: dict[Setting, list[dict[str, Any]]] = {}
    for arm, seed in runs:
        rows |= results["evaluate", arm, seed]
    return rows


def train_quietly(run: TrainConfig) -> None:
    """One training run, without a bar of its own."""
    train(run, progress=False)


def evaluate_run(
    arm: str, seed: int, run: TrainConfig, questions: Sequence[Sample], config: DemoConfig
) -> AllRows:
    """Rows of one trained arm at every budget, under every probe."""
    rows: dict[Setting, list[dict[str, Any]]] = {}
    policy = load_policy(_evaluation_config(run, config, "small", "own"))
    for size, probes in _settings(arm, seed).items():
        for probe in probes:
            settings = _evaluation_config(run, config, size, probe)
            folder = _evaluation(config, arm, seed, size) / probe
            rows[arm, size, probe, seed] = evaluate_probe(
                policy,
                questions,
                settings,
                folder,
                extra={"arm": arm, "size": size},
                progress=False,
            )
    return rows


def _evaluation_config(
    run: TrainConfig, config: DemoConfig, size: str, probe: str
) -> EvaluationConfig:
    return EvaluationConfig(
        model=str(checkpoint_folder(run.out, run.steps)),
        budget=config.small if size == "small" else config.full,
        probe=probe,
        crop=CROPS,
        max_turns=MAX_TURNS,
        max_new_tokens=MAX_NEW_TOKENS,
        seed=run.seed,
    )


def _settings(arm: str, seed: int) -> dict[str, tuple[str, ...]]:
    return ABLATION_SETTINGS if arm in ABLATIONS else FURTHER_SETTINGS if seed else SETTINGS


def _evaluation(config: DemoConfig, arm: str, seed: int, size: str) -> Path:
    return config.out / f"seed{seed}" / "evaluate" / arm / size


def _seconds(
    config: DemoConfig,
    runs: Mapping[Run, TrainConfig],
    arm: str,
    size: str,
    questions: Sequence[Sample],
) -> float:
    """Seconds per question, asked one at a time of the first seed's model, with nothing else
    running.
    """
    file = _evaluation(config, arm, 0, size) / "seconds.json"
    if not file.is_file():
        settings = _evaluation_config(runs[arm, 0], config, size, "own")
        look = PROBES["own"](questions, CROPS, 0)
        policy = load_policy(settings)
        found = time_questions(
            questions,
            policy,
            protocol=PROTOCOL,
            budget=settings.budget,
            look=look,
            max_turns=MAX_TURNS,
            questions=15,
        )
        write_json(file, found.median)
    return float(json.loads(file.read_text()))


def run_config(
    arm: str, seed: int, config: DemoConfig, train_folder: Path, hard_folder: Path, base: Path
) -> TrainConfig:
    """The row of the experiment table that `arm` is: its preset, at the miniature's size."""
    second = arm.startswith("stage2")
    return replace(
        preset(arm),
        data=hard_folder if second and arm != "stage2-easy-data" else train_folder,
        init=checkpoint_folder(config.out / f"seed{seed}" / "stage1", config.steps)
        if second
        else base,
        out=config.out / f"seed{seed}" / arm,
        original_budget=config.full,
        fixed_budget=config.small,
        crop=CROPS,
        max_turns=MAX_TURNS,
        steps=config.stage2_steps if second else config.steps,
        prompts_per_step=16,
        learning_rate=config.learning_rate,
        warmup=5,
        decay=True,
        temperature=config.temperature,
        freeze_vision=True,
        max_new_tokens=MAX_NEW_TOKENS,
        save_every=10,
        seed=seed,
    )


def _selected(
    folder: Path, split: str, count: int, base: Path, config: DemoConfig, *, progress: bool
) -> Path:
    """The split with budgets chosen by the base model, as a samples folder beside its pictures."""
    chosen = folder / "selected"
    samples = write_split(folder, split, count)
    if not (chosen / SAMPLES_FILE).is_file():
        model, tokenizer = load_checkpoint(base)
        policy = TransformersPolicy(
            model, tokenizer, PROTOCOL, temperature=0.0, max_new_tokens=MAX_NEW_TOKENS, tools=False
        )
        rules = SelectConfig(ladder=config.ladder, model=str(base), never="keep", wrong="keep")
        found = select(
            samples, policy, protocol=PROTOCOL, config=rules, out=chosen, progress=progress
        )
        write_samples(found.samples, chosen)
    return chosen


def _write(
    config: DemoConfig,
    rows: AllRows,
    seconds: dict[tuple[str, str], float],
    curves: Mapping[str, Sequence[dict[str, Any]]],
    questions: Sequence[Sample],
) -> Path:
    results = demo_results(rows, seconds)
    compared = comparisons(rows, seconds)
    ablations = {arm: results["arms"].pop(arm) for arm in ABLATIONS if arm in results["arms"]}
    write_json(
        config.out / "results.json", {**results, "ablations": ablations, "comparisons": compared}
    )
    every = {**results, "arms": results["arms"] | ablations}
    (config.out / TABLE_FILE).write_text(results_markdown(every, compared), encoding="utf-8")
    _picture(rows["stage2", "small", "own", 0], questions, config.out / "episode.png")
    return write_report(
        config.out / "report",
        replace(read_runs([config.out]), rows=rows, seconds=seconds, curves=curves),
        title="LFPC in miniature",
        results=every,
        compared=compared,
        notes=[
            f"{len(questions)} held-out questions, {config.seeds} training seed(s), "
            f"{config.small} against {config.full} visual tokens. "
            "Crops always come from the original. Every arm starts from the same base checkpoint.",
            *(f"{arm}: {PRESETS[arm][0]}" for arm in config.arms),
        ],
    )


def _picture(rows: Sequence[Mapping[str, Any]], questions: Sequence[Sample], file: Path) -> None:
    """The first question about a mark that was answered rightly after a crop, as one picture."""
    by_id = {sample.id: sample for sample in questions}
    for row in rows:
        if row["correct"] and row.get("crops") and row["category"] == "attribute":
            episode_strip(row, by_id[row["sample"]], original_look(CROPS)).save(file)
            return


def _say(what: str, progress: bool) -> None:
    if progress:
        tqdm.write(f"[lfpc demo] {what}", file=sys.stderr)
