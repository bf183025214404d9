"""What runs inside verl, piece by piece and without Ray: dataset, loop, pixels, advantages,
settings, guards."""

import asyncio
import json
import os
from dataclasses import replace
from math import sqrt

import numpy as np
import pytest

if os.environ.get("VERL_PLATFORM") != "cpu":
    pytest.skip(
        "verl pins other versions, so it has an environment of its own: make test-verl",
        allow_module_level=True,
    )

import layout
import tiny
import torch
import verl.utils
import verl_cpu
from omegaconf import OmegaConf
from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage
from verl.utils import hf_processor
from verl.utils.torch_functional import get_cosine_schedule_with_warmup
from verl_runs import BASE, cluster, config, qwen3, scenes

from lfpc.dialogue import Crop, Reply
from lfpc.episode import Stop
from lfpc.errors import CheckpointError, ConfigError
from lfpc.images import CropRules
from lfpc.policies.qwen.vision import Normalisation
from lfpc.protocols import protocol_given
from lfpc.protocols.toml import starting_file
from lfpc.rewards import RewardConfig, strict
from lfpc.samples import read_samples
from lfpc.training.draw import prompts_of_step
from lfpc.training.groups import group_advantages
from lfpc.training.update import learning_rate
from lfpc.training.verl.inside import loop, pixels, plugin, workers
from lfpc.training.verl.inside.dataset import ScheduledSamples
from lfpc.training.verl.inside.section import run_config
from lfpc.training.verl.inside.start import composed
from lfpc.training.verl.recording import RecordedRollout
from lfpc.training.verl.translate import NAME, TRAIN, VALIDATION, settings

