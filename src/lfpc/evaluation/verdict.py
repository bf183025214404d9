"""One sentence on a model: whether it uses its crops, and what the evidence can show."""

from collections.abc import Mapping
from typing import Any

from lfpc.evaluation.gain import NOTHING
from lfpc.evaluation.probes import NO_TOOL, OWN, REPLAYED, SWAPPED, swapped_probe
from lfpc.evaluation.results import lost

RELEVANT = 0.05
"""A drop of this size matters: "no sign" needs pairs that would show it with 80 % power, and below
it crops are "hardly" used."""
_LEVEL = 0.05
_COMPLETE = 0.95
"""Share of the questions that must have a verdict."""
_SHOWN = {
    "noise": "noise",
    "other": "another picture",
    "noise-added": "noise added to the crop",
    "mean": "the crop's mean colour",
    "black": "a black crop",
    "blur": "a blurred crop",
}
"""What each of `SWAPPED` shows."""


def crop_verdict(condition: Mapping[str, Any]) -> str | None:
    """Whether a model uses its crops, in one sentence; None: no probe of `SWAPPED` ran.

    Args:
        condition: see `lfpc.evaluation.results.condition_results`.
    """
    probes = condition["probes"]
    probe = swapped_probe(probes)
    if probe is None:
        return None
    own, shown = condition["summary"], probes[probe]
    if found := _unfinished({OWN: own, probe: shown}, own["n"]):
        return f"No verdict: {found}."
    if not own["tool_rate"]:
        return f"Never crops: none of {own['n']} questions led to a crop{_malformed(own)}."
    row = lost(condition, probe)
    if not row:
        return f"No verdict: no question was answered with own crops and under {probe}."
    low, high = row["low"], row["high"]
    pairs = f"{row['n']} question{'' if row['n'] == 1 else 's'}"
    if row.get("seeds"):
        pairs = f"{row['n']} pairs of question and seed"
    if low is None or high is None or row["smallest"] is None:
        runs = f" under {row['seeds']} training seeds" if row.get("seeds") else ""
        return f"Too few questions to say: {pairs} about {row['clusters']} pictures{runs}."
    shown_name = probe.removesuffix(REPLAYED)
    what = _SHOWN[shown_name] + probe.removeprefix(shown_name)
    size = f"{_points(row['delta'])} points [{_points(low)}, {_points(high)}] of {pairs}"
    if row["p"] < _LEVEL and low > 0:
        how = "Hardly uses" if high < RELEVANT else "Uses"
        return f"{how} its crops: {what} costs {size}."
    if row["p"] < _LEVEL and high < 0:
        gain = f"{_points(-row['delta'])} points [{_points(-high)}, {_points(-low)}] of {pairs}"
        return f"Better without its crops: {what} gains {gain}."
    seen = _points(row["smallest"])
    if row["smallest"] <= RELEVANT:
        return (
            f"No sign that it uses its crops: {what} costs {size}{_seldom(own['tool_rate'])}; a "
            f"drop of {seen} points would have been seen (80 % power)."
        )
    least = "" if row["smallest"] > 1 else f"; a drop below {seen} points may go unseen"
    return f"Too few questions to say: {what} costs {size}{least}."


def tool_verdict(condition: Mapping[str, Any]) -> str | None:
    """What the tool is worth, in one sentence; None: the probe no-tool did not run."""
    row = lost(condition, NO_TOOL)
    if row.get("low") is None:
        return None
    size = f"{_points(row['delta'])} points [{_points(row['low'])}, {_points(row['high'])}]"
    if row["p"] < _LEVEL and row["low"] > 0:
        return f"The tool is worth {size}."
    if row["p"] < _LEVEL and row["high"] < 0:
        return f"The tool costs accuracy: {size} against answering without it."
    if row["smallest"] is None or row["smallest"] > RELEVANT:
        return f"Too few questions to say what the tool is worth: {size}."
    seen = _points(row["smallest"])
    return (
        f"No sign that the tool is worth anything: {size}; {seen} points would have been seen "
        f"(80 % power)."
    )


def verdict_lines(condition: Mapping[str, Any]) -> list[str]:
    """`crop_verdict` and `tool_verdict`, as far as their probes ran."""
    return [line for line in (crop_verdict(condition), tool_verdict(condition)) if line]


def named_verdicts(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """`verdict_lines` of each condition, after its name if there are several."""
    return [
        f"{name}: {line}" if len(found) > 1 else line
        for name, condition in found.items()
        for line in verdict_lines(condition)
    ]


def gain_verdict(results: Mapping[str, Any]) -> str | None:
    """The same from the gain of the crops in nats; None: no look of `SWAPPED`.

    Args:
        results: see `lfpc.evaluation.gain.gain_results`.
    """
    look = next((name for name in SWAPPED if name in results["looks"]), None)
    if look is None:
        return None
    row = results["looks"][look]
    pairs = f"{row['n']} question{'' if row['n'] == 1 else 's'}"
    if row["low"] is None or row["high"] is None or row["smallest"] is None:
        return f"Too few questions to say: {pairs} about {row['clusters']} pictures."
    ends = [f"{row[key]:.2f}" for key in ("delta", "low", "high")]
    size = f"{ends[0]} nats [{ends[1]}, {ends[2]}] over {_SHOWN[look]}, {pairs}"
    if row["p"] < _LEVEL and row["low"] > 0:
        return f"Its crops make the right answer more likely: {size}."
    if row["p"] < _LEVEL and row["high"] < 0:
        return f"Its crops make the right answer less likely: {size}."
    seen = f"{row['smallest']:.2f} nats"
    if row["smallest"] > NOTHING:
        return f"Too few questions to say: {size}; a gain below {seen} may go unseen."
    return (
        f"No sign that its crops change the right answer's probability: {size}; {seen} would have "
        f"been seen (80 % power)."
    )


def _seldom(tool_rate: float) -> str:
    return "" if tool_rate >= 0.5 else f", {100 * tool_rate:.0f} % of them with a crop"


def _malformed(own: Mapping[str, Any]) -> str:
    """The malformed replies with their reasons, as they may be crops that the parser missed."""
    counts: Mapping[str, int] = own["malformed"]
    if not counts:
        return ""
    reasons = ", ".join(f"{reason} {count}" for reason, count in counts.items())
    return f", malformed replies: {reasons}"


def _unfinished(rows: Mapping[str, Mapping[str, Any]], n: int) -> str:
    """Why a verdict would rest on too few answers; empty: it does not."""
    for name, row in rows.items():
        if short := row["incomplete"]:
            without = short["failed"] + short["undecided"] + short["missing"]
            if without > (1 - _COMPLETE) * short["n"]:
                return f"{without} of {short['n']} questions have no answer ({name})"
    return "" if n else "no question was asked"


def _points(share: float) -> str:
    text = f"{100 * share:.1f}"
    return "0.0" if text == "-0.0" else text
