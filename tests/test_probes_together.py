"""Several probes of the same questions, played together as if each had been played alone."""

import dataclasses
from collections.abc import Iterable
from copy import copy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lfpc.dialogue import Reply, Usage
from lfpc.errors import RunError
from lfpc.evaluation.config import EvaluationConfig
from lfpc.evaluation.opened import OpenEvaluation
from lfpc.evaluation.run import ProbeRun, evaluate, evaluate_probes
from lfpc.images import CropRules, open_picture
from lfpc.looks import no_look, original_look
from lfpc.policies.config import PolicyConfig, reply_seed
from lfpc.protocols import PROTOCOLS
from lfpc.records import EpisodeRecord, read_records
from lfpc.samples import Sample
from lfpc.storage.runs import EPISODES_FILE, Kind, RunFolder

PROTOCOL = PROTOCOLS["qwen2_5_vl"]
RULES = CropRules(min_tokens=1, max_tokens=16)
CONFIG = EvaluationConfig(model="model", budget=16, probe="own", crop=RULES)
PROBES = ("own", "noise", "none", "repeat", "no-tool")
CALL = (
    '<tool_call>{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [0, 0, 28, '
    "28]}}</tool_call>"
)


class Seeded:
    """A model in this process: a reply depends on its seed and on all that the context holds. One
    in four first replies is malformed, one an answer.
    """

    backend = None

    def __init__(self):
        self.seed = 12  # every kind of episode occurs
        self.tools = True
        self.asked = []

    @property
    def config(self):
        return PolicyConfig(model="model", temperature=1.0)

    def reseed(self, seed):
        self.seed = seed or 0

    def without_tools(self):
        other = copy(self)
        other.tools = False
        other.reseed(None)
        return other

    def reply(self, contexts):
        self.asked += [(context.key, len(context.turns)) for context in contexts]
        before = (contexts[:place].count(one) for place, one in enumerate(contexts))
        return [self._reply(*one) for one in zip(contexts, before, strict=True)]

    def _reply(self, context, times):
        """`times`: as often as the same was asked before, another reply is given."""
        shown = [view for turn in context.turns if (view := turn.view)]
        pixels = [int(np.asarray(view.image).sum()) for view in (context.first_view, *shown)]
        texts = [turn.reply.text for turn in context.turns]
        seed = reply_seed(self.seed, context)
        text = f"<answer>{seed} {times} {pixels} {texts}</answer>"
        if not shown and self.tools:
            text = (CALL, CALL, "hm", text)[seed % 4]
        return Reply(text, (1, seed), (-1.0, -seed / 2**31), Usage(len(text), 2), "stop")


class Served(Seeded):
    """The same behind a server; remembers which episodes were in play at the same time."""

    concurrency = 4

    def __init__(self):
        super().__init__()
        self.begun = []

    async def __aenter__(self):
        return self

    async def __aexit__(self, *error):
        pass

    async def reply_to(self, context):
        if not context.turns:
            self.begun.append(context.key)
        return self.reply([context])[0]


@pytest.fixture
def samples(tmp_path):
    found = []
    for i in range(12):
        path = tmp_path / "pictures" / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (112, 112), (20 * i, 0, 255 - 20 * i)).save(path)
        found.append(Sample(id=f"s{i}", image=path, question=f"Colour {i}?", answer="red"))
    open_picture.cache_clear()
    return found


def probe_runs(samples, place: Path, probes=PROBES) -> list[ProbeRun]:
    return [
        ProbeRun(samples, dataclasses.replace(CONFIG, probe=probe), place / probe)
        for probe in probes
    ]


def comparable(records: Iterable[EpisodeRecord]) -> list[EpisodeRecord]:
    return [dataclasses.replace(record, seconds=None) for record in records]


def alone(policy, samples, place: Path) -> list[list[EpisodeRecord]]:
    """Records of each probe, played by itself."""
    return [
        comparable(evaluate_probes(policy, [run], progress=False)[0])
        for run in probe_runs(samples, place)
    ]


def together(policy, samples, place: Path) -> list[list[EpisodeRecord]]:
    found = evaluate_probes(policy, probe_runs(samples, place), progress=False)
    return [comparable(records) for records in found]


@pytest.mark.parametrize("policy", [Seeded, Served])
def test_probes_played_together_have_the_records_of_probes_played_alone(tmp_path, samples, policy):
    expected = alone(policy(), samples, tmp_path / "alone")
    assert together(policy(), samples, tmp_path / "together") == expected
    assert {record.n_turns for record in expected[0]} == {1, 2, 3}
    assert expected[0] != expected[1] != expected[3]
    for probe, records in zip(PROBES, expected, strict=True):
        read = read_records(tmp_path / "together" / probe).values()
        assert sorted(comparable(read), key=str) == sorted(records, key=str)


