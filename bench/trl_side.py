"""Steps of TRL's GRPOTrainer, one whenever the parent asks: `python -m bench.trl_side SETUP.json`
in TRL's own environment.

Settings are TRL's fastest for this work: no log-probabilities recomputed, no gradient
checkpointing, nothing logged or saved, and pictures decoded and resized once (TRL's own processor
then prepares them as often as TRL asks).
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from datasets import Dataset
from transformers import (
    AutoModelForImageTextToText,
    AutoTokenizer,
    ProcessorMixin,
    Qwen2_5_VLProcessor,
    TrainerCallback,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from trl import GRPOConfig, GRPOTrainer  # pyright: ignore[reportMissingImports]

from bench.side_by_side import Channel
from bench.task import CROP, MAX_NEW_TOKENS, TEMPERATURE, TURNS, Setup, first_view, score
from lfpc.boxes import Box
from lfpc.dialogue import Answer
from lfpc.images import crop_view, open_picture
from lfpc.protocols.qwen2_5_vl import SYSTEM, parse
from lfpc.samples import read_samples

# The checkpoint's template with what TRL needs to see in one: tool calls, and tool messages as the
# protocol words them.
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ 'user' if m['role'] == 'tool' else m['role'] }}\n"
    "{% if m['role'] == 'tool' %}<tool_response>{% endif %}"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in c %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{% for t in m['tool_calls'] or [] %}<tool_call>{{ t['function'] | tojson "
    "}}</tool_call>{% endfor %}"
    "{% if m['role'] == 'tool' %}</tool_response>{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
RESPONSE_TEMPLATE = {
    "defaults": {"role": "assistant"},
    "start_anchor": "<|im_start|>assistant\n",
    "fields": {
        "tool_calls": {
            "open": "<tool_call>",
            "close_pattern": r"</tool_call>\s*",
            "repeats": True,
            "content": "json",
            "transform": {"type": "function", "function": "{content}"},
        },
        "content": {"close_pattern": r"<\|im_end\|>\s*", "content": "text"},
    },
}


class TensorPictures(Qwen2VLImageProcessorPil):
    """Returns tensors unless told otherwise, as the torchvision one does; TRL relies on it."""

    def __call__(
        self, images: Any, *args: Any, return_tensors: str | None = None, **kwargs: Any
    ) -> Any:
        return super().__call__(images, *args, return_tensors=return_tensors or "pt", **kwargs)


class StillProcessor(Qwen2_5_VLProcessor):
    """Qwen2.5-VL's processor without its video part, which needs torchvision."""

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        chat_template: str | None = None,
        **_: Any,
    ) -> None:
        self.image_token = "<|image_pad|>"
        self.video_token = "<|video_pad|>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)


def environment_class(setup: Setup) -> type:
    """The environment TRL makes one of per rollout."""
    samples = {sample.id: sample for sample in read_samples(Path(setup.data))}

    class CropEnvironment:
        def reset(self, sample: str, **_: Any) -> list[dict[str, Any]]:
            self.sample = samples[sample]
            self.view = first_view(self.sample.image, setup.budget)
            self.boxes = []
            return [
                {"type": "image", "image": self.view.image},
                {"type": "text", "text": self.sample.question},
            ]

        def image_zoom_in_tool(self, bbox_2d: list[float]) -> list[dict[str, Any]]:
            """Show a region of the picture at full resolution.

            Args:
                bbox_2d: x1, y1, x2, y2 in pixels of the picture you see.
            """
            box = Box.from_pixels([float(value) for value in bbox_2d], self.view.size)
            self.boxes.append(box)
            return [
                {
                    "type": "image",
                    "image": crop_view(open_picture(self.sample.image), box, CROP).image,
                }
            ]

    return CropEnvironment


