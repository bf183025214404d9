"""Evaluate and probe a model, compare and rescore its runs. Imports stay inside `run`, see
`lfpc.cli`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from tyro.conf import FlagCreatePairsOff, Positional, arg

from lfpc.cli.model import AskedModel, BackendOptions, several, whole_numbers
from lfpc.cli.typed import as_typed
from lfpc.cli.verb import Verb
from lfpc.errors import ConfigError
from lfpc.evaluation.judge_options import JudgeOptions

if TYPE_CHECKING:
    from lfpc.evaluation.incomplete import Shortfall
    from lfpc.evaluation.plan import Task


@dataclass(frozen=True, kw_only=True)
class Eval(AskedModel):
    """Evaluate a model on a samples folder or on published benchmarks, with its own crops and under
    probes.
    """

    EXAMPLES: ClassVar = (
        "lfpc eval data/test --checkpoint CHECKPOINT --out out/run",
        "lfpc eval --tasks vstar hrbench-4k --data data --base-url http://127.0.0.1:8000/v1 "
        "--model NAME --protocol deepeyes --budget 1024 16384 --out out/deepeyes",
        "lfpc eval data/test --checkpoint CHECKPOINT --temperature 1 --repeats 8 --out out/avg8",
    )

    FIRST: ClassVar = ("tasks", "data", *AskedModel.FIRST, "probes", "no_tool")

    folder: Annotated[Positional[Path | None], arg(metavar="FOLDER")] = None
    """Samples folder; or give --tasks and --data."""
    tasks: Annotated[tuple[str, ...], arg(metavar="TASK [TASK ...]")] = ()
    """Benchmarks: vstar, hrbench-4k, hrbench-8k, visualprobe, treebench, zoombench,
    mme-realworld-lite, samples."""
    data: Path | None = None
    """Folder with one folder of published files per benchmark; see `lfpc data fetch-instructions
    TASK`."""
    work: Path | None = None
    """Folder for pictures extracted from table files, which evaluations may share. Default: inside
    the output folder."""
    out: Path
    """Folder for the records, one folder per task, budget and probe. Questions with a record are
    not asked again."""
    budget: Annotated[tuple[str, ...], arg(metavar="TOKENS [TOKENS ...]")] = ()
    """First-view budgets in visual tokens, one evaluation each. Default: each sample's own; if no
    sample has one, the checkpoint's (lfpc.json), else 16384."""
    probes: Annotated[tuple[str, ...], arg(metavar="PROBE [PROBE ...]")] = ("own", "noise")
    """Probes to run: own (the requested crop) and those of `lfpc probe`."""
    no_tool: FlagCreatePairsOff[bool] = False
    """Also ask without the tool (the probe no-tool): the accuracy that needs no crop."""
    seed: int = 0
    """Seed of noise crops and of the pairing with other pictures."""
    option_seed: int = 0
    """Seed of the order of options, for benchmarks whose own order gives the answer away."""
    timed: int = 0
    """Questions to ask once more, one at a time, to measure seconds per question; 0: none."""
    repeats: int = 1
    """Times to ask every question, each with another sampling seed (Avg@k). More than 1 needs
    --temperature above 0."""
    processes: int | None = None
    """Worker processes that ask a server, each with its share of --concurrency, up to 2 GiB of
    memory and a core to decode and encode pictures. Default: by the size of the pictures, at most
    one per core."""

    def run(self) -> str:
        from lfpc.evaluation.plan import benchmark_task, eval_run, samples_task
        from lfpc.evaluation.probes import NO_TOOL
        from lfpc.evaluation.stored import read_results
        from lfpc.evaluation.terminal import closing_lines, figure_lines
        from lfpc.evaluation.verdict import named_verdicts
        from lfpc.published.benchmarks import benchmark

        names = several(self.tasks)
        data = self.data
        if not several(self.probes):
            raise ConfigError("--probes names none; for the model's own crops alone give own")
        if {bool(names), data is not None} != {self.folder is None}:
            raise ConfigError("give either a samples folder, or --tasks and --data")
        config, backend = self.asked(seed=self.seed)
        budgets = whole_numbers("--budget", self.budget)
        for name in names:
            benchmark(name)  # raises for an unknown name before any benchmark is read
        if self.folder is not None:
            tasks = [samples_task(self.folder)]
        else:
            work = self.work or self.out / "work"
            tasks = [
                benchmark_task(name, data or Path(), work, seed=self.option_seed)
                for name in dict.fromkeys(names)
            ]
        found = eval_run(
            tasks,
            config,
            self.out,
            budgets=budgets or (self._budget(tasks),),
            probes=(*several(self.probes), *([NO_TOOL] if self.no_tool else [])),
            backend=backend,
            timed=self.timed,
            repeats=self.repeats,
            processes=self.processes,
        )
        for result in found:
            print(as_typed("\n".join([f"{result.path}:", *result.lines()])))
        figures = {name: row for result in found for name, row in result.figures.items()}
        incomplete = read_results(self.out)["incomplete"]
        print(as_typed("\n".join(figure_lines(figures, incomplete))))
        places = {one.path.relative_to(self.out).as_posix(): one.condition for one in found}
        if len(found) > 1:
            print("\n".join(closing_lines(places)))
        last = [f"results: {self.out / 'results.json'}", *named_verdicts(places)]
        return _said(last, self.out, {name: incomplete.get(name) for name in figures})

    def _budget(self, tasks: "Sequence[Task]") -> int | None:
        """The default budget; None: each sample's own."""
        from lfpc.evaluation.plan import default_budget
        from lfpc.policies.settings import read_settings

        return default_budget(tasks, self.checkpoint and read_settings(self.checkpoint))


