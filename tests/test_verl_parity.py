"""The same episodes through verl's functions and through the local engine: masks, positions,
advantages, log-probabilities, loss, gradient.

Both engines compute in float32, so that what is left is rounding: 1e-4 in a log-probability (sums
of 1,344 exponentials in another order, over dozens of layers' rounding), 1e-5 in the loss. Nothing
is banned here, so that both softmaxes are over all tokens.
"""

import os
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

if os.environ.get("VERL_PLATFORM") != "cpu":
    pytest.skip(
        "verl pins other versions, so it has an environment of its own: make test-verl",
        allow_module_level=True,
    )

import tiny
import torch
import verl_cpu  # noqa: F401
from tensordict import NonTensorStack, TensorDict
from transformers import AutoModelForImageTextToText
from verl.models.transformers.monkey_patch import apply_monkey_patch
from verl.utils import hf_processor, hf_tokenizer
from verl.utils import tensordict_utils as tu
from verl.utils.config import omega_conf_to_dataclass
from verl.utils.dataset.dataset_utils import DatasetPadMode
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead
from verl.workers.utils.losses import ppo_loss
from verl_runs import cluster, config, qwen3, scenes

from lfpc.boxes import Box
from lfpc.dialogue import Crop
from lfpc.episode import episode, play
from lfpc.looks import original_look
from lfpc.policies.qwen.checkpoint import load_checkpoint, save_checkpoint
from lfpc.policies.sampling import Sampling
from lfpc.policies.transformers import TransformersPolicy
from lfpc.rewards import episode_reward
from lfpc.samples import read_samples
from lfpc.training.draw import first_views
from lfpc.training.groups import group_advantages
from lfpc.training.rollouts import rollouts_of
from lfpc.training.update import Learner
from lfpc.training.verl.inside import pixels, plugin
from lfpc.training.verl.inside.loop import rollout_output
from lfpc.training.verl.inside.start import composed
from lfpc.training.verl.inside.workers import EpisodeWorker
from lfpc.training.verl.translate import settings

pytestmark = pytest.mark.verl
GROUP = 4


def qwen2_5(folder):
    """The shipped miniature and its protocol."""
    return config(scenes(folder / "data", 2), folder / "run"), config(folder, folder).chat


def qwen3_vl(folder):
    """A random Qwen3-VL of the miniature's size, each of whose replies counts as a crop."""
    init = save_checkpoint(
        tiny.qwen3_model(), tiny.tokenizer(), folder / "init", processor=tiny.qwen3_pictures()
    )
    run = qwen3(scenes(folder / "data", 2, (64, 80)), init, folder / "run")
    return run, replace(run.chat, parser=lambda text, views: Crop(Box(0.3, 0.2, 0.8, 0.6)))


