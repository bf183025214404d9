"""A policy behind any OpenAI-compatible chat server: vLLM, SGLang, llama.cpp, a vendor's API.

The model's replies are sent back unchanged, and pictures as lossless PNG. The openai client handles
concurrency, time-outs and retries (lost connections, 408, 409, 429, 5xx, with the server's
`Retry-After`); a 200 without a reply is retried here. A request that finally fails is a
PolicyError. The key comes from OPENAI_API_KEY.

Start the server without a reasoning parser, which removes text from replies, and without a
tool-call parser. For protocols with native tools, the text of a separate call is restored.
"""

import asyncio
import os
import random
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import openai

from lfpc.dialogue import Context, Reply
from lfpc.episode import run_async
from lfpc.errors import PolicyError
from lfpc.policies.backends import Backend, Server
from lfpc.policies.chat_api import (
    WRITE_ON,
    NoReply,
    PictureUrls,
    chat_messages,
    logprob_after,
    read_prompt_logprobs,
    read_reply,
)
from lfpc.policies.config import PolicyConfig, TextLogprob, policy_config, reply_seed
from lfpc.policies.sampling import GREEDY, Sampling
from lfpc.protocols import ChatProtocol, Message

KEEP_STOP = "include_stop_str_in_output"
"""vLLM's option to keep the stop text in the reply; other servers ignore or reject it."""
CONNECT_S = 60.0
"""Time-out of a connection, in seconds."""
_SHORTEST_WAIT_S = 0.5
_LONGEST_WAIT_S = 8.0
_HINTS = {
    401: "set OPENAI_API_KEY",
    403: "set OPENAI_API_KEY",
    404: "is the model's name right, and does the address end in /v1?",
}


