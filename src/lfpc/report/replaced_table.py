"""What a search or the model's attention gives in place of its own crops, as a table."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from lfpc.evaluation.attention import attention_rows
from lfpc.evaluation.incomplete import share
from lfpc.evaluation.search import search_rows
from lfpc.report.cells import Cell, Table, conditions
from lfpc.report.names import Namer
from lfpc.report.numbers import number, p_value, percent, points


def replaced_table(results: Mapping[str, Any], name: Namer) -> Table:
    """A row per grid and per map, after the own crops; without rows if neither `lfpc probe
    --search` nor `--attention` has run.
    """

    def cells(words: str, row: Mapping[str, Any]) -> Iterable[Cell]:
        difference = row.get("difference") or {}
        yield Cell(words)
        yield Cell(percent(row["accuracy"]) + share(row.get("incomplete")))
        yield Cell(points(difference))
        yield Cell(p_value(difference.get("p_holm")))
        yield Cell(number(row["visual_tokens"], 0))
        yield Cell(percent(row.get("holds_truth")))

    rows = tuple(
        tuple(cells(f"{name(arm, budget)}: {words}", row))
        for arm, budget, found in conditions(results)
        for words, row in _rows(found)
    )
    note = (
        "Of the questions with a crop, replayed up to it: a search shows every tile and keeps the "
        "answer that the model is surest of; attention shows the window of the first view that the "
        "question's tokens, or the place of the answer, attend to most. Verdicts by rule; points "
        "to the own crops, with 95 % intervals, and p adjusted for the rows of one search (Holm). "
        "Last: share of the shown regions with every truth box inside."
    )
    columns = (
        "shown",
        "accuracy",
        "difference to own crops",
        "p, adjusted",
        "visual tokens",
        "holds truth",
    )
    return Table("replaced", "In place of the crops", note, columns, rows)


def _rows(found: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    search, attention = found.get("search"), found.get("attention")
    if own := search or attention:
        yield "own crops", own
    yield from (search_rows(search) if search else {}).items()
    yield from (attention_rows(attention) if attention else {}).items()