class Both:
    """Episodes of two questions, and how each engine sees them."""

    def __init__(self, folder, family, aggregation):
        run, chat = family(folder)
        self.run = replace(
            run,
            group_size=GROUP,
            prompts_per_step=2,
            aggregation=aggregation,
            max_grad_norm=1e9,
        )
        model, tokenizer = load_checkpoint(run.init)
        policy = TransformersPolicy(
            model,
            tokenizer,
            self.run.chat,
            sampling=Sampling(
                temperature=1, max_new_tokens=self.run.max_new_tokens, sampling_seed=3
            ),
        )
        policy.writer.banned[:] &= family is qwen3_vl  # which would write placeholders by chance
        view = first_views(self.run)
        look = original_look(self.run.crop)
        samples = [sample for sample in read_samples(self.run.data) for _ in range(GROUP)]
        turns = [
            1 if n % GROUP == 3 else self.run.max_turns for n in range(len(samples))
        ]  # rollouts of different lengths
        games = [
            episode(s, view(s), look=look, protocol=chat, max_turns=most)
            for s, most in zip(samples, turns, strict=True)
        ]
        self.episodes = play(games, policy)
        self.rewards = [
            episode_reward(played, self.run.reward).total + 0.1 * (n % 3) ** 2
            for n, played in enumerate(self.episodes)
        ]
        self.advantages = [
            a for start in (0, GROUP) for a in group_advantages(self.rewards[start : start + GROUP])
        ]
        self.sampled = np.concatenate(
            [turn.reply.logprobs for played in self.episodes for turn in played.turns]
        )
        older = [as_if_sampled_before(played, n) for n, played in enumerate(self.episodes)]
        self.rows = rollouts_of(
            older, policy.encoder, max_rollout_tokens=self.run.max_rollout_tokens
        )
        self.outputs = [rollout_output(played, policy.encoder, self.run) for played in older]
        policy.writer.banned[:] = False
        self.learner = Learner(policy, self.run)
        if family is qwen3_vl:
            features = [policy.views.features(row.views) for row in self.rows]
            self.sampled = self.learner.logprobs(self.rows, features, {}).detach().numpy()
        self.verl = verl_engine(run.init)
        self.config = composed(settings(self.run, cluster(1)), cluster(1))
        self.worker = object.__new__(EpisodeWorker)
        self.worker.processor = hf_processor(str(run.init))
        self.worker.tokenizer = hf_tokenizer(str(run.init))

    def local_gradient(self):
        """Loss and gradients of the local engine's update, which its optimiser is kept from
        using."""
        kept = {}
        weights = self.learner.model.named_parameters()
        self.learner.optimizer.step = lambda: kept.update(
            {name: w.grad.clone() for name, w in weights if w.grad is not None}
        )
        return self.learner.update(self.rows, self.advantages, step=1), kept

    def batch(self, *, positions=None, mask=lambda mask: mask):
        """The rollouts as verl's queue hands them to a rank, in one micro-batch."""
        rows = []
        for output in self.outputs:
            ids = torch.tensor(output.prompt_ids + output.response_ids)
            inputs = self.worker._compute_multi_modal_inputs(output, ids)
            found = self.worker._compute_position_ids(
                ids[None], torch.ones_like(ids)[None], inputs
            ).squeeze(0)
            rows.append(
                {
                    **output.as_dict(),
                    "input_ids": ids,
                    "position_ids": found if positions is None else positions(found),
                    "pictures": inputs,
                }
            )
        tensors = {
            name: torch.nested.as_nested_tensor([row[name] for row in rows], layout=torch.jagged)
            for name in ("input_ids", "position_ids", "prompts", "responses")
        }
        masks = [mask(row["response_mask"]) for row in rows]
        rewards = torch.nested.as_nested_tensor(
            [_last(m, r) for m, r in zip(masks, self.rewards, strict=True)], layout=torch.jagged
        )
        padded = torch.nested.as_nested_tensor(masks, layout=torch.jagged).to_padded_tensor(0)
        names = np.array([played.sample.id for played in self.episodes], dtype=object)
        spread, _ = plugin.advantages(rewards.to_padded_tensor(0.0), padded, names)
        nested = {
            "response_mask": masks,
            "loss_mask": masks,
            "old_log_probs": [row["rollout_log_probs"] for row in rows],
            "advantages": [spread[n, : len(m)] for n, m in enumerate(masks)],
        }
        tensors |= {
            name: torch.nested.as_nested_tensor(values, layout=torch.jagged)
            for name, values in nested.items()
        }
        batch = TensorDict(
            {**tensors, "multi_modal_inputs": NonTensorStack(*[row["pictures"] for row in rows])},
            batch_size=[len(rows)],
        )
        facts = {
            "temperature": self.run.temperature,
            "dp_size": 1,
            "global_batch_size": len(rows),
            "use_remove_padding": False,
        }
        tu.assign_non_tensor(
            batch,
            batch_num_tokens=int(padded.sum()),
            pad_mode=DatasetPadMode.NO_PADDING,
            calculate_entropy=False,
            **facts,
        )
        return batch

    def verl_step(self, batch):
        """verl's forward and loss: the loss with its graph, log-probabilities of trained tokens,
        metrics."""
        self.verl.module.zero_grad()
        loss_function = partial(
            ppo_loss, omega_conf_to_dataclass(self.config.actor_rollout_ref.actor)
        )
        loss, output = self.verl.forward_step(batch, loss_function, forward_only=False)
        logprobs = output["model_output"]["log_probs"].unbind()
        kept = [
            row[len(p.prompt_ids) - 1 : -1][torch.tensor(p.response_mask, dtype=torch.bool)]
            for row, p in zip(logprobs, self.outputs, strict=True)
        ]
        return loss, torch.cat(kept).numpy(), output["metrics"]


def as_if_sampled_before(played, number):
    """`played` with other log-probabilities, so that ratios are not 1 and some are clipped."""
    rng = np.random.default_rng(number)
    turns = []
    for turn in played.turns:
        moved = tuple(
            float(np.float32(logprob + rng.normal(0, 0.2))) for logprob in turn.reply.logprobs
        )
        turns.append(replace(turn, reply=replace(turn.reply, logprobs=moved)))
    return replace(played, turns=tuple(turns))


def _last(mask, reward):
    values = torch.zeros(len(mask))
    values[-1] = reward
    return values


def verl_engine(checkpoint):
    """verl's FSDP engine around a plain model: its forward pass without its processes."""
    model = AutoModelForImageTextToText.from_pretrained(
        checkpoint, dtype=torch.float32, attn_implementation="sdpa"
    ).eval()
    apply_monkey_patch(model, use_remove_padding=False)
    engine = object.__new__(FSDPEngineWithLMHead)
    engine.module = model
    engine.pad_to_length = False
    engine.use_ulysses_sp = False
    engine._autocast_dtype = torch.float32
    engine.get_data_parallel_group = lambda: None
    return engine


