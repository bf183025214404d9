"""The cluster engine outside verl: versions, hardware, translation, lines, recording. Needs no
verl."""

import re
from dataclasses import fields, replace
from pathlib import Path

import pytest

import lfpc
from environments import ROOT
from lfpc.boxes import WHOLE, Box
from lfpc.dialogue import Answer, Crop, Malformed, Reason, Reply, Turn
from lfpc.episode import Episode, Stop
from lfpc.errors import ConfigError, RunError
from lfpc.images import View
from lfpc.rewards import RewardConfig, RewardTerms, episode_reward
from lfpc.storage.runs import Kind, RunFolder
from lfpc.training.config import LoraConfig, TrainConfig
from lfpc.training.groups import groups_of
from lfpc.training.presets import PRESETS, preset
from lfpc.training.statistics import episode_numbers, sampling_numbers, validation_numbers
from lfpc.training.verl.clusters import HARDWARE, Cluster, hardware
from lfpc.training.verl.estimate import (
    estimate,
)
from lfpc.training.verl.lines import line_of_sample, sample_of_line
from lfpc.training.verl.recording import RecordedRollout, log_episodes, played, step_numbers
from lfpc.training.verl.shape import SHAPES
from lfpc.training.verl.translate import check_translatable, save_every, settings, settings_lines
from lfpc.training.verl.versions import FLASH_ATTENTION, VLLM, check_versions, needed

# ---- where verl is


def test_verl_and_its_kin_are_imported_by_what_runs_inside_verl_alone():
    kin = re.compile(
        r"^\s*(?:from|import) (verl|ray|hydra|omegaconf|tensordict|transfer_queue)\b", re.MULTILINE
    )
    source = Path(lfpc.__file__).parent
    found = {
        path.relative_to(source).as_posix()
        for path in source.rglob("*.py")
        if kin.search(path.read_text(encoding="utf-8"))
    }
    assert found
    assert all(path.startswith("training/verl/inside/") for path in found), found


# ---- versions


def test_missing_old_and_new_packages_are_all_named_in_one_sentence():
    with pytest.raises(ConfigError) as found:
        check_versions(["no-such-package>=1,<2", "numpy>=99,<100", "pillow>=1,<2", "pytest>=1"])
    text = str(found.value)
    assert "no-such-package is not installed (needed: no-such-package<2,>=1)" in text
    assert "numpy is " in text
    assert "pillow is " in text
    assert "pytest" not in text
    assert "docs/cluster.md" in text


def test_a_local_build_of_a_version_is_that_version():
    check_versions(["torch>=2.11,<99"])  # torch is 2.13.0+cpu on machines without a GPU


def test_vllm_and_flash_attention_are_needed_where_they_are_used():
    assert {VLLM, FLASH_ATTENTION} <= set(needed(Cluster()))
    assert not {VLLM, FLASH_ATTENTION} & set(needed(Cluster(rollout="another", padding_free=False)))


def test_the_cluster_requirements_are_those_that_a_run_checks():
    lines = (ROOT / "requirements-cluster.txt").read_text().splitlines()
    listed = {line.replace("verl[vllm]", "verl") for line in lines if not line.startswith("#")}
    assert listed == {one for one in needed(Cluster()) if one != FLASH_ATTENTION}
    assert f"pip install --no-build-isolation '{FLASH_ATTENTION}'" in "\n".join(lines)


# ---- hardware


def test_unknown_hardware_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'node4'"):
        hardware("nod4", TrainConfig())


def test_the_paper_hardware_is_the_published_setting():
    run, cluster = hardware("paper", preset("stage1"))
    assert (run.prompts_per_step, run.group_size, run.steps, run.learning_rate) == (
        256,
        16,
        80,
        1e-6,
    )
    assert (cluster.gpus, run.dtype, run.max_new_tokens) == (8, "bfloat16", 2048)


LOCAL_ONLY = ("information", "stage1-information")


