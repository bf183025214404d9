import time

import pytest

from lfpc.episode import episode
from lfpc.evaluation.opened import first_view
from lfpc.evaluation.timing import read_timings, time_by_turns, time_questions, write_timings
from lfpc.images import CropRules
from lfpc.looks import original_look
from lfpc.policies.scripted import ScriptedPolicy
from lfpc.protocols import PROTOCOLS

SETTINGS = {"protocol": PROTOCOLS["qwen2_5_vl"], "budget": 16, "look": original_look(CropRules())}


class Clock:
    """A clock that only `sleep` moves, so that seconds are exact on any machine."""

    now = 0.0

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", lambda: clock.now)
    monkeypatch.setattr(time, "process_time", lambda: clock.now / 2)
    return clock


def test_the_warm_up_is_left_out_of_the_seconds_of_single_questions(sample, clock):
    naps = iter([3.0, 0.1, 0.1, 0.4])

    def slow_first(context):
        clock.sleep(next(naps))
        return "<answer>K</answer>"

    found = time_questions(
        [sample(id=name) for name in "abcde"], ScriptedPolicy(slow_first), questions=3, **SETTINGS
    )
    assert (found.concurrency, found.questions) == (1, 3)
    assert found.median == pytest.approx(0.1)
    assert found.p95 == pytest.approx(0.37)  # 0.9 of the way from 0.1 to 0.4
    assert found.per_second == pytest.approx(3 / 0.6)
    assert found.cpu == pytest.approx(0.05)


def test_questions_played_together_take_their_group_s_time(sample, clock):
    groups = []

    class Batch:
        def reply(self, contexts):
            groups.append(len(contexts))
            clock.sleep(0.2)
            return ScriptedPolicy(["<answer>K</answer>"]).reply(contexts)

    found = time_questions(
        [sample(id=name) for name in "abcdefghi"], Batch(), concurrency=4, **SETTINGS
    )
    assert groups == [1, 4, 4]  # the warm-up, then two groups
    # a question takes as long as its group, four of them at once: 8 questions in 2 * 0.2 s
    assert found.median == pytest.approx(0.2)
    assert found.per_second == pytest.approx(20)


def test_policies_take_turns_in_alternating_order(sample, clock, tmp_path):
    heard = []

    def start(one):
        view = first_view(one, 16, factor=28)
        return episode(one, view, look=SETTINGS["look"], protocol=SETTINGS["protocol"])

    def says(name, seconds):
        def reply(context):
            heard.append((context.question, name))
            clock.sleep(seconds)
            return "<answer>K</answer>"

        return ScriptedPolicy(reply), start

    samples = [sample(id=name, question=name) for name in "abcde"]
    asked = {"quick": says("quick", 0.1), "slow": says("slow", 0.4)}
    found = time_by_turns(samples, asked, questions=3)
    assert [question for question, _ in heard] == list("aabbccdd"), "the fifth is not asked"
    firsts = [name for _, name in heard[::2]]
    assert firsts == ["slow", "quick", "slow", "quick"]
    assert found["quick"].median == pytest.approx(0.1)
    assert [wall for wall, _ in found["slow"].each] == pytest.approx([0.4] * 3)
    assert [cpu for _, cpu in found["slow"].each] == pytest.approx([0.2] * 3)
    write_timings(tmp_path, [found["slow"]])
    assert read_timings(tmp_path) == [found["slow"]]
    # the only question is timed, without a warm-up
    assert time_by_turns(samples[:1], asked, questions=3)["slow"].questions == 1


def test_timing_needs_more_than_the_warm_up(sample):
    with pytest.raises(ValueError, match="more than 1 samples"):
        time_questions([sample()], ScriptedPolicy(["x"]), **SETTINGS)
