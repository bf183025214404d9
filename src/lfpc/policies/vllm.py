"""vLLM's engine in this process as a policy. vLLM is imported when a policy is made.

Conversations go through the checkpoint's chat template, as in vLLM's server.
"""

import atexit
import multiprocessing
from collections.abc import Mapping, Sequence
from copy import copy
from importlib import import_module
from pathlib import Path
from typing import Any, Self
from weakref import ref

from lfpc.dialogue import Context, Reply, Usage
from lfpc.errors import CheckpointError, ConfigError, PolicyError
from lfpc.policies.backends import Backend, VllmEngine
from lfpc.policies.bases import check_whole
from lfpc.policies.chat_api import WRITE_ON, PictureUrls, chat_messages
from lfpc.policies.config import PolicyConfig, policy_config, reply_seed
from lfpc.policies.guardian import end_with_this_process
from lfpc.policies.sampling import GREEDY, Sampling
from lfpc.policies.texts import NOT_SAMPLED, valid_text
from lfpc.protocols import ChatProtocol

PICTURES = 16
"""Default maximum of pictures per conversation: vLLM's own limit is 1 for some models."""


def imported(otherwise: str) -> Any:
    """The package vllm.

    Args:
        otherwise: what to do without it, for the error.
    Raises:
        ConfigError: it is not installed.
    """
    try:
        import vllm  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ConfigError(
            f"vLLM cannot be imported ({error}); install it, or {otherwise}"
        ) from error
    return vllm


def started(checkpoint: Path, arguments: Mapping[str, Any]) -> Any:
    """A `vllm.LLM` that reads conversations with pictures and returns the log-probabilities that it
    samples from.

    Args:
        checkpoint: a Hugging Face folder.
        arguments: of `vllm.LLM`; they override the defaults.
    Raises:
        CheckpointError: vLLM does not start with this checkpoint and these arguments.
    """
    vllm = imported("use --engine transformers")
    defaults: dict[str, Any] = {
        "limit_mm_per_prompt": {"image": PICTURES, "video": 0},
        "logprobs_mode": "processed_logprobs",
    }
    if import_module("vllm.platforms").current_platform.is_cpu():
        # a seeded reply whose prompt is read in pieces ends vLLM 0.32 on a CPU, whose random
        # generators have no offset to set back
        defaults["enable_chunked_prefill"] = False
    try:
        return vllm.LLM(model=str(checkpoint), **{**defaults, **arguments})
    except (ValueError, TypeError, OSError, RuntimeError, AssertionError) as error:
        raise CheckpointError(
            f"{checkpoint}: vLLM does not start with it ({one_line(error)})"
        ) from error


def refusals() -> tuple[type[Exception], ...]:
    """What vLLM raises for a conversation that it does not take: ValueError, and since 0.32 an
    exception of its own.
    """
    try:
        from vllm.exceptions import VLLMClientError  # pyright: ignore[reportMissingImports]
    except ImportError:
        return (ValueError,)
    return (ValueError, VLLMClientError)


def one_line(error: Exception) -> str:
    """The start of a message of vLLM, in one line."""
    return " ".join(str(error).split())[:300]


