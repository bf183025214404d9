"""What a model does with its crops, question by question: who gains from the tool, who is harmed,
and whose answer does not depend on what was shown.

Relatives: call gain and harm (arXiv 2602.01334), calls without looking (arXiv 2608.06270).
"""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from lfpc.answers import answer_key
from lfpc.evaluation.differences import difference_row
from lfpc.evaluation.probes import NO_TOOL, paired, swapped_probe
from lfpc.metrics.statistics import clustered_wilson
from lfpc.metrics.summary import Records
from lfpc.records import EpisodeRecord

Pairs = Sequence[tuple[EpisodeRecord, EpisodeRecord]]


def crop_use(by_probe: Mapping[str, Records], own: str = "own") -> dict[str, Any]:
    """Measures of the use of crops, as far as their probes ran.

        call_gain   share of all questions that are wrong without the tool and right with it
        call_harm   share that is right without the tool and wrong with it; of averaged draws, the
                    shares of pairs of one draw with the tool and one without
        unlooked    of the questions with a crop, share whose answer is the same when the crop is
                    replaced (`SWAPPED`)
        known       accuracy lost when the crop is replaced, of the questions that are right without
                    the tool; unknown: of those that are wrong without it

    call_gain - call_harm is the accuracy that the tool is worth. A question that is answered
    without the tool may still be answered from a crop: `known` is the dependence that accuracy
    does not need.

    Args:
        by_probe: records by probe.
        own: name of the records with the policy's own crops.
    Returns:
        Each share as {"share", "low", "high", "n"}; "known" and "unknown" as difference rows;
        "swapped", the probe that was used.
    """
    found: dict[str, Any] = {}
    mine = by_probe[own]
    alone = by_probe.get(NO_TOOL)
    if alone is not None and (pairs := paired(mine, alone)):
        found["call_gain"] = _share(pairs, [a.score * (1 - b.score) for a, b in pairs])
        found["call_harm"] = _share(pairs, [b.score * (1 - a.score) for a, b in pairs])
    swapped = swapped_probe(by_probe)
    if swapped is None:
        return found
    found["swapped"] = swapped
    shown = by_probe[swapped]
    compared = [(pair, same_answer(*pair)) for pair in paired(mine, shown) if pair[0].tool]
    told = [(pair, float(same)) for pair, same in compared if same is not None]
    if told:
        found["unlooked"] = _share([pair for pair, _ in told], [same for _, same in told])
    if alone is not None:
        asked = paired(mine, alone)
        found["known"] = difference_row([a for a, b in asked if b.score >= 0.5], shown)
        found["unknown"] = difference_row([a for a, b in asked if b.score < 0.5], shown)
    return found


def same_answer(a: EpisodeRecord, b: EpisodeRecord) -> bool | None:
    """Whether two records of a question say the same, such as "B" and "(B) red"; None: one of them
    says nothing.
    """
    if a.failed or b.failed or a.said is None or b.said is None:
        return None
    if a.said == b.said:
        return True
    one, other = (answer_key(r.said or "", r.sample.options, r.sample.question) for r in (a, b))
    return one == other


def _share(pairs: Pairs, values: Sequence[float]) -> dict[str, float]:
    low, high = clustered_wilson(values, [a.cluster for a, _ in pairs], [a.seed for a, _ in pairs])
    return {"share": fmean(values), "low": low, "high": high, "n": len(values)}
