"""Results as text tables for a terminal, with shares in percentage points."""

from collections.abc import Mapping, Sequence
from typing import Any

from lfpc.evaluation.attention import attention_rows
from lfpc.evaluation.incomplete import Shortfall, share, shortfall_lines
from lfpc.evaluation.search import search_rows
from lfpc.evaluation.verdict import gain_verdict
from lfpc.metrics.statistics import p_text
from lfpc.metrics.summary import DECIDERS

TRUNCATION = "a reply that the token limit ended (finish reason length); raise `max_new_tokens`"
"""Completes "16 questions have"."""
_FIELD_NAMES = {"seconds": "seconds as played"}
_COSTS = {
    "global_tokens": "visual tokens of the picture",
    "crop_tokens": "of crops",
    "n_turns": "turns",
    "calls": "calls",
}


def probe_lines(condition: Mapping[str, Any]) -> list[str]:
    """`condition_results` as a table with notes."""
    own = condition["summary"]
    lines: list[tuple[str, ...]] = [
        (
            "probe",
            "accuracy",
            "lost, all questions",
            "p (Holm)",
            "lost, tool used",
            "p (Holm)",
            "n, tool",
        ),
        ("own", _percent(own["accuracy"]) + share(own["incomplete"]), "", "", "", "", ""),
    ]
    for probe, found in condition["probes"].items():
        rows = [found["all"], found["tool"]]
        cells = [cell for row in rows for cell in (_points(row), _p(row))]
        used = str(found["tool"]["n"]) if found["tool"] else ""
        accuracy = _percent(found["accuracy"]) + share(found["incomplete"])
        lines.append((probe, accuracy, *cells, used))
    notes = [
        f"tool used on {own['tool_rate']:.0%} of {own['n']} questions; everything in points of "
        f"accuracy, with 95 % intervals"
    ]
    if own["chance"] is not None:
        notes.append(f"chance level (guessing among the options): {_percent(own['chance'])}")
    if own["answered_before_crop"] is not None:
        notes.append(
            f"already answered before the first crop: {own['answered_before_crop']:.0%} of "
            f"{own['answered_before_crop_n']} questions where the text shows it"
        )
    notes += cost_lines(own)
    notes += [
        f"{probe}: {found['all']['power']}"
        for probe, found in condition["probes"].items()
        if found["all"]
    ]
    return [*_columns(lines), *notes, *use_lines(condition), *fault_lines(condition)]


def use_lines(condition: Mapping[str, Any]) -> list[str]:
    """`crop_use` as lines, each a measure with its interval."""
    use = condition.get("use") or {}
    told = {
        "call_gain": "wrong without the tool, right with it: {} of {} questions",
        "call_harm": "right without the tool, wrong with it: {} of {} questions",
        "unlooked": f"same answer with {use.get('swapped')} for the crop: {{}} of {{}} questions "
        f"with a crop",
        "known": f"lost with {use.get('swapped')} for the crop, where the answer is right without "
        f"the tool: {{}} points of {{}} questions",
        "unknown": "where it is wrong without the tool: {} points of {} questions",
    }
    lines: list[str] = []
    for key, text in told.items():
        if row := use.get(key):
            size = _percent_interval(row) if "share" in row else _points(row)
            lines.append(text.format(size, row["n"]))
    return lines


def _percent_interval(row: Mapping[str, Any]) -> str:
    return f"{100 * row['share']:.1f} % [{100 * row['low']:.1f}, {100 * row['high']:.1f}]"


def fault_lines(condition: Mapping[str, Any], name: str = "") -> list[str]:
    """A line per fault of `condition_results`: replies that the token limit ended, questions that
    failed or are undecided. Each begins with `name` and its probe.
    """
    rows = {"own": condition["summary"], **condition["probes"]}
    named = {f"{name}{probe}": row for probe, row in rows.items()}
    return [
        *truncation_lines({name: row["truncated"] for name, row in named.items()}),
        *shortfall_lines({name: row["incomplete"] for name, row in named.items()}),
    ]


def gain_lines(results: Mapping[str, Any]) -> list[str]:
    """`gain_results` as a table with notes."""
    capped = results["entropy"] is not None
    shares = ("helped", "nothing", "hurt")
    above = ("above chance",) if capped else ()
    lines: list[tuple[str, ...]] = [
        ("in place of the crop", "gain, nats", "p (Holm)", *above, *shares)
    ]
    for look, row in results["looks"].items():
        above = (_nats(row["above_chance"]),) if capped else ()
        lines.append((look, _nats(row), _p(row), *above, *(f"{row[key]:.0%}" for key in shares)))
    about = f"log p(right answer) after its own crop: {results['logprob']:+.2f} nats"
    if results["ece"] is not None:
        about += (
            f"; entropy of the options {results['entropy']:.2f} nats, calibration error "
            f"{results['ece']:.2f}"
        )
    notes = [
        f"{results['n']} questions answered after a crop; gain: log p(right answer) after the own "
        f"crop, minus that after what stands in its place, with 95 % intervals",
        about,
        *(f"{look}: {row['power']}" for look, row in results["looks"].items()),
    ]
    verdict = gain_verdict(results)
    return [*_columns(lines), *notes, *([verdict] if verdict else [])]


