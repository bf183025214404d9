"""Resolution selection: the first level at which the answer is no longer the one at the
original."""

import asyncio
import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from zlib import crc32

import pytest
from chat_server import ChatServer
from PIL import Image
from test_served import policy_of

import lfpc.images
from lfpc import cli
from lfpc.answers import normalise
from lfpc.dialogue import Answer, Context, Reply
from lfpc.errors import ConfigError, RunError
from lfpc.evaluation.judge import Judgement
from lfpc.images import global_view, open_picture, visual_tokens
from lfpc.policies.sampling import GREEDY, Sampling
from lfpc.policies.scripted import ScriptedPolicy
from lfpc.protocols import PROTOCOLS
from lfpc.report.selection_page import selection_lines, write_selection_page
from lfpc.samples import Sample, read_samples, write_samples
from lfpc.selection import processes as selection_processes
from lfpc.selection.config import SelectConfig
from lfpc.selection.judged import judged_rules
from lfpc.selection.ladder import majority
from lfpc.selection.run import Level, Selection, cost_line, select
from lfpc.storage.journal import read_lines

HERE = Path(__file__).parent
PROTOCOL = PROTOCOLS["qwen2_5_vl"]
LADDER = (64, 16, 4)


@pytest.fixture
def samples(tmp_path):
    Image.new("RGB", (224, 224), "grey").save(tmp_path / "p.png")
    return [
        Sample(id=name, image=tmp_path / "p.png", question=name, answer="A")
        for name in ("early", "late", "never", "wrong")
    ]


#            64 tokens  16   4      first change
ANSWERS = {
    "early": {64: "A", 16: "B", 4: "A"},  # 16: what comes after it does not matter
    "late": {64: "A", 16: "a", 4: "C"},  # 4: "a" is the same answer as "A"
    "never": {64: "A", 16: "A", 4: "A"},
    "wrong": {
        64: "B",
        16: "A",
        4: "A",
    },  # 16: compared with its own answer at the original, not with the truth
}


def reader(asked):
    def reply(context):
        level = visual_tokens(context.first_view.size)
        asked.append((context.question, level))
        return f"<answer>{ANSWERS[context.question][level]}</answer>"

    return ScriptedPolicy(reply)


def run(samples, out, asked, **options):
    return choose(samples, reader(asked), out, **options)


def choose(samples, policy, out, *, batch=64, processes=1, **options):
    return select(
        samples,
        policy,
        protocol=PROTOCOL,
        config=SelectConfig(**{"ladder": LADDER} | options),
        out=out,
        batch=batch,
        processes=processes,
        progress=False,
    )


def test_budget_is_the_first_level_whose_answer_differs_from_the_one_at_the_original(
    samples, tmp_path
):
    asked = []
    found = run(samples, tmp_path / "out", asked)
    assert {s.id: s.budget for s in found.samples} == {
        "early": 16,
        "late": 4,
        "never": 4,
        "wrong": 16,
    }
    assert (found.levels, found.never, found.wrong, found.dropped) == ({16: 2, 4: 1}, 1, 1, 0)
    assert ("early", 4) not in asked, "a sample that differed is not asked at lower levels"


