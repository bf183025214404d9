"""Search by confidence: tiles in place of crops, for scripted policies whose sight is known."""

import json
from dataclasses import replace
from math import log

import numpy as np
import pytest
from chat_server import ChatServer
from PIL import Image

from lfpc import cli
from lfpc.boxes import WHOLE, Box, coverage, union
from lfpc.dialogue import Reply
from lfpc.errors import ConfigError, PolicyError, RunError
from lfpc.evaluation import gain as gaining
from lfpc.evaluation import replacing
from lfpc.evaluation.config import EvaluationConfig
from lfpc.evaluation.run import evaluate_probe
from lfpc.evaluation.search import search, tiles
from lfpc.evaluation.stored import update_results
from lfpc.images import CropRules
from lfpc.policies.backends import Server
from lfpc.policies.config import TextLogprob
from lfpc.policies.loading import served_policy
from lfpc.samples import Sample

COLOURS = {"red": (255, 0, 0), "blue": (0, 0, 255)}
CALL = (
    '<tool_call>{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [0, 0, 28, 28]}}'
    "</tool_call>"
)
CONFIG = EvaluationConfig(
    model="model", budget=16, probe="own", crop=CropRules(min_tokens=1, max_tokens=4)
)


class Looking:
    """Crops the empty corner, then names the colour that its crop shows, else green. It is sure of
    what it sees (90 %), and not of what it does not (20 %).
    """

    backend = None

    def __init__(self):
        self.asked = []

    def reply(self, contexts):
        self.asked += contexts
        return [
            Reply(f"<answer>{self.seen(context) or 'green'}</answer>")
            if context.turns or "at once" in context.question
            else Reply(CALL)
            for context in contexts
        ]

    def seen(self, context):
        """The colour of the crop with the most of it beside the white."""
        pixels = np.asarray(context.views[-1].image).reshape(-1, 3).astype(int)
        shown = {
            name: (np.abs(pixels - rgb).sum(1) < 90).sum() > 20 for name, rgb in COLOURS.items()
        }
        return next((name for name, there in shown.items() if there), None)

    def answer_logprobs(self, contexts, answers):
        return [
            [self.logprob(context, answer) for answer in some]
            for context, some in zip(contexts, answers, strict=True)
        ]

    def logprob(self, context, answer):
        named = context.options["ABC".index(answer)] if context.options else answer
        said = self.seen(context)
        if not context.options:
            return TextLogprob(log(0.9 if said else 0.2), 1)
        return TextLogprob(log(0.9 if named == said else 0.05 if said else 1 / 3), 1)


def questions(folder):
    """Eight white pictures with a red or blue square at the lower right, half with options."""
    for n in range(8):
        colour = "blue" if n % 2 else "red"
        picture = Image.new("RGB", (224, 224), (255, 255, 255))
        picture.paste(COLOURS[colour], (168, 168, 210, 210))
        picture.save(folder / f"{n}.png")
        box = Box(0.75, 0.75, 210 / 224, 210 / 224)
        yield Sample(
            id=f"s{n}",
            image=folder / f"{n}.png",
            question="at once" if n == 7 else "Which colour?",
            answer=colour,
            options=("green", "red", "blue") if n < 4 else (),
            boxes=((box,),) if n else (),
        )


@pytest.fixture
def run(tmp_path):
    samples = list(questions(tmp_path))
    evaluate_probe(Looking(), samples, CONFIG, tmp_path / "run" / "own", progress=False)
    return tmp_path / "run"


@pytest.mark.parametrize("grid", [1, 2, 3, 5])
def test_a_detail_as_wide_as_the_overlap_is_whole_in_a_tile(grid):
    found = tiles(grid)
    boxes = list(found.values())
    assert next(iter(found)) == f"{grid}x{grid}-0"
    assert len(found) == grid**2
    assert union(boxes) == WHOLE
    side = boxes[0].x1
    assert all(box.x1 - box.x0 == pytest.approx(side) for box in boxes)
    if grid > 1:
        assert boxes[0].x1 - boxes[1].x0 == pytest.approx(side / 4)
        assert boxes[0].y1 - boxes[grid].y0 == pytest.approx(side / 4)
    detail = side / 4 - 1e-9
    corners = np.random.default_rng(0).uniform(0, 1 - detail, (200, 2))
    for x, y in corners:
        target = Box(x, y, x + detail, y + detail)
        assert max(coverage(box, target) for box in boxes) == pytest.approx(1)