pytestmark = pytest.mark.verl


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A samples folder of four scenes, seen at 25 and 36 visual tokens."""
    return scenes(tmp_path_factory.mktemp("data"), 4)


def verl_config(run, **changes):
    return composed(settings(run, cluster(1, **changes)), cluster(1, **changes))


# ---- settings


def test_verl_accepts_the_settings_and_knows_every_key(data, tmp_path):
    found = verl_config(config(data, tmp_path))
    assert found.actor_rollout_ref.rollout.n == 4
    assert found.actor_rollout_ref.actor.ppo_mini_batch_size == 4
    assert found.algorithm.adv_estimator == NAME
    assert found.actor_rollout_ref.actor.optim.lr == 1e-3


def test_settings_given_by_hand_win_and_unknown_ones_are_refused_in_a_sentence(data, tmp_path):
    run = config(data, tmp_path)
    assert (
        verl_config(run, verl=(*verl_cpu.settings(1), "trainer.save_freq=7")).trainer.save_freq == 7
    )
    with pytest.raises(ConfigError, match=r"verl rejects the settings: .*no_such_key"):
        verl_config(run, verl=("trainer.no_such_key=1",))
    with pytest.raises(ConfigError, match="verl rejects the settings"):
        verl_config(run, verl=("actor_rollout_ref.actor.loss_agg_mode=nonsense",))


def test_a_protocol_file_reaches_every_process_as_it_is_written(data, tmp_path):
    text = starting_file("qwen2_5_vl").replace(
        "You answer questions about a picture.\n", "You ${oc.env:HOME} ${ \"q\" 's' $ answer.\n"
    )
    (tmp_path / "own.toml").write_text(text)
    run = replace(
        config(data, tmp_path / "run"), protocol=protocol_given(str(tmp_path / "own.toml"))
    )
    found = verl_config(run)
    OmegaConf.resolve(found)  # as verl does
    asked = run_config(found.actor_rollout_ref)
    assert asked.protocol == run.protocol
    assert asked.chat.system.startswith("You ${oc.env:HOME} ${ ")


def test_the_learning_rate_is_the_local_engines_in_every_step(data, tmp_path):
    run = config(data, tmp_path, steps=6, warmup=3)
    optim = verl_config(run).actor_rollout_ref.actor.optim
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=optim.lr)
    schedule = get_cosine_schedule_with_warmup(
        optimizer,
        optim.lr_warmup_steps,
        run.steps,
        min_lr_ratio=optim.min_lr_ratio,
        num_cycles=optim.num_cycles,
        zero_indexed_step=optim.zero_indexed_step,
    )
    rates = []
    for _ in range(run.steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert optim.lr_scheduler_type == "cosine"
    assert rates == pytest.approx([learning_rate(run, step) for step in range(1, run.steps + 1)])


# ---- dataset


def test_the_dataset_is_the_schedule_of_the_run_and_as_long(data, tmp_path):
    run = config(data, tmp_path, steps=3, prompts_per_step=2)
    samples = read_samples(data)
    rows = ScheduledSamples(TRAIN, verl_config(run).data)
    assert len(rows) == 3 * 2
    asked = [json.loads(rows[place]["sample"])["id"] for place in range(len(rows))]
    assert asked == [samples[n].id for step in (1, 2, 3) for n in prompts_of_step(4, run, step)]
    assert [rows[place]["index"] for place in range(6)] == list(range(6))


def test_validation_rows_are_the_held_out_samples_in_their_order(data, tmp_path):
    run = config(data, tmp_path, validation=data, validation_size=3)
    rows = ScheduledSamples(VALIDATION, verl_config(run).data)
    assert [json.loads(rows[n]["sample"])["id"] for n in range(len(rows))] == [
        sample.id for sample in read_samples(data)[:3]
    ]


def test_a_run_without_validation_still_has_a_row_for_verl(data, tmp_path):
    assert len(ScheduledSamples(VALIDATION, verl_config(config(data, tmp_path)).data)) == 1


# ---- pixels


@pytest.mark.parametrize("side", [28, 32])
def test_unpacked_pixels_are_those_of_the_processor(side):
    processor = hf_processor(str(BASE)).image_processor if side == 28 else tiny.qwen3_pictures()
    pictures = [tiny.picture(0, 10 * side, 8 * side), tiny.picture(1, 8 * side, 10 * side)]
    packed = pixels.pack(pictures, patch=side // 2, merge=2)
    wanted = processor(images=pictures, return_tensors="pt")
    assert torch.equal(packed["image_grid_thw"], wanted["image_grid_thw"])
    assert packed["pixel_values"].dtype == torch.uint8
    assert packed["pixel_values"].nelement() == 3 * side**2 * 160  # bytes a visual token
    normalised = Normalisation(tuple(processor.image_mean), tuple(processor.image_std))
    found = pixels.unpack(packed["pixel_values"], normalised)
    assert (found - wanted["pixel_values"]).abs().max() < 1e-6


def test_a_micro_batch_without_pictures_survives():
    class Tower(torch.nn.Module):
        dtype = torch.float32

        def forward(self, patches, grid_thw):
            assert patches.shape == (16, 1176)
            return torch.ones(4, 8)

    class Model:
        visual = Tower()

        def get_input_embeddings(self):
            return lambda ids: torch.full((*ids.shape, 8), 2.0)

    pixels.accept_bytes()
    embeds, mask = pixels.qwen2_vl._get_input_embeds(
        Model(), torch.zeros(1, 5, dtype=torch.long), None, None, None, None, None
    )
    assert torch.equal(embeds, torch.full((1, 5, 8), 2.0))
    assert mask is None


# ---- advantages


def test_advantages_are_the_local_engines_at_trained_tokens_only():
    #  rewards on the last token, as verl puts them; two questions, "b" with equal rewards
    rewards = torch.tensor([[0, 0, 3.0], [0, 1.0, 0], [0, 0, 2.0], [0, 0, 2.0]])
    mask = torch.tensor([[1, 0, 1], [1, 1, 0], [1, 1, 1], [1, 1, 1]])
    found, again = plugin.advantages(rewards, mask, np.array(["a", "a", "b", "b"], dtype=object))
    good, bad = group_advantages([3.0, 1.0])
    assert torch.allclose(
        found, torch.tensor([[good, 0, good], [bad, bad, 0], [0, 0, 0], [0, 0, 0]])
    )
    assert again is found


def test_advantages_are_divided_as_the_run_says(data, tmp_path):
    rewards = torch.tensor([[6.0], [2.0]])
    names = np.array(["a", "a"], dtype=object)
    for scale, wanted in (("deviation", 1.0), ("none", 2.0)):
        algorithm = verl_config(config(data, tmp_path, advantage_scale=scale)).algorithm
        found = plugin.advantages(rewards, torch.ones(2, 1), names, config=algorithm)[0]
        assert torch.allclose(found, torch.tensor([[wanted], [-wanted]]), atol=1e-5)


def test_verls_own_advantages_differ_by_the_unbiased_deviation_alone():
    rewards = torch.tensor([[3.0], [1.0], [1.0], [0.0]])
    mask = torch.ones(4, 1)
    names = np.array(["a"] * 4, dtype=object)
    ours = plugin.advantages(rewards, mask, names)[0]
    theirs = compute_grpo_outcome_advantage(rewards, mask, names)[0]
    assert torch.allclose(
        ours, theirs * sqrt(4 / 3), atol=1e-5
    )  # deviation over n, against over n - 1


# ---- loop


class Scripted:
    """verl's server, with replies from a script; it keeps what it was asked."""

    def __init__(self, tokenizer, *texts):
        self.tokenizer = tokenizer
        self.texts = list(texts)
        self.asked = []

    async def generate(self, *, request_id, prompt_ids, sampling_params, image_data):
        self.asked.append(
            {
                "ids": prompt_ids,
                "sampling": sampling_params,
                "images": image_data,
                "name": request_id,
            }
        )
        ids = self.tokenizer(self.texts.pop(0), add_special_tokens=False)["input_ids"]
        return verl_cpu.TokenOutput(
            token_ids=ids, log_probs=[-1.0] * len(ids), extra_fields={"global_steps": 5}
        )


