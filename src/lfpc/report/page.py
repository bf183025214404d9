"""The report: a folder with pages that open from disk, their pictures, and nothing from the
network.

index.html       tables, figures, configurations of the runs; each number links to its episodes
episodes.html    every episode, see `lfpc.report.browser`
figures, tables  the same as SVG and CSV, Markdown and LaTeX
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lfpc.errors import ConfigError, RunError
from lfpc.evaluation.incomplete import shortfall_lines
from lfpc.evaluation.results import comparisons
from lfpc.evaluation.terminal import truncation_lines
from lfpc.report import canvas
from lfpc.report.browser import episode_sets, pick_questions, write_browser
from lfpc.report.cells import Table, conditions
from lfpc.report.charts import config_table, data_figures, result_figures
from lfpc.report.curves import training_figures
from lfpc.report.evidence import Evidence
from lfpc.report.exports import write_exports
from lfpc.report.head import example_of, facts_of, head_of, progress_of, resolution_note
from lfpc.report.names import results_namer
from lfpc.report.pages import copy_static, templates, typed
from lfpc.report.pictures import PictureFiles
from lfpc.report.tables import page_tables
from lfpc.training.presets import PRESETS
from lfpc.training.statistics import ALARM_TEXTS

SHOWN = 200
"""Default number of questions with pictures."""


MOST_ROWS = 20
"""Maximum rows of an open table, but for the first and the main results."""
BESIDE = 500
"""Maximum height of the two figures that stand beside the first, in SVG units."""
KEPT = ("samples.jsonl", "results.json", "config.json", "episodes.jsonl")
"""Files of other commands, beside which no report is written."""


def write_report(
    out: Path,
    evidence: Evidence,
    *,
    title: str,
    notes: Sequence[str] = (),
    first: Sequence[Table] = (),
    shown: int = SHOWN,
    live: bool = False,
    arms: Mapping[str, str] = MappingProxyType({}),
) -> Path:
    """Write the pages and their files into `out`; returns the path of `index.html`.

    Args:
        out: folder; made if needed, files of an earlier report are replaced.
        evidence: content of the report.
        title: title of the page.
        notes: paragraphs below the title, which define what the page names.
        first: tables above those of the results.
        shown: number of questions with pictures, drawn from all kinds; the others have their texts.
        live: whether the page follows unfinished runs.
        arms: what arms are that are no presets, or differ from one.
    Raises:
        RunError: the folder holds a run or samples, or cannot be written.
        ConfigError: `shown` is negative.
    """
    if shown < 0:
        raise ConfigError(f"`pictures` must be at least 0, got {shown}")
    _check_folder(out)
    results = {"questions": 0, "seeds": [], "conditions": {}, **evidence.results}
    between_runs = comparisons(evidence.records, planned=evidence.run_comparisons)
    tables = [*first, *page_tables(results, between_runs)]
    folded = {
        table.name
        for table in tables[1:]
        if len(table.rows) > MOST_ROWS and table.name != "accuracy"
    }
    curves = training_figures(evidence.curves)
    charts = result_figures(results)
    series = dict.fromkeys(label for figure in (*charts, *curves) for label in figure.series)
    hues = {label: number for number, label in enumerate(series)}
    data = data_figures(evidence.data)
    ratios = results.get("comparisons", {}).get("ratios", {})
    short, faults = _faults(results)
    shared, runs, differing = config_table(evidence)
    trained = [(arm, seed, len(some)) for (arm, seed), some in evidence.training.items()]
    recorded = {origin.config.get("arm") for origin in evidence.origins.values()}
    presets = PRESETS.keys() & recorded  # a folder may have the name of a preset by chance
    described = {**{arm: PRESETS[arm][0] for arm in presets}, **arms}
    sets = episode_sets(evidence)
    picked = pick_questions(sets, shown)
    try:
        for folder in ("data", "pictures", "figures", "tables"):
            shutil.rmtree(out / folder, ignore_errors=True)
        copy_static(out)
        pictures = PictureFiles(out / "pictures")
        page = (
            templates()
            .get_template("index.html.j2")
            .render(
                title=title,
                facts=facts_of(evidence, results),
                short=short,
                faults=[*faults, *_alarm_lines(evidence)],
                head=head_of(results),
                example=example_of(evidence, results, sets, picked, pictures),
                tables=tables,
                folded=folded,
                ratios={"visual_tokens": None, "seconds_alone": None, **ratios},
                charts=charts,
                beside=sum(figure.height for figure in charts[1:3]) <= BESIDE,
                hues=hues,
                curves=curves,
                progress=progress_of(evidence),
                resolution=resolution_note(evidence),
                data=data,
                canvas=canvas,
                shared=shared,
                runs=runs,
                differing=differing,
                trained=trained,
                episodes=sum(len(one.own) for one in sets),
                notes=notes,
                arms={arm: described[arm] for arm in results["conditions"] if arm in described},
                live=live,
            )
        )
        write_exports(out, tables, [*charts, *curves, *data], hues)
        write_browser(out, evidence, pictures, picked)
        browser = templates().get_template("episodes.html.j2").render(title=title, alone=False)
        for name, text in (("episodes.html", browser), ("index.html", page)):
            (out / name).write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        raise RunError(f"{out}: the report cannot be written: {error.strerror or error}") from error
    return out / "index.html"


def _faults(results: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Lines about questions that failed, are undecided or were not asked; and about replies that
    the token limit ended.
    """
    name = results_namer(results)
    short: list[str] = []
    faults: list[str] = []
    for arm, budget, found in conditions(results):
        rows = {"own": found["summary"], **found["probes"]}
        named = {f"{name(arm, budget)}, {probe}": row for probe, row in rows.items()}
        short += shortfall_lines({key: row["incomplete"] for key, row in named.items()})
        faults += truncation_lines({key: row["truncated"] for key, row in named.items()})
    missing = {key: one for key, one in results.get("incomplete", {}).items() if one["missing"]}
    return short + shortfall_lines(missing), [typed(line) for line in faults]


def _alarm_lines(evidence: Evidence) -> list[str]:
    """A line per training run and alarm: its text, the number of steps and the first of them."""
    several = len({seed for _, seed in evidence.alarms}) > 1
    lines: list[str] = []
    for (arm, seed), steps in evidence.alarms.items():
        name = ", ".join([*([arm] if arm else []), *([f"seed {seed}"] if several else [])])
        for code in dict.fromkeys(code for codes in steps for code in codes):
            raised = [n for n, codes in enumerate(steps, 1) if code in codes]
            lines.append(
                f"Alarm in training{f' ({name})' if name else ''}: {ALARM_TEXTS.get(code, code)}; "
                f"in {len(raised)} of {len(steps)} steps, first in step {raised[0]}"
            )
    return lines


def _check_folder(out: Path) -> None:
    """Raises: RunError: `out` is a file, or holds what another command wrote."""
    if out.exists() and not out.is_dir():
        raise RunError(f"{out}: the report cannot be written: it is a file; name a folder")
    for name in KEPT:
        if (out / name).exists():
            raise RunError(
                f"{out} holds {name} of another command, and a report replaces folders such as "
                f"data and pictures; name a new folder, such as {out / 'report'}"
            )