def test_the_surest_tile_answers(run):
    results = search(run, (2, 3), policy=Looking(), progress=False)
    assert (results["questions"], results["n"]) == (8, 7), "the eighth has no crop"
    assert results["accuracy"] == 0, "its own crop is white"
    assert list(results["grids"]) == ["2x2", "3x3", "all"]
    row = results["grids"]["2x2"]
    assert (row["tiles"], row["accuracy"], row["best"]) == (4, 1, 1)
    assert row["difference"]["delta"] == 1
    assert (row["difference"]["n"], row["difference"]["clusters"]) == (7, 7)
    assert "80 % power" in row["difference"]["power"]
    assert row["random"] == 0.25, "one tile of four has the square"
    assert (row["holds_truth"], row["random_holds_truth"]) == (1, 0.25)
    assert results["visual_tokens"] == 16 + 4, "a first view, and a quarter of it"
    assert row["visual_tokens"] == 16 + 4 * 4, "a first view, and every tile"
    assert results["grids"]["all"]["visual_tokens"] == 16 + 13 * 4
    assert results["incomplete"] is None


def test_tiles_are_not_asked_again(run):
    search(run, (2,), policy=Looking(), progress=False)
    again = Looking()
    results = search(run, (2, 3), policy=again, progress=False)
    assert len(again.asked) == 7 * 9
    last = Looking()
    assert search(run, (2, 3), policy=last, progress=False) == results
    assert not last.asked
    stored = json.loads((run / "search.json").read_text())
    assert stored == json.loads(json.dumps(results))
    assert update_results(run)["conditions"][""]["16"]["search"] == stored
    search(run, (3,), policy=last, progress=False)
    assert list(update_results(run)["conditions"][""]["16"]["search"]["grids"]) == ["3x3"]


def test_a_long_answer_is_as_sure_as_its_tokens(run):
    class Wordy(Looking):
        """Half as sure of a whole answer, in ten tokens; its guess takes one."""

        def logprob(self, context, answer):
            return TextLogprob(log(0.1), 10) if self.seen(context) else TextLogprob(log(0.2), 1)

    results = search(run, (2,), policy=Wordy(), progress=False)
    assert results["grids"]["2x2"]["accuracy"] == pytest.approx(3 / 7), "free answers alone"


def test_what_nobody_can_read_is_never_the_surest(run):
    class Silent(Looking):
        """Answers beside the options where it sees a colour."""

        def reply(self, contexts):
            replies = super().reply(contexts)
            return [
                Reply("<answer>something else</answer>")
                if context.turns and context.options and self.seen(context)
                else reply
                for context, reply in zip(contexts, replies, strict=True)
            ]

    results = search(run, (2,), policy=Silent(), progress=False)
    assert results["grids"]["2x2"]["accuracy"] == pytest.approx(3 / 7), "free answers alone"
    assert results["grids"]["2x2"]["holds_truth"] == 0.5


def test_a_question_with_a_failed_tile_is_wrong_and_asked_again(run):
    class Failing(Looking):
        def reply(self, contexts):
            if any(one.turns and one.key.startswith("s2/2x2-3") for one in contexts):
                raise PolicyError("the model is gone")
            return super().reply(contexts)

    results = search(run, (2,), policy=Failing(), progress=False)
    row = results["grids"]["2x2"]
    assert results["incomplete"]["failed"] == 1
    assert "the model is gone" in results["incomplete"]["why"]
    assert row["accuracy"] == pytest.approx(6 / 7)
    assert row["difference"]["n"] == 6
    again = Looking()
    assert search(run, (2,), policy=again, progress=False)["incomplete"] is None
    assert len(again.asked) == 1


def test_without_log_probabilities_nothing_is_asked(run, tmp_path):
    class Deaf:
        backend = None

        def reply(self, contexts):
            raise AssertionError

    class Mute(Looking):
        def answer_logprobs(self, contexts, answers):
            raise PolicyError("serve the model with vLLM")

    with pytest.raises(ConfigError, match="--search needs log-probabilities"):
        search(run, policy=Deaf(), progress=False)
    mute = Mute()
    with pytest.raises(PolicyError, match="serve the model with vLLM"):
        search(run, policy=mute, progress=False)
    assert not mute.asked
    samples = [sample for sample in questions(tmp_path) if "at once" in sample.question]
    evaluate_probe(Looking(), samples, CONFIG, tmp_path / "lazy" / "own", progress=False)
    with pytest.raises(RunError, match="no question has a crop"):
        search(tmp_path / "lazy", policy=Looking(), progress=False)


def test_a_server_without_log_probabilities_is_not_asked_every_tile(tmp_path, capsys):
    samples = list(questions(tmp_path))[:4]
    with ChatServer(say=lambda *asked: "<answer>red</answer>" if asked[1] else CALL) as server:
        settings = replace(CONFIG, model="scripted")
        policy = served_policy(settings, Server(base_url=server.base_url))
        evaluate_probe(policy, samples, settings, tmp_path / "run" / "own", progress=False)
        server.requests.clear()
        words = ["probe", str(tmp_path / "run"), "--search", "--base-url", server.base_url]
        assert cli.main(words) == 1
        assert len(server.requests) <= 2
    assert "serve the model with vLLM" in capsys.readouterr().err