def call(*corners):
    return (
        f'<tool_call>{{"name": "image_zoom_in_tool", "arguments": {{"bbox_2d": '
        f"{list(corners)}}}}}</tool_call>"
    )


def play(data, run, *texts):
    """One row of the dataset against a script: what verl gets, the server, and our own report."""
    whole = verl_config(run)
    worker = AgentParts(whole)
    server = Scripted(worker.tokenizer, *texts)
    made = loop.EpisodeLoop(AttributeBag(config=whole), server, worker.tokenizer)
    row = ScheduledSamples(TRAIN, whole.data)[0]
    output = asyncio.run(
        made.run({"temperature": 1.0, "logprobs": True}, **row, uid="u", session_id=2)
    )
    return output, server, RecordedRollout.from_bytes(output.extra_fields[NAME])


class AttributeBag:
    def __init__(self, **fields):
        self.__dict__.update(fields)


class AgentParts:
    """Tokenizer and processor as verl's workers load them."""

    def __init__(self, whole):
        from verl.utils import hf_tokenizer

        path = whole.actor_rollout_ref.model.path
        self.tokenizer = hf_tokenizer(path)
        self.processor = hf_processor(path)


class EpisodeInputs:
    """What a worker sends along with an episode."""

    def __init__(self, run):
        self.worker = object.__new__(workers.EpisodeWorker)
        self.worker.processor = AgentParts(verl_config(run)).processor

    def of(self, output):
        ids = torch.tensor(output.prompt_ids + output.response_ids)
        return self.worker._compute_multi_modal_inputs(output, ids)