@pytest.mark.parametrize("arm", LOCAL_ONLY)
def test_what_verl_does_not_pay_for_is_refused(arm):
    with pytest.raises(ConfigError, match="information needs the local engine"):
        check_translatable(preset(arm), Cluster())


@pytest.mark.parametrize("name", HARDWARE)
@pytest.mark.parametrize("arm", [name for name in PRESETS if name not in LOCAL_ONLY])
def test_every_preset_translates_for_every_hardware(name, arm):
    run, cluster = hardware(name, preset(arm))
    check_translatable(run, cluster)
    assert settings(run, cluster)["trainer.n_gpus_per_node"] == cluster.gpus_per_node


@pytest.mark.parametrize("name", HARDWARE)
@pytest.mark.parametrize("arm", ["stage1", "stage2"])
def test_stages_one_and_two_fit_the_hardware_they_are_preset_for(name, arm):
    assert estimate(*hardware(name, preset(arm))).advice == ()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"gpus_per_node": 0}, "`cluster.gpus_per_node` must be at least 1"),
        ({"tensor_parallel": 3}, "8 GPUs are not divisible by --cluster.tensor-parallel 3"),
        ({"sampling_share": 1.0}, "`cluster.sampling_share` must lie between 0 and 1"),
        ({"verl": ("trainer.save_freq",)}, "--cluster.verl takes KEY=VALUE"),
    ],
)
def test_impossible_clusters_are_refused(changes, sentence):
    with pytest.raises(ConfigError, match=sentence):
        Cluster(**changes)


# ---- translation

READ_BY_OUR_OWN_PARTS = {
    "data",
    "out",  # run folder
    "first_view",
    "fixed_budget",
    "original_budget",
    "crop",
    "reward",
    "seed",  # order of questions; vLLM draws its own random numbers
    "validation_size",
    "log_episodes",
    "unanswered",
    "keep",
}
OF_THE_LOCAL_ENGINE_ALONE = {
    "micro_batch",
    "sample_batch",
    "batch_tokens",
    "share",
    "device",
    "threads",
}
REFUSED = {
    "decay",
    "judge",
    "optimizer",
    "sampler",
    "vllm",  # by the configuration itself, without `sampler`
    "save_dtype",
    "gradient_checkpointing",
    "micro_batch_tokens",
    "gpu_memory",
    "dynamic_sampling",
}


def test_every_field_of_a_run_changes_verls_settings_or_is_known_to_be_read_elsewhere():
    run = replace(preset("stage1"), validation=Path("held-out"), first_view="fixed")
    other = {
        "validation": None,
        "init": Path("elsewhere"),
        "aggregation": "sequence-mean",
        "advantage_scale": "none",
        "betas": (0.8, 0.9),
        "dtype": "float32",
        "steps": 81,
        "lora": LoraConfig(),
        "protocol": None,
        "minibatches": 2,
    }
    before = seen_by_verl(run)
    for name in (field.name for field in fields(TrainConfig)):
        if name in READ_BY_OUR_OWN_PARTS | OF_THE_LOCAL_ENGINE_ALONE | REFUSED | {"protocol"}:
            continue
        value = other.get(
            name,
            None
            if name in other
            else getattr(run, name) * 2 + 3
            if name in ("save_every", "validate_every")
            else None,
        )
        value = value if name in other else value or getattr(run, name) + 1
        assert seen_by_verl(replace(run, **{name: value})) != before, name