def _said(lines: Sequence[str], where: Path, incomplete: "Mapping[str, Shortfall | None]") -> str:
    """The last lines of a command. If questions lack a verdict, they are printed and the error
    follows.
    """
    from lfpc.evaluation.incomplete import check_complete

    if any(incomplete.values()):
        print("\n".join(lines))
    check_complete(where, incomplete)
    return "\n".join(lines)


DEFAULT_PROBES = ("noise", "truth", "other", "none", "repeat")


@dataclass(frozen=True, kw_only=True)
class Probe(BackendOptions):
    """Probe whether a model uses its crops: ask a run's questions again, with something else shown
    for every crop.

    Model, protocol and sampling are those of the run. A served model is asked at the run's address,
    or at --base-url.
    """

    EXAMPLES: ClassVar = (
        "lfpc probe out/run",
        "lfpc probe out/run --probes noise other --replay",
        "lfpc probe out/run --gain",
        "lfpc probe out/run --search 2 3",
        "lfpc probe out/run --attention",
    )

    FIRST: ClassVar = ("probes", "replay", "draws", "gain", "search", "attention")

    run_folder: Annotated[Positional[Path], arg(metavar="RUN")]
    """Folder that `lfpc eval` wrote. Records and results of the probes go there too; questions with
    a record are not asked again."""
    probes: Annotated[tuple[str, ...], arg(metavar="PROBE [PROBE ...]")] = DEFAULT_PROBES
    """Probes to run: noise, noise-added (to the crop), truth (the true region), truth-wide (padded
    by half), truth-each (one target per call), other (another picture), mean (colour), black, blur,
    random (another place of the picture), whole (the whole picture), none (no picture), no-tool
    (the model is not offered the tool), repeat (the own crop again, to show chance)."""
    replay: bool = False
    """Replay the recorded replies up to the first crop, and ask the model only for the rest.
    Cheaper, and every difference comes from the crop."""
    draws: int = 1
    """Number of seeds for the probes noise, noise-added, other and random; verdicts are averaged
    per question."""
    gain: bool = False
    """Read how likely the right answer is, in place of asking again: the gain of the own crop over
    each probe, in nats. Needs far fewer questions. For checkpoints and vLLM servers."""
    search: Annotated[tuple[str, ...] | None, arg(metavar="[GRID ...]")] = None
    """Search in place of the own crops: show each tile of overlapping grids (2: 2 x 2 tiles) and
    keep the answer that the model is surest of. Without a number: 2 3. For checkpoints and vLLM
    servers. Default: no search."""
    attention: Annotated[tuple[str, ...] | None, arg(metavar="[LAYER ...]")] = None
    """Show the window of the first view that the model attends to most in place of the own crops.
    Numbers are layers of the language model, from 1; without one the 23rd of 36, or as deep. For
    Qwen2.5-VL and Qwen3-VL checkpoints in this process. Default: no such crops."""
    processes: int | None = None
    """Worker processes that ask a server; see `lfpc eval --help`. Default: by the size of the
    pictures, at most one per core."""

    def run(self) -> str:
        from lfpc.evaluation.attention import attend
        from lfpc.evaluation.gain import LOOKS, NoCropError, read_gain
        from lfpc.evaluation.places import find_places
        from lfpc.evaluation.probe import probe_run, recorded_backend
        from lfpc.evaluation.search import GRIDS, search
        from lfpc.evaluation.stored import RESULTS_FILE, names_below, results_root, update_results
        from lfpc.evaluation.terminal import attention_lines, gain_lines, search_lines
        from lfpc.evaluation.verdict import named_verdicts

        grids = whole_numbers("--search", self.search or ()) or list(GRIDS)
        layers = whole_numbers("--attention", self.attention or ())
        options = ("--gain", self.gain), ("--search", self.search), ("--attention", self.attention)
        reads = [option for option, value in options if value not in (False, None)]
        if reads and not self.gain and self.probes != DEFAULT_PROBES:
            raise ConfigError(
                f"{reads[0]} shows regions of its own; give --probes in a second command"
            )
        self._check_options(reads[0] if reads else "")
        root = results_root(self.run_folder)
        found: dict[str, Mapping[str, Any]] = {}
        lacks: dict[str, Shortfall | None] = {}
        places = find_places(self.run_folder)
        without: list[NoCropError] = []
        for name, place in places.items():
            backend = self.backend(self.base_url or recorded_backend(place.path))
            try:
                if self.gain:
                    looks = LOOKS if self.probes == DEFAULT_PROBES else several(self.probes)
                    gain = read_gain(place.path, looks, backend=backend)
                    print(place.path, *gain_lines(gain), sep="\n")
                if self.search is not None:
                    results = search(place.path, grids, backend=backend)
                    lacks[f"{name}/search"] = results["incomplete"]
                    print(place.path, *search_lines(results), sep="\n")
                if self.attention is not None:
                    results = attend(place.path, layers, backend=backend)
                    lacks[f"{name}/attention"] = results["incomplete"]
                    print(place.path, *attention_lines(results), sep="\n")
            except NoCropError as error:  # the other places may have some
                without.append(error)
                if len(without) == len(places):
                    raise
                print(error)
            if reads:
                continue
            result = probe_run(
                place.path,
                several(self.probes),
                replay=self.replay,
                draws=self.draws,
                root=root,
                backend=backend,
                processes=self.processes,
            )
            found[name] = result.condition
            print(as_typed("\n".join([str(place.path), *result.lines()])))
        incomplete = update_results(root)["incomplete"]
        names = names_below(self.run_folder, root)
        last = [f"results: {root / RESULTS_FILE}", *named_verdicts(found)]
        lacks |= {name: incomplete.get(name) for name in names}
        return _said(last, self.run_folder, lacks)

    def _check_options(self, reads: str) -> None:
        """Raise a ConfigError for an option of probes beside the option `reads`, if given."""
        probing = {
            "--replay": self.replay,
            "--draws": self.draws != 1,
            "--processes": self.processes not in (None, 1),
        }
        for option in filter(probing.__getitem__, probing if reads else ()):
            raise ConfigError(f"{option} has no effect with {reads}; leave it out")


