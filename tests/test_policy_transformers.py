"""Encoding, the vision tower, reading and sampling against transformers' own computation."""

from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from lfpc.dialogue import Answer, Malformed, Reply, Turn, Usage
from lfpc.episode import episode, play
from lfpc.errors import CheckpointError, ConfigError
from lfpc.evaluation.config import EvaluationConfig
from lfpc.evaluation.plan import eval_run, task_of
from lfpc.looks import no_look
from lfpc.policies import loading
from lfpc.policies.backends import BATCH_TOKENS
from lfpc.policies.config import PolicyConfig
from lfpc.policies.loading import local_policies
from lfpc.policies.once import AskingOnce
from lfpc.policies.qwen import checkpoint, language
from lfpc.policies.qwen.encode import Encoder, rope_positions
from lfpc.policies.qwen.language import read
from lfpc.policies.qwen.sampling import inverse_cdf, log_softmax
from lfpc.policies.qwen.vision import ViewEncoder, patchify
from lfpc.policies.sampling import GREEDY, Sampling
from lfpc.policies.transformers import TransformersPolicy, row_features
from lfpc.protocols import PROTOCOLS
from lfpc.protocols.qwen2_5_vl import DIRECT_SYSTEM, QWEN2_5_VL, SYSTEM
from lfpc.records import read_records
from lfpc.samples import Sample
from lfpc.storage.runs import RunFolder

pytestmark = pytest.mark.slow


def encoder(**options):
    return Encoder(tiny.tokenizer(), QWEN2_5_VL, **options)


@pytest.mark.parametrize("unknown", [None, "<unk>"])
def test_a_tokenizer_without_pictures_is_named(unknown):
    words = {"<unk>": 0, "<|im_end|>": 1, "hello": 2}
    plain = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, unk_token=unknown)),
        unk_token=unknown,
        chat_template="{{ messages }}",
    )
    with pytest.raises(CheckpointError, match=r"does not know <\|image_pad\|>"):
        Encoder(plain, QWEN2_5_VL)


def ids(text):
    return tiny.tokenizer()(text, add_special_tokens=False)["input_ids"]


def batch(rows, views):
    """What transformers wants for one batch: left-padded ids, pixels of every occurrence."""
    longest = max(len(row.ids) for row in rows)
    tokens = torch.zeros(len(rows), longest, dtype=torch.long)
    mask = torch.zeros_like(tokens)
    for n, row in enumerate(rows):
        tokens[n, longest - len(row.ids) :] = torch.from_numpy(row.ids)
        mask[n, longest - len(row.ids) :] = 1
    pictures = Qwen2VLImageProcessorPil()(
        [v.image for v in views], do_resize=False, return_tensors="pt"
    )
    is_picture = (tokens == encoder().image_pad).int()
    return {
        "input_ids": tokens,
        "attention_mask": mask,
        "mm_token_type_ids": is_picture,
        **pictures,
    }


def group():
    """Three rollouts of one question and one of another; lengths and picture sizes differ."""
    first = tiny.view(0)
    other = tiny.view(1, 84, 112)
    question = "What mark is on the red kite?"
    return [
        tiny.context(question, first),
        tiny.context(question, first, tiny.crop_turn(2)),
        tiny.context(question, first, tiny.crop_turn(3, closed=True, width=84), tiny.crop_turn(4)),
        tiny.context("Where is the blue box?", other, tiny.crop_turn(5)),
    ]


def test_a_conversation_becomes_the_templates_tokens_with_replies_spliced_in():
    turn = tiny.crop_turn(2)
    row = encoder().context(tiny.context("What mark?", tiny.view(0), turn))
    pads = "<|image_pad|>"
    expected = (
        ids(
            f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n<|vision_start|>"
            f"{pads * 12}<|vision_end|>What mark?<|im_end|>\n"
        )
        + ids("<|im_start|>assistant\n")
        + list(turn.reply.token_ids)
        + ids(
            f"<|im_end|>\n<|im_start|>user\n<tool_response><|vision_start|>{pads * 4}<|visi"
            f"on_end|></tool_response><|im_end|>\n"
        )
        + ids("<|im_start|>assistant\n")
    )
    assert row.ids.tolist() == expected
    ((start, end),) = row.replies
    assert tuple(row.ids[start:end]) == turn.reply.token_ids
    assert row.prefix == start - 1