def seen_by_verl(run):
    return {key: value for key, value in settings(run, Cluster()).items() if key != "+lfpc"}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"lora": LoraConfig(vision=True)}, "vision=yes needs the local engine"),
        (
            {"lora": LoraConfig(targets=("q_proj", "qkv"))},
            "the language model has no layer 'qkv'; it has q_proj, k_proj,",
        ),
        ({"lora": LoraConfig(rank=513)}, "ranks up to 512; use a smaller rank, or --engine local"),
        ({"judge": "m"}, "--judge needs the local engine"),
        ({"decay": True}, "--decay needs the local engine"),
        ({"sampler": "vllm"}, "--sampler needs the local engine"),
        ({"dynamic_sampling": 2}, "--dynamic-sampling needs the local engine"),
        (
            {"minibatches": 8, "group_size": 12},
            "12 rollouts per update are not divisible by 8 GPUs",
        ),
        ({"optimizer": "adamw-8bit"}, "--optimizer adamw-8bit needs the local engine"),
        ({"save_dtype": "float32"}, "--save-dtype needs the local engine"),
        ({"gradient_checkpointing": True}, "use --cluster.checkpointing"),
        ({"micro_batch_tokens": 9}, "use --cluster.tokens-per-gpu"),
        ({"gpu_memory": 24.0}, "use --cluster.gpu-gib"),
        (
            {"prompts_per_step": 3, "group_size": 3},
            "9 rollouts per step are not divisible by 8 GPUs",
        ),
        (
            {"first_view": "original"},
            "a first view of 16384 visual tokens and a reply of 512 do not fit into "
            "--max-rollout-tokens 8192",
        ),
        (
            {"max_rollout_tokens": 1500},
            "leave no room for a crop of 1024 in --max-rollout-tokens 1500; raise it to more "
            "than 1536",
        ),
        ({"protocol": "thyme"}, "thyme shows crops inside the model's own turn"),
    ],
)
def test_what_verl_would_do_otherwise_is_refused(changes, sentence):
    with pytest.raises(ConfigError, match=sentence):
        settings(replace(preset("stage1"), **changes), Cluster())


@pytest.mark.parametrize(
    ("model", "gpus", "refused"),
    [
        ("7B", 1, None),
        ("7B", 2, None),
        ("7B", 4, None),
        ("7B", 8, "28 attention heads, 3420 vision channels of a layer; use a divisor"),
        ("3B", 4, None),
        ("3B", 8, "GPUs: 3420 vision channels of a layer; use a divisor"),
    ],
)
def test_what_vllm_cannot_divide_is_refused_before_the_run(model, gpus, refused, tmp_path):
    run = replace(preset("stage1"), init=tmp_path)
    cluster = Cluster(tensor_parallel=gpus, model=model)
    if refused is None:
        settings(run, cluster)
        return
    with pytest.raises(ConfigError, match=refused):
        settings(run, cluster)


def test_heads_of_keys_and_values_are_divided_or_copied():
    assert SHAPES["7B"].indivisible(7) == [
        "18944 channels of a layer",
        "16 vision heads",
        "3420 vision channels of a layer",
        "4 heads of keys and values",
    ]


def test_the_method_reaches_verl_as_the_paper_has_it():
    found = settings(replace(preset("stage1"), clip=0.3), Cluster())
    actor = "actor_rollout_ref.actor"
    assert found["algorithm.adv_estimator"] == "lfpc"
    assert (
        found[f"{actor}.use_kl_loss"],
        found["algorithm.use_kl_in_reward"],
        found[f"{actor}.entropy_coeff"],
    ) == (False, False, 0)
    assert [found[f"{actor}.clip_ratio{end}"] for end in ("", "_low", "_high")] == [0.3] * 3
    assert found[f"{actor}.clip_ratio_c"] > 1e6
    assert found["data.shuffle"] is False


def test_the_learning_rate_warms_up_as_in_the_local_engine_and_then_stays():
    found = settings(replace(preset("stage1"), learning_rate=2e-6, warmup=5), Cluster())
    optimiser = "actor_rollout_ref.actor.optim"
    assert (found[f"{optimiser}.lr"], found[f"{optimiser}.lr_warmup_steps"]) == (2e-6, 5)
    assert found[f"{optimiser}.zero_indexed_step"] is False  # the first step is step 1
    # verl's cosine after the warm-up: (1 + cos(2 pi * cycles * progress)) / 2, here always 1
    assert found[f"{optimiser}.lr_scheduler_type"] == "cosine"
    assert found[f"{optimiser}.num_cycles"] == 0