def search_lines(results: Mapping[str, Any]) -> list[str]:
    """The results of `lfpc.evaluation.search.search` as a table with notes."""
    rows = search_rows(results)
    last = list(rows.values())[-1]
    chance = f"a tile at random is right in {_percent(last['random'])} %"
    if last["holds_truth"] is not None:
        chance += f" and holds the truth in {_percent(last['random_holds_truth'])} %"
    return _lines_in_place(
        "search",
        results,
        rows,
        {"any tile right": "best", "chosen tile holds truth": "holds_truth"},
        "the search shows every tile in its place and keeps the answer that the model is surest of",
        chance,
    )


def attention_lines(results: Mapping[str, Any]) -> list[str]:
    """The results of `lfpc.evaluation.attention.attend` as a table with notes."""
    return _lines_in_place(
        "attention",
        results,
        attention_rows(results),
        {"area": "area", "window holds truth": "holds_truth"},
        "shown in its place is the window of the first view that gets the most attention of the "
        "question's tokens, or where the answer begins (relative: to a general question, whose "
        "view is counted too)",
    )


def _lines_in_place(
    name: str,
    results: Mapping[str, Any],
    rows: Mapping[str, Mapping[str, Any]],
    shares: Mapping[str, str],
    about: str,
    *notes: str,
) -> list[str]:
    """`results_in_place` as a table with notes.

    Args:
        name: what is compared with the own crops.
        results: the results.
        rows: their rows, by their words.
        shares: further columns, as the keys of shares by their words.
        about: what is shown.
        notes: further notes.
    """
    known = {
        word: key
        for word, key in shares.items()
        if any(row[key] is not None for row in rows.values())
    }
    own = (_percent(results["accuracy"]), "", "", _number(results["visual_tokens"]))
    lines: list[tuple[str, ...]] = [
        ("shown", "accuracy", f"{name} - own", "p (Holm)", "visual tokens", *known),
        ("own crops", *own, *("" for _ in known)),
    ]
    for words, row in rows.items():
        accuracy = _percent(row["accuracy"]) + share(row["incomplete"])
        compared = (accuracy, _points(row["difference"]), _p(row["difference"]))
        more = (_percent(row[key]) for key in known.values())
        lines.append((words, *compared, _number(row["visual_tokens"]), *more))
    last = list(rows.values())[-1]["difference"]
    return [
        *_columns(lines),
        f"{results['n']} of {results['questions']} questions have a crop; {about}; points of "
        f"accuracy by rule, with 95 % intervals",
        *notes,
        *([last["power"]] if last else []),
        *shortfall_lines({name: results["incomplete"]}),
    ]


def figure_lines(
    results: Mapping[str, Mapping[str, Any]], incomplete: Mapping[str, Shortfall]
) -> list[str]:
    """A line per evaluation: accuracy with its interval, and the share of each decider.

    Args:
        results: the "results" of `results.json`.
        incomplete: its "incomplete".
    """
    lines: list[str] = []
    for name, row in results.items():
        found = {key.removesuffix(",none"): value for key, value in row.items()}
        if not found["n"]:
            lines.append(f"{name}: no records")
            continue
        shares = ", ".join(
            f"{who} {found[f'decided/{who}']:.1%}" for who in DECIDERS if found[f"decided/{who}"]
        )
        interval = f"[{found['accuracy_low']:.3f}, {found['accuracy_high']:.3f}]"
        lines.append(
            f"{name}: accuracy {found['accuracy']:.3f} {interval} of {found['n']} records"
            f"{_chance(found)}; "
            f"decided by {shares}"
        )
        lines += shortfall_lines({name: incomplete.get(name)})
        lines += truncation_lines({name: found.get("truncated", 0)})
        if "avg@k" in found:
            sure = f"[{found['avg@k_low']:.3f}, {found['avg@k_high']:.3f}]"
            lines.append(
                f"{name}: avg@{found['k']} {found['avg@k']:.3f} {sure}, any "
                f"{found['any@k']:.3f}, all {found['all@k']:.3f}"
            )
    return lines


