"""An OpenAI-compatible endpoint for a zooming model: a client sends a picture and a question, and
the episode runs here.

`POST /v1/chat/completions`, `GET /v1/models` and `GET /v1/models/NAME`. The message's `content` is
the answer, `reasoning_content` the replies of all turns; `lfpc`, beside `choices`, holds the crops.
docs/serve.md has examples.
"""

import asyncio
import json
import logging
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import AbstractContextManager, aclosing
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from lfpc.ask.live import Busy, LiveModel, LiveQuestion
from lfpc.dialogue import Turn
from lfpc.episode import Episode
from lfpc.errors import LfpcError, PictureError
from lfpc.images import visual_tokens
from lfpc.records import turn_record, turn_to_json
from lfpc.samples import Sample
from lfpc.web.ask.chat_request import ApiError, ChatRequest, read_request
from lfpc.web.ask.uploads import Uploads

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer of the endpoint."""

    request: ChatRequest
    asked: LiveQuestion
    picture: AbstractContextManager[None]
    """A context in which the picture is kept."""
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))


def completions_app(model: LiveModel, uploads: Uploads) -> Starlette:
    """The application behind `/v1`."""
    known = {"id": model.name, "object": "model", "created": 0, "owned_by": "lfpc"}

    async def models(request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [known]})

    async def one_model(request: Request) -> Response:
        check_name(request.path_params["name"], model)
        return JSONResponse(known)

    async def complete(request: Request) -> Response:
        try:
            return await answer(request)
        except Exception as error:
            return await refusal_answer(request, error)

    async def answer(request: Request) -> Response:
        completion = await run_in_threadpool(begin_completion, await request.body(), model, uploads)
        if not completion.request.stream:
            return JSONResponse(await unless_gone(request, whole_answer(completion, model)))
        events = streamed_answer(completion, model)
        # a failure before the first turn is an ordinary error response
        first = await unless_gone(request, anext(events))
        return StreamingResponse(
            _server_sent(first, events),
            media_type="text/event-stream",
            headers={"cache-control": "no-store"},
        )

    return Starlette(
        routes=[
            Route("/models", models),
            Route("/models/{name:path}", one_model),
            Route("/chat/completions", complete, methods=["POST"]),
        ],
        # an unknown path or model, another method
        exception_handlers={HTTPException: refusal_answer, LfpcError: refusal_answer},
    )


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
    """The result of `work`, which is cancelled when the client leaves.

    Raises:
        ClientDisconnect: the client has left.
    """

    async def leaves() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working = asyncio.ensure_future(work)
    gone = asyncio.create_task(leaves())
    try:
        await asyncio.wait((working, gone), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        gone.cancel()
        await asyncio.gather(working, gone, return_exceptions=True)


def check_name(name: str, model: LiveModel) -> None:
    """Raises: ApiError: the server has another model."""
    if name != model.name:
        raise ApiError(
            f"unknown model {name[:100]!r}; this server has {model.name!r}",
            status=404,
            param="model",
            code="model_not_found",
        )


def begin_completion(body: bytes, model: LiveModel, uploads: Uploads) -> Completion:
    """The question in a request's body, with its picture stored in `uploads`.

    Raises:
        ApiError: an invalid or unsupported request.
        PictureError: its picture does not open.
    """
    try:
        request = read_request(json.loads(body))
    except (ValueError, RecursionError) as error:
        if isinstance(error, LfpcError):
            raise
        raise ApiError(f"the request is not JSON: {error}") from error
    check_name(request.model, model)
    name = uploads.add(request.picture)
    sample = Sample(
        id=name, image=uploads.find(name), question=request.question, answer="not known"
    )
    own = model.config
    config = replace(
        own,
        temperature=own.temperature if request.temperature is None else request.temperature,
        top_p=own.top_p if request.top_p is None else request.top_p,
        sampling_seed=own.sampling_seed if request.seed is None else request.seed,
    )
    return Completion(request, LiveQuestion(sample=sample, config=config), uploads.held(name))


def turn_json(turn: Turn) -> dict[str, Any]:
    """A turn as JSON of the endpoint."""
    return turn_to_json(turn_record(turn))


async def whole_answer(completion: Completion, model: LiveModel) -> dict[str, Any]:
    """The completion as one JSON object."""
    with completion.picture:
        played = [step async for step in model.steps(completion.asked)][-1]
    assert isinstance(played, Episode)
    message = {
        "role": "assistant",
        "content": answer_within(played, completion.request.max_tokens),
        "reasoning_content": _written(played.turns),
    }
    choice = {
        "index": 0,
        "message": message,
        "finish_reason": finish_reason(played, completion),
        "logprobs": None,
    }
    facts = {"turns": [turn_json(turn) for turn in played.turns], **_facts(played, completion)}
    return {
        **_head(completion, "chat.completion"),
        "choices": [choice],
        "usage": usage(played.turns),
        "lfpc": facts,
    }


async def streamed_answer(
    completion: Completion, model: LiveModel
) -> AsyncGenerator[dict[str, Any], None]:
    """The completion as chunks: one per turn, then the answer, the finish reason, and the usage."""
    sent = 0
    with completion.picture:
        async with aclosing(model.steps(completion.asked)) as steps:
            async for step in steps:
                for turn in step.turns[sent:]:
                    delta = {
                        "reasoning_content": _written([turn]),
                        **({} if sent else {"role": "assistant", "content": ""}),
                    }
                    yield _chunk(completion, delta) | {"lfpc": {"turns": [turn_json(turn)]}}
                    sent += 1
                if isinstance(step, Episode):
                    answer = answer_within(step, completion.request.max_tokens)
                    yield _chunk(completion, {"content": answer})
                    yield _chunk(completion, {}, finish_reason(step, completion)) | {
                        "lfpc": _facts(step, completion)
                    }
                    if completion.request.include_usage:
                        yield _chunk(completion, None) | {"usage": usage(step.turns)}


def answer_within(played: Episode, most: int | None) -> str:
    """The answer, cut to about `most` tokens; empty without one.

    Its tokens are its share of the last reply's, by characters. A reply without a count is not cut.
    """
    answer = played.answer or ""
    if not answer or most is None:
        return answer
    last = played.turns[-1].reply
    written = last.usage.reply_tokens if last.usage else len(last.token_ids)
    return answer[: most * len(last.text) // written] if written else answer


def finish_reason(played: Episode, completion: Completion) -> str:
    """stop: the model answered; length: it reached the turn limit, or a token limit cut the last
    reply or the answer.
    """
    config = completion.asked.config
    last = played.turns[-1].reply
    cut = last.truncated or (
        len(last.token_ids) >= config.max_new_tokens and not last.text.endswith(config.chat.stop)
    )
    answer = answer_within(played, completion.request.max_tokens)
    return "length" if answer != played.answer or cut else "stop"


def usage(turns: tuple[Turn, ...]) -> dict[str, int] | None:
    """Tokens of all turns; None if the model's server does not count them.

    Each turn reads the whole conversation again, including pictures, and its prompt tokens count
    each time.
    """
    counts = [turn.reply.usage for turn in turns]
    read = sum(count.prompt_tokens for count in counts if count)
    written = sum(count.reply_tokens for count in counts if count)
    return (
        {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
        if all(counts)
        else None
    )


def _written(turns: "tuple[Turn, ...] | list[Turn]") -> str:
    return "".join(f"{turn.reply.text}\n" for turn in turns)


def _facts(played: Episode, completion: Completion) -> dict[str, Any]:
    factor = completion.asked.config.chat.factor
    return {
        "stop": played.stop.value,
        "first_view": list(played.first_view.size),
        "visual_tokens": sum(visual_tokens(view.size, factor) for view in played.views),
        "ignored": list(completion.request.ignored),
    }


def _head(completion: Completion, kind: str) -> dict[str, Any]:
    return {
        "id": completion.id,
        "object": kind,
        "created": completion.created,
        "model": completion.request.model,
    }


def _chunk(
    completion: Completion, delta: dict[str, Any] | None, finish: str | None = None
) -> dict[str, Any]:
    """A chunk; without delta the last one, which has no choice."""
    choices = (
        []
        if delta is None
        else [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}]
    )
    return {**_head(completion, "chat.completion.chunk"), "choices": choices}


async def _server_sent(
    first: dict[str, Any], events: AsyncGenerator[dict[str, Any], None]
) -> AsyncIterator[bytes]:
    yield _data(first)
    try:
        async with aclosing(events):
            async for event in events:
                yield _data(event)
    except Exception as error:  # the status is already sent
        yield _data(api_error(error).body)
    yield b"data: [DONE]\n\n"


def _data(event: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(event)}\n\n".encode()


def api_error(error: Exception) -> ApiError:
    """`error` as an API error. An unexpected exception is logged, and reported without details."""
    match error:
        case ApiError():
            return error
        case HTTPException():
            return ApiError(error.detail, status=error.status_code)
        case ClientDisconnect():
            return ApiError("the client has left", status=499)  # which nobody reads
        case Busy():
            return ApiError(str(error), status=429, kind="rate_limit_error")
        case PictureError():
            return ApiError(str(error), param="messages", code="invalid_image")
        case LfpcError():
            return ApiError(str(error), status=502, kind="server_error")
        case _:
            log.error("a question failed", exc_info=error)
            return ApiError(
                f"the question failed in the server ({type(error).__name__}); its log says more",
                status=500,
                kind="server_error",
            )


async def refusal_answer(request: Request, error: Exception) -> Response:
    """The response to a failed request, in OpenAI's shape."""
    found = api_error(error)
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    if isinstance(error, Busy):
        headers["retry-after"] = str(max(1, ceil(error.retry_after_s)))
    return JSONResponse(found.body, found.status, headers=headers)