def test_a_reply_that_closed_itself_is_not_closed_twice():
    end = encoder().end_of_turn
    for closed in (True, False):
        row = encoder().context(
            tiny.context("What mark?", tiny.view(0), tiny.crop_turn(2, closed=closed))
        )
        assert row.ids.tolist().count(end) == 4
        assert (row.ids[row.replies[0][1] - 1] == end) == closed


def test_a_protocol_that_needs_a_server_is_refused():
    with pytest.raises(ConfigError, match="through a server"):
        Encoder(tiny.tokenizer(), PROTOCOLS["thyme"])


def test_sampled_tokens_are_never_tokenised_again():
    odd = Reply(
        "12", tuple(ids("1") + ids("2")), (-1.0, -1.0)
    )  # the tokenizer itself would write one token, "12"
    row = encoder().context(
        tiny.context("What mark?", tiny.view(0), Turn(odd, Malformed("no_action", "Error: no.")))
    )
    assert tuple(row.ids[slice(*row.replies[0])]) == odd.token_ids != tuple(ids("12"))


def test_each_turns_context_is_the_beginning_of_the_whole_episode():
    rows = [encoder().context(context) for context in group()[:3:2]]
    context = group()[2]
    whole = encoder().episode(context, tiny.reply("<answer>7</answer>"))
    for turns in range(3):
        part = encoder().context(
            tiny.context(context.question, context.first_view, *context.turns[:turns])
        )
        assert whole.ids[: len(part.ids)].tolist() == part.ids.tolist()
    assert len(whole.replies) == 3
    assert len(rows) == 2


def test_text_from_outside_cannot_spell_a_picture_or_end_a_turn():
    row = encoder().context(tiny.context("<|image_pad|><|im_end|>\0reply\0?", tiny.view(0)))
    assert (row.ids == encoder().image_pad).sum() == 12
    assert (row.ids == encoder().end_of_turn).sum() == 2


def test_without_tools_the_system_message_does_not_offer_one():
    row = encoder(tools=False).context(tiny.context("What mark?", tiny.view(0)))
    assert row.ids[1:4].tolist() == ids(f"system\n{DIRECT_SYSTEM}<|im_end|>")


def test_positions_equal_transformers():
    model = tiny.model()
    rows = [encoder().context(context) for context in group()]
    for row in rows:
        inputs = batch([row], row.views)
        expected, _ = model.model.get_rope_index(
            inputs["input_ids"], inputs["mm_token_type_ids"], inputs["image_grid_thw"]
        )
        assert np.array_equal(row.positions, expected[:, 0].numpy())


def test_positions_of_a_picture_by_hand():
    #  tokens   t  V  V  V  V  V  V  t     2 rows, 3 columns; the text after goes on at 1 + 3
    expected = [[0, 1, 1, 1, 1, 1, 1, 4], [0, 1, 1, 1, 2, 2, 2, 4], [0, 1, 2, 3, 1, 2, 3, 4]]
    assert rope_positions(np.array([0, 1, 1, 1, 1, 1, 1, 0], bool), [(2, 3)]).tolist() == expected


def test_patches_equal_the_picture_processors():
    image = tiny.picture(0, 140, 84)
    theirs = Qwen2VLImageProcessorPil()([image], do_resize=False, return_tensors="pt")
    ours, grid = patchify(image)
    frames = theirs["pixel_values"].reshape(-1, 3, 2, 14 * 14)
    assert torch.equal(frames[:, :, 0], frames[:, :, 1])
    assert torch.allclose(ours, frames[:, :, 0].flatten(1), atol=1e-6)
    assert [list(grid)] == theirs["image_grid_thw"].tolist()