def closing_lines(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A table of several evaluations: questions, chance, accuracy, tool rate, lost under noise.

    Args:
        found: `condition_results` by TASK/BUDGET, or by BUDGET for a samples folder.
    """
    head = ("task", "visual tokens", "questions", "chance", "accuracy", "tool", "lost under noise")
    lines: list[tuple[str, ...]] = [head]
    for place, condition in found.items():
        task, _, budget = place.rpartition("/")
        own = condition["summary"]
        noise = condition["probes"].get("noise")
        low, high = own["accuracy_ci"]
        sure = f"[{_percent(low)}, {_percent(high)}]"
        lines.append(
            (
                task or "samples",
                budget,
                str(own["n"]),
                _percent(own["chance"]),
                f"{_percent(own['accuracy'])} {sure}{share(own['incomplete'])}",
                _percent(own["tool_rate"]),
                (_points(noise["all"]) + share(noise["incomplete"]) if noise else "") or "-",
            )
        )
    return [*_columns(lines), "in percent and points, with 95 % intervals"]


def cost_lines(summary: Mapping[str, Any]) -> list[str]:
    """The cost of a question, from a summary: tokens, calls, and seconds if known."""
    tokens = [
        f"{_number(summary[key])} {what}"
        for key, what in _COSTS.items()
        if summary[key] is not None
    ]
    if (text := summary["cost"]["text_tokens"]) is not None:
        tokens.append(f"{_number(text['mean'])} tokens of text")
    lines = [f"a question costs on average {', '.join(tokens)}"] if tokens else []
    if (seconds := summary["cost"]["seconds"]) is not None:
        how = f"{summary['concurrency']:.0f} at once" if summary["concurrency"] else "in batches"
        took = f"median {_number(seconds['median'])} s, 95 % within {_number(seconds['p95'])} s"
        lines.append(
            f"as played, {how}: {took}, {_number(summary['per_second'])} questions per second"
        )
    for timing in summary["timings"]:
        took = f"median {_number(timing['median'])} s, 95 % within {_number(timing['p95'])} s"
        if timing.get("cpu") is not None:
            took += f", CPU time {_number(timing['cpu'])} s"
        lines.append(
            f"alone: {took}, {timing['questions']} questions asked again one at a time"
            if timing["concurrency"] == 1
            else f"asked again {timing['concurrency']} at a time: {took}, {timing['questions']} "
            f"questions"
        )
    return lines


def compare_lines(results: Mapping[str, Any], names: tuple[str, str]) -> list[str]:
    """`compare_runs` of the runs called `names` as a table with notes."""
    lines = [("", "A", "B", "A - B, 95 % interval", "p (Holm)", "McNemar", "n", "pictures")]
    for row in results["tests"]:
        mcnemar = p_text(row["mcnemar_p"]) if "mcnemar_p" in row else ""
        numbers = (_percent(row["left"]), _percent(row["right"]), _points(row), _p(row), mcnemar)
        lines.append((row["metric"], *numbers, str(row["n"]), str(row["clusters"])))
    for row in results["fields"]:
        interval = _number(row["delta"], "+")
        if row["low"] is not None or row["high"] is not None:
            interval += f" [{_number(row['low'], '+')}, {_number(row['high'], '+')}]"
        numbers = (_number(row["left"]), _number(row["right"]), interval, "", "")
        metric = str(row["metric"])
        name = _FIELD_NAMES.get(metric, metric.replace("_", " "))
        lines.append((name, *numbers, str(row["n"]), str(row["clusters"])))
    named = [f"{letter}: {name}" for letter, name in zip("AB", names, strict=True)]
    notes = [f"{row['metric']}: {row['power']}" for row in results["tests"]]
    notes += [
        f"{count} questions are only in {letter} and left out"
        for letter, count in results["unpaired"].items()
        if count
    ]
    notes += [
        f"{count} questions failed in {letter} and are left out"
        for letter, count in results["failed"].items()
        if count
    ]
    return [*named, *_columns(lines), *notes]


def truncation_lines(counts: Mapping[str, int]) -> list[str]:
    """A line for each name with replies that the token limit ended."""
    return [
        f"{name}: {count} questions have {TRUNCATION}" for name, count in counts.items() if count
    ]


def _chance(found: Mapping[str, Any]) -> str:
    chance = found.get("chance")
    return "" if chance is None else f", chance {chance:.3f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _number(value: float | None, sign: str = "") -> str:
    return (
        "-"
        if value is None
        else f"{value:{sign},.3g}"
        if abs(value) < 1000
        else f"{value:{sign},.0f}"
    )


def _points(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return ""
    low, high = (
        f"{100 * row[key]:+.1f}" if row[key] is not None else "-" for key in ("low", "high")
    )
    return f"{100 * row['delta']:+.1f} [{low}, {high}]"


def _nats(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return ""
    low, high = (f"{row[key]:+.2f}" if row[key] is not None else "-" for key in ("low", "high"))
    return f"{row['delta']:+.2f} [{low}, {high}]"


def _p(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return ""
    return f"{p_text(row['p'])} ({p_text(row['p_holm'])})" if "p_holm" in row else p_text(row["p"])


def _columns(lines: Sequence[Sequence[str]]) -> list[str]:
    """Aligned lines of cells: the first column to the left, the others to the right."""
    widths = [max(len(line[n]) for line in lines) for n in range(len(lines[0]))]
    return [
        "  ".join(
            cell.rjust(width) if n else cell.ljust(width)
            for n, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
