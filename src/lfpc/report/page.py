"""The report: a folder with pages that open from disk, their pictures, and nothing from the
network.

index.html       tables, figures, configurations of the runs; each number links to its episodes
episodes.html    every episode, see `lfpc.report.browser`
figures, tables  the same as SVG and CSV, Markdown and LaTeX
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from lfpc.errors import ConfigError, RunError
from lfpc.evaluation.incomplete import shortfall_lines
from lfpc.evaluation.results import comparisons
from lfpc.evaluation.terminal import fault_lines
from lfpc.evaluation.verdict import verdict_lines
from lfpc.report import figures
from lfpc.report.browser import episode_sets, write_browser
from lfpc.report.charts import config_table, data_figures, result_figures
from lfpc.report.evidence import Evidence
from lfpc.report.exports import write_exports
from lfpc.report.pages import copy_static, templates
from lfpc.report.pictures import PictureFiles
from lfpc.report.tables import conditions, page_tables

SHOWN = 200
"""Default number of questions with pictures."""


KEPT = ("samples.jsonl", "results.json", "config.json", "episodes.jsonl")
"""Files of other commands, beside which no report is written."""


def write_report(
    out: Path,
    evidence: Evidence,
    *,
    title: str,
    notes: Sequence[str] = (),
    shown: int = SHOWN,
    live: bool = False,
) -> Path:
    """Write the pages and their files into `out`; returns the path of `index.html`.

    Args:
        out: folder; made if needed, files of an earlier report are replaced.
        evidence: content of the report.
        title: title of the page.
        notes: paragraphs at the end of the page.
        shown: number of questions with pictures, drawn from all kinds; the others have their texts.
        live: whether the page follows unfinished runs.
    Raises:
        RunError: the folder holds a run or samples, or cannot be written.
        ConfigError: `shown` is negative.
    """
    if shown < 0:
        raise ConfigError(f"`pictures` must be at least 0, got {shown}")
    _check_folder(out)
    results = {"questions": 0, "seeds": [], "conditions": {}, **evidence.results}
    between_runs = comparisons(evidence.records, planned=evidence.run_comparisons)
    tables = page_tables(results, between_runs)
    curves = figures.training_figures(evidence.curves)
    charts = result_figures(results)
    data = data_figures(evidence.data)
    ratios = results.get("comparisons", {}).get("ratios", {})
    faults = [
        line
        for arm, budget, found in conditions(results)
        for line in fault_lines(found, f"{arm}, {budget}, ")
    ]
    verdicts = [
        (", ".join(filter(None, (arm, budget))), line)
        for arm, budget, found in conditions(results)
        for line in verdict_lines(found)
    ]
    short = results.get("incomplete", {})
    faults += shortfall_lines({name: one for name, one in short.items() if one["missing"]})
    shared, runs, differing = config_table(evidence)
    trained = [(arm, seed, len(some)) for (arm, seed), some in evidence.training.items()]
    try:
        page = (
            templates()
            .get_template("index.html.j2")
            .render(
                title=title,
                results=results,
                tables=tables,
                faults=faults,
                verdicts=verdicts,
                ratios={"visual_tokens": None, "seconds_alone": None, **ratios},
                charts=charts,
                curves=curves,
                data=data,
                canvas=figures,
                shared=shared,
                runs=runs,
                differing=differing,
                trained=trained,
                episodes=sum(len(one.own) for one in episode_sets(evidence)),
                notes=notes,
                live=live,
            )
        )
        for folder in ("data", "pictures", "figures", "tables"):
            shutil.rmtree(out / folder, ignore_errors=True)
        copy_static(out)
        write_exports(out, tables, [*charts, *curves, *data])
        write_browser(out, evidence, PictureFiles(out / "pictures"), shown=shown)
        browser = templates().get_template("episodes.html.j2").render(title=title, alone=False)
        for name, text in (("episodes.html", browser), ("index.html", page)):
            (out / name).write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        raise RunError(f"{out}: the report cannot be written: {error.strerror or error}") from error
    return out / "index.html"


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
