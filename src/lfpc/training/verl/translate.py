"""A run and a cluster as verl's configuration. `settings` is the whole translation, one line per
key.

Options that verl does not support, or would silently treat differently, are rejected with an error.
"""

from collections.abc import Mapping
from dataclasses import replace
from math import gcd
from pathlib import Path
from typing import Any

from lfpc.errors import ConfigError
from lfpc.storage.typed import plain
from lfpc.training.config import LoraConfig, TrainConfig
from lfpc.training.lengths import check_room
from lfpc.training.verl.clusters import Cluster
from lfpc.training.verl.estimate import shape_of_run

NAME = "lfpc"
"""Name of our agent loop and advantages in verl's registries, and of our section in its
configuration."""
OURS = f"+{NAME}"
"""Key of our own section."""
INSIDE = "lfpc.training.verl.inside"
AGGREGATIONS = {"token-mean": "token-mean", "sequence-mean": "seq-mean-token-mean"}
FREEZE_VISION = "lfpc_freeze_vision"
"""Our key among verl's overrides of the model's configuration."""
TOWER = ".*visual.*"
"""Modules without adapters."""
MOST_RANK = 512
"""Largest rank of vLLM."""
TRAIN = "train"
VALIDATION = "validation"
"""Placeholders for verl's data files: our dataset reads the samples folders of the run."""
NO_DUAL_CLIP = 1e9
"""Value that disables verl's second clipping of the ratios of bad rollouts, which the paper does
not have."""


def state_folder(out: Path) -> Path:
    """Folder of verl's own checkpoints in the run folder `out`."""
    return out / "verl"


def check_translatable(config: TrainConfig, cluster: Cluster) -> None:
    """Check that verl supports `config` on `cluster`.

    Raises:
        ConfigError: it does not; the message names the option to change.
    """
    rollouts = config.prompts_per_step * config.group_size
    part = "step" if config.minibatches == 1 else "update"
    chat = config.chat
    whole = shape_of_run(config, cluster).indivisible(cluster.tensor_parallel)
    unknown = sorted({*config.lora.targets} - {*LoraConfig().targets}) if config.lora else []
    refusals = (
        (
            config.lora is not None and config.lora.vision,
            "--lora vision=yes needs the local engine, because vLLM samples with adapters of the "
            "language model only; use vision=no, or --engine local",
        ),
        (
            unknown,
            f"--lora: the language model has no layer {''.join(unknown[:1])!r}; it has "
            f"{', '.join(LoraConfig().targets)}",
        ),
        (
            config.lora is not None and config.lora.rank > MOST_RANK,
            f"--lora: vLLM samples with ranks up to {MOST_RANK}; use a smaller rank, or "
            f"--engine local",
        ),
        (
            config.reward.pay == "information",
            "--reward.pay information needs the local engine; leave it out",
        ),
        (
            config.sampler != "transformers",
            "--sampler needs the local engine; verl samples with vLLM anyway",
        ),
        (bool(config.judge), "--judge needs the local engine; leave it out"),
        (config.decay, "--decay needs the local engine; leave it out"),
        (
            config.dynamic_sampling > 0,
            "--dynamic-sampling needs the local engine, as verl's goes on without a limit of "
            "rounds and off the run's schedule; leave it out",
        ),
        (
            config.optimizer != "adamw",
            f"--optimizer {config.optimizer} needs the local engine; leave it out",
        ),
        (
            config.save_dtype != "auto",
            "--save-dtype needs the local engine; leave it out",
        ),
        (
            config.gradient_checkpointing is not None,
            "--gradient-checkpointing needs the local engine; use --cluster.checkpointing",
        ),
        (
            config.micro_batch_tokens is not None,
            "--micro-batch-tokens needs the local engine; use --cluster.tokens-per-gpu",
        ),
        (
            config.gpu_memory is not None,
            "--gpu-memory needs the local engine; use --cluster.gpu-gib",
        ),
        (
            rollouts // config.minibatches % cluster.gpus,
            f"{rollouts // config.minibatches} rollouts per {part} are not divisible by "
            f"{cluster.gpus} GPUs; change --prompts-per-step or --group-size",
        ),
        (
            whole,
            f"vLLM cannot divide this model among --cluster.tensor-parallel "
            f"{cluster.tensor_parallel} GPUs: {', '.join(whole)}; use a divisor of all of them",
        ),
        (
            not chat.whole_turns,
            f"{config.protocol} shows crops inside the model's own turn, which no training engine "
            f"plays; use another protocol",
        ),
    )
    for refused, sentence in refusals:
        if refused:
            raise ConfigError(sentence)
    check_room(config.first_budget(0), "max_tokens", config)  # samples are not read yet