def test_a_crop_is_shown_and_only_what_the_policy_wrote_is_trained(data, tmp_path):
    run = config(data, tmp_path)
    texts = (call(10, 10, 80, 80), "<answer>K</answer>")
    output, server, report = play(data, run, *texts)
    assert [len(asked["images"]) for asked in server.asked] == [1, 2]
    assert len(output.multi_modal_data["images"]) == 2
    ids = np.array(output.response_ids)
    mask = np.array(output.response_mask, dtype=bool)
    assert server.tokenizer.decode(ids[mask]).replace(" ", "") == "".join(texts).replace(" ", "")
    assert np.array(output.response_logprobs)[mask].tolist() == [-1.0] * int(mask.sum())
    assert not np.array(output.response_logprobs)[~mask].any()
    assert output.prompt_ids == server.asked[0]["ids"]  # the prompt is what was asked first
    assert (
        server.asked[1]["ids"]
        == (output.prompt_ids + output.response_ids)[: len(server.asked[1]["ids"])]
    )
    assert report.episode.shown_crops == 1
    assert (report.question, report.rollout, report.overlong) == (0, 2, False)
    assert output.reward_score == report.terms.total
    assert output.extra_fields["min_global_steps"] == 5
    assert isinstance(report.record.turns[0].action, Crop)


def test_a_qwen3_vl_is_offered_its_tool_by_the_published_template(tmp_path):
    layout.need_packages()
    init = tmp_path / "init"
    init.mkdir()
    layout.write_tokenizer(init, "qwen3_vl")
    files = {"config.json": layout.CONFIGS["qwen3_vl"], **layout.PROCESSORS["qwen3_vl"]}
    for name, value in files.items():
        layout.write_json(init / name, value)
    layout.edit(init / "tokenizer_config.json", chat_template="of the language model alone")
    data = scenes(tmp_path / "data", 1, (64, 64))
    run = qwen3(data, init, tmp_path / "run", prompts_per_step=1)
    texts = (call(100, 100, 800, 800), "K")
    output, server, report = play(data, run, *texts)
    first, second = (server.tokenizer.decode(asked["ids"]) for asked in server.asked)
    assert "<tools>" in first
    assert '"image_zoom_in_tool"' in first
    assert "<tool_response>\n<|vision_start|><|image_pad|>" in second
    assert report.episode.shown_crops == 1
    ids = np.array(output.response_ids)
    mask = np.array(output.response_mask, dtype=bool)
    assert server.tokenizer.decode(ids[mask]) == "".join(texts)
    inputs = EpisodeInputs(run).of(output)
    assert inputs["pixel_values"].shape[1] == 3 * 16 * 16
    assert int(inputs["image_grid_thw"].prod(-1).sum()) == len(inputs["pixel_values"])


def test_a_reply_without_an_end_was_cut_by_the_token_limit(data, tmp_path):
    run = config(data, tmp_path)
    _, _, report = play(data, run, call(10, 10, 80, 80), "<answer>K")
    assert [turn.finish for turn in report.record.turns] == ["stop", "length"]
    assert report.record.truncated == 1
    _, _, report = play(data, run, "<answer>K</answer>")
    assert report.record.truncated == 0


def test_the_server_is_asked_to_stop_where_the_local_engine_stops_and_never_to_write_a_picture(
    data, tmp_path
):
    run = config(data, tmp_path)
    _, server, _ = play(data, run, "<answer>K</answer>")
    sampling = server.asked[0]["sampling"]
    assert sampling["stop"] == ["</tool_call>", "</answer>"]
    assert sampling["include_stop_str_in_output"] is True
    assert sampling["max_tokens"] == run.max_new_tokens
    banned = {
        server.tokenizer.convert_ids_to_tokens(token)
        for token, bias in sampling["logit_bias"].items()
        if bias == -100
    }
    assert {"<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"} <= banned


def test_a_malformed_call_is_explained_and_the_episode_continues(data, tmp_path):
    output, server, report = play(
        data, config(data, tmp_path), "<tool_call>{bad</tool_call>", "<answer>K</answer>"
    )
    told = server.tokenizer.decode(server.asked[1]["ids"])
    assert report.episode.malformed[0].detail.replace(" ", "") in told.replace(" ", "")
    assert report.episode.stop == Stop.ANSWERED
    assert report.terms.format == -1
    assert len(output.multi_modal_data["images"]) == 1


