"""Episodes told step by step, and played again with another look; without a server."""

import asyncio
from contextlib import aclosing
from dataclasses import replace

import pytest
from chat_server import ChatServer
from live_server import CALL, CONFIG, looks_at, scripted_model

from lfpc.ask import live
from lfpc.ask.live import Busy, LiveQuestion, led, live_model, swapped
from lfpc.boxes import Box
from lfpc.dialogue import Crop
from lfpc.episode import Episode, Stop
from lfpc.errors import RunError, SampleError
from lfpc.policies.backends import Server


def told(model, asked):
    """Every step of the episode."""

    async def all_steps():
        async with aclosing(model.steps(asked)) as steps:
            return [step async for step in steps]

    return asyncio.run(all_steps())


def test_an_episode_comes_turn_by_turn(sample):
    steps = told(scripted_model(), LiveQuestion(sample=sample(), config=CONFIG))
    assert [len(step.turns) for step in steps] == [0, 1, 2, 3]
    assert isinstance(steps[-1], Episode)
    assert steps[-1].stop is Stop.ANSWERED


@pytest.mark.parametrize(
    ("what", "region"),
    [("own", (0, 0, 56)), ("truth", (0.3, 0.3, 0.6)), (Box(0.5, 0.5, 1, 1), (0.5, 0.5, 1))],
)
def test_the_swapped_crop_shows_something_else_and_the_others_what_they_asked_for(
    sample, what, region
):
    asked = LiveQuestion(sample=sample(), config=CONFIG)
    own = told(scripted_model(), asked)[-1]
    other = told(scripted_model(), swapped(asked, own.turns, 2, what))[-1]
    assert other.turns[0].reply == own.turns[0].reply
    assert other.turns[0].view.region == own.turns[0].view.region == own.turns[1].view.region
    shown = other.turns[1].view.region.corners
    assert shown[:2] == pytest.approx(region[:2])
    assert (other.answer == own.answer) == (what == "own")


def test_noise_and_nothing_are_shown_for_one_call_only(sample):
    asked = LiveQuestion(sample=sample(), config=CONFIG)
    own = told(scripted_model(), asked)[-1]
    noise = told(scripted_model(), swapped(asked, own.turns, 1, "noise"))[-1]
    assert noise.turns[0].view.size == own.turns[0].view.size
    assert noise.turns[0].view.image.tobytes() != own.turns[0].view.image.tobytes()
    assert noise.turns[1].view.image.tobytes() == own.turns[1].view.image.tobytes()
    nothing = told(scripted_model(), swapped(asked, own.turns, 1, "none"))[-1]
    assert [turn.view is None for turn in nothing.turns[:2]] == [True, False]
    assert nothing.answer.startswith("[None, (")


def test_a_swap_of_a_swap_keeps_what_was_shown_before(sample):
    first = LiveQuestion(sample=sample(), config=CONFIG)
    own = told(scripted_model(), first)[-1]
    second = swapped(first, own.turns, 1, "none")
    third = swapped(second, told(scripted_model(), second)[-1].turns, 2, "none")
    assert third.shown == {1: "none", 2: "none"}
    assert told(scripted_model(), third)[-1].answer == "[None, None]"
    assert swapped(third, own.turns, 1, "own").shown == {
        1: "own"
    }  # what came after is asked for anew


def test_a_question_can_begin_with_a_crop_that_a_person_chose(sample):
    asked = LiveQuestion(sample=sample(), config=CONFIG)
    box = Box(0.21, 0.52, 0.49, 0.98)
    played = told(scripted_model(), led(asked, box))[-1]
    assert played.turns[0].view.region == box
    assert played.turns[0].action.box.corners == pytest.approx(
        box.corners, abs=1 / 84
    )  # in whole pixels of the first view, 112 x 84
    assert played.turns[1].reply.text == CALL
    with pytest.raises(RunError, match="does not take this region"):
        led(
            replace(asked, config=replace(CONFIG, protocol="deepeyes", crop=None)),
            Box(0, 0, 0.01, 0.01),
        )
    with pytest.raises(RunError, match="raise `max_turns`"):
        led(replace(asked, config=replace(CONFIG, max_turns=1)), Box(0, 0, 0.5, 0.5))


def test_the_policy_is_asked_only_after_the_swapped_crop(sample):
    asked = LiveQuestion(sample=sample(), config=CONFIG)
    contexts = []

    def counting(context):
        contexts.append(len(context.turns))
        return looks_at(context)

    own = told(scripted_model(), asked)[-1]
    told(scripted_model(counting), swapped(asked, own.turns, 2, "noise"))
    assert contexts == [2]


def test_a_crop_that_nothing_follows_cannot_be_swapped(sample):
    asked = LiveQuestion(sample=sample(), config=replace(CONFIG, max_turns=2))
    turns = told(scripted_model(), asked)[-1].turns
    with pytest.raises(RunError, match="crop 2 came with the last of 2 turns"):
        swapped(asked, turns, 2, "noise")
    with pytest.raises(RunError, match="no crop 3 to swap; the episode has 2"):
        swapped(asked, turns, 3, "noise")


def test_truth_of_a_picture_without_boxes_is_one_sentence(sample):
    asked = LiveQuestion(sample=sample(boxes=()), config=CONFIG)
    turns = told(scripted_model(), asked)[-1].turns
    with pytest.raises(SampleError, match="has no boxes"):
        told(scripted_model(), swapped(asked, turns, 1, "truth"))


def test_a_question_too_many_is_refused_and_places_are_given_back(sample, monkeypatch):
    monkeypatch.setattr(live, "LONGEST_QUEUE", 1)
    model = scripted_model()
    asked = LiveQuestion(sample=sample(), config=CONFIG)

    async def two():
        async with aclosing(model.steps(asked)) as steps:
            await anext(steps)
            with pytest.raises(Busy, match="ask again in a moment"):
                await anext(model.steps(asked))
        return [step async for step in model.steps(asked)]

    assert isinstance(asyncio.run(two())[-1], Episode)


def test_a_served_model_comes_the_same_way(sample):
    config = replace(CONFIG, model="scripted")
    with ChatServer() as server:
        model = live_model("scripted", config, Server(base_url=server.base_url))
        turns = told(
            model,
            LiveQuestion(
                sample=sample(), config=replace(config, temperature=0.5, max_new_tokens=7)
            ),
        )[-1].turns
    assert isinstance(turns[0].action, Crop)
    assert (
        turns[0].reply.usage.prompt_tokens == 200
    )  # of the system and the user's message, 100 each
    assert {(request["temperature"], request["max_tokens"]) for request in server.requests} == {
        (0.5, 7)
    }