def test_a_selection_in_which_no_answer_changed_ends_with_a_warning_and_what_to_do(
    samples, tmp_path
):
    sure = ScriptedPolicy(lambda context: "<answer>A</answer>")
    warning = selection_lines(choose(samples, sure, tmp_path / "sure"))[-1]
    assert warning.startswith("warning: no answer changed")
    assert "alike at the lowest level" in warning
    # the pictures have 64 visual tokens: every level of this ladder shows all of them
    high = choose(samples, reader([]), tmp_path / "high", ladder=(4096, 1024, 256))
    assert (high.never, high.one_size) == (4, 4)
    warning = selection_lines(high)[-1]
    assert "4 of 4 pictures have the same size at all levels" in warning
    assert "--ladder" in warning
    assert "--ratios" in warning
    # some answers change: no warning
    assert "warning" not in selection_lines(run(samples, tmp_path / "low", []))[-1]


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"never": "drop"}, {"early", "late", "wrong"}),
        ({"wrong": "drop"}, {"early", "late", "never"}),
        ({"never": "drop", "wrong": "drop"}, {"early", "late"}),
    ],
)
def test_options_drop_samples_and_the_counts_are_written(samples, tmp_path, options, kept):
    found = run(samples, tmp_path / "out", [], **options)
    assert {s.id for s in found.samples} == kept
    summary = json.loads((tmp_path / "out" / "selection.json").read_text())
    assert {
        key: summary[key] for key in ("samples", "levels", "never", "wrong", "dropped", "failed")
    } == {
        "samples": 4,
        "levels": {"16": 2, "4": 1},
        "never": 1,
        "wrong": 1,
        "dropped": 4 - len(kept),
        "failed": {},
    }
    # of the four: "wrong" is wrong at 64; at 16 "early" says B; at 4 only "late" (C) and "never"
    # (A) are left
    assert [
        (level["name"], level["asked"], level["right"], level["right_before"], level["changed"])
        for level in summary["ladder"]
    ] == [
        (64, 4, 3, 3, 0),
        (16, 4, 3, 3, 2),
        (4, 2, 1, 2, 1),
    ]
    # "wrong" changes at 16 as well, from one wrong answer to another
    assert [level["changed_right"] for level in summary["ladder"]] == [0, 1, 1]
    lines = selection_lines(found)
    assert lines[0].startswith(
        "      16:      2 samples changed their answer,      1 of them a right"
    )
    assert lines[-1].startswith("never changed: 1; wrong at the original: 1 (25 %); dropped: ")
    # of all four at 4: "late" and "never" as answered there, the others as answered at 16
    assert [(level["tokens"], level["right_all"]) for level in summary["ladder"]] == [
        (64, 3),
        (16, 3),
        (4, 2),
    ]


def test_the_page_names_levels_in_visual_tokens_and_counts_all_samples(tmp_path):
    levels = (Level(1.0, 8, 6, 6, 0, 400.0, 6), Level(0.25, 8, 4, 6, 5, 100.0, 4))
    ladder = (*levels, Level(0.0625, 3, 1, 2, 3, 25.0, 2))
    found = Selection([], {0.25: 5, 0.0625: 3}, 0, 2, 0, ladder)
    page = write_selection_page(tmp_path, found)
    assert "25 (x 0.0625)" in page.read_text()
    assert (tmp_path / "figures" / "levels.csv").read_text().splitlines() == [
        "level,accuracy",
        "400 (x 1),0.75",
        "100 (x 0.25),0.5",
        "25 (x 0.0625),0.25",
    ]


def test_second_run_asks_nothing_and_chooses_the_same(samples, tmp_path):
    first = run(samples, tmp_path / "out", [])
    asked = []
    assert run(samples, tmp_path / "out", asked) == first
    assert asked == []


def test_another_model_may_not_use_the_same_answers(samples, tmp_path):
    run(samples, tmp_path / "out", [])
    with pytest.raises(RunError, match="model"):
        run(samples, tmp_path / "out", [], model="another")


def test_ladder_must_fall():
    with pytest.raises(ConfigError, match=r"falling positive budgets, got \(4, 16\)"):
        SelectConfig(ladder=(4, 16))


# --- many at once ---------------------------------------------------------------------------------


def guess(context):
    """An answer that depends on the question and on what is shown, and on nothing else."""
    shown = context.first_view
    chance = crc32(repr((context.question, shown.size, shown.image.getpixel((0, 0)))).encode())
    return f"<answer>{'AB'[chance % 5 == 0]}</answer>"


class Served:
    """A policy that answers at its own pace, many at a time."""

    concurrency = 7

    def __init__(self):
        self.running = self.most = self.asked = 0

    async def __aenter__(self):
        return self

    async def __aexit__(self, *error):
        pass

    async def reply_to(self, context):
        self.running = self.running + 1
        self.asked = self.asked + 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(random.Random(context.question).uniform(0.003, 0.01))
        self.running -= 1
        return Reply(guess(context))