def test_adapters_are_of_the_language_model_and_saved_without_the_base():
    run = replace(preset("stage1"), lora=LoraConfig(rank=8, alpha=16, targets=("q_proj",)))
    found = settings(run, Cluster())
    model = "actor_rollout_ref.model"
    checkpoint = "actor_rollout_ref.actor.checkpoint"
    assert (found[f"{model}.lora_rank"], found[f"{model}.lora_alpha"]) == (8, 16)
    assert found[f"{model}.target_modules"] == ["q_proj"]
    tower = "base_model.model.model.visual.blocks.0.attn.proj"
    assert re.fullmatch(found[f"{model}.exclude_modules"], tower)
    assert "hf_model" not in found[f"{checkpoint}.save_contents"]
    assert found[f"+{checkpoint}.save_lora_only"] is True
    assert "hf_model" in settings(preset("stage1"), Cluster())[f"{checkpoint}.save_contents"]


def test_there_is_a_checkpoint_whenever_a_validation_may_find_the_best():
    assert save_every(TrainConfig(save_every=10, validate_every=4)) == 10
    assert save_every(TrainConfig(save_every=10, validate_every=4, validation=Path("v"))) == 2


def test_a_stop_ends_the_call_and_not_the_schedule():
    found = settings(TrainConfig(steps=80), Cluster(stop_at=20))
    assert found["trainer.total_training_steps"] == 20
    assert found["+lfpc"]["train"]["steps"] == 80


def test_several_nodes_join_the_ray_that_runs():
    assert settings(TrainConfig(), Cluster(nodes=2))["+ray_kwargs.ray_init.address"] == "auto"
    assert "+ray_kwargs.ray_init.address" not in settings(TrainConfig(), Cluster())


def test_settings_are_shown_one_line_per_key():
    lines = settings_lines(settings(TrainConfig(), Cluster())).splitlines()
    assert any(line.split() == ["actor_rollout_ref.rollout.n", "8"] for line in lines)
    assert not any(line.startswith("+lfpc") for line in lines)


# ---- lines


