import json
from collections.abc import Callable

from lfpc.episode import episode, play
from lfpc.images import CropRules, global_view, open_picture
from lfpc.looks import original_look
from lfpc.policies.human import reply_text
from lfpc.policies.scripted import ScriptedPolicy
from lfpc.protocols import PROTOCOLS
from lfpc.records import episode_row
from lfpc.rewards import RewardConfig, episode_reward
from lfpc.samples import Sample


def test_an_episode_as_a_row(sample: Callable[..., Sample]) -> None:
    one = sample(category="letter")
    game = episode(
        one,
        global_view(open_picture(one.image), 16),
        look=original_look(CropRules()),
        protocol=PROTOCOLS["qwen2_5_vl"],
    )
    (done,) = play([game], ScriptedPolicy(["hm", reply_text("0 0 28 28"), "<answer>K</answer>"]))
    row = episode_row(done, episode_reward(done, RewardConfig()), seed=3)
    assert json.loads(json.dumps(row)) == row
    assert [turn["action"]["kind"] for turn in row["turns"]] == ["malformed", "crop", "answer"]
    # what was written, what it means, what was shown
    asked = row["turns"][1]["action"]
    assert (asked["emitted"], asked["source"], asked["box"]) == (
        [0, 0, 28, 28],
        0,
        [0, 0, 28 / 112, 28 / 84],
    )
    assert [turn["region"] for turn in row["turns"]] == [None, [0, 0, 28 / 112, 28 / 84], None]
    # 100 x 100 pixels of the original: 100 / 28 = 3.57 -> 4 * 28
    assert [turn["view"] for turn in row["turns"]] == [None, [112, 112], None]
    assert row["reward"] == {
        "accuracy": 1.0,
        "format": -1.0,
        "tool": 0.5,
        "grounding": 0.0,
        "total": 0.5,
    }
    assert (
        row["sample"],
        row["category"],
        row["said"],
        row["correct"],
        row["stop"],
        row["seed"],
    ) == (
        "s1",
        "letter",
        "K",
        True,
        "answered",
        3,
    )