def many(folder, count=60, sizes=((224, 224), (112, 84), (40, 30))):
    folder.mkdir()
    for i in range(count // 2):
        Image.new("RGB", sizes[i % len(sizes)], (i, 255 - i, 7)).save(folder / f"{i}.png")
    return [
        Sample(id=f"s{i}", image=folder / f"{i // 2}.png", question=f"q{i}", answer="A")
        for i in range(count)
    ]


def naive(samples, ladder):
    """Level by level, one at a time, nothing shared: the definition."""
    budgets = {}
    for sample in samples:
        said = []
        for level in ladder:
            context = Context(
                sample.question, (), global_view(open_picture(sample.image), level), ()
            )
            action = PROTOCOL.parse(guess(context), context.views)
            assert isinstance(action, Answer)
            said.append(action.text)
        changed = [
            level
            for level, text in zip(ladder, said, strict=True)
            if normalise(text) != normalise(said[0])
        ]
        budgets[sample.id] = changed[0] if changed else ladder[-1]
    return budgets


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_batches_choose_what_the_naive_loop_chooses(tmp_path, batch):
    samples = many(tmp_path / "p")
    asked = []
    policy = ScriptedPolicy(
        lambda context: asked.append(visual_tokens(context.first_view.size)) or guess(context)
    )
    found = choose(samples, policy, tmp_path / "out", batch=batch)
    assert {s.id: s.budget for s in found.samples} == naive(samples, LADDER)
    assert [s.id for s in found.samples] == [s.id for s in samples]


def test_many_requests_at_once_choose_what_the_naive_loop_chooses(tmp_path):
    samples = many(tmp_path / "p")
    policy = Served()
    found = choose(samples, policy, tmp_path / "out")
    assert {s.id: s.budget for s in found.samples} == naive(samples, LADDER)
    assert 3 < policy.most <= 7


def test_batches_are_full_until_the_samples_run_out(tmp_path):
    samples = many(tmp_path / "p", sizes=((224, 224),))
    sizes = []

    class Counting(ScriptedPolicy):
        def reply(self, contexts):
            sizes.append(Counter(visual_tokens(context.first_view.size) for context in contexts))
            return super().reply(contexts)

    choose(samples, Counting(guess), tmp_path / "out", batch=8)
    assert all(sum(size.values()) == 8 for size in sizes[:-3])
    assert all(len(size) == 1 for size in sizes[:-3]), (
        "one level at a time, so that no row waits for a longer one"
    )


def test_picture_with_the_same_pixels_at_two_levels_is_asked_about_once(tmp_path):
    Image.new("RGB", (56, 56), "grey").save(
        tmp_path / "small.png"
    )  # 2 x 2 = 4 tokens: whole at every level
    asked = []
    sample = Sample(id="s", image=tmp_path / "small.png", question="never", answer="A")
    found = choose([sample], reader(asked), tmp_path / "out")
    assert asked == [("never", 4)]
    assert (found.never, found.samples[0].budget) == (1, 4)


def test_ratios_are_shares_of_each_original(tmp_path):
    samples = many(tmp_path / "p", 4, sizes=((448, 448), (224, 224)))  # 256 and 64 tokens
    config = SelectConfig(ladder=(1024, 4), ratios=(1, 0.25, 1 / 16))
    found = select(
        samples,
        ScriptedPolicy(lambda c: f"<answer>{c.first_view.size}</answer>"),
        protocol=PROTOCOL,
        config=config,
        out=tmp_path / "out",
        progress=False,
    )
    assert [s.budget for s in found.samples] == [64, 64, 16, 16]
    assert found.levels == {0.25: 4}


def test_without_early_stop_every_level_is_asked(samples, tmp_path):
    asked = []
    found = run(samples, tmp_path / "out", asked, every_level=True)
    assert {s.id: s.budget for s in found.samples} == {
        "early": 16,
        "late": 4,
        "never": 4,
        "wrong": 16,
    }
    assert ("early", 4) in asked
    assert [level.asked for level in found.ladder] == [4, 4, 4]


def test_the_most_frequent_answer_counts_and_the_first_of_equals():
    assert majority(["b", "The A.", "a", "b", "A"]) == "The A."  # a three times
    assert majority(["C", "B", "b", "c"]) == "C"
    assert majority(["(B)", "red", "B. blue"], options=("red", "blue")) == "(B)"


def test_votes_are_asked_that_often_and_decide(samples, tmp_path):
    said = {64: "AAB", 16: "ABA", 4: "BBA"}  # A, A, B
    count = Counter()

    def reply(context):
        level = visual_tokens(context.first_view.size)
        count[level] += 1
        return f"<answer>{said[level][count[level] - 1]}</answer>"

    found = choose(samples[:1], ScriptedPolicy(reply), tmp_path / "out", votes=3)
    assert count == {64: 3, 16: 3, 4: 3}
    assert found.samples[0].budget == 4


def test_letter_and_text_of_an_option_are_one_answer(samples, tmp_path):
    said = {64: "B", 16: "(B) blue", 4: "red"}
    policy = ScriptedPolicy(
        lambda context: f"<answer>{said[visual_tokens(context.first_view.size)]}</answer>"
    )
    sample = Sample(
        id="o", image=samples[0].image, question="?", answer="B", options=("red", "blue")
    )
    found = choose([sample], policy, tmp_path / "out")
    assert (found.samples[0].budget, found.wrong) == (4, 0)


@pytest.mark.parametrize("served", [False, True])
def test_broken_picture_loses_only_its_own_sample(samples, tmp_path, served):
    (tmp_path / "broken.png").write_bytes((tmp_path / "p.png").read_bytes()[:60])
    bad = Sample(id="bad", image=tmp_path / "broken.png", question="never", answer="A")
    policy = Served() if served else reader([])
    found = choose([*samples, bad], policy, tmp_path / "out")
    assert [s.id for s in found.samples] == ["early", "late", "never", "wrong"]
    assert found.failed is not None
    assert list(found.failed) == ["bad"]
    assert str(tmp_path / "broken.png") in found.failed["bad"]
    assert found.open == ()


def test_replies_that_the_token_limit_ended_are_counted_and_named_also_when_stored(
    samples, tmp_path
):
    class Cut:
        def reply(self, contexts):
            return [
                Reply("<answer>A", finish="length" if context.question == "late" else "stop")
                for context in contexts
            ]

    for _ in range(2):
        found = choose(samples, Cut(), tmp_path)
        assert found.truncated == 1
        lines = selection_lines(found)
        assert any("1 samples have a reply that the token limit ended" in line for line in lines)
        assert any("raise `max_new_tokens`" in line for line in lines)
    assert json.loads((tmp_path / "selection.json").read_text())["truncated"] == 1


def test_policy_that_fails_on_one_question_loses_only_that_and_one_that_always_fails_ends_the_run(
    samples, tmp_path
):
    def reply(context):
        if context.question == "late":
            raise RuntimeError("out of memory")
        return "<answer>A</answer>"

    found = choose(samples, ScriptedPolicy(reply), tmp_path / "a")
    assert found.failed == {"late": "RuntimeError: out of memory"}
    assert found.open == ("late",)
    with pytest.raises(
        RunError, match="1 of 1 samples failed, the last with: RuntimeError: out of memory"
    ):
        choose(samples[1:2], ScriptedPolicy(reply), tmp_path / "b")


def test_answers_serve_another_ladder_and_other_rules(samples, tmp_path):
    shared = tmp_path / "answers"
    asked = []
    options = {"protocol": PROTOCOL, "answers": shared, "progress": False}
    select(samples, reader([]), config=SelectConfig(ladder=LADDER), out=tmp_path / "a", **options)
    found = select(
        samples,
        reader(asked),
        config=SelectConfig(ladder=(64, 4), wrong="drop"),
        out=tmp_path / "b",
        **options,
    )
    assert asked == [("early", 4), ("wrong", 4)], "they had stopped at 16"
    assert {s.id: s.budget for s in found.samples} == {"early": 4, "late": 4, "never": 4}


class Asked:
    """A judge that finds that colours mean the same, and does not decide about shapes."""

    def __init__(self):
        self.cases = []

    def decide(self, cases):
        self.cases += cases
        return [Judgement("crimson" in case.reply) for case in cases]


def test_judge_is_asked_about_free_answers_that_no_rule_matches(samples, tmp_path):
    said = {64: "red", 16: "it is crimson", 4: "blue"}
    judge = Asked()
    policy = ScriptedPolicy(
        lambda context: f"<answer>{said[visual_tokens(context.first_view.size)]}</answer>"
    )
    sample = Sample(id="s", image=samples[0].image, question="Which colour?", answer="Red.")
    config = SelectConfig(ladder=LADDER, judge="m")
    found = select(
        [sample],
        policy,
        protocol=PROTOCOL,
        config=config,
        out=tmp_path,
        rules=judged_rules(judge),
        progress=False,
    )  # pyright: ignore[reportArgumentType]
    assert found.samples[0].budget == 4
    assert [(case.reference, case.reply) for case in judge.cases] == [
        ("red", "it is crimson"),
        ("Red.", "it is crimson"),
        ("red", "blue"),
        ("Red.", "blue"),
    ]


class UndecidedAtFirst:
    """A judge that fails for two of the questions, and decides all of them once it `works`."""

    def __init__(self):
        self.works = False

    def decide(self, cases):
        fails = not self.works and cases[0].question in ("early", "wrong")
        return [Judgement(None, "Connection error.") if fails else Judgement(False)]


def test_a_judge_that_fails_leaves_samples_open_and_no_budget_depends_on_it(samples, tmp_path):
    judge = UndecidedAtFirst()
    asked = [replace(sample, answer="none of these", options=()) for sample in samples]
    policy = ScriptedPolicy(
        lambda context: f"<answer>{context.question} {context.first_view.size}</answer>"
    )

    def chosen(out):
        config = SelectConfig(ladder=LADDER, judge="m")
        rules = judged_rules(judge)  # pyright: ignore[reportArgumentType]
        options = {"protocol": PROTOCOL, "config": config, "rules": rules, "progress": False}
        return select(asked, policy, out=out, **options)

    first = chosen(tmp_path / "a")
    assert first.open == ("early", "wrong")
    assert all("the judge did not decide: Connection" in first.failed[name] for name in first.open)
    judge.works = True
    undisturbed = {sample.id: sample.budget for sample in chosen(tmp_path / "b").samples}
    assert {sample.id: undisturbed[sample.id] for sample in first.samples} == {
        sample.id: sample.budget for sample in first.samples
    }
    again = chosen(tmp_path / "a")
    assert again.open == ()
    assert {sample.id: sample.budget for sample in again.samples} == undisturbed


@pytest.mark.slow
def test_a_server_that_fails_for_three_requests_in_ten_changes_no_budget(samples, tmp_path, capsys):
    folder = write_samples(samples, tmp_path / "data").parent

    def chosen(out, server):
        command = ["select", str(folder), "--base-url", server.base_url, "--model", "scripted"]
        command += ["--out", str(out), "--ladder", "64", "16", "4", "--timeout", "1"]
        return cli.main([*command, "--retries", "0", "--concurrency", "2"])

    def budgets(out):
        return {sample.id: sample.budget for sample in read_samples(out)}

    calls = 0
    with ChatServer(
        say=lambda question, turn, pictures: (
            f"<answer>{crc32((question + pictures[0]).encode()) % 9}</answer>"
        ),
    ) as server:
        assert chosen(tmp_path / "well", server) == 0
        server.faults = 0.3
        while chosen(tmp_path / "ill", server) == 1:
            calls += 1
            assert calls < 30
    said = capsys.readouterr().err
    assert "run the command again to retry them" in said
    found = budgets(tmp_path / "ill")
    wanted = budgets(tmp_path / "well")
    assert calls > 0
    assert found == wanted


@pytest.mark.slow
def test_killed_selection_resumes_and_asks_only_what_was_in_flight_again(tmp_path):
    many(tmp_path / "p")
    command = [
        sys.executable,
        str(HERE / "select_slowly.py"),
        str(tmp_path / "p"),
        str(tmp_path / "out"),
    ]
    rows = tmp_path / "out" / "answers" / "answers.jsonl"
    for goal in (5, 40):
        with subprocess.Popen(command) as process:
            while not rows.exists() or rows.read_bytes().count(b"\n") < goal:
                assert process.poll() is None
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
    with rows.open("ab") as out:
        out.write(b'{"key": "half a li')
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    samples = many(tmp_path / "again")
    assert json.loads(done.stdout) == naive(samples, LADDER)
    lines = rows.read_text().splitlines()
    assert len({json.loads(line)["key"] for line in lines}) == len(lines), (
        "no answer is asked for twice"
    )


# --- worker processes -----------------------------------------------------------------------------


def counting(counts, *arguments):
    """The setup of a process that adds a byte to `counts` for every picture that it decodes."""
    decode = lfpc.images.upright_rgb

    def counted(file):
        decoded = decode(file)
        with counts.open("ab") as out:
            out.write(b"1")
        return decoded

    lfpc.images.upright_rgb = counted
    return selection_processes._elsewhere(*arguments)


@pytest.mark.slow
@pytest.mark.parametrize("votes", [1, 2])
def test_processes_choose_what_one_chooses_and_decode_each_picture_once(
    tmp_path, monkeypatch, votes
):
    samples = many(tmp_path / "p", 20)
    (tmp_path / "broken.png").write_bytes(samples[0].image.read_bytes()[:60])
    broken = replace(samples[0], id="broken", image=tmp_path / "broken.png")
    counts = tmp_path / "decoded"
    monkeypatch.setattr(selection_processes, "_elsewhere", partial(counting, counts))

    def say(question, turn, pictures):
        return f"<answer>{'AB'[crc32((question + pictures[0]).encode()) % 5 == 0]}</answer>"

    def chosen(server, out, processes):
        sampling = Sampling(temperature=1.0, sampling_seed=3) if votes > 1 else GREEDY
        return choose(
            [*samples, broken],
            policy_of(server, tools=False, sampling=sampling),
            out,
            processes=processes,
            votes=votes,
        )

    with ChatServer(say=say) as server:
        one = chosen(server, tmp_path / "one", 1)
        asked = len(server.requests)
        assert not counts.exists()
        two = chosen(server, tmp_path / "two", 2)
        assert len(server.requests) == 2 * asked
        assert chosen(server, tmp_path / "two", 2) == two
        assert len(server.requests) == 2 * asked, "everything is known"
    assert two == one
    assert one.levels
    assert one.never
    assert one.failed is not None
    assert list(one.failed) == ["broken"]
    # at the end a process without work takes a question about another's picture
    assert 10 <= len(counts.read_bytes()) <= 12
    rows = [
        {row["key"]: row["said"] for row in read_lines(tmp_path / out / "answers/answers.jsonl")}
        for out in ("one", "two")
    ]
    assert rows[0] == rows[1]


@pytest.mark.slow
def test_answers_of_processes_are_kept_when_the_next_level_fails(tmp_path):
    samples = many(tmp_path / "p", 24, sizes=((224, 224),))
    first = samples[0].question
    asked = Counter()
    down = True

    def say(question, turn, pictures):
        asked[question] += 1
        if down and first in question.split() and asked[question] == 2:
            raise ConnectionError
        return "<answer>A</answer>"

    with ChatServer(say=say) as server:
        policy = policy_of(server, tools=False, retries=0)
        found = choose(samples, policy, tmp_path / "out", processes=2)
        assert found.failed is not None
        assert list(found.failed) == list(found.open) == [samples[0].id]
        assert len(found.samples) == 23
        asked.clear()
        down = False
        assert choose(samples, policy, tmp_path / "out", processes=2).failed == {}
    assert len(server.requests) == 24 * 3
    assert sum(asked.values()) == 2, "the level that failed, and the one below"


@pytest.mark.slow
def test_a_judge_may_search_deeper_than_the_processes_asked(tmp_path):
    class Judge:
        def decide(self, cases):
            return [Judgement(case.reference[:1] == case.reply[:1]) for case in cases]

    samples = many(tmp_path / "p", 12, sizes=((224, 224), (112, 84)))

    def say(question, turn, pictures):
        return f"<answer>{crc32(pictures[0].encode()) % 3} {pictures[0]}</answer>"

    rules = judged_rules(Judge())  # pyright: ignore[reportArgumentType]
    with ChatServer(say=say) as server:
        one, two = (
            select(
                samples,
                policy_of(server, tools=False),
                protocol=PROTOCOL,
                config=SelectConfig(ladder=LADDER, judge="m"),
                out=tmp_path / str(processes),
                rules=rules,
                processes=processes,
                progress=False,
            )
            for processes in (1, 2)
        )
    assert one == two
    assert 4 in one.levels, "the judge found an answer at 16 the same as that at 64"


@pytest.mark.slow
def test_a_dead_server_ends_a_selection_by_processes(tmp_path):
    samples = many(tmp_path / "p", 24)

    def say(question, turn, pictures):
        raise ConnectionError

    with ChatServer(say=say) as server:
        policy = policy_of(server, tools=False, retries=0)
        with pytest.raises(RunError, match="21 of 21 samples failed"):
            choose(samples, policy, tmp_path / "out", processes=2)


def test_processes_are_for_servers(samples, tmp_path, capsys):
    folder = write_samples(samples, tmp_path / "data").parent
    command = ["select", str(folder), "--out", str(tmp_path / "out"), "--processes"]
    served = ["--base-url", "http://127.0.0.1:1/v1", "--model", "scripted"]
    assert cli.main([*command, "0", *served]) == 1
    assert "--processes must be at least 1, got 0" in capsys.readouterr().err
    assert cli.main([*command, "2", "--checkpoint", str(tmp_path)]) == 1
    assert "--processes is for served models (--base-url)" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_verb_asks_a_served_model_and_writes_budgets_and_plots(samples, tmp_path, capsys):
    folder = write_samples(samples, tmp_path / "data").parent
    with ChatServer(
        say=lambda question, turn, pictures: f"<answer>{crc32(pictures[0].encode()) % 9}</answer>"
    ) as server:
        command = [
            "select",
            str(folder),
            "--base-url",
            server.base_url,
            "--model",
            "scripted",
            "--out",
            str(tmp_path / "out"),
        ]
        assert cli.main([*command, "--ladder", "64", "16", "4"]) == 0
        heard = capsys.readouterr()
        assert (
            "select: 4 samples, 8 to 12 requests of 320 to 336 visual tokens in total" in heard.err
        )
        assert "4 of 4 samples" in heard.err
        assert "\r" not in heard.err, "no bar where there is no terminal"
        asked = len(server.requests)
        assert cli.main([*command, "--ladder", "64", "16", "4"]) == 0
        assert len(server.requests) == asked, "everything is known"
    assert {sample.budget for sample in read_samples(tmp_path / "out")} == {16}
    assert (
        "Level at which the answer first changed"
        in (tmp_path / "out" / "report" / "index.html").read_text()
    )
    assert cli.main([*command, "--votes", "3"]) == 1
    assert (
        "--votes above 1 need sampled answers: set --temperature above 0" in capsys.readouterr().err
    )


def test_cost_is_printed_before(tmp_path):
    samples = many(tmp_path / "p", 6)
    # 8 x 8 = 64 tokens, then 4 x 4 = 16, 2 x 2 = 4; 4 x 3 = 12 tokens, then 4; 40 x 30 pixels are
    # enlarged to the processor's minimum, rounded up: 3 x 2 = 6, then 4
    line = cost_line(samples, SelectConfig(ladder=LADDER), PROTOCOL, 3)
    assert (
        line == "select: 6 samples, 12 to 14 requests of 212 to 220 visual tokens in total; 3 "
        "answers are stored"
    )


@pytest.mark.parametrize("ratios", [(1,), (0.5, 0.25), (1, 0), (1, 0.5, 0.5)])
def test_ratios_must_fall_from_one(ratios):
    with pytest.raises(ConfigError, match="numbers that fall from 1"):
        SelectConfig(ratios=ratios)