class Facts(TrainerCallback):
    """Waits for the parent before every step, and tells it what the step did."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.now = {}

    def reward(self, completions: Any, environments: Any, **_: Any) -> list[float]:
        """The score of every rollout; counts turns and calls in passing."""
        count = len(completions)
        self.now["turns"] = (
            sum(message["role"] == "assistant" for c in completions for message in c) / count
        )
        self.now["tool_rate"] = sum(bool(env.boxes) for env in environments) / count
        return [
            score(env.boxes[0] if env.boxes else None, _answer(c, env), env.sample)
            for c, env in zip(completions, environments, strict=True)
        ]

    def note(self, batch: dict[str, Any], image_pad: int) -> None:
        """What a generated batch holds, per rollout; pictures that TRL dropped count as none."""
        count = len(batch["advantages"])
        pads = (batch["prompt_ids"] == image_pad).sum() + (
            batch["completion_ids"] == image_pad
        ).sum()
        self.now["visual_tokens"] = (
            float(pads) / count if batch.get("pixel_values") is not None else 0.0
        )
        self.now["context_tokens"] = (
            float(batch["prompt_mask"].sum() + batch["completion_mask"].sum()) / count
        )
        self.now["policy_tokens"] = (
            float((batch["completion_mask"] * batch["tool_mask"]).sum()) / count
        )
        self.now["trained"] = float((batch["advantages"] != 0).float().mean())

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Wait."""
        self.clock = self.channel.wait()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Tell."""
        self.channel.tell(**self.clock.read(), **self.now)


def _answer(completion: Any, env: Any) -> str | None:
    content = completion[-1].get("content") or ""
    text = (
        content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
    )
    action = parse(text, [env.view])
    return action.text if isinstance(action, Answer) else None


class NotingTrainer(GRPOTrainer):
    """TRL's trainer; hands every generated batch to `Facts`."""

    facts: Facts

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        batch = super()._generate_and_score_completions(inputs)
        self.facts.note(batch, self._image_pad_token_id)
        return batch


def main() -> None:
    """Serve steps."""
    setup = Setup.load(sys.argv[1])
    channel = Channel()
    torch.set_num_threads(setup.threads)
    torch.set_num_interop_threads(1)
    facts = Facts(channel)
    with TemporaryDirectory() as out:
        trainer = _trainer(setup, facts, out)
        channel.tell()
        trainer.train()


def _trainer(setup: Setup, facts: Facts, out: str) -> NotingTrainer:
    tokenizer = AutoTokenizer.from_pretrained(setup.checkpoint, padding_side="left")
    tokenizer.response_template = RESPONSE_TEMPLATE
    pictures = TensorPictures(min_pixels=28 * 28, max_pixels=28 * 28 * 1024)
    trainer = NotingTrainer(
        model=AutoModelForImageTextToText.from_pretrained(
            setup.checkpoint, dtype=torch.float32, attn_implementation="sdpa"
        ),
        processing_class=StillProcessor(pictures, tokenizer, chat_template=CHAT_TEMPLATE),
        reward_funcs=[facts.reward],
        args=_config(setup, out),
        train_dataset=_dataset(setup),
        environment_factory=environment_class(setup),
        callbacks=[facts],
    )
    trainer.facts = facts
    return trainer


def _dataset(setup: Setup) -> Dataset:
    prompt = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": ""}]
    return Dataset.from_list(
        [{"prompt": prompt, "sample": sample.id} for sample in read_samples(Path(setup.data))]
    )


def _config(setup: Setup, out: str) -> GRPOConfig:
    return GRPOConfig(
        output_dir=out,
        use_cpu=True,
        bf16=False,
        max_steps=setup.steps,
        learning_rate=setup.learning_rate,
        lr_scheduler_type="constant",
        per_device_train_batch_size=min(setup.micro_batch, setup.rollouts),
        gradient_accumulation_steps=max(1, setup.rollouts // setup.micro_batch),
        num_generations=setup.group,
        max_completion_length=256,
        generation_kwargs={"max_new_tokens": MAX_NEW_TOKENS},
        max_tool_calling_iterations=TURNS - 1,
        temperature=TEMPERATURE,
        beta=0.0,
        loss_type="dapo",
        scale_rewards="group",
        shuffle_dataset=False,
        gradient_checkpointing=False,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=0,
    )


if __name__ == "__main__":
    main()
