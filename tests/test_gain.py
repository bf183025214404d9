"""The gain of a crop in nats: readouts of scripted policies, whose values are known."""

import dataclasses
import json
from math import log

import numpy as np
import pytest
from PIL import Image

from lfpc import cli
from lfpc.dialogue import Reply
from lfpc.errors import ConfigError, PolicyError, RunError
from lfpc.evaluation import gain
from lfpc.evaluation.config import EvaluationConfig
from lfpc.evaluation.gain import Readout, gain_results, read_gain, readout
from lfpc.evaluation.run import evaluate_probe
from lfpc.evaluation.stored import update_results
from lfpc.images import CropRules
from lfpc.policies.chat_api import logprob_after, read_prompt_logprobs
from lfpc.policies.config import TextLogprob
from lfpc.samples import Sample

COLOURS = {"red": (255, 0, 0), "blue": (0, 0, 255)}
CALL = (
    '<tool_call>{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [0, 0, 28, 28]}}'
    "</tool_call>"
)
CONFIG = EvaluationConfig(
    model="model", budget=16, probe="own", crop=CropRules(min_tokens=1, max_tokens=16)
)


class Looking:
    """Crops, then answers; it gives 90 % to the colour that its crop shows, 5 % to any other."""

    backend = None

    def __init__(self):
        self.read = []

    def reply(self, contexts):
        return [
            Reply(
                "<answer>red</answer>" if context.turns or "at once" in context.question else CALL
            )
            for context in contexts
        ]

    def answer_logprobs(self, contexts, answers):
        self.read += contexts
        return [
            [self.logprob(context, answer) for answer in some]
            for context, some in zip(contexts, answers, strict=True)
        ]

    def logprob(self, context, answer):
        means = np.asarray(context.turns[-1].view.image).reshape(-1, 3).mean(0)
        seen = [name for name, rgb in COLOURS.items() if np.abs(means - rgb).max() < 30]
        named = context.options["ABC".index(answer)] if context.options else answer
        return TextLogprob(log(0.9 if named in seen else 0.05), 2)


@pytest.fixture
def run(tmp_path):
    """Eight red and blue pictures, half of them with options, one answered without a crop."""
    samples = []
    for n in range(8):
        colour = "blue" if n % 2 else "red"
        path = tmp_path / f"{n}.png"
        Image.new("RGB", (112, 112), COLOURS[colour]).save(path)
        samples.append(
            Sample(
                id=f"s{n}",
                image=path,
                question="at once" if n == 7 else "Which colour?",
                answer=colour,
                options=("green", "red", "blue") if n < 4 else (),
            )
        )
    evaluate_probe(Looking(), samples, CONFIG, tmp_path / "run" / "own", progress=False)
    return tmp_path / "run"


def test_the_gain_is_the_difference_of_log_probabilities(run):
    policy = Looking()
    results = read_gain(run, ("noise", "mean", "truth"), policy=policy, progress=False)
    assert results["n"] == 7, "the eighth was answered without a crop"
    assert set(results["looks"]) == {"noise", "mean"}, "no sample has boxes"
    free = log(0.9) - log(0.05)
    options = log(0.9) - log(0.05 / 0.15)
    assert results["looks"]["noise"]["delta"] == pytest.approx((3 * free + 4 * options) / 7)
    assert results["looks"]["noise"]["above_chance"]["delta"] == pytest.approx(options)
    assert results["looks"]["noise"]["entropy"] == pytest.approx(log(3))
    assert results["looks"]["noise"]["helped"] == 1
    assert results["looks"]["mean"]["delta"] == pytest.approx(0)
    assert results["looks"]["mean"]["nothing"] == 1
    p = results["looks"]["noise"]["p"]
    assert results["looks"]["noise"]["p_holm"] == min(1, 2 * p) > p  # the smaller of two
    assert results["logprob"] == pytest.approx(log(0.9))
    assert results["per_token"] == pytest.approx(log(0.9) / 2)
    assert "nats or more with 80 % power" in results["looks"]["noise"]["power"]


def test_a_second_call_reads_only_what_is_missing(run):
    read_gain(run, ("noise",), policy=Looking(), progress=False)
    again = Looking()
    results = read_gain(run, ("noise", "mean"), policy=again, progress=False)
    assert len(again.read) == 7
    stored = update_results(run)["conditions"][""]["16"]["gain"]
    assert stored == json.loads(json.dumps(results))
    assert update_results(run)["conditions"][""]["16"]["gain"] == stored


def test_what_cannot_be_read_is_said(run, tmp_path):
    class Deaf:
        backend = None

        def reply(self, contexts):
            return []

    with pytest.raises(ConfigError, match="--gain needs log-probabilities"):
        read_gain(run, policy=Deaf(), progress=False)
    with pytest.raises(ConfigError, match="unknown probe 'repeat'; known for --gain are truth"):
        read_gain(run, ("repeat",), policy=Looking(), progress=False)
    at_once = Sample(
        id="s", image=tmp_path / "0.png", question="Which colour, at once?", answer="red"
    )
    evaluate_probe(Looking(), [at_once], CONFIG, tmp_path / "lazy" / "own", progress=False)
    with pytest.raises(RunError, match="no question was answered after a crop"):
        read_gain(tmp_path / "lazy", policy=Looking(), progress=False)


