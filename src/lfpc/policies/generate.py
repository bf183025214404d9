"""Any vision-language model of transformers as a policy, through its own processor and `generate`.

For architectures without a batched engine (`lfpc.policies.qwen`): one reply at a time, pictures
computed anew in every turn, no log-probabilities of replies, and therefore no training.
"""

import sys
from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Any, Self

import torch
from tqdm import tqdm
from transformers import AutoModelForImageTextToText, AutoProcessor, BatchFeature

from lfpc.dialogue import STOPPED, TRUNCATED, Context, Reply, Usage
from lfpc.errors import CheckpointError, ConfigError, first_line
from lfpc.images import View
from lfpc.policies.backends import Backend
from lfpc.policies.config import PolicyConfig, TextLogprob, policy_config, reply_seed
from lfpc.policies.sampling import GREEDY, Sampling
from lfpc.policies.settings import local_folder
from lfpc.protocols import ChatProtocol, Message


class GeneratePolicy:
    """Samples replies with `model.generate`, without their log-probabilities.

    Args:
        model, processor: results of `load_any`.
        protocol: the protocol to speak in.
        sampling: sampling parameters.
        tools: whether to offer the tool.
        name: the model in its configuration: the folder of the checkpoint.
    Raises:
        ConfigError: the protocol shows crops inside the model's own turn.
    """

    backend: Backend = None

    def __init__(
        self,
        model: Any,
        processor: Any,
        protocol: ChatProtocol,
        *,
        sampling: Sampling = GREEDY,
        tools: bool = True,
        name: str = "",
    ) -> None:
        if not protocol.whole_turns:
            raise ConfigError(
                f"{protocol.name} shows crops inside the model's own turn; play it through a server"
            )
        self.model = model
        self.processor = processor
        self.protocol = protocol
        self.sampling = sampling
        self.tools = tools
        self.name = name
        self.seed = sampling.sampling_seed or 0

    @property
    def config(self) -> PolicyConfig:
        """The model, its protocol and its sampling."""
        return policy_config(self.name, self.protocol, self.sampling)

    def without_tools(self) -> Self:
        """Another policy of the same model, shown the system message without the tool."""
        other = copy(self)
        other.tools = False
        return other

    def resampled(self, sampling: Sampling) -> Self:
        """Another policy of the same model with other sampling."""
        other = copy(self)
        other.sampling = sampling
        other.reseed(sampling.sampling_seed)
        return other

    def reseed(self, seed: int | None) -> None:
        """Sample further replies with `seed`; None: 0."""
        self.seed = seed or 0

    def reply(self, contexts: Sequence[Context]) -> list[Reply]:
        """One reply per context, in the same order."""
        return [self._reply(context) for context in contexts]

    @torch.no_grad()
    def _reply(self, context: Context) -> Reply:
        inputs = self._inputs(self.protocol.messages(context, tools=self.tools))
        read = inputs["input_ids"].shape[1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(reply_seed(self.seed, context))
            written = self.model.generate(
                **inputs.to(self.model.device, self.model.dtype),
                **self._rules(),
                tokenizer=self.processor.tokenizer,
            )[0, read:].tolist()
        text = self.processor.tokenizer.decode(written, skip_special_tokens=True)
        finish = TRUNCATED if len(written) >= self.sampling.max_new_tokens else STOPPED
        return Reply(text, usage=Usage(read, len(written)), finish=finish)

    def answer_logprobs(
        self, contexts: Sequence[Context], answers: Sequence[Sequence[str]]
    ) -> list[list[TextLogprob]]:
        """See `lfpc.policies.config.ScoringPolicy`. Mark and answer are tokenised apart; each
        answer is read with its whole conversation.
        """
        found: list[list[TextLogprob]] = []
        for context, some in zip(contexts, answers, strict=True):
            inputs = self._inputs(self.protocol.messages(context, tools=self.tools))
            found.append([self._logprob(inputs, text) for text in some])
        return found

    @torch.no_grad()
    def _logprob(self, inputs: Any, text: str) -> TextLogprob:
        """Log-probability of `text` after the conversation in `inputs` and the answer mark."""
        mark, wanted = (
            self.processor.tokenizer(part, add_special_tokens=False, return_tensors="pt").input_ids
            for part in (self.protocol.answer_mark, text)
        )
        written = torch.cat([mark, wanted], dim=1)
        whole = {**inputs, "input_ids": torch.cat([inputs["input_ids"], written], dim=1)}
        for name, value in inputs.items():  # of every token: the mask, and kinds of tokens
            if name != "input_ids" and value.shape == inputs["input_ids"].shape:
                added = torch.full_like(written, name == "attention_mask", dtype=value.dtype)
                whole[name] = torch.cat([value, added], dim=1)
        moved = BatchFeature(whole).to(self.model.device, self.model.dtype)
        count = wanted.shape[1]
        table = self.model(**moved).logits[0, -count - 1 : -1].float().log_softmax(-1)
        chosen = table.gather(1, wanted[0, :, None].to(table.device))
        return TextLogprob(float(chosen.double().sum()), count)

    def _inputs(self, messages: Sequence[Message]) -> Any:
        chat = [{"role": m.role, "content": [_part(part) for part in m.parts]} for m in messages]
        images = [part.image for m in messages for part in m.parts if isinstance(part, View)]
        native: list[Any] = [dict(tool) for tool in self.protocol.native_tools if self.tools]
        try:
            text = self.processor.apply_chat_template(
                chat, tools=native or None, tokenize=False, add_generation_prompt=True
            )
            return self.processor(text=[text], images=images, return_tensors="pt")
        except Exception as error:  # each processor raises its own exceptions
            raise CheckpointError(
                f"{self.name}: its processor rejects the conversation ({first_line(error)})"
            ) from error

    def _rules(self) -> dict[str, Any]:
        """Arguments of `generate` in full, so that the checkpoint's generation_config adds none."""
        sampled = self.sampling.temperature > 0
        chosen = {"temperature": self.sampling.temperature, "top_p": self.sampling.top_p}
        return {
            "max_new_tokens": self.sampling.max_new_tokens,
            "do_sample": sampled,
            "repetition_penalty": 1.0,
            "stop_strings": list(self.protocol.stop) or None,
            **({**chosen, "top_k": 0} if sampled else {}),
        }


def load_any(
    path: Path, *, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
) -> tuple[Any, Any]:
    """Model and processor of any vision-language checkpoint that transformers loads.

    Raises:
        CheckpointError: transformers cannot load it.
    """
    folder = local_folder(path)
    try:
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
        model: Any = AutoModelForImageTextToText.from_pretrained(
            folder, dtype=dtype, local_files_only=True
        )
    except Exception as error:  # each reader raises its own exception for a broken file
        raise CheckpointError(f"{path}: cannot be loaded ({first_line(error)})") from error
    if model.generation_config.pad_token_id is None:
        model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    tqdm.write(
        f"{path}: {model.config.model_type} has no batched engine here; its own processor and "
        f"generate answer one question at a time",
        file=sys.stderr,
    )
    return model.to(device).eval(), processor


def _part(part: str | View) -> dict[str, str]:
    return {"type": "text", "text": part} if isinstance(part, str) else {"type": "image"}
