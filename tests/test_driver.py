"""Many samples played by one driver, also where an event loop runs already, as in a notebook."""

import asyncio
import signal
import threading
import time
from dataclasses import dataclass, replace

import pytest
from chat_server import ChatServer

from lfpc.dialogue import Reply
from lfpc.episode import episode, play, run_async
from lfpc.errors import PictureError, RunError
from lfpc.evaluation.opened import OpenEvaluation, first_view
from lfpc.evaluation.run import evaluate
from lfpc.evaluation.timing import time_questions
from lfpc.images import CropRules
from lfpc.looks import original_look
from lfpc.playing.driver import Failure, Question, one_game, play_samples
from lfpc.policies.scripted import ScriptedPolicy
from lfpc.policies.served import ServedPolicy, Server
from lfpc.protocols import PROTOCOLS
from lfpc.selection.ladder import RULES, AnswerRules
from lfpc.selection.run import SelectConfig, select
from lfpc.storage.journal import Journal
from lfpc.storage.runs import Kind, RunFolder

PROTOCOL = PROTOCOLS["qwen2_5_vl"]
LOOK = original_look(CropRules(min_tokens=1, max_tokens=16))
LADDER = SelectConfig(ladder=(64, 16, 4))
LONG_S = 60.0
"""Longer than any test takes: a reply that nobody waits for to the end."""


@dataclass(frozen=True)
class Config:
    name: str = "test"


class Served:
    """A served policy: says the size of the first view, or fails or sleeps where it is told to."""

    def __init__(self, concurrency=4, sleeps=(), fails=()):
        self.concurrency = concurrency
        self.sleeps = sleeps
        self.fails = fails
        self.begun = threading.Event()
        self.asked = []
        self.cancelled = self.left = 0

    async def __aenter__(self):
        return self

    async def __aexit__(self, *error):
        self.left += 1

    async def reply_to(self, context):
        self.asked.append(context.question)
        self.begun.set()
        if context.question in self.fails:
            await asyncio.sleep(0.01)
            raise RuntimeError("out of memory")
        if context.question in self.sleeps:
            try:
                await asyncio.sleep(LONG_S)
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        return Reply(f"<answer>{context.first_view.size}</answer>")


def start(sample):
    return episode(sample, first_view(sample, 16), look=LOOK, protocol=PROTOCOL)


def played(samples, policy, item=None, **options):
    """Sample id -> what became of it."""
    found = {}

    def record(some):
        found.update({sample.id: result for sample, result, _ in some})

    play_samples(samples, item or one_game(start), policy, record, **options)
    return found


def evaluated(samples, policy, out):
    run = RunFolder.open(out, Kind.EVALUATION, Config())
    asked = OpenEvaluation(samples=samples, run=run, protocol=PROTOCOL, budget=16, look=LOOK)
    (records,) = evaluate([asked], policy, progress=False)
    return [replace(record, seconds=None) for record in records]


def selected(samples, policy, out, rules=RULES):
    return select(
        samples, policy, protocol=PROTOCOL, config=LADDER, out=out, rules=rules, progress=False
    )


def in_a_notebook(call):
    """What `call` gives in a thread whose event loop runs, and which leaves Ctrl-C to Python."""

    async def cell():
        return call()

    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(cell())
    finally:
        loop.close()


@pytest.fixture
def samples(sample):
    return [sample(id=f"s{i}", question=f"q{i}") for i in range(6)]


# --- inside a running event loop ------------------------------------------------------------------


def test_a_served_policy_is_evaluated_inside_a_running_loop(samples, tmp_path):
    outside = evaluated(samples, Served(), tmp_path / "a")
    assert in_a_notebook(lambda: evaluated(samples, Served(), tmp_path / "b")) == outside
    assert len(outside) == 6


def test_a_served_policy_selects_inside_a_running_loop(samples, tmp_path):
    outside = selected(samples, Served(), tmp_path / "a")
    assert in_a_notebook(lambda: selected(samples, Served(), tmp_path / "b")) == outside
    assert [sample.budget for sample in outside.samples] == [16] * 6


def test_a_served_policy_is_timed_and_replies_inside_a_running_loop(samples):
    timing = in_a_notebook(
        lambda: time_questions(samples, Served(), protocol=PROTOCOL, budget=16, look=LOOK)
    )
    assert timing.questions == 5
    with ChatServer() as server:
        policy = ServedPolicy(Server(base_url=server.base_url), "scripted", PROTOCOL)
        assert in_a_notebook(lambda: play([start(samples[0])], policy)[0].answer)


def test_what_a_coroutine_raises_inside_a_running_loop_is_raised_as_it_is():
    async def fails():
        raise RunError("the disk refuses")

    with pytest.raises(RunError, match="the disk refuses") as caught:
        in_a_notebook(lambda: run_async(fails()))
    assert caught.value.__context__ is None
    with pytest.raises(RunError, match="the disk refuses") as caught:
        run_async(fails())
    assert caught.value.__context__ is None