class VllmPolicy:
    """Samples replies with log-probabilities.

    Args:
        checkpoint: a Hugging Face folder.
        protocol: the model family's protocol.
        engine: options of vLLM.
        sampling: sampling parameters.
        tools: whether to offer the tool.
    Raises:
        ConfigError: vLLM is not installed.
        CheckpointError: vLLM does not start with this checkpoint and these options.
    """

    def __init__(
        self,
        checkpoint: Path,
        protocol: ChatProtocol,
        *,
        engine: VllmEngine | None = None,
        sampling: Sampling = GREEDY,
        tools: bool = True,
    ) -> None:
        vllm = imported("ask a server with --base-url")
        check_whole(checkpoint, "which this engine does not load")
        seed = {"seed": sampling.sampling_seed or 0}
        before = multiprocessing.active_children()
        self._model = started(checkpoint, {**seed, **(engine.arguments if engine else {})})
        end_with_this_process(
            [one.pid for one in multiprocessing.active_children() if one not in before and one.pid]
        )
        atexit.register(_shut_down, ref(self._model))
        self._rules = vllm.SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_new_tokens,
            stop=list(protocol.stop) or None,
            include_stop_str_in_output=True,
            bad_words=list(NOT_SAMPLED),
            logprobs=0,
        )
        self.checkpoint = checkpoint
        self.protocol = protocol
        self.sampling = sampling
        self.tools = tools
        self.backend: Backend = engine or VllmEngine()
        self._seed = sampling.sampling_seed or 0
        self._urls = PictureUrls()

    @property
    def config(self) -> PolicyConfig:
        """The model, its protocol and its sampling."""
        return policy_config(str(self.checkpoint), self.protocol, self.sampling)

    def without_tools(self) -> Self:
        """Another policy of the same engine, shown the system message without the tool."""
        other = copy(self)
        other.tools = False
        return other

    def reseed(self, seed: int | None) -> None:
        """Sample further replies with `seed`; None: 0."""
        self._seed = seed or 0

    def reply(self, contexts: Sequence[Context]) -> list[Reply]:
        """One reply per context, in the same order; vLLM chooses its batches.

        Raises:
            PolicyError: a conversation is too long, or holds too many pictures.
        """
        chats = [
            chat_messages(self.protocol.messages(context, tools=self.tools), self._urls)
            for context in contexts
        ]
        replies: dict[int, Reply] = {}
        for own_turn in (
            False,
            True,
        ):  # a conversation that ends in the model's own turn is continued
            some = [
                number
                for number, chat in enumerate(chats)
                if (chat[-1]["role"] == "assistant") == own_turn
            ]
            if some:
                replies.update(
                    zip(
                        some,
                        self._ask(
                            [chats[number] for number in some],
                            [self._rules_for(contexts[number]) for number in some],
                            WRITE_ON if own_turn else {},
                        ),
                        strict=True,
                    )
                )
        return [replies[number] for number in range(len(contexts))]

    def _rules_for(self, context: Context) -> Any:
        """The sampling parameters of one reply, with its own seed."""
        rules = self._rules.clone()
        if self.sampling.temperature:
            rules.seed = reply_seed(self._seed, context)
        return rules

    def _ask(
        self, chats: list[list[dict[str, Any]]], rules: list[Any], more: Mapping[str, Any]
    ) -> list[Reply]:
        tools = (list(self.protocol.native_tools) if self.tools else None) or None
        try:
            found = self._model.chat(chats, rules, use_tqdm=False, tools=tools, **more)
        except refusals() as error:
            said = one_line(error)
            if "maximum model length" in said or "maximum context length" in said:
                said = (
                    f"it does not fit into {self._model.model_config.max_model_len} tokens; raise "
                    f"--max-model-len, or lower the budgets"
                )
            raise PolicyError(f"vLLM refuses a conversation: {said}") from error
        return [_reply(one.outputs[0], len(one.prompt_token_ids or ())) for one in found]


def _shut_down(model: "ref[Any]") -> None:
    """End the engine's process before multiprocessing waits for it at exit. vLLM leaves this to a
    `weakref.finalize`, which runs too late if any finalizer is older than multiprocessing.
    """
    if (alive := model()) is not None:
        alive.llm_engine.engine_core.shutdown()


def _reply(output: Any, read: int) -> Reply:
    ids = tuple(output.token_ids)
    return Reply(
        valid_text(output.text),
        ids,
        sampled_logprobs(output),
        Usage(read, len(ids)),
        output.finish_reason or "",
    )


def sampled_logprobs(output: Any) -> tuple[float, ...]:
    """Log-probabilities of the tokens that vLLM wrote."""
    return tuple(
        float(chances[token].logprob)
        for token, chances in zip(output.token_ids, output.logprobs or (), strict=False)
    )