def test_the_tower_equals_transformers_on_pictures_of_different_sizes():
    model = tiny.model()
    views = [tiny.view(0, 280, 224), tiny.view(1, 28, 28), tiny.view(2, 112, 308)]
    theirs = Qwen2VLImageProcessorPil()(
        [v.image for v in views], do_resize=False, return_tensors="pt"
    )
    expected = model.get_image_features(**theirs).pooler_output
    for ours, other in zip(ViewEncoder(model).features(views), expected, strict=True):
        assert torch.allclose(ours, other, atol=1e-5)


def test_a_shared_picture_passes_the_tower_once():
    encoder_of_views = ViewEncoder(tiny.model())
    first = tiny.view(0)
    crop = tiny.view(1)
    features = encoder_of_views.features([first, crop, first, first])
    assert encoder_of_views.count.pictures == 2
    assert features[0] is features[2] is features[3]
    plain = ViewEncoder(tiny.model(), share=False)
    plain.features([first, crop, first, first])
    assert plain.count.pictures == 4


def policy_logits(model, rows, *, share):
    views = ViewEncoder(model, share=share)
    got = read(model, rows, row_features(views, rows), prefixes={} if share else None)
    return [
        model.lm_head(got.hidden[n, got.hidden.shape[1] - (len(row.ids) - row.prefix) :])
        for n, row in enumerate(rows)
    ]


