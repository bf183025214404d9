import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from lfpc.boxes import WHOLE, Box
from lfpc.dialogue import Answer, Context, Crop, Malformed, Reply
from lfpc.episode import Game, Stop, episode, play
from lfpc.images import CropRules, View, crop_view, global_view, open_picture
from lfpc.looks import Look, no_look, original_look
from lfpc.policies.human import reply_text
from lfpc.policies.scripted import ScriptedPolicy
from lfpc.protocols import PROTOCOLS
from lfpc.records import record_from_json, record_of, record_to_json
from lfpc.rewards import RewardConfig, episode_reward
from lfpc.samples import Sample
from lfpc.training.draw import look_once

Make = Callable[..., Sample]
CROP = reply_text("0 0 28 28")


def a_game(sample: Sample, max_turns: int = 6) -> Game:
    first = global_view(open_picture(sample.image), 16)
    return episode(
        sample,
        first,
        look=original_look(CropRules()),
        protocol=PROTOCOLS["qwen2_5_vl"],
        max_turns=max_turns,
    )


def test_crop_crop_answer(sample: Make) -> None:
    (done,) = play(
        [a_game(sample())], ScriptedPolicy([CROP, reply_text("28 28 56 56"), "<answer>K</answer>"])
    )
    assert done.stop is Stop.ANSWERED
    assert done.answer == "K"
    # the 400 x 300 picture at 16 tokens: beta = sqrt(120000 / 12544) = 3.093; 129.3 -> 4 * 28 =
    # 112, 97.0 -> 3 * 28 = 84
    assert done.first_view.size == (112, 84)
    assert done.boxes == (Box(0, 0, 28 / 112, 28 / 84), Box(28 / 112, 28 / 84, 56 / 112, 56 / 84))
    assert done.shown_crops == 2
    assert [view.region for view in done.views] == [WHOLE, *done.boxes]
    assert done.malformed == ()


def test_a_malformed_reply_is_explained_and_the_episode_continues(sample: Make) -> None:
    heard: list[Context] = []

    def script(context: Context) -> str:
        heard.append(context)
        return "<answer>K</answer>" if context.turns else "no idea"

    (done,) = play([a_game(sample())], ScriptedPolicy(script))
    assert done.answer == "K"
    assert [type(turn.action) for turn in done.turns] == [Malformed, Answer]
    last = PROTOCOLS["qwen2_5_vl"].messages(heard[1])[-1]
    assert last.parts == ("Error: There is neither a tool call nor an answer.",)


def test_an_episode_ends_unanswered_after_its_turns(sample: Make) -> None:
    (done,) = play([a_game(sample(), max_turns=3)], ScriptedPolicy([CROP]))
    assert (done.stop, done.answer, len(done.turns)) == (Stop.MAX_TURNS, None, 3)
    assert all(isinstance(turn.action, Crop) for turn in done.turns)


@pytest.mark.parametrize(("max_turns", "turns", "limit"), [(3, None, 3), (1, None, 1), (6, 2, 2)])
def test_a_crop_that_the_last_turn_asks_for_is_neither_cut_nor_counted_nor_paid(
    sample: Make, max_turns: int, turns: int | None, limit: int
) -> None:
    cut: list[Box] = []

    def look(one: Sample, box: Box) -> View:
        cut.append(box)
        return crop_view(open_picture(one.image), box, CropRules())

    one = sample()
    chat = replace(PROTOCOLS["qwen2_5_vl"], turns=turns)
    first = global_view(open_picture(one.image), 16)
    game = episode(one, first, look=look, protocol=chat, max_turns=max_turns)
    (done,) = play([game], ScriptedPolicy([CROP]))
    assert len(done.turns) == limit
    assert isinstance(done.turns[-1].action, Crop)
    assert done.turns[-1].view is None
    assert len(cut) == len(done.boxes) == done.shown_crops == len(done.views) - 1 == limit - 1
    record = record_of(done)
    assert (record.calls, record.crops, record.tool) == (limit - 1, limit - 1, limit > 1)
    assert len(record.boxes) == limit - 1
    assert (record.iou is None) == (record.crop_area is None) == (limit == 1)
    terms = episode_reward(done, RewardConfig(grounding=1.0, crop_cost=0.1))
    assert (terms.grounding > 0) == (limit > 1)
    assert terms.crops == pytest.approx(-0.1 * max(0, limit - 2))
    # the same for a record that was read back
    read = record_from_json(record_to_json(record), {one.id: one})
    assert read.boxes == record.boxes


def test_a_crop_that_shows_nothing_leaves_no_view(sample: Make) -> None:
    one = sample()
    first = global_view(open_picture(one.image), 16)
    (done,) = play(
        [episode(one, first, look=no_look, protocol=PROTOCOLS["qwen2_5_vl"])],
        ScriptedPolicy([CROP, "<answer>K</answer>"]),
    )
    assert (len(done.boxes), done.shown_crops, done.views) == (1, 0, (first,))


def test_many_games_are_one_call_a_round_and_come_back_in_order(sample: Make) -> None:
    calls: list[list[str]] = []

    class Recorder:
        def reply(self, contexts: Sequence[Context]) -> list[Reply]:
            calls.append([context.question for context in contexts])
            return [
                Reply(CROP if len(c.turns) < int(c.question) else f"<answer>{c.question}</answer>")
                for c in contexts
            ]

    samples = [sample(id=crops, question=crops) for crops in ("2", "0", "1")]
    done = play([a_game(one) for one in samples], Recorder())
    assert [one.answer for one in done] == ["2", "0", "1"]
    # a game leaves the batch once it has answered
    assert calls == [["2", "0", "1"], ["2", "1"], ["2"]]


def test_crops_cut_in_threads_are_those_of_one_thread_and_equal_boxes_are_cut_once(
    sample: Make,
) -> None:
    cuts: list[tuple[str, Box]] = []

    def slow_look(sample: Sample, box: Box) -> View | None:
        cuts.append((sample.id, box))
        time.sleep(0.005)
        return original_look(CropRules())(sample, box)

    samples = [sample(id=str(n // 4), question=str(n // 4)) for n in range(12)]
    views = {one.id: global_view(open_picture(one.image), 16) for one in samples}

    def games(look: Look) -> list[Game]:
        protocol = PROTOCOLS["qwen2_5_vl"]
        return [episode(one, views[one.id], look=look, protocol=protocol) for one in samples]

    script = [CROP, "<answer>K</answer>"]
    plain = play(games(look_once(slow_look)), ScriptedPolicy(script))
    assert len(cuts) == 3
    with ThreadPoolExecutor(4) as threads:
        done = play(games(look_once(slow_look)), ScriptedPolicy(script), each=threads.map)
    assert len(cuts) == 6
    assert [one.sample for one in done] == samples
    assert [one.boxes for one in done] == [one.boxes for one in plain]
    for group in range(3):
        assert len({id(one.views[1]) for one in done[4 * group : 4 * group + 4]}) == 1


def test_no_games_are_no_calls() -> None:
    assert play([], ScriptedPolicy(["x"])) == []


def test_a_policy_that_drops_a_reply_is_caught(sample: Make) -> None:
    class Silent:
        def reply(self, contexts: Sequence[Context]) -> list[Reply]:
            return []

    with pytest.raises(ValueError, match="shorter"):
        play([a_game(sample())], Silent())