def test_the_verb_prints_a_table(run, monkeypatch, capsys):
    monkeypatch.setattr(replacing, "any_policy", lambda config, backend: Looking())
    assert cli.main(["probe", str(run), "--search"]) == 0
    printed = capsys.readouterr().out
    assert "7 of 8 questions have a crop" in printed
    assert "all: 13 tiles     100.0" in printed
    assert "a tile at random is right in" in printed
    stored = json.loads((run / "results.json").read_text())
    assert stored["conditions"][""]["16"]["search"]["grids"]["3x3"]["tiles"] == 9
    assert cli.main(["probe", str(run), "--search", "2,4"]) == 0
    assert "4x4: 16 tiles" in capsys.readouterr().out


class Answering(Looking):
    """Answers without a crop."""

    def reply(self, contexts):
        return [Reply("<answer>green</answer>") for _ in contexts]


@pytest.mark.parametrize("option", ["--search", "--gain"])
def test_an_evaluation_without_crops_does_not_keep_the_others_from_theirs(
    tmp_path, monkeypatch, capsys, option
):
    samples = list(questions(tmp_path))
    for budget, policy in ((4, Answering()), (16, Looking())):
        config = replace(CONFIG, budget=budget)
        folder = tmp_path / "run" / str(budget) / "own"
        evaluate_probe(policy, samples, config, folder, progress=False)
    for module in (replacing, gaining):
        monkeypatch.setattr(module, "any_policy", lambda config, backend: Looking())
    assert cli.main(["probe", str(tmp_path / "run"), option]) == 0
    printed = capsys.readouterr().out
    assert f"{tmp_path}/run/4/own: no question" in printed
    assert f"\n{tmp_path}/run/16\n" in printed
    assert (tmp_path / "run" / "16" / f"{option[2:]}.json").exists()
    assert cli.main(["probe", str(tmp_path / "run" / "4"), option]) == 1
    assert "/run/4/own: no question" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--search", "0"], "--search must be whole numbers of 1 or more, got 0"),
        (["--search", "2x2"], "--search must be whole numbers of 1 or more, got 2x2"),
        (["--search", "--probes", "noise"], "give --probes in a second command"),
        (["--search", "101"], "--search must be from 1 to 100, got 101"),
        (["--search", "--replay"], "--replay has no effect with --search; leave it out"),
        (["--gain", "--draws", "3"], "--draws has no effect with --gain; leave it out"),
        (["--search", "2", "--processes", "2"], "--processes has no effect with --search"),
    ],
)
def test_wrong_grids_and_options_are_named(run, words, said, capsys):
    assert cli.main(["probe", str(run), *words]) == 1
    assert said in capsys.readouterr().err


@pytest.mark.slow
def test_the_confidence_is_the_log_probability_of_the_greedy_reply(tmp_path):
    from lfpc.evaluation.gain import last_context, readouts
    from lfpc.evaluation.places import own_evaluation
    from lfpc.looks import fixed_look
    from lfpc.mini.folders import BASE_SETTINGS, CROPS, base_checkpoint, write_split
    from lfpc.policies.loading import load_policy
    from lfpc.records import read_records
    from lfpc.storage.runs import read_run

    config = EvaluationConfig(
        model=str(base_checkpoint()),
        budget=64,
        probe="own",
        crop=CROPS,
        max_new_tokens=BASE_SETTINGS.max_new_tokens,
        max_turns=2,
    )
    samples = write_split(tmp_path / "data", "wide-validation", 3)
    policy = load_policy(config)
    evaluate_probe(policy, samples, config, tmp_path / "own", progress=False)
    assert search(tmp_path, (2,), policy=policy, progress=False)["n"] == 3
    recorded = own_evaluation(tmp_path)
    found = readouts(read_run(tmp_path / "search" / "logprobs"), samples)
    pairs = [replace(one, id=f"{one.id}/{tile}") for one in samples for tile in tiles(2)]
    records = read_records(tmp_path / "search" / "answers", pairs)
    assert len(found) == len(records) == 12
    for (name, tile), one in found.items():
        look = fixed_look(CROPS, tiles(2)[tile])
        context = last_context(records[f"{name}/{tile}"], look, recorded)
        (reply,) = policy.reply([context])
        mark = policy.writer.text(reply.token_ids[:1])
        assert mark == "<answer>"
        assert one.logprob == pytest.approx(sum(reply.logprobs[1 : 1 + one.tokens]), abs=1e-3)
