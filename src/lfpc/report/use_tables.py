"""What policies do with their crops, question by question, as tables."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lfpc.evaluation.probes import NO_TOOL
from lfpc.report.cells import Cell, Table, conditions, episodes_link, probe_name
from lfpc.report.names import Namer
from lfpc.report.numbers import NOTHING, nats, percent, points, with_interval


def use_table(results: Mapping[str, Any], name: Namer) -> Table:
    """What the tool changes for each policy; without rows if no probe tells."""

    def cells(arm: str, budget: str, one: Mapping[str, Any]) -> Iterable[Cell]:
        use, summary = one["use"], one["summary"]
        alone = one["probes"].get(NO_TOOL, {}).get("accuracy")
        yield Cell(name(arm, budget))
        yield Cell(percent(alone))
        for key in ("call_gain", "call_harm", "unlooked"):
            row = use.get(key) or {}
            yield Cell(with_interval(row.get("share"), [row.get("low"), row.get("high")]))
        early = episodes_link(arm, budget, "early")
        told = summary["answered_before_crop"]
        yield Cell(percent(told), early if told else "")

    found = [one for one in conditions(results) if one[2].get("use")]
    note = (
        "Accuracy without the tool. Of all questions that were asked with and without it: wrong "
        "without and right with it (gained), and the reverse (harmed). Of questions with a crop: "
        f"same answer with {_swapped(found)} for the crop; text that already answers before the "
        "first crop."
    )
    columns = (
        "condition",
        "without the tool",
        "gained",
        "harmed",
        "same answer",
        "answered first",
    )
    return Table(
        "use", "Use of the crops", note, columns, tuple(tuple(cells(*one)) for one in found)
    )


def known_table(results: Mapping[str, Any], name: Namer) -> Table:
    """What a policy loses with its crops, by whether it knows the answer without them."""

    def cells(arm: str, budget: str, one: Mapping[str, Any]) -> Iterable[Cell]:
        yield Cell(name(arm, budget))
        for key in ("known", "unknown"):
            yield Cell(points(one["use"].get(key) or {}))
        yield Cell(nats((one.get("gain") or {"looks": {}})["looks"].get("noise", {})))

    found = [one for one in conditions(results) if one[2].get("use")]
    note = (
        f"Points lost with {_swapped(found)} for the crop, where the answer is right without the "
        "tool (known), and where it is wrong (unknown)."
    )
    if any((one.get("gain") or {"looks": {}})["looks"].get("noise") for *_, one in found):
        note += " Gain of the own crop over noise, in nats."
    columns = ("condition", "lost, known", "lost, unknown", "gain, nats")
    rows = tuple(tuple(cells(*one)) for one in found)
    told = any(cell.text != NOTHING for row in rows for cell in row[1:])
    return Table("known", "Loss by prior knowledge", note, columns, rows if told else ())


def _swapped(found: Sequence[tuple[str, str, Mapping[str, Any]]]) -> str:
    """What the probe of `use` shows for a crop."""
    swapped = {one["use"].get("swapped") for *_, one in found} - {None}
    return ", ".join(sorted(map(probe_name, swapped))) or "something else"