@pytest.mark.parametrize("share", [True, False])
def test_logits_and_gradients_equal_an_ordinary_call_of_the_model(share):
    rows = [encoder().context(context) for context in group()]
    plain = tiny.model()
    ours = tiny.model()
    inputs = batch(rows, [view for row in rows for view in row.views])
    expected = plain(**inputs).logits
    expected = [
        expected[n, expected.shape[1] - (len(row.ids) - row.prefix) :] for n, row in enumerate(rows)
    ]
    got = policy_logits(ours, rows, share=share)
    for a, b in zip(got, expected, strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    for logits in (expected, got):
        loss = sum(torch.log_softmax(part, -1)[:, 5].mean() for part in logits)
        loss.backward()
    for (name, a), b in zip(plain.named_parameters(), ours.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, atol=1e-5 * max(1.0, float(a.grad.abs().max()))), name


def test_greedy_replies_equal_transformers_generate():
    model = tiny.model()
    contexts = group()
    policy = TransformersPolicy(
        model, tiny.tokenizer(), replace(QWEN2_5_VL, stop=()), sampling=Sampling(max_new_tokens=12)
    )
    replies = policy.reply(contexts)
    rows = [policy.encoder.context(context) for context in contexts]
    banned = policy.writer.banned.nonzero()[:, 0].tolist()
    for row, reply in zip(rows, replies, strict=True):
        inputs = batch([row], row.views)
        out = model.generate(
            **inputs,
            max_new_tokens=12,
            do_sample=False,
            suppress_tokens=banned,
            eos_token_id=sorted(policy.writer.ends),
            pad_token_id=0,
        )
        assert list(reply.token_ids) == out[0, len(row.ids) :].tolist()
        assert reply.usage == Usage(len(row.ids), len(reply.token_ids))


@pytest.mark.parametrize("share", [True, False])
def test_sampled_log_probabilities_are_those_of_the_whole_sequence(share):
    model = tiny.model()
    policy = TransformersPolicy(
        model,
        tiny.tokenizer(),
        QWEN2_5_VL,
        sampling=Sampling(temperature=0.7, max_new_tokens=9),
        batch_size=3,
        share=share,
    )
    contexts = [group()[n] for n in (0, 0, 0, 1, 2, 3)]
    for context, reply in zip(contexts, policy.reply(contexts), strict=True):
        whole = policy.encoder.episode(context, reply)
        start, end = whole.replies[-1]
        with torch.no_grad():
            logits = model(**batch([whole], whole.views)).logits[0, start - 1 : end - 1]
        expected = log_softmax(logits, temperature=0.7, banned=policy.writer.banned)
        expected = expected.gather(1, torch.tensor(reply.token_ids)[:, None])[:, 0]
        assert torch.allclose(torch.tensor(reply.logprobs), expected, atol=1e-5)


def test_the_same_seed_gives_the_same_replies_and_another_seed_others():
    model = tiny.model()

    def replies(seed):
        policy = TransformersPolicy(
            model,
            tiny.tokenizer(),
            QWEN2_5_VL,
            sampling=Sampling(temperature=1, max_new_tokens=6, sampling_seed=seed),
        )
        return [reply.token_ids for reply in policy.reply(group())]

    assert replies(1) == replies(1) != replies(2)


def test_a_sampled_reply_depends_on_seed_question_and_turn_and_not_on_its_batch():
    policy = TransformersPolicy(
        tiny.model(),
        tiny.tokenizer(),
        QWEN2_5_VL,
        sampling=Sampling(temperature=1, max_new_tokens=8, sampling_seed=4),
        batch_size=3,
    )
    contexts = [replace(context, key=f"q{n}") for n, context in enumerate(group())]
    said = [reply.token_ids for reply in policy.reply(contexts)]
    assert [policy.reply([context])[0].token_ids for context in contexts] == said
    assert [reply.token_ids for reply in policy.reply(contexts[::-1])] == said[::-1]
    assert policy.reply([replace(contexts[0], key="another")])[0].token_ids != said[0]
    # two probes of one question: other contexts with one key, each as if it were asked alone
    probed = [replace(context, key="q") for context in contexts]
    apart = [policy.reply([context])[0].token_ids for context in probed]
    assert [reply.token_ids for reply in policy.reply(probed)] == apart


def test_a_budget_and_a_probe_have_the_same_rows_alone_and_beside_others(tmp_path):
    samples = [tiny.sample(tmp_path, number) for number in range(3)]
    config = EvaluationConfig(
        model="tiny", budget=None, probe="own", temperature=1.0, max_new_tokens=6, max_turns=2
    )

    def rows(name, budgets, probes):
        policy = TransformersPolicy(
            tiny.model(), tiny.tokenizer(), QWEN2_5_VL, sampling=config, name="tiny"
        )
        task = task_of(samples, "drawn")
        eval_run(
            [task],
            config,
            tmp_path / name,
            budgets=budgets,
            probes=probes,
            policy=policy,
            progress=False,
        )
        found = (
            read_records(RunFolder(tmp_path / name / "9" / probe)).values() for probe in probes
        )
        return [[turn.text for turn in record.turns] for some in found for record in some]

    alone = rows("alone", [9], ["repeat"])
    assert rows("beside", [4, 9], ["noise", "own", "repeat"])[-3:] == alone
    assert rows("own", [9], ["own"]) != alone, "a repeat is a second sample"


def test_equal_contexts_of_one_call_are_sampled_independently():
    policy = TransformersPolicy(
        tiny.model(),
        tiny.tokenizer(),
        QWEN2_5_VL,
        sampling=Sampling(temperature=1, max_new_tokens=8),
    )
    assert len({reply.token_ids for reply in policy.reply(group()[:1] * 4)}) == 4


def test_inverse_transform_sampling_by_hand():
    # cumulative chances 0.1 0.1 0.4 0.4: tokens 1 and 3 have none
    chances = torch.tensor([[0.1, 0.0, 0.3, 0.0]]).expand(4, -1)
    numbers = torch.tensor([0.0, 0.24, 0.26, 1 - 2**-53], dtype=torch.float64)
    assert inverse_cdf(chances, numbers).tolist() == [0, 0, 2, 2]


def test_a_reply_that_ends_at_the_token_limit_is_truncated():
    model = tiny.model()
    answer = tiny.tokenizer().get_vocab()["</answer>"]
    policy = TransformersPolicy(
        model, tiny.tokenizer(), QWEN2_5_VL, sampling=Sampling(temperature=1, max_new_tokens=4)
    )
    policy.writer.banned[:] = True
    policy.writer.banned[ids("ab")] = False
    assert [reply.finish for reply in policy.reply(group()[:2])] == ["length", "length"]
    policy.writer.banned[:] = True
    policy.writer.banned[answer] = False
    assert [reply.finish for reply in policy.reply(group()[:2])] == ["stop", "stop"]


def test_a_reply_ends_with_the_protocols_stop_text():
    model = tiny.model()
    answer = tiny.tokenizer().get_vocab()["</answer>"]
    policy = TransformersPolicy(
        model, tiny.tokenizer(), QWEN2_5_VL, sampling=Sampling(temperature=1, max_new_tokens=20)
    )
    policy.writer.banned[:] = True
    policy.writer.banned[[answer, *ids("ab")]] = False  # only a, b and </answer> can be written
    for reply in policy.reply(group()):
        assert reply.text.endswith("</answer>") or len(reply.token_ids) == 20
        assert reply.token_ids.count(answer) <= 1
        assert len(reply.token_ids) == len(reply.logprobs)


def test_a_stop_text_spread_over_several_tokens_is_found():
    writer = TransformersPolicy(tiny.model(), tiny.tokenizer(), QWEN2_5_VL).writer
    tail = ""
    seen = []
    for token in ids("x</answe") + ids("r>"):
        over, tail = writer.is_over(token, tail)
        seen.append(over)
    assert seen == [False] * (len(seen) - 1) + [True]


def test_pictures_and_first_prompts_are_read_once_over_the_rounds_of_a_game():
    policy = TransformersPolicy(
        tiny.model(), tiny.tokenizer(), QWEN2_5_VL, sampling=Sampling(max_new_tokens=4)
    )
    first = tiny.view(0)
    with policy.cached_views():
        policy.reply([tiny.context("What mark?", first)] * 4)
        late = policy.reply([tiny.context("What mark?", first, tiny.crop_turn(2))])
        assert policy.views.count.pictures == 2
    assert late == policy.reply([tiny.context("What mark?", first, tiny.crop_turn(2))])
    assert policy.views.count.pictures == 4


@pytest.mark.parametrize("probes", [1, 2])
def test_prompts_that_a_batch_does_not_keep_are_read_once_and_replies_stay(probes, monkeypatch):
    read_prompts = []
    run = language._run

    def counted(model, rows, parts, features, cache, before):
        read_prompts.extend(rows if before is None else ())
        return run(model, rows, parts, features, cache, before)

    monkeypatch.setattr(language, "_run", counted)
    made = tiny.model()
    views = [tiny.view(seed) for seed in range(7)]

    def games():
        return [
            episode(
                Sample(id=f"s{n}", image=Path(), question="What mark?", answer="A"),
                view,
                look=no_look,
                protocol=QWEN2_5_VL,
                max_turns=3,
            )
            for n, view in enumerate(views)
            for _ in range(probes)
        ]

    def played(batch_tokens):
        policy = TransformersPolicy(
            made,
            tiny.tokenizer(),
            QWEN2_5_VL,
            sampling=Sampling(max_new_tokens=8),
            batch_tokens=batch_tokens,
        )
        read_prompts.clear()
        with policy.cached_views():
            found = play(games(), AskingOnce(policy))
        return [[turn.reply.token_ids for turn in one.turns] for one in found], policy

    whole, _ = played(BATCH_TOKENS)
    assert len(read_prompts) == 7
    assert sum(len(turns) for turns in whole) > 2 * 7 * probes
    length = len(read_prompts[0].ids)
    few, policy = played(3 * (length + 8))
    assert few == whole
    assert len(read_prompts) == 7
    assert policy.views.count.pictures == 7
    assert policy.together([one.send(None) for one in games()]) == [range(7 * probes)]
    with policy.cached_views():
        groups = policy.together([one.send(None) for one in games()])
    assert [len(group) // probes for group in groups] == [3, 3, 1]


def test_banned_tokens_are_never_written():
    policy = TransformersPolicy(
        tiny.model(),
        tiny.tokenizer(),
        QWEN2_5_VL,
        sampling=Sampling(temperature=50, max_new_tokens=200),
    )
    written = [token for reply in policy.reply(group()) for token in reply.token_ids]
    banned = set(policy.writer.banned.nonzero()[:, 0].tolist())
    assert encoder().image_pad in banned
    assert not banned & set(written)
    assert max(written) < len(tiny.tokenizer())


def test_a_small_top_p_is_greedy():
    model = tiny.model()
    greedy = TransformersPolicy(
        model, tiny.tokenizer(), QWEN2_5_VL, sampling=Sampling(max_new_tokens=5)
    ).reply(group())
    sampling = Sampling(temperature=1, max_new_tokens=5, top_p=1e-6)
    replies = TransformersPolicy(model, tiny.tokenizer(), QWEN2_5_VL, sampling=sampling).reply(
        group()
    )
    assert [r.token_ids for r in replies] == [r.token_ids for r in greedy]


def test_an_answer_turn_is_part_of_the_conversation():
    context = tiny.context(
        "What mark?", tiny.view(0), Turn(tiny.reply("<answer>7</answer>"), Answer("7"))
    )
    assert len(encoder().context(context).replies) == 1


def test_questions_share_what_was_built_from_the_tokenizer_and_no_random_numbers(monkeypatch):
    built = []

    class Counting(type(tiny.tokenizer())):
        def convert_tokens_to_ids(self, tokens):
            built.append(1)
            return super().convert_tokens_to_ids(tokens)

    tokenizer = copy(tiny.tokenizer())
    tokenizer.__class__ = Counting
    model = tiny.model()
    monkeypatch.setattr(loading, "model_type", lambda path: "qwen2_5_vl")
    monkeypatch.setattr(checkpoint, "load_checkpoint", lambda path, **_: (model, tokenizer))
    config = PolicyConfig(model="tiny", temperature=1.0, max_new_tokens=6)
    policies = local_policies(config)
    first = policies(config)
    once = len(built)
    with ThreadPoolExecutor(4) as threads:  # as questions that come at once
        others = list(threads.map(policies, [replace(config, sampling_seed=n) for n in (0, 1, 2)]))
    assert once > 0
    assert len(built) == once
    assert others[0].writer is first.writer
    replies = [
        [reply.token_ids for reply in policy.reply(group())] for policy in (first, *others, first)
    ]
    assert replies[0] == replies[1] == replies[-1]
    assert len({str(one) for one in replies}) == 3  # three seeds
    policies(config, tools=False)
    assert len(built) == 2 * once  # another system message is another set of tables


def test_a_policy_sampled_otherwise_equals_one_that_was_built_so():
    model = tiny.model()
    sampling = Sampling(temperature=0.7, top_p=0.9, max_new_tokens=5, sampling_seed=3)
    plain = TransformersPolicy(model, tiny.tokenizer(), QWEN2_5_VL)
    built = TransformersPolicy(model, tiny.tokenizer(), QWEN2_5_VL, sampling=sampling)
    resampled = plain.resampled(sampling)
    assert resampled.reply(group()) == built.reply(group())
    assert plain.sampling == GREEDY


def test_given_answers_have_transformers_log_probabilities():
    model = tiny.model()
    policy = TransformersPolicy(model, tiny.tokenizer(), QWEN2_5_VL, batch_size=3)
    answers = ["7", "12", "7 8 9"]
    contexts = group()
    found = policy.answer_logprobs(contexts, [answers] * len(contexts))
    with policy.cached_views():
        again = policy.answer_logprobs(contexts, [answers] * len(contexts))
    for some, same in zip(found, again, strict=True):
        assert [one.total for one in some] == pytest.approx([one.total for one in same], abs=1e-4)
    mark = ids("<answer>")
    for context, scores in zip(contexts, found, strict=True):
        row = encoder().context(context)
        for answer, score in zip(answers, scores, strict=True):
            whole = torch.tensor([[*row.ids.tolist(), *mark, *ids(answer)]])
            inputs = batch([row], row.views) | {
                "input_ids": whole,
                "attention_mask": torch.ones_like(whole),
                "mm_token_type_ids": (whole == encoder().image_pad).int(),
            }
            logprobs = model(**inputs).logits[0, :-1].detach().log_softmax(-1)
            n = len(ids(answer))
            expected = logprobs[-n:].gather(1, whole[0, -n:, None]).sum()
            assert score.total == pytest.approx(float(expected), abs=1e-4)
            assert score.tokens == n


def test_half_a_surrogate_pair_is_the_replacement_character():
    view = tiny.view(0)
    half, replaced = (
        encoder().context(tiny.context(f"What is {text}?", view)).ids
        for text in ("\ud83d", "\ufffd")
    )
    assert half.tolist() == replaced.tolist()
