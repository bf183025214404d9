"""What a crop told the policy: pay for it in place of the crop itself.

    told = clip(odds(own crops) - odds(noise) - margin, 0, 1)     odds = log p / (1 - p)

p is the probability of the right answer after the recorded replies, written after the protocol's
answer mark, as in `lfpc.evaluation.gain`. A crop that shows nothing, or what the first view shows
already, earns nothing. It costs two forward passes per paid rollout. Beyond the paper; Vision-RL2
(arXiv 2609.19745) pays for log-odds too, by leaving a view out.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import expm1, log
from zlib import crc32

from lfpc.dialogue import Context
from lfpc.episode import Episode
from lfpc.evaluation.gain import read_answers, readout
from lfpc.images import noise_view
from lfpc.policies.config import ScoringPolicy
from lfpc.rewards import RewardConfig, RewardTerms
from lfpc.training.statistics import mean

LEAST = 1e-6
"""Probabilities are kept this far from 0 and 1, so that odds are finite."""


def pay_for_information(
    episodes: Sequence[Episode],
    terms: Sequence[RewardTerms],
    policy: ScoringPolicy,
    config: RewardConfig,
    *,
    seed: int,
) -> list[RewardTerms]:
    """`terms` with the tool's term times what the crops of the episode told, in [0, 1]."""
    paid = [n for n, one in enumerate(terms) if one.tool]
    told = told_by_crops([episodes[n] for n in paid], policy, margin=config.margin, seed=seed)
    found = list(terms)
    for n, value in zip(paid, told, strict=True):
        found[n] = replace(terms[n], tool=terms[n].tool * value)
    return found


def told_by_crops(
    episodes: Sequence[Episode], policy: ScoringPolicy, *, margin: float = 0.0, seed: int = 0
) -> list[float]:
    """What the crops of each answered episode told, in [0, 1].

    Args:
        episodes: answered episodes.
        policy: reads the probabilities.
        margin: log-odds that earn nothing.
        seed: seed of the noise.
    """
    return [
        min(1.0, max(0.0, _log_odds(own) - _log_odds(noise) - margin))
        for own, noise in _logprobs(episodes, policy, seed)
    ]


def gain_over_noise(
    episodes: Sequence[Episode], policy: ScoringPolicy, *, seed: int = 0
) -> float | None:
    """Mean gain of the crops in nats, log p(right answer | own crops) - log p(right answer |
    noise), over the episodes that were answered after a crop; None: there are none.

    Args:
        episodes: any episodes.
        policy: reads the probabilities.
        seed: seed of the noise.
    """
    known = [one for one in episodes if one.shown_crops and one.answer]
    return mean(own - noise for own, noise in _logprobs(known, policy, seed))


def _logprobs(
    episodes: Sequence[Episode], policy: ScoringPolicy, seed: int
) -> list[tuple[float, float]]:
    """Log-probability of each episode's right answer, over the options or over all texts, after its
    own crops and after noise.
    """
    seen = [_last_context(one) for one in episodes]
    blind = [_with_noise(context, seed) for context in seen]
    answers = [read_answers(one.sample) for one in episodes]
    scores = policy.answer_logprobs([*seen, *blind], [*answers, *answers])
    found = [
        readout(one.sample, "", some).logprob
        for one, some in zip([*episodes, *episodes], scores, strict=True)
    ]
    return list(zip(found[: len(episodes)], found[len(episodes) :], strict=True))


def _last_context(episode: Episode) -> Context:
    sample = episode.sample
    return Context(sample.question, sample.options, episode.first_view, episode.turns[:-1])


def _with_noise(context: Context, seed: int) -> Context:
    turns = tuple(
        turn
        if turn.view is None
        else replace(
            turn,
            view=noise_view(
                turn.view, crc32(f"{seed}/{context.question}/{turn.view.region.corners}".encode())
            ),
        )
        for turn in context.turns
    )
    return replace(context, turns=turns)


def _log_odds(logprob: float) -> float:
    right = min(log(1 - LEAST), max(log(LEAST), logprob))
    return right - log(-expm1(right))
