"""An OpenAI-compatible endpoint for a zooming model: a client sends a picture and a question, and
the episode runs here.

`POST /v1/chat/completions` and `GET /v1/models`. The message's `content` is the answer,
`reasoning_content` the replies of all turns; `lfpc`, beside `choices`, holds the crops.
docs/serve.md has examples.
"""

import json
import logging
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
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


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer of the endpoint."""

    request: ChatRequest
    asked: LiveQuestion
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))


def completions_app(model: LiveModel, uploads: Uploads) -> Starlette:
    """The application behind `/v1`."""

    async def models(request: Request) -> Response:
        known = {"id": model.name, "object": "model", "created": 0, "owned_by": "lfpc"}
        return JSONResponse({"object": "list", "data": [known]})

    async def complete(request: Request) -> Response:
        try:
            return await answer(request)
        except Exception as error:
            return await _refusal(request, error)

    async def answer(request: Request) -> Response:
        completion = await run_in_threadpool(begin_completion, await request.body(), model, uploads)
        if not completion.request.stream:
            return JSONResponse(await whole_answer(completion, model))
        events = streamed_answer(completion, model)
        first = await anext(events)  # a failure before the first turn is an ordinary error response
        return StreamingResponse(
            _server_sent(first, events),
            media_type="text/event-stream",
            headers={"cache-control": "no-store"},
        )

    return Starlette(
        routes=[Route("/models", models), Route("/chat/completions", complete, methods=["POST"])],
        exception_handlers={HTTPException: _refusal},  # an unknown path, another method
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
    if request.model != model.name:
        raise ApiError(
            f"unknown model {request.model[:100]!r}; this server has {model.name!r}",
            status=404,
            param="model",
            code="model_not_found",
        )
    name = uploads.add(request.picture)
    sample = Sample(
        id=name, image=uploads.find(name), question=request.question, answer="not known"
    )
    own = model.config
    config = replace(
        own,
        temperature=own.temperature if request.temperature is None else request.temperature,
        top_p=own.top_p if request.top_p is None else request.top_p,
        max_new_tokens=min(own.max_new_tokens, request.max_tokens or own.max_new_tokens),
        sampling_seed=own.sampling_seed if request.seed is None else request.seed,
    )
    return Completion(request, LiveQuestion(sample=sample, config=config))


def turn_json(turn: Turn) -> dict[str, Any]:
    """A turn as JSON of the endpoint."""
    return turn_to_json(turn_record(turn))


async def whole_answer(completion: Completion, model: LiveModel) -> dict[str, Any]:
    """The completion as one JSON object."""
    played = [step async for step in model.steps(completion.asked)][-1]
    assert isinstance(played, Episode)
    message = {
        "role": "assistant",
        "content": played.answer or "",
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
                yield _chunk(completion, {"content": step.answer or ""})
                yield _chunk(completion, {}, finish_reason(step, completion)) | {
                    "lfpc": _facts(step, completion)
                }
                if completion.request.include_usage:
                    yield _chunk(completion, None) | {"usage": usage(step.turns)}


def finish_reason(played: Episode, completion: Completion) -> str:
    """stop: the model answered; length: it reached the turn limit, or the token limit in its last
    reply.
    """
    config = completion.asked.config
    last = played.turns[-1].reply
    cut = last.truncated or (
        len(last.token_ids) >= config.max_new_tokens and not last.text.endswith(config.chat.stop)
    )
    return "length" if played.answer is None or cut else "stop"


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


async def _refusal(request: Request, error: Exception) -> Response:
    found = api_error(error)
    return JSONResponse(
        found.body, found.status, headers={"retry-after": "1"} if found.status == 429 else None
    )
