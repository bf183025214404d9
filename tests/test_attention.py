"""Crops by attention: windows of hand-made maps, and evaluations by scripted policies."""

import json
from dataclasses import replace

import numpy as np
import pytest
from chat_server import ChatServer
from PIL import Image
from test_search import CALL, CONFIG, Looking, questions

from lfpc import cli
from lfpc.boxes import WHOLE, Box
from lfpc.errors import ConfigError, PolicyError, RunError
from lfpc.evaluation import replacing
from lfpc.evaluation.attention import GENERAL, MAPS, SIDES, attend, window
from lfpc.evaluation.replacing import holds_truth
from lfpc.evaluation.run import evaluate_probe
from lfpc.evaluation.stored import update_results
from lfpc.policies.backends import Server
from lfpc.policies.config import ViewAttention
from lfpc.policies.loading import served_policy
from lfpc.report.numbers import NOTHING
from lfpc.report.replaced_table import replaced_table
from lfpc.samples import Sample


class Attending(Looking):
    """Its question attends to the coloured square, and its answer to the upper left; a general
    question does so even more. In other layers than 3 of 4 the maps are flat.
    """

    depth = 4

    def __init__(self):
        super().__init__()
        self.attended = []

    def view_attention(self, contexts, layers):
        self.attended += contexts
        return [self.maps(context, layers) for context in contexts]

    def maps(self, context, layers):
        pixels = np.asarray(context.first_view.image).astype(int)
        rows, columns = (side // 28 for side in pixels.shape[:2])
        white = pixels.reshape(rows, 28, columns, 28, 3).min(axis=-1).mean(axis=(1, 3))
        corner = np.zeros((rows, columns))
        corner[0, 0] = 5 if context.question == GENERAL else 1
        right = np.array([layer == 3 for layer in layers])[:, None, None]
        flat = np.full((rows, columns), 0.01)
        return ViewAttention(
            np.where(right, 1 - white / 255 + 0.01, flat), np.where(right, corner + 0.01, flat)
        )


@pytest.fixture
def run(tmp_path):
    samples = list(questions(tmp_path))
    evaluate_probe(Attending(), samples, CONFIG, tmp_path / "run" / "own", progress=False)
    return tmp_path / "run"


def test_a_window_has_the_most_attention():
    weights = np.ones((6, 6))
    weights[3:5, 1:3] = 9
    assert window(weights, [1 / 3]) == Box(1 / 6, 3 / 6, 3 / 6, 5 / 6)
    weights[0, 5] = 30  # a window of one token has the most there; of four, still as before: 36, 33
    assert window(weights, [1 / 6]) == Box(5 / 6, 0, 1, 1 / 6)
    assert window(weights, [1 / 3]) == Box(1 / 6, 3 / 6, 3 / 6, 5 / 6)


def test_the_sharpest_of_several_sizes_counts():
    weights = np.zeros((6, 6))
    weights[2:4, 2:4] = 1
    # 1 x 1 at (2, 2): neighbours 0, 1, 0, 1; (1 - 1/2) / 1 = 1/2
    # 2 x 2 at (2, 2): neighbours 2 each; (4 - 2) / 4 = 1/2
    # 3 x 3 at (1, 1): neighbours 2, 4, 2, 4; (4 - 3) / 9 = 1/9
    assert window(weights, [1 / 2, 1 / 6]).area == pytest.approx(1 / 36)
    assert window(weights, [1 / 2, 1 / 3]) == Box(2 / 6, 2 / 6, 4 / 6, 4 / 6)


@pytest.mark.parametrize(
    ("shape", "hot", "box"),
    [
        ((12, 1), (9, 0), Box(0, 8 / 12, 1, 10 / 12)),
        ((1, 5), (0, 4), Box(4 / 5, 0, 1, 1)),
        ((2, 1), (1, 0), Box(0, 1 / 2, 1, 1)),
        ((1, 1), (0, 0), WHOLE),
    ],
)
def test_windows_of_narrow_pictures_are_a_token_wide(shape, hot, box):
    weights = np.full(shape, 0.25)
    weights[hot] = 1
    assert window(weights, SIDES).corners == pytest.approx(box.corners)


def test_a_flat_map_gives_a_window_nevertheless():
    assert window(np.zeros((5, 5))) == Box(0, 0, 1 / 5, 1 / 5)


def test_the_most_attended_window_is_shown_in_place_of_the_crop(run):
    policy = Attending()
    results = attend(run, policy=policy, progress=False)
    assert (results["questions"], results["n"]) == (8, 7), "the eighth has no crop"
    assert (results["accuracy"], results["visual_tokens"]) == (0, 16 + 4)
    assert list(results["maps"]) == ["question-3", "answer-3", "relative-3"], "23/36 of 4 layers"
    row, answer, relative = results["maps"].values()
    assert row["accuracy"] == 1
    assert row["difference"]["delta"] == 1
    assert row["difference"]["p_holm"] == 3 * row["difference"]["p"]
    assert row["visual_tokens"] == 16 + 4
    assert row["area"] == 1 / 16
    assert row["holds_truth"] == 1
    assert (answer["accuracy"], answer["holds_truth"], answer["area"]) == (0, 0, 1 / 16)
    assert relative["visual_tokens"] == 2 * 16 + 4, "the view of the general question, too"
    assert results["incomplete"] is None
    assert {context.question for context in policy.attended} == {"Which colour?", GENERAL}
    assert not any(context.options for context in policy.attended if context.question == GENERAL)


def test_a_relative_map_leaves_out_what_any_question_attends_to(run):
    class Glaring(Attending):
        """Attends to a corner whatever is asked, and a little to the square if it is asked for."""

        def maps(self, context, layers):
            found = super().maps(context, layers)
            asked = context.question != GENERAL
            return replace(found, answer=found.answer + 0.1 * found.question * asked)

    results = attend(run, policy=Glaring(), progress=False)["maps"]
    assert results["answer-3"]["accuracy"] == 0
    assert results["relative-3"]["accuracy"] == 1


def test_layers_are_rows_and_answers_are_not_asked_again(run):
    first = attend(run, (3,), policy=Attending(), progress=False)
    again = Attending()
    results = attend(run, (3, 1), policy=again, progress=False)
    assert list(results["maps"]) == [f"{name}-{layer}" for layer in (3, 1) for name in MAPS]
    assert len(again.asked) == 7 * 3
    for name, row in first["maps"].items():
        same = results["maps"][name]
        assert {**same, "difference": 0} == {**row, "difference": 0}
    last = Attending()
    assert attend(run, (3, 1), policy=last, progress=False) == results
    assert not last.asked
    assert not last.attended
    stored = json.loads((run / "attention.json").read_text())
    assert stored == json.loads(json.dumps(results))
    assert update_results(run)["conditions"][""]["16"]["attention"] == stored


def test_a_question_whose_attention_fails_is_wrong_and_read_again(run):
    class Failing(Attending):
        def view_attention(self, contexts, layers):
            if contexts[0].key == "s2":
                raise PolicyError("a conversation of 9 tokens does not fit")
            return super().view_attention(contexts, layers)

    results = attend(run, policy=Failing(), progress=False)
    assert results["incomplete"]["failed"] == 1
    assert results["incomplete"]["why"] == "a conversation of 9 tokens does not fit"
    row = results["maps"]["question-3"]
    assert row["accuracy"] == pytest.approx(6 / 7)
    assert (row["difference"]["n"], row["holds_truth"]) == (6, 1)
    again = Attending()
    assert attend(run, policy=again, progress=False)["incomplete"] is None
    assert {context.key for context in again.attended} == {"s2"}


def test_only_a_checkpoint_in_this_process_gives_attention(run, tmp_path, capsys):
    with pytest.raises(ConfigError, match="--attention reads the model's attention"):
        attend(run, policy=Looking(), progress=False)
    with pytest.raises(ConfigError, match=r"from 1 to 4, the layers of model, got 5"):
        attend(run, (1, 5), policy=Attending(), progress=False)
    samples = list(questions(tmp_path))[:2]
    with ChatServer(say=lambda *asked: "<answer>red</answer>" if asked[1] else CALL) as server:
        settings = replace(CONFIG, model="scripted")
        policy = served_policy(settings, Server(base_url=server.base_url))
        evaluate_probe(policy, samples, settings, tmp_path / "served" / "own", progress=False)
        server.requests.clear()
        words = ["probe", str(tmp_path / "served"), "--attention", "--base-url", server.base_url]
        assert cli.main(words) == 1
        assert not server.requests
    assert "without --engine and --base-url" in capsys.readouterr().err


def test_an_evaluation_without_crops_is_named(tmp_path):
    samples = [sample for sample in questions(tmp_path) if "at once" in sample.question]
    evaluate_probe(Attending(), samples, CONFIG, tmp_path / "own", progress=False)
    with pytest.raises(RunError, match="no question has a crop"):
        attend(tmp_path, policy=Attending(), progress=False)


def test_pictures_a_token_wide_are_cut_and_shown(tmp_path):
    picture = Image.new("RGB", (28, 28 * 12), (255, 255, 255))
    picture.paste((255, 0, 0), (0, 28 * 9, 28, 28 * 11))
    picture.save(tmp_path / "narrow.png")
    sample = Sample(id="n", image=tmp_path / "narrow.png", question="Which colour?", answer="red")
    evaluate_probe(Attending(), [sample], CONFIG, tmp_path / "own", progress=False)
    results = attend(tmp_path, policy=Attending(), progress=False)
    row = results["maps"]["question-3"]
    assert (row["accuracy"], row["holds_truth"]) == (1, None)
    assert row["area"] == pytest.approx(2 / 12)


def test_the_verb_prints_a_table(run, monkeypatch, capsys):
    monkeypatch.setattr(replacing, "any_policy", lambda config, backend: Attending())
    assert cli.main(["probe", str(run), "--attention", "3"]) == 0
    printed = capsys.readouterr().out
    assert "7 of 8 questions have a crop" in printed
    (row,) = (line for line in printed.splitlines() if line.startswith("the question's tokens"))
    assert "layer 3            100.0  +100.0 [" in row
    assert "the answer's place, relative, layer 3" in printed
    stored = json.loads((run / "results.json").read_text())
    assert stored["conditions"][""]["16"]["attention"]["maps"]["question-3"]["accuracy"] == 1
    assert cli.main(["probe", str(run), "--search", "2", "--attention", "3"]) == 0
    printed = capsys.readouterr().out
    assert "2x2: 4 tiles" in printed
    assert "the question's tokens" in printed
    rows = replaced_table(
        json.loads((run / "results.json").read_text()), lambda *_: "16 tokens"
    ).rows
    assert [[cell.text for cell in row] for row in rows][:3] == [
        ["16 tokens: own crops", "0.0 %", NOTHING, NOTHING, "20", NOTHING],
        ["16 tokens: 2x2: 4 tiles", "100.0 %", "+100.0 [49.9, 100.0]", "0.016", "32", "100.0 %"],
        [
            "16 tokens: the question's tokens, layer 3",
            "100.0 %",
            "+100.0 [49.9, 100.0]",
            "0.047",
            "20",
            "100.0 %",
        ],
    ]
    assert len(rows) == 5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--attention", "0"], "--attention must be whole numbers of 1 or more, got 0"),
        (["--attention", "--probes", "noise"], "--attention shows regions of its own; give --pr"),
        (["--attention", "--replay"], "--replay has no effect with --attention; leave it out"),
    ],
)
def test_wrong_layers_and_options_are_named(run, words, said, capsys):
    assert cli.main(["probe", str(run), *words]) == 1
    assert said in capsys.readouterr().err