def test_equal_contexts_are_asked_once(tmp_path, samples):
    policy = Seeded()
    together(policy, samples, tmp_path)
    first = [key for key, turns in policy.asked if turns == 0]
    keys = [sample.id for sample in samples]
    # own, noise and none ask the same at first, repeat is another draw, no-tool another prompt
    assert sorted(first) == sorted([*keys, *(f"{key} 1" for key in keys), *keys])


def test_a_repeat_without_the_tool_is_another_sample(tmp_path, samples):
    def said(seed):
        policy = Seeded()
        policy.reseed(seed)
        config = dataclasses.replace(CONFIG, probe="no-tool", temperature=1.0, sampling_seed=seed)
        run = ProbeRun(samples, config, tmp_path / f"no-tool-{seed}")
        (records,) = evaluate_probes(policy, [run], progress=False)
        return [record.turns[0].text for record in records]

    assert said(1) != said(2)


def test_a_served_model_gets_the_probes_of_a_sample_one_after_another(tmp_path, samples):
    policy = Served()
    policy.concurrency = 1
    evaluate_probes(policy, probe_runs(samples, tmp_path, ("own", "noise")), progress=False)
    assert policy.begun == [sample.id for sample in samples for _ in range(2)]


def test_half_of_one_probe_is_resumed(tmp_path, samples):
    expected = alone(Seeded(), samples, tmp_path / "alone")
    for run in probe_runs(samples, tmp_path, ("own", "noise")):
        evaluate_probes(Seeded(), [run], progress=False)
    journal = tmp_path / "noise" / EPISODES_FILE
    lines = journal.read_text(encoding="utf-8").splitlines(keepends=True)
    journal.write_text("".join(lines[:6]) + lines[6][:20], encoding="utf-8")

    policy = Seeded()
    found = evaluate_probes(policy, probe_runs(samples, tmp_path, ("own", "noise")), progress=False)
    assert [comparable(records) for records in found] == expected[:2]
    assert {key for key, _ in policy.asked} == {sample.id for sample in samples[6:]}
    assert comparable(read_records(tmp_path / "noise").values()) == expected[1]


def opened(samples, place: Path, looks, **options) -> list[OpenEvaluation]:
    return [
        OpenEvaluation(
            samples=samples,
            run=RunFolder.open(place / name, Kind.EVALUATION, CONFIG),
            protocol=PROTOCOL,
            budget=16,
            look=look,
            **options,
        )
        for name, look in looks.items()
    ]


@pytest.mark.parametrize("policy", [Seeded, Served])
def test_a_look_that_fails_under_one_probe_fails_its_record_alone(tmp_path, samples, policy):
    crops = original_look(RULES)
    broken = samples[-1].id
    samples[-1].image.write_bytes(b"no picture")
    (calling, *_) = (
        record.sample.id
        for record in alone(Seeded(), samples, tmp_path / "alone")[0]
        if record.crops
    )

    def fails(sample, box):
        if sample.id == calling:
            raise OSError("no such crop")
        return crops(sample, box)

    looks = {"own": crops, "fails": fails, "none": no_look}
    evaluations = opened(samples, tmp_path, looks, max_failures=1)
    own, failing, none = evaluate(evaluations, policy(), progress=False)
    assert [record.sample.id for record in own if record.failed] == [broken]
    assert [record.sample.id for record in none if record.failed] == [broken]
    failed = {record.sample.id: record.error for record in failing if record.failed}
    assert failed.keys() == {calling, broken}
    assert failed[calling] == "OSError: no such crop"
    others = [n for n, sample in enumerate(samples) if sample.id != calling]
    assert [comparable(failing)[n] for n in others] == [comparable(own)[n] for n in others]
    assert any(record.crops for record in failing)


def test_failures_are_counted_under_each_probe(tmp_path, samples):
    def fails(sample, box):
        raise OSError("no such crop")

    looks = {"own": original_look(RULES), "fails": fails}
    with pytest.raises(RunError, match=r"/fails: \d+ of \d+ questions failed, .* no such crop"):
        evaluate(opened(samples, tmp_path, looks, max_failures=1), Seeded(), progress=False)
    assert not any(record.failed for record in read_records(tmp_path / "own", samples).values())