def test_ctrl_c_inside_a_running_loop_ends_what_is_in_play(samples, tmp_path):
    policy = Served(sleeps={sample.question for sample in samples})
    this = threading.get_ident()

    def interrupt():
        policy.begun.wait(LONG_S)
        time.sleep(0.05)
        signal.pthread_kill(this, signal.SIGINT)

    deaf = signal.signal(signal.SIGINT, signal.default_int_handler)
    began = time.monotonic()
    try:
        threading.Thread(target=interrupt).start()
        with pytest.raises(KeyboardInterrupt):
            in_a_notebook(lambda: evaluated(samples, policy, tmp_path))
    finally:
        signal.signal(signal.SIGINT, deaf)
    assert time.monotonic() - began < LONG_S / 2
    assert (policy.cancelled, policy.left) == (4, 1)


@pytest.mark.parametrize("where", [in_a_notebook, lambda call: call()])
def test_what_the_callback_raises_ends_what_is_in_play(samples, where):
    policy = Served(sleeps={"q1", "q2", "q3"})

    def record(some):
        raise RunError("the disk refuses")

    began = time.monotonic()
    with pytest.raises(RunError, match="the disk refuses"):
        where(lambda: play_samples(samples, one_game(start), policy, record))
    assert time.monotonic() - began < LONG_S / 2
    assert policy.left == 1


# --- items ----------------------------------------------------------------------------------------


def three_games(sample):
    """Two questions: a game about the sample, then two more at once."""
    first = yield Question(lambda: [start(sample)])
    others = yield Question(lambda: [start(sample), start(sample)], level=1)
    return [each.answer for each in (*first, *others)]


def say(context):
    return f"<answer>{context.question}</answer>"


def test_an_item_asks_several_questions_in_turn_and_gives_a_result(samples):
    asked = []

    class Batches(ScriptedPolicy):
        def reply(self, contexts):
            asked.append(len(contexts))
            return super().reply(contexts)

    found = played(samples, Batches(say), three_games, batch=4)
    assert found == {sample.id: [sample.question] * 3 for sample in samples}
    # 4 first questions; 4 second ones of 2 games; what is left of the other two samples
    assert asked == [4, 8, 2, 4]
    served = played(samples, Served(), three_games)
    assert {name: len(answers) for name, answers in served.items()} == dict.fromkeys(found, 3)


@pytest.mark.parametrize("make", [Served, lambda: ScriptedPolicy(say)])
def test_a_picture_error_loses_its_sample_at_every_point_and_does_not_count(samples, make):
    def unusable():
        raise PictureError("torn")

    def item(sample):
        if sample.id == "s0":
            unusable()
        yield Question(lambda: [start(sample)] if sample.id != "s1" else unusable())
        if sample.id == "s2":
            unusable()

    found = played(samples, make(), item)
    assert {name for name, result in found.items() if result} == {"s0", "s1", "s2"}
    assert {found[name] for name in ("s0", "s1", "s2")} == {Failure("torn", counts=False)}


def test_a_policy_that_fails_at_a_second_question_loses_only_that_sample_and_counts(samples):
    def fails(context):
        if context.question == "q2":
            raise RuntimeError("out of memory")
        return say(context)

    def item(sample):
        yield Question(lambda: [start(samples[0])])
        yield Question(lambda: [start(sample)], level=1)

    failure = Failure("RuntimeError: out of memory", counts=True)
    expected = {sample.id: None for sample in samples} | {"s2": failure}
    assert played(samples, ScriptedPolicy(fails), item) == expected
    assert played(samples, Served(fails={"q2"}), item) == expected


def test_a_game_that_fails_ends_the_other_games_of_its_question(samples):
    policy = Served(fails={"q0"}, sleeps={"q1"})
    began = time.monotonic()
    found = played(
        samples[:1], policy, lambda _: (yield Question(lambda: list(map(start, samples[:2]))))
    )
    assert found["s0"].counts
    assert policy.cancelled == 1
    assert time.monotonic() - began < LONG_S / 2


# --- selection ------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [Served, lambda: ScriptedPolicy(say)])
def test_a_judge_that_gives_up_ends_the_selection_and_the_answers_are_kept(samples, tmp_path, make):
    def gives_up(*asked):
        raise RunError("the judge refuses")

    with pytest.raises(RunError, match="the judge refuses"):
        selected(samples, make(), tmp_path, AnswerRules(same=gives_up, right=gives_up))
    assert (tmp_path / "answers" / "answers.jsonl").read_text().count("\n") >= 1


@pytest.mark.parametrize("make", [Served, lambda: ScriptedPolicy(say)])
def test_a_disk_that_refuses_an_answer_ends_the_selection(samples, tmp_path, make, monkeypatch):
    def refuse(self, key, row):
        raise RunError("no space left")

    monkeypatch.setattr(Journal, "append", refuse)
    with pytest.raises(RunError, match="no space left"):
        selected(samples, make(), tmp_path)
