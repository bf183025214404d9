"""A policy behind any OpenAI-compatible chat server: vLLM, SGLang, llama.cpp, a vendor's API.

The model's replies are sent back unchanged, and pictures as lossless PNG. The openai client handles
concurrency, time-outs and retries (lost connections, 408, 409, 429, 5xx, with the server's
`Retry-After`); a 200 without a reply is retried here. A request that finally fails is a
PolicyError.

Start the server without a reasoning parser and without a tool-call parser, which take text out of
replies. `chat_api.read_reply` puts it back where it can.
"""

import asyncio
import random
import re
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
    protocol_reply,
    read_prompt_logprobs,
)
from lfpc.policies.config import PolicyConfig, TextLogprob, policy_config, reply_seed
from lfpc.policies.connections import async_client, body_reason, check_model, request_error
from lfpc.policies.sampling import GREEDY, Sampling
from lfpc.protocols import ChatProtocol, Message

KEEP_STOP = "include_stop_str_in_output"
"""vLLM's option to keep the stop text in the reply; other servers ignore or reject it."""
STOP, MAX_TOKENS, TOOL_CHOICE = "stop", "max_tokens", "tool_choice"
"""Further fields that some servers reject: the stop texts (then replies are cut here), the token
limit under its old name, a tool choice."""
_SHORTEST_WAIT_S = 0.5
_LONGEST_WAIT_S = 8.0


class ServedPolicy:
    """A served model as a policy. `reply_to` works inside `async with`, which `reply` enters
    itself. Entering asks the server for its models; see `check_model`.

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
        self._refused: set[str] = set()
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
        await asyncio.to_thread(check_model, self.server.base_url, self.model)
        self._client = async_client(
            self.server.base_url, timeout_s=self.server.timeout_s, retries=self.server.retries
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
        body, _ = await self._post(
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
            body, refused = await self._post(request)
            try:
                return protocol_reply(body, self.protocol, cut=STOP in refused)
            except NoReply as error:
                why = str(error)
            if attempt < self.server.retries:
                await asyncio.sleep(
                    min(_SHORTEST_WAIT_S * 2**attempt, _LONGEST_WAIT_S) * random.uniform(0.75, 1.0)
                )
        raise PolicyError(f"{self.server.base_url}: {why}, asked {self.server.retries + 1} times")

    async def _post(self, request: Mapping[str, Any]) -> tuple[bytes, frozenset[str]]:
        """The body of the server's response, and the fields that it refuses. If it replies without
        them, they are left out from then on.
        """
        if self._client is None:
            raise RuntimeError("a served policy is asked inside `async with policy:`")
        refused = frozenset(self._refused)
        while True:
            body = self._body(request, refused)
            try:
                # not chat.completions.create: it transforms every message in Python, and fails on a
                # body that is no JSON
                response = await self._client.post(
                    "/chat/completions", body=body, cast_to=openai.HttpxBinaryResponseContent
                )
                self._refused |= refused
                return response.content, refused
            except openai.APIStatusError as error:
                field = refused_field(error, body)
                if field is None or field in refused:
                    raise request_error(self.server.base_url, error) from error
                refused |= {field}
            except openai.APITimeoutError as error:
                raise PolicyError(
                    f"{self.server.base_url}: no answer within {self.server.timeout_s:g} s, "
                    f"asked {self.server.retries + 1} times"
                ) from error
            except openai.OpenAIError as error:
                raise request_error(self.server.base_url, error) from error

    def _body(self, request: Mapping[str, Any], refused: frozenset[str]) -> dict[str, Any]:
        body = dict(request)
        if STOP in refused:
            body.pop(STOP, None)
        elif self.protocol.stop and KEEP_STOP not in refused:
            body[KEEP_STOP] = True
        if MAX_TOKENS in refused:
            body["max_completion_tokens"] = body.pop(MAX_TOKENS)
        if TOOL_CHOICE in refused:
            body[TOOL_CHOICE] = "none"
        if request["messages"][-1]["role"] == "assistant":
            body |= WRITE_ON
        return body | dict(self.sampling.extra_body)


def refused_field(error: openai.APIStatusError, body: Mapping[str, Any]) -> str | None:
    """The field of a request that a server refuses and can be asked without; None: none.

    A server without a tool-call parser, such as vLLM's default, refuses tools with a choice.
    Without one, the chat template still describes the tools, and calls stay in the text. A server
    may also fail on stop texts without a reason, as `transformers serve` does for pictures.
    """
    if error.status_code == 500 and STOP in body:
        return STOP
    if error.status_code not in (400, 422):
        return None
    said = body_reason(error.response.text)
    if KEEP_STOP in said:
        return KEEP_STOP
    if "tools" in body and re.search("tool[ _]choice", said, re.IGNORECASE):
        return TOOL_CHOICE
    if "max_completion_tokens" in said and "not supported" in said:
        return MAX_TOKENS
    return STOP if STOP in body and re.search(r"\bstop\b", said) else None