@dataclass(frozen=True, kw_only=True)
class Compare:
    """Compare two runs on their common questions: paired differences with intervals, tests and
    their power.
    """

    EXAMPLES: ClassVar = (
        "lfpc compare runs/stage2-test runs/stage1-test",
        "lfpc compare runs/deepeyes runs/other --out out/compared.json",
        "lfpc compare runs/a runs/b --replay",
    )

    run_a: Annotated[Positional[Path], arg(metavar="RUN_A")]
    """Folder that `lfpc eval` (and `lfpc probe`) wrote."""
    run_b: Annotated[Positional[Path], arg(metavar="RUN_B")]
    """Folder of the run to compare it with."""
    replay: bool = False
    """Compare the replayed probes in place of the others."""
    out: Path = Path("out/compare.json")
    """File for the figures."""

    def run(self) -> str:
        from lfpc.evaluation.compare import compare_folders
        from lfpc.evaluation.terminal import compare_lines
        from lfpc.storage.files import write_json

        results = compare_folders(self.run_a, self.run_b, replay=self.replay)
        for name, found in results.items():
            print(*compare_lines(found, (str(self.run_a / name), str(self.run_b / name))), sep="\n")
        self.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.out, results)
        return f"figures: {self.out}"


@dataclass(frozen=True, kw_only=True)
class Rescore(JudgeOptions):
    """Score an evaluation again from its records, without new replies. With --judge, a judge
    decides where no rule can.
    """

    EXAMPLES: ClassVar = (
        "lfpc rescore runs/deepeyes",
        "lfpc rescore runs/deepeyes --judge http://127.0.0.1:8001/v1",
    )

    run_folder: Annotated[Positional[Path], arg(metavar="RUN")]
    """Folder of one or several evaluations; every evaluation at or below it is scored."""

    def run(self) -> str:
        from lfpc.evaluation.incomplete import check_complete
        from lfpc.evaluation.rescore import rescore_run
        from lfpc.evaluation.stored import RESULTS_FILE, read_results, results_root
        from lfpc.evaluation.terminal import figure_lines

        with self.asked_judge(self.run_folder) as judge:
            figures = rescore_run(self.run_folder, judge)
        root = results_root(self.run_folder)
        incomplete = read_results(root)["incomplete"]
        print(as_typed("\n".join(figure_lines(figures, incomplete))))
        check_complete(self.run_folder, {name: incomplete.get(name) for name in figures})
        return f"results: {root / RESULTS_FILE}"


VERBS: dict[str, type[Verb]] = {
    "eval": Eval,
    "probe": Probe,
    "compare": Compare,
    "rescore": Rescore,
}
