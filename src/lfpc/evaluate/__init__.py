"""How well a policy answers, whether it uses its crops, and how sure that is."""

from lfpc.evaluate.probes import PROBES, probe_differences
from lfpc.evaluate.results import comparisons, demo_results
from lfpc.evaluate.run import evaluate
from lfpc.evaluate.timing import time_questions
from lfpc.metrics.episodes import Timing, episode_facts, summarise
from lfpc.metrics.statistics import Difference, paired_difference

__all__ = [
    "PROBES",
    "Difference",
    "Timing",
    "comparisons",
    "demo_results",
    "episode_facts",
    "evaluate",
    "paired_difference",
    "probe_differences",
    "summarise",
    "time_questions",
]