def save_every(config: TrainConfig) -> int:
    """Steps between checkpoints; each validation needs one, which may be the best."""
    return gcd(config.save_every, config.validate_every) if config.validation else config.save_every


def settings(config: TrainConfig, cluster: Cluster) -> dict[str, Any]:
    """Verl's keys and their values; all others keep verl's default. + marks a key that verl does
    not list.

    Raises:
        ConfigError: verl does not support `config`.
    """
    check_translatable(config, cluster)
    # verl's processes may start in another folder
    run = replace(
        config,
        data=config.data.absolute(),
        validation=config.validation and config.validation.absolute(),
        init=config.init.absolute(),
        out=config.out.absolute(),
    )
    exact = config.dtype == "float32"
    dtype = "float32" if exact else "bfloat16"
    actor = "actor_rollout_ref.actor"
    rollout = "actor_rollout_ref.rollout"
    model = "actor_rollout_ref.model"
    last = min(config.steps, cluster.stop_at or config.steps)
    return {
        # data: the dataset is the schedule of the run, question by question, so verl neither
        # shuffles nor filters nor drops
        "data.train_files": TRAIN,
        "data.val_files": VALIDATION,
        "data.custom_cls.path": f"pkg://{INSIDE}.dataset",
        "data.custom_cls.name": "ScheduledSamples",
        "data.train_batch_size": config.prompts_per_step,
        "data.shuffle": False,
        "data.dataloader_num_workers": 0,
        "data.max_prompt_length": config.max_rollout_tokens,
        "data.max_response_length": config.max_rollout_tokens,
        # method: advantages as in the paper, no KL term, no entropy bonus, one clip
        "algorithm.adv_estimator": NAME,
        "algorithm.norm_adv_by_std_in_grpo": config.advantage_scale == "deviation",
        "algorithm.use_kl_in_reward": False,
        "critic.enable": False,
        f"{actor}.use_kl_loss": False,
        f"{actor}.entropy_coeff": 0,
        f"{actor}.clip_ratio": config.clip,
        f"{actor}.clip_ratio_low": config.clip,
        f"{actor}.clip_ratio_high": config.clip,
        f"{actor}.clip_ratio_c": NO_DUAL_CLIP,
        f"{actor}.loss_agg_mode": AGGREGATIONS[config.aggregation],
        f"{actor}.ppo_mini_batch_size": config.prompts_per_step // config.minibatches,
        f"{actor}.ppo_epochs": config.updates_per_batch,
        # optimiser: a cosine of no cycle is the local engine's schedule, warm-up of step / warmup;
        # verl's "constant" warms up one step later, so its first update would move nothing
        f"{actor}.optim.lr": config.learning_rate,
        f"{actor}.optim.lr_warmup_steps": config.warmup,
        f"{actor}.optim.lr_scheduler_type": "cosine",
        f"{actor}.optim.num_cycles": 0.0,
        f"{actor}.optim.zero_indexed_step": False,
        f"{actor}.optim.weight_decay": config.weight_decay,
        f"{actor}.optim.betas": list(config.betas),
        f"{actor}.optim.clip_grad": config.max_grad_norm,
        # model and its memory
        f"{model}.path": str(run.init),
        **_trained(config, actor=actor, rollout=rollout, model=model),
        f"{model}.external_lib": f"{INSIDE}.plugin",
        f"{model}.enable_gradient_checkpointing": cluster.checkpointing,
        f"{model}.use_remove_padding": cluster.padding_free,
        **(
            {}
            if cluster.padding_free
            else {f"+{model}.override_config.attn_implementation": "sdpa"}
        ),
        f"{actor}.strategy": "fsdp2",
        f"{actor}.use_dynamic_bsz": True,
        f"{actor}.ppo_max_token_len_per_gpu": cluster.micro_batch_tokens(config),
        f"{actor}.entropy_from_logits_with_chunking": True,
        f"{actor}.fsdp_config.param_offload": cluster.offload,
        f"{actor}.fsdp_config.optimizer_offload": cluster.offload,
        **(
            {
                f"+{actor}.fsdp_config.mixed_precision": dict.fromkeys(
                    ("param_dtype", "reduce_dtype", "buffer_dtype"), "fp32"
                )
            }
            if exact
            else {}
        ),
        # sampling
        f"{rollout}.name": cluster.rollout,
        f"{rollout}.n": config.group_size,
        f"{rollout}.temperature": config.temperature,
        f"{rollout}.calculate_log_probs": True,
        f"{rollout}.dtype": dtype,
        f"{rollout}.max_model_len": config.max_rollout_tokens + config.max_new_tokens,
        f"+{rollout}.limit_images": config.max_turns,
        f"{rollout}.tensor_model_parallel_size": cluster.tensor_parallel,
        f"{rollout}.gpu_memory_utilization": cluster.sampling_share,
        f"{rollout}.agent.num_workers": cluster.workers,
        f"{rollout}.agent.default_agent_loop": NAME,
        f"+{rollout}.agent.agent_loop_manager_class": f"{INSIDE}.workers.EpisodeManager",
        # rewards come with the episode: verl's own reward workers have nothing to do
        "reward.num_workers": 1,
        # run
        "trainer.nnodes": cluster.nodes,
        "trainer.n_gpus_per_node": cluster.gpus_per_node,
        "trainer.project_name": NAME,
        "trainer.experiment_name": config.out.name,
        "trainer.logger": ["console"],
        "trainer.total_epochs": 1,
        "trainer.total_training_steps": last,
        "trainer.save_freq": save_every(config),
        "trainer.test_freq": config.validate_every if config.validation else -1,
        "trainer.val_before_train": False,
        "trainer.default_local_dir": str(state_folder(run.out)),
        "trainer.resume_mode": "auto",
        **({"+ray_kwargs.ray_init.address": "auto"} if cluster.nodes > 1 else {}),
        # settings of our own parts inside verl's processes
        OURS: {"train": plain(run)},
    }


def _trained(config: TrainConfig, *, actor: str, rollout: str, model: str) -> dict[str, Any]:
    """Settings of what is trained and saved: all weights, those outside the tower, or adapters."""
    contents = ["model", "optimizer", "extra"]
    lora = config.lora
    if lora is None:
        # verl lists actor.freeze_vision_tower and does not read it: inside.engine reads this one
        frozen = {f"+{model}.override_config.{FREEZE_VISION}": True} if config.freeze_vision else {}
        return {f"{actor}.checkpoint.save_contents": [*contents, "hf_model"], **frozen}
    return {
        f"{actor}.checkpoint.save_contents": contents,
        f"+{actor}.checkpoint.save_lora_only": True,
        f"{model}.lora_rank": lora.rank,
        f"{model}.lora_alpha": lora.alpha,
        f"{model}.target_modules": list(lora.targets),
        f"{model}.exclude_modules": TOWER,
        f"{rollout}.load_format": "safetensors",  # vLLM reads the base itself; verl sends adapters
    }


def settings_lines(values: Mapping[str, Any]) -> str:
    """`settings` as text, without our own section."""
    width = max(len(key) for key in values)
    return "\n".join(f"{key:<{width}}  {value}" for key, value in values.items() if key != OURS)