CASES = [(qwen2_5, "token-mean"), (qwen2_5, "sequence-mean"), (qwen3_vl, "token-mean")]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0].__name__}-{case[1]}")
def both(request, tmp_path_factory):
    return Both(tmp_path_factory.mktemp("parity"), *request.param)


def test_masks_positions_and_advantages_are_equal(both):
    batch = both.batch()
    for row, output, positions, spread, advantage in zip(
        both.rows,
        both.outputs,
        batch["position_ids"].unbind(),
        batch["advantages"].unbind(),
        both.advantages,
        strict=True,
    ):
        assert [0] * len(output.prompt_ids) + output.response_mask == row.mask
        assert output.prompt_ids + output.response_ids == row.input_ids
        assert torch.equal(
            positions[1:], torch.from_numpy(row.encoded.positions)
        )  # row 0 is verl's running number
        mask = torch.tensor(output.response_mask)
        assert torch.allclose(spread, advantage * mask)
    assert any(both.advantages)
    assert any(played.shown_crops for played in both.episodes)


def test_log_probabilities_loss_and_gradient_agree(both):
    loss, logprobs, metrics = both.verl_step(both.batch())
    assert np.abs(logprobs - both.sampled).max() < 1e-4
    loss.backward()
    report, gradients = both.local_gradient()
    assert abs(report.loss) > 1e-2
    assert float(loss.detach()) == pytest.approx(report.loss, abs=1e-5)
    assert 0 < metrics["actor/pg_clipfrac"].values[0] < 1
    theirs = dict(both.verl.module.named_parameters())
    assert set(gradients) == {name for name, weight in theirs.items() if weight.grad is not None}
    largest = max(float(gradient.abs().max()) for gradient in gradients.values())
    for name, gradient in gradients.items():
        assert (gradient - theirs[name].grad).abs().max() < 1e-3 * largest, name


def test_one_dimensional_positions_are_detected(both):
    def flat(positions):
        return positions[:1].expand_as(positions)

    _, logprobs, _ = both.verl_step(both.batch(positions=flat))
    assert np.abs(logprobs - both.sampled).max() > 1e-2


def test_a_shifted_mask_is_detected(both):
    loss, _, _ = both.verl_step(both.batch(mask=lambda mask: mask.roll(1)))
    report, _ = both.local_gradient()
    assert abs(float(loss.detach()) - report.loss) > 1e-4  # ten times the tolerance


def filling(batch):
    """A micro-batch of what verl puts in the place of failed rollouts: text alone, nothing
    trained."""
    ids = [torch.full((8,), 258)] * 2
    nested = {
        "input_ids": ids,
        "position_ids": [torch.arange(8).expand(4, -1)] * 2,
        "prompts": [row[:7] for row in ids],
        "responses": [row[7:] for row in ids],
        **dict.fromkeys(("response_mask", "loss_mask"), [torch.zeros(1, dtype=torch.long)] * 2),
        **dict.fromkeys(("old_log_probs", "advantages"), [torch.zeros(1)] * 2),
    }
    tensors = {
        name: torch.nested.as_nested_tensor(values, layout=torch.jagged)
        for name, values in nested.items()
    }
    made = TensorDict({**tensors, "multi_modal_inputs": NonTensorStack({}, {})}, batch_size=[2])
    facts = (
        "temperature",
        "dp_size",
        "global_batch_size",
        "use_remove_padding",
        "batch_num_tokens",
        "pad_mode",
        "calculate_entropy",
    )
    tu.assign_non_tensor(
        made, **{name: tu.get_non_tensor_data(batch, name, None) for name in facts}
    )
    return made


def test_a_micro_batch_of_filling_alone_survives_and_did_not_in_verl_itself(both, monkeypatch):
    loss_function = partial(ppo_loss, omega_conf_to_dataclass(both.config.actor_rollout_ref.actor))
    batch = filling(both.batch())
    loss, _ = both.verl.forward_step(batch, loss_function, forward_only=False)
    assert float(loss.detach()) == 0
    loss.backward()
    if both.run.protocol != "qwen2_5_vl":
        return
    monkeypatch.setattr(pixels.qwen2_vl, "_get_input_embeds", pixels._QWEN2)
    with pytest.raises(AttributeError, match="mean"):
        both.verl.forward_step(batch, loss_function, forward_only=False)


def test_what_is_banned_moves_a_log_probability_by_its_mass_alone(both):
    """Sampling leaves out the placeholders of pictures, verl's training does not: log pi differs by
    log(1 - their mass)."""
    policy = both.learner.policy
    rows = both.rows[:2]
    features = [policy.views.features(row.views) for row in rows]
    policy.writer.banned[policy.encoder.image_pad] = True
    without = both.learner.logprobs(rows, features, {}).detach()
    policy.writer.banned[:] = False
    with_all = both.learner.logprobs(rows, features, {}).detach()
    assert bool((without >= with_all - 1e-6).all())
    assert float((without - with_all).max()) < 1e-2
