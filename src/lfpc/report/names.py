"""Names of conditions, the same in every table, figure and list of a report."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from lfpc.evaluation.places import CHOSEN
from lfpc.evaluation.results import ArmBudget

Namer = Callable[[str, str], str]
"""(arm, budget) -> the name of the condition."""


def split_budget(budget: str) -> tuple[str, str]:
    """(task, budget) of a budget's name; the task is empty without several."""
    task, _, size = budget.rpartition("/")
    return task, size


def budget_text(budget: str) -> str:
    """A budget with its task and unit: "vstar, 1024 tokens"."""
    task, size = split_budget(budget)
    text = f"{size} tokens" if size.isdigit() else f"{size} budgets" if size == CHOSEN else size
    return f"{task}, {text}" if task else text


def namer(cells: Iterable[ArmBudget]) -> Namer:
    """A function that names conditions: without the arm where one run was evaluated outside a
    study.
    """
    found = list(cells)
    sizes = [split_budget(budget) for _, budget in found]
    study = any(not (task or size.isdigit() or size == CHOSEN) for task, size in sizes)
    several = study or len({arm for arm, _ in found}) != 1

    def name(arm: str, budget: str) -> str:
        return f"{arm}, {budget_text(budget)}" if several else budget_text(budget)

    return name


def results_namer(results: Mapping[str, Any]) -> Namer:
    """`namer` of the conditions of `results.json`."""
    found = results.get("conditions", {}).items()
    return namer((arm, budget) for arm, budgets in found for budget in budgets)
