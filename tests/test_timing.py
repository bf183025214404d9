import time

import pytest

from lfpc.evaluation.timing import time_questions
from lfpc.images import CropRules
from lfpc.looks import original_look
from lfpc.policies.scripted import ScriptedPolicy
from lfpc.protocols import PROTOCOLS

SETTINGS = {"protocol": PROTOCOLS["qwen2_5_vl"], "budget": 16, "look": original_look(CropRules())}


def test_the_warm_up_is_left_out_of_the_seconds_of_single_questions(sample):
    naps = iter([0.3, 0.01, 0.01, 0.01])

    def slow_first(context):
        time.sleep(next(naps))
        return "<answer>K</answer>"

    found = time_questions(
        [sample(id=name) for name in "abcde"], ScriptedPolicy(slow_first), questions=3, **SETTINGS
    )
    assert (found.concurrency, found.questions) == (1, 3)
    assert 0.01 <= found.median <= found.p95 < 0.25


def test_questions_played_together_take_their_group_s_time(sample):
    groups = []

    class Batch:
        def reply(self, contexts):
            groups.append(len(contexts))
            time.sleep(0.02)
            return ScriptedPolicy(["<answer>K</answer>"]).reply(contexts)

    found = time_questions(
        [sample(id=name) for name in "abcdefghi"], Batch(), concurrency=4, **SETTINGS
    )
    assert groups == [1, 4, 4]  # the warm-up, then two groups
    assert found.median >= 0.02
    # a question takes as long as its group, four of them at once: 4 / seconds of a group
    assert found.per_second == pytest.approx(4 / found.median, rel=0.5)


def test_timing_needs_more_than_the_warm_up(sample):
    with pytest.raises(ValueError, match="more than 1 samples"):
        time_questions([sample()], ScriptedPolicy(["x"]), **SETTINGS)