@pytest.mark.slow
def test_the_base_is_shown_the_window_of_its_question(tmp_path):
    from lfpc.dialogue import Context
    from lfpc.evaluation.opened import first_view
    from lfpc.mini.folders import BASE_SETTINGS, CROPS, base_checkpoint, write_split
    from lfpc.policies.loading import load_policy
    from lfpc.records import read_records

    config = replace(
        CONFIG,
        model=str(base_checkpoint()),
        budget=144,
        crop=CROPS,
        max_new_tokens=BASE_SETTINGS.max_new_tokens,
        max_turns=2,
    )
    samples = write_split(tmp_path / "data", "wide-validation", 6)
    policy = load_policy(config)
    evaluate_probe(policy, samples, config, tmp_path / "own", progress=False)
    results = attend(tmp_path, (2,), policy=policy, progress=False)
    assert results["n"] == 6
    keyed = [replace(one, id=f"{one.id}/question-2") for one in samples]
    records = read_records(tmp_path / "attention", keyed)
    views = [first_view(one, 144) for one in samples]
    asked = [
        Context(one.question, one.options, view, ())
        for one, view in zip(samples, views, strict=True)
    ]
    found = policy.view_attention(asked, [1, 2])
    for sample, one in zip(samples, found, strict=True):
        (shown,) = (turn for turn in records[f"{sample.id}/question-2"].turns if turn.region)
        assert shown.region.corners == pytest.approx(window(one.question[1]).corners)
        assert one.question.shape == one.answer.shape == (2, 12, 12)
        assert 0 < one.question[1].sum() < 1
    held = [
        holds_truth(window(one.question[1], [1 / 3]), sample)
        for sample, one in zip(samples, found, strict=True)
        if len(sample.boxes) == 1
    ]
    assert held
    assert all(held), "the base's second layer points with the question's tokens"