def test_an_episode_ends_at_its_turns(data, tmp_path):
    output, server, report = play(
        data, config(data, tmp_path, max_turns=2), call(10, 10, 80, 80), call(20, 20, 90, 90)
    )
    assert report.episode.stop == Stop.MAX_TURNS
    assert len(server.asked) == output.num_turns == 2
    assert len(output.multi_modal_data["images"]) == 2
    # nobody would see the second crop: it is neither cut nor counted
    assert report.episode.shown_crops == report.record.calls == report.record.crops == 1


def test_an_unanswered_episode_is_masked_if_the_run_says_so(data, tmp_path):
    run = config(data, tmp_path, max_turns=2, unanswered="mask")
    output, _, report = play(data, run, call(10, 10, 80, 80), call(20, 20, 90, 90))
    assert not any(output.response_mask)
    assert len(output.multi_modal_data["images"]) == 2
    assert not report.overlong
    assert report.terms.format == -1


def test_the_options_of_the_reward_are_those_of_the_local_engine(data, tmp_path):
    run = config(data, tmp_path, reward=strict(RewardConfig(grounding=1.0)))
    whole, again = call(0, 0, 140, 140), call(0, 0, 140, 112)
    output, _, report = play(data, run, whole, again, "<answer>K</answer>")
    assert report.episode.shown_crops == 2
    assert (report.terms.tool, report.terms.grounding, report.terms.crops) == (0, 0, -0.05)
    assert output.reward_score == report.terms.total
    assert output.extra_fields["reward_extra_info"]["crops"] == -0.05


def test_an_episode_that_is_too_long_is_counted_and_not_trained(data, tmp_path):
    calls = [call(10, 10, 80, 80)] * 3
    whole, _, _ = play(data, config(data, tmp_path / "long"), *calls)
    run = config(data, tmp_path, max_rollout_tokens=len(whole.prompt_ids) + 30, max_new_tokens=24)
    output, server, report = play(data, run, *calls)
    assert report.overlong
    assert not any(output.response_mask)
    assert (
        output.response_ids
    )  # the first reply goes along, so that a picture's placeholders and features match
    assert len(output.multi_modal_data["images"]) == 1
    assert len(server.asked) < 3  # no question is asked that has no room for a reply
    assert report.terms.format == -1


def test_placeholders_match_the_features_that_are_sent_along(data, tmp_path):
    run = config(data, tmp_path)
    output, _, _ = play(data, run, call(10, 10, 80, 80), "<answer>K</answer>")
    worker = EpisodeInputs(run)
    inputs = worker.of(output)
    assert int(inputs["image_grid_thw"].prod(-1).sum()) == len(inputs["pixel_values"])
    output.multi_modal_data["images"].pop()
    with pytest.raises(ValueError, match="placeholders for pictures"):
        worker.of(output)


def test_a_checkpoint_without_a_picture_processor_is_an_error_and_no_text_only_run(data, tmp_path):
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(BASE, broken)
    (broken / "preprocessor_config.json").write_text("{")
    with (
        pytest.warns(UserWarning, match="Failed to create processor"),
        pytest.raises(CheckpointError, match="picture processor cannot be loaded"),
    ):
        workers.check_processor(verl.utils.hf_processor(str(broken)), str(broken))


def test_a_question_that_leaves_no_room_is_not_asked(data, tmp_path):
    crop = CropRules(min_tokens=4, max_tokens=9)  # refused before the run if none fitted
    run = config(data, tmp_path, max_rollout_tokens=40, max_turns=2, crop=crop)
    output, server, report = play(data, run)
    assert not server.asked
    assert report.episode.turns[0].reply == Reply("")
    assert report.overlong
    assert report.episode.stop == Stop.MAX_TURNS
    assert output.response_ids == [server.tokenizer.eos_token_id]