def test_options_are_normalised_and_a_guess_is_the_floor():
    sample = Sample(id="s", image="p.png", question="?", answer="B", options=("x", "y", "z", "w"))
    one = readout(sample, "own", [TextLogprob(log(p), 1) for p in (0.2, 0.01, 0.1, 0.09)])
    assert one.logprob == pytest.approx(log(0.025))
    assert one.above_chance == pytest.approx(log(0.25))
    assert sum(np.exp(one.options)) == pytest.approx(1)
    even = readout(sample, "own", [TextLogprob(-3.0, 1)] * 4)
    assert even.entropy == pytest.approx(log(4))
    free = readout(
        dataclasses.replace(sample, options=(), answer="x y"), "own", [TextLogprob(-2, 3)]
    )
    assert (free.logprob, free.tokens, free.entropy, free.above_chance) == (-2, 3, None, None)
    other = dataclasses.replace(sample, answer="none of them")  # is not the first option
    assert gain.read_answers(other) == ["none of them"]
    assert readout(other, "own", [TextLogprob(-2, 3)]).logprob == -2


def test_the_calibration_error_is_the_distance_of_confidence_and_accuracy(run):
    records = gain.own_evaluation(run).records()[:4]
    known = {
        (record.sample.id, "own"): Readout(
            record.sample, "own", log(0.8) if n < 2 else log(0.1), 1, (log(0.8), log(0.1), log(0.1))
        )
        for n, record in enumerate(records)
    }
    assert gain_results(records, known)["ece"] == pytest.approx(0.3)  # sure of 80 %, right in half
    tied = {
        key: dataclasses.replace(one, logprob=log(0.5), options=(log(0.5), log(0.5)))
        for key, one in known.items()
    }
    assert gain_results(records, tied)["ece"] == pytest.approx(0)  # right as often as it is sure


def test_prompt_logprobs_of_a_server():
    def body(*tokens):
        places = [None, *({name: {"logprob": value}} for name, value in tokens)]
        return json.dumps({"prompt_logprobs": places, "choices": []}).encode()

    opened = read_prompt_logprobs(body(("7", -1.0), ("8", -0.5)))
    whole = read_prompt_logprobs(body(("7", -1.0), ("8", -0.5), ("9", -0.25), ("3", -0.125)))
    assert logprob_after(opened, whole) == TextLogprob(-0.375, 2)
    merged = read_prompt_logprobs(body(("7", -1.0), ("80", -0.75), ("3", -0.5)))
    assert logprob_after(opened, merged) == TextLogprob(-0.75 - 0.5 + 0.5, 1)
    for other in (b"{}", b"no JSON", b'{"prompt_logprobs": null}', b'{"prompt_logprobs": [3]}'):
        with pytest.raises(PolicyError, match="serve the model with vLLM"):
            read_prompt_logprobs(other)
    with pytest.raises(PolicyError, match=r"\(its answer: 'no JSON'\)"):
        read_prompt_logprobs(b"no JSON")


def test_the_verb_prints_a_table_and_updates_the_results(run, monkeypatch, capsys):
    monkeypatch.setattr(gain, "any_policy", lambda config, backend: Looking())
    assert cli.main(["probe", str(run), "--gain", "--probes", "noise"]) == 0
    printed = capsys.readouterr().out
    assert "in place of the crop" in printed
    assert "7 questions answered after a crop" in printed
    stored = json.loads((run / "results.json").read_text())
    assert stored["conditions"][""]["16"]["gain"]["looks"]["noise"]["n"] == 7


def test_without_the_tool_the_model_answers_at_once(run):
    class Tooled(Looking):
        config = CONFIG

        def __init__(self, tools=True):
            super().__init__()
            self.tools = tools

        def reseed(self, seed):
            pass

        def without_tools(self):
            return Tooled(tools=False)

        def reply(self, contexts):
            return (
                super().reply(contexts)
                if self.tools
                else [Reply("<answer>red</answer>")] * len(contexts)
            )

    samples = [record.sample for record in gain.own_evaluation(run).records()]
    settings = dataclasses.replace(CONFIG, probe="no-tool")
    records = evaluate_probe(Tooled(), samples, settings, run / "no-tool", progress=False)
    assert [record.n_turns for record in records] == [1] * 8
    probes = update_results(run)["conditions"][""]["16"]["probes"]
    assert probes["no-tool"]["all"]["delta"] == 0
    with pytest.raises(ConfigError, match="without_tools, which Looking does not have"):
        evaluate_probe(Looking(), samples, settings, run / "other", progress=False)
    with pytest.raises(ConfigError, match="'no-tool' has no replay"):
        dataclasses.replace(settings, replay=True)