def test_a_sample_travels_whole_with_an_absolute_path_and_without_pixels(
    sample, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    one = sample(budget=25, options=("a", "b"), answer="A", meta={"k": [1]}, category="c")
    near = replace(one, id="s2", budget=None, image=one.image.relative_to(tmp_path))
    for sent in (one, near):
        line = line_of_sample(sent)
        assert sample_of_line(line) == replace(sent, image=one.image)
        assert len(line) < 1000


# ---- recording


def an_episode(sample, view, answer, *, crop=True, malformed=False):
    """One crop or malformed reply, and an answer."""
    first = Reply("call", (1, 2), (-0.5, -1.5))
    turns = [Turn(first, Crop(Box(0.3, 0.3, 0.6, 0.6)), view)] if crop else []
    turns += [Turn(first, Malformed(Reason.BAD_JSON, "not JSON"))] if malformed else []
    turns.append(Turn(Reply(answer, (3,), (-1.0,)), Answer(answer)))
    return Episode(sample, view, tuple(turns), Stop.ANSWERED)


@pytest.fixture
def step(sample, picture):
    """Two questions of three rollouts: episodes, their rewards, and the reports of them in another
    order."""
    from PIL import Image

    view = View(Image.open(picture()).convert("RGB"), WHOLE, (400, 300))
    one = sample(id="one")
    two = sample(id="two")
    episodes = [
        an_episode(one, view, "K"),
        an_episode(one, view, "L"),
        an_episode(one, view, "K", crop=False),
    ]
    episodes += [an_episode(two, view, "K", malformed=True)] * 3
    terms = [episode_reward(episode, RewardConfig(grounding=1.0)) for episode in episodes]
    reports = [
        played(episode, term, question=n // 3, rollout=n % 3, overlong=n == 4)
        for n, (episode, term) in enumerate(zip(episodes, terms, strict=True))
    ]
    return episodes, terms, [reports[n] for n in (5, 0, 3, 2, 4, 1)]


RUN = TrainConfig(prompts_per_step=2, group_size=3, log_episodes=3)


def test_numbers_of_a_step_are_those_the_local_engine_writes(step):
    episodes, terms, reports = step
    found = step_numbers(reports, RUN)
    for name, value in episode_numbers(episodes, terms).items():
        assert found[name] == pytest.approx(value), name
    assert found["policy_tokens"] == 3 + 3 + 1 + 3 * 5
    assert found["zero_variance"] == 0.5  # the rollouts of the second question earn the same
    assert (found["overlong"], found["failed"], found["trained_rollouts"]) == (1, 0, 3)


def test_a_few_lost_rollouts_are_counted_and_many_are_an_error(step):
    _, _, reports = step
    run = replace(RUN, prompts_per_step=10)  # 30 wanted, so 1 may be lost
    found = step_numbers((reports * 5)[:29], run)
    assert found["failed"] == 1
    with pytest.raises(RunError, match="2 of the 30 rollouts of a step failed"):
        step_numbers((reports * 5)[:28], run)


def test_sampling_numbers_leave_out_a_question_that_lost_a_rollout(step):
    episodes, terms, reports = step
    run = replace(RUN, prompts_per_step=10, group_size=3)
    rest = [replace(one, question=one.question + 2 * n) for n in range(1, 5) for one in reports]
    cut = [one for one in reports if (one.question, one.rollout) != (0, 2)]
    found = step_numbers(cut + rest, run)
    assert found["failed"] == 1
    whole = groups_of(episodes * 4 + episodes[3:], terms * 4 + terms[3:], size=3)
    assert found["policy_tokens"] == sampling_numbers(whole)["policy_tokens"]


def test_a_report_travels_without_pixels(step):
    _, _, reports = step
    data = reports[0].to_bytes()
    assert len(data) < 5_000
    again = RecordedRollout.from_bytes(data)
    assert again.terms == reports[0].terms
    assert again.record == reports[0].record
    assert again.episode.boxes == reports[0].episode.boxes


def test_first_rollouts_are_logged_first_with_their_advantages(step, tmp_path):
    _, terms, reports = step
    run = RunFolder.open(tmp_path / "run", Kind.TRAIN, RUN)
    log_episodes(run, RUN, 7, reports)
    rows = run.episodes()
    assert list(rows) == ["7/0/0", "7/0/1", "7/1/0"]
    assert rows["7/0/0"]["reward"]["total"] == terms[0].total
    assert rows["7/0/0"]["advantage"] > 0 > rows["7/0/1"]["advantage"]
    assert rows["7/1/0"]["advantage"] == 0


def test_logged_episodes_keep_their_place_in_the_schedule_when_others_failed(step, tmp_path):
    _, _, reports = step
    run = RunFolder.open(tmp_path / "run", Kind.TRAIN, RUN)
    returned = [one for one in reports if one.question == 1 and one.rollout > 0]
    log_episodes(run, RUN, 7, returned)  # the first question failed, and a rollout of the second
    again = [replace(one, question=one.question + 2) for one in returned]
    log_episodes(run, RUN, 8, again)  # the schedule goes on with the questions of the next step
    assert list(run.episodes()) == ["7/1/1", "7/1/2", "8/1/1", "8/1/2"]


def test_validation_has_the_local_engines_names(step):
    _, _, reports = step
    found = validation_numbers([one.episode for one in reports], [one.terms for one in reports])
    assert set(found) == {
        f"validation_{name}" for name in ("reward", "accuracy", "tool_rate", "iou_last", "box_area")
    }
    assert found["validation_accuracy"] == pytest.approx(5 / 6)


def test_rewards_keep_their_terms(step):
    _, _, reports = step
    assert all(
        isinstance(one.terms, RewardTerms) and one.terms.grounding > 0
        for one in reports
        if one.episode.boxes
    )


def test_a_run_is_a_key_of_what_its_workers_keep():
    """Its views and looks are cached by run in the workers."""
    run = preset("stage1")
    assert hash(run) == hash(replace(run))
    assert {run, replace(run)} == {run}
