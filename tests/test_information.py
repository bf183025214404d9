"""Pay for what a crop told: scripted probabilities, and one real step."""

from dataclasses import replace
from math import log
from pathlib import Path

import pytest
from PIL import Image

from lfpc.boxes import WHOLE, Box
from lfpc.dialogue import Answer, Crop, Reply, Turn
from lfpc.episode import Episode, Stop
from lfpc.errors import ConfigError
from lfpc.images import View
from lfpc.policies.config import TextLogprob
from lfpc.rewards import RewardConfig, episode_reward
from lfpc.samples import Sample
from lfpc.training.information import gain_over_noise, pay_for_information, told_by_crops

PLAIN = Image.new("RGB", (28, 28), (200, 0, 0))


class Sees:
    """The right answer has the probability `own` after the plain crop, `noise` after another."""

    def __init__(self, own: float, noise: float) -> None:
        self.own = own
        self.noise = noise

    def answer_logprobs(self, contexts, answers):
        return [
            [TextLogprob(log(self._p(context, n, len(some))), 1) for n in range(len(some))]
            for context, some in zip(contexts, answers, strict=True)
        ]

    def _p(self, context, n, count):
        p = self.own if context.turns[-1].view.image is PLAIN else self.noise
        return p if n == 0 else (1 - p) / (count - 1)


def played(*, options: tuple[str, ...] = (), said: str = "red") -> Episode:
    box = Box(0.25, 0.25, 0.5, 0.5)
    sample = Sample(id="s", image=Path("s.png"), question="Which?", answer="red", options=options)
    first = View(Image.new("RGB", (56, 56)), WHOLE)
    turns = (Turn(Reply("look"), Crop(box), View(PLAIN, box)), Turn(Reply(said), Answer(said)))
    return Episode(sample, first, turns, Stop.ANSWERED)


@pytest.mark.parametrize(
    ("own", "noise", "told"),
    [
        (0.9, 0.1, 1.0),  # the crop told
        (0.5, 0.5, 0.0),  # it told nothing
        (0.1, 0.9, 0.0),  # it misled
        (1.0 - 1e-12, 1.0 - 1e-12, 0.0),  # the first view was enough
    ],
)
def test_a_crop_is_paid_for_what_it_told(own: float, noise: float, told: float) -> None:
    for options in ((), ("red", "blue", "green")):
        found = told_by_crops([played(options=options)], Sees(own, noise), margin=0.2)
        assert found == [pytest.approx(told)]


def test_the_pay_is_the_log_odds_above_the_margin() -> None:
    (told,) = told_by_crops([played()], Sees(0.6, 0.5), margin=0.2)
    assert told == pytest.approx(log(0.6 / 0.4) - 0.2)


def test_the_gain_of_a_validation_is_in_nats_and_about_answers_after_a_crop() -> None:
    one = played()
    early = replace(one, turns=one.turns[1:])  # answered at once
    silent = replace(one, turns=one.turns[:1], stop=Stop.MAX_TURNS)
    some = [one, early, silent, played(said="blue")]
    assert gain_over_noise(some, Sees(0.8, 0.2)) == pytest.approx(log(0.8 / 0.2))
    assert gain_over_noise([early, silent], Sees(0.8, 0.2)) is None


def test_only_the_tools_term_changes_and_only_where_it_was_paid() -> None:
    config = RewardConfig(pay="information", margin=0.0)
    episodes = [played(), played(said="blue")]
    terms = [episode_reward(one, config) for one in episodes]
    paid = pay_for_information(episodes, terms, Sees(0.5, 0.5), config, seed=0)
    assert paid == [replace(terms[0], tool=0.0), terms[1]]
    assert terms[0].tool == 0.5
    assert pay_for_information(episodes, terms, Sees(0.99, 0.01), config, seed=0) == terms
    assert pay_for_information([], [], Sees(0.5, 0.5), config, seed=0) == []
    with pytest.raises(ConfigError, match="must be crop or information, got 'looks'"):
        RewardConfig(pay="looks")
    with pytest.raises(ConfigError, match=r"--reward.margin must be at least 0, got -1"):
        RewardConfig(pay="information", margin=-1.0)