class ServedPolicy:
    """A served model as a policy. `reply_to` works inside `async with`, which `reply` enters
    itself.

    Args:
        server: server of the model.
        model: name of the model on the server.
        protocol: the model family's protocol.
        sampling: sampling parameters; with a seed, each request has its own, see `reply_seed`.
        tools: whether to offer the tool.
    """

    def __init__(
        self,
        server: Server,
        model: str,
        protocol: ChatProtocol,
        *,
        sampling: Sampling = GREEDY,
        tools: bool = True,
    ) -> None:
        self.server = server
        self.model = model
        self.protocol = protocol
        self.tools = tools
        self.sampling = sampling
        settings = {
            "model": model,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_new_tokens,
            "stop": list(protocol.stop) or None,
            "tools": (list(protocol.native_tools) if tools else None) or None,
        }
        self._settings = {key: value for key, value in settings.items() if value is not None}
        self._seed = sampling.sampling_seed
        self._urls = PictureUrls(server.picture_folder)
        self._keep_stop = True
        self._no_choice = False
        self._client: openai.AsyncOpenAI | None = None

    @property
    def config(self) -> PolicyConfig:
        """The model, its protocol and its sampling."""
        return policy_config(self.model, self.protocol, self.sampling)

    @property
    def backend(self) -> Backend:
        """The server."""
        return self.server

    def without_tools(self) -> "ServedPolicy":
        """The same model, shown the system message without the tool."""
        return ServedPolicy(
            self.server, self.model, self.protocol, sampling=self.sampling, tools=False
        )

    @property
    def concurrency(self) -> int:
        """Maximum number of concurrent episodes."""
        return self.server.concurrency

    def reseed(self, seed: int | None) -> None:
        """Derive the seeds of further requests from `seed`; None: send none."""
        self._seed = seed

    async def __aenter__(self) -> Self:
        self._client = openai.AsyncOpenAI(
            base_url=self.server.base_url,
            api_key=os.environ.get("OPENAI_API_KEY") or "none",
            timeout=openai.Timeout(
                self.server.timeout_s, connect=min(self.server.timeout_s, CONNECT_S)
            ),
            max_retries=self.server.retries,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._client is not None:
            await self._client.close()
            self._client = None

    def reply(self, contexts: Sequence[Context]) -> list[Reply]:
        """One reply per context, in the same order, with up to `concurrency` requests at once."""

        async def together() -> list[Reply]:
            slots = asyncio.Semaphore(self.concurrency)

            async def one(context: Context) -> Reply:
                async with slots:
                    return await self.reply_to(context)

            async with self:
                return await asyncio.gather(*map(one, contexts))

        return run_async(together())

    async def reply_to(self, context: Context) -> Reply:
        """The reply to one context.

        Raises:
            PolicyError: after all retries the server refused, did not answer, or sent no reply;
                names the server and the reason.
        """
        messages = await asyncio.to_thread(
            chat_messages, self.protocol.messages(context, tools=self.tools), self._urls
        )
        own = {} if self._seed is None else {"seed": reply_seed(self._seed, context)}
        return await self._ask({**self._settings, **own, "messages": messages})

    def answer_logprobs(
        self, contexts: Sequence[Context], answers: Sequence[Sequence[str]]
    ) -> list[list[TextLogprob]]:
        """See `lfpc.policies.config.ScoringPolicy`; from vLLM's `prompt_logprobs`.

        The text is tokenised by the server, mark and answer together.
        """

        async def together() -> list[list[TextLogprob]]:
            slots = asyncio.Semaphore(self.concurrency)

            async def one(context: Context, text: str) -> list[tuple[str, float]]:
                async with slots:
                    return await self._prompt_logprobs(context, text)

            async def score(context: Context, some: Sequence[str]) -> list[TextLogprob]:
                mark = self.protocol.answer_mark
                opened, *whole = await asyncio.gather(
                    *(one(context, mark + text) for text in ("", *some))
                )
                return [logprob_after(opened, tokens) for tokens in whole]

            async with self:
                return await asyncio.gather(*map(score, contexts, answers))

        return run_async(together())

    async def _prompt_logprobs(self, context: Context, text: str) -> list[tuple[str, float]]:
        """(token, log-probability) of the conversation's tokens, `text` as the model's last."""
        messages = self.protocol.messages(context, tools=self.tools)
        messages.append(Message("assistant", (text,)))
        body = await self._post(
            {
                "model": self.model,
                "messages": await asyncio.to_thread(chat_messages, messages, self._urls),
                "max_tokens": 1,
                "temperature": 0.0,
                "prompt_logprobs": 0,
                **(
                    {"tools": list(self.protocol.native_tools)}
                    if self.protocol.native_tools and self.tools
                    else {}
                ),
            }
        )
        return read_prompt_logprobs(body)

    async def _ask(self, request: Mapping[str, Any]) -> Reply:
        why = ""
        for attempt in range(self.server.retries + 1):
            try:
                return read_reply(
                    await self._post(request),
                    self.protocol.stop,
                    self.protocol.call_text if self.tools else None,
                )
            except NoReply as error:
                why = str(error)
            if attempt < self.server.retries:
                await asyncio.sleep(
                    min(_SHORTEST_WAIT_S * 2**attempt, _LONGEST_WAIT_S) * random.uniform(0.75, 1.0)
                )
        raise PolicyError(f"{self.server.base_url}: {why}, asked {self.server.retries + 1} times")

    async def _post(self, request: Mapping[str, Any]) -> bytes:
        """The body of the server's response."""
        if self._client is None:
            raise RuntimeError("a served policy is asked inside `async with policy:`")
        keep_stop = self._keep_stop and bool(self.protocol.stop)
        body = {**request, **({KEEP_STOP: True} if keep_stop else {})}
        if request["messages"][-1]["role"] == "assistant":
            body |= WRITE_ON
        no_choice = self._no_choice
        if no_choice:
            body["tool_choice"] = "none"
        body |= self.sampling.extra_body
        try:
            # not chat.completions.create: it transforms every message in Python, and fails on a
            # body that is no JSON
            response = await self._client.post(
                "/chat/completions", body=body, cast_to=openai.HttpxBinaryResponseContent
            )
        except openai.APIStatusError as error:
            if keep_stop and error.status_code in (400, 422) and KEEP_STOP in str(error):
                self._keep_stop = False
                return await self._post(request)
            if (
                "tools" in body
                and not no_choice
                and error.status_code in (400, 422)
                and _wants_a_parser(str(error))
            ):
                self._no_choice = True
                return await self._post(request)
            hint = _HINTS.get(error.status_code)
            raise PolicyError(
                f"{self.server.base_url}: {_short(error)}{f' ({hint})' if hint else ''}"
            ) from error
        except openai.APITimeoutError as error:
            raise PolicyError(
                f"{self.server.base_url}: no answer within {self.server.timeout_s:g} s, "
                f"asked {self.server.retries + 1} times"
            ) from error
        except openai.OpenAIError as error:
            raise PolicyError(
                f"{self.server.base_url}: {_short(error)} ({_short(error.__cause__ or error)})"
            ) from error
        return response.content


def _wants_a_parser(refusal: str) -> bool:
    """Whether a server rejects tools because it has no tool-call parser, as vLLM does.

    The request is then sent without a tool choice: the chat template still describes the tools, and
    calls stay in the text.
    """
    return "tool choice" in refusal.lower() or "tool_choice" in refusal


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
