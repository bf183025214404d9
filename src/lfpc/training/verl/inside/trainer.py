"""verl's synchronous trainer with our run folder: metrics, episodes, checkpoints, alarms."""

import logging
from collections.abc import Mapping, Sized
from typing import Any, cast

import transfer_queue as tq
from omegaconf import DictConfig
from verl.trainer.ppo.v1 import PPOTrainerSync
from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY

from lfpc.errors import RunError
from lfpc.storage.runs import RunFolder
from lfpc.training.state import settings_of_run
from lfpc.training.statistics import (
    Numbers,
    alarms,
    check_progress,
    is_best,
    new_alarms,
    validation_numbers,
)
from lfpc.training.verl.checkpoints import keep_best, publish, saved_step
from lfpc.training.verl.inside.dataset import ScheduledSamples
from lfpc.training.verl.inside.section import run_config
from lfpc.training.verl.recording import (
    RecordedRollout,
    check_complete,
    log_episodes,
    step_numbers,
    trained_rollouts,
)
from lfpc.training.verl.translate import NAME

logger = logging.getLogger(__name__)


class RecordingTrainer(PPOTrainerSync):
    """verl's trainer. Records each step from verl's queue and metrics before verl clears them."""

    def __init__(self, config: DictConfig) -> None:
        super().__init__(config)
        self.run_config = run_config(config)
        self.folder = RunFolder(self.run_config.out)
        self.history = self.folder.metrics()
        self.rollouts: list[RecordedRollout] = []
        self.gap: float | None = None

    def _init_dataloader(self) -> None:
        super()._init_dataloader()
        wanted = self.run_config.steps * self.run_config.prompts_per_step
        questions = cast("Sized", self.train_dataset)
        if len(questions) != wanted or len(self.train_dataloader) != self.run_config.steps:
            raise RunError(
                f"verl reads {len(questions)} questions where the run has {wanted}: it "
                f"dropped or repeated some"
            )

    def _compute_advantage(self, batch: Any, metrics: dict[str, Any]) -> Any:
        self.rollouts = _reported(batch)
        check_complete(len(self.rollouts), self.run_config)
        self.gap = _largest_gap(batch)
        return super()._compute_advantage(batch, metrics)

    def _update_actor(self, batch: Any, metrics: dict[str, Any]) -> Any:
        if not trained_rollouts(self.rollouts, self.run_config):
            # no gradient: an update would move the weights by the optimiser's momentum alone
            return batch
        return super()._update_actor(batch, metrics)

    def _save_checkpoint(self) -> None:
        super()._save_checkpoint()
        samples = cast("ScheduledSamples", self.train_dataset).samples
        publish(self.run_config, self.global_steps, settings_of_run(self.run_config, samples))

    def _validate(self) -> Numbers:
        """Validate on the held-out samples; copy the weights if they are the best so far."""
        found: list[RecordedRollout] = []
        sample = self.replay_buffer.sample

        def remembering(**kwargs: Any) -> Any:
            batch, facts = sample(**kwargs)
            found.extend(_reported(batch))
            return batch, facts

        self.replay_buffer.sample = remembering
        try:
            super()._validate()
        finally:
            self.replay_buffer.sample = sample
        numbers = validation_numbers([one.episode for one in found], [one.terms for one in found])
        if is_best(numbers, self.history) and saved_step(self.run_config.out) == self.global_steps:
            keep_best(self.run_config.out, self.global_steps)
        return numbers

    def _compute_metrics(
        self,
        batch: Any,
        metrics: dict[str, Any],
        timing_raw: Mapping[str, float],
        global_steps: int,
        epoch: int,
    ) -> None:
        super()._compute_metrics(batch, metrics, timing_raw, global_steps, epoch)
        numbers: Numbers = {"step": global_steps, **step_numbers(self.rollouts, self.run_config)}
        numbers |= _update_numbers(metrics) | {"logprob_gap": self.gap} | _seconds(timing_raw)
        numbers |= {
            name: value for name, value in metrics.items() if name.startswith("validation_")
        }
        codes = alarms([*self.history, numbers])
        for text in new_alarms(codes, self.history):
            logger.warning("alarm: %s", text)
        row = {**numbers, "alarms": codes}
        log_episodes(self.folder, self.run_config, global_steps, self.rollouts)
        self.folder.log_metrics(row)
        self.history.append(row)
        check_progress(self.history, self.run_config)
        metrics.update(
            {f"{NAME}/{name}": value for name, value in numbers.items() if value is not None}
        )


def _reported(batch: Any) -> list[RecordedRollout]:
    """Workers' reports of the rollouts of `batch`, without verl's padding."""
    keys = [
        key
        for key, tag in zip(batch.keys, batch.tags, strict=True)
        if not tag.get("is_padding", False)
    ]
    fields: Any = tq.kv_batch_get(
        keys=keys, partition_id=batch.partition_id, select_fields=["extra_fields"]
    )["extra_fields"]
    return [RecordedRollout.from_bytes(getattr(field, "data", field)[NAME]) for field in fields]


def _largest_gap(batch: Any) -> float | None:
    """Largest |log pi - log pi_sampled| of a trained token."""
    names = ["old_log_probs", "rollout_log_probs", "response_mask"]
    found: Any = tq.kv_batch_get(
        keys=batch.keys, partition_id=batch.partition_id, select_fields=names
    )
    now, sampled, mask = (found[name].values() for name in names)
    gaps = (now - sampled).abs()[mask.bool()]
    return float(gaps.max()) if len(gaps) else None


def _update_numbers(metrics: Mapping[str, Any]) -> Numbers:
    names = {
        "loss": "actor/pg_loss",
        "grad_norm": "actor/grad_norm",
        "ratio_clip_share": "actor/pg_clipfrac",
        "learning_rate": "actor/lr",
    }
    return {ours: _finite(metrics.get(theirs)) for ours, theirs in names.items()}


def _finite(value: Any) -> float | None:
    number = float(value) if value is not None else float("nan")
    return number if abs(number) < float("inf") else None


def _seconds(timing: Mapping[str, float]) -> Numbers:
    names = {"seconds_play": "gen", "seconds_update": "update_actor", "seconds": "step"}
    return {ours: timing.get(theirs) for ours, theirs in names.items()}


TRAINER_REGISTRY["sync"] = (
    RecordingTrainer  # under another name verl would treat it as an asynchronous trainer
)
