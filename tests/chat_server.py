"""A chat-completions server on 127.0.0.1 that plays a script, and misbehaves when told to.

    with ChatServer() as server: ... server.base_url ...
    python tests/chat_server.py FIRST SECOND ...

The command prints its address; it says FIRST, then SECOND, ... until its input ends.

It is written on bare sockets, so that it can cut connections, and so that it costs a benchmark next
to nothing.
"""

import asyncio
import base64
import io
import json
import random
import sys
import threading
from collections import Counter
from contextlib import suppress
from hashlib import sha256
from itertools import count
from urllib.parse import urlparse
from urllib.request import url2pathname
from zlib import crc32

from PIL import Image

STOPS = ("</tool_call>", "</answer>")
MODELS = ("scripted",)
KEEP_STOP = "include_stop_str_in_output"
FAULTS = ("500", "429", "silence", "cut", "hang up", "broken JSON", "no choices")


def script(question: str, turn: int, pictures: list[str]) -> str:
    """What the model says at its `turn`-th reply: a crop, sometimes nonsense, then an answer that
    tells what it was shown."""
    chance = crc32(question.encode())
    if turn == 0:
        x = chance % 40
        y = chance % 30
        call = {"name": "image_zoom_in_tool", "arguments": {"bbox_2d": [x, y, x + 56, y + 56]}}
        return f"  I look: é\U0001f50e \n<tool_call>{json.dumps(call)}</tool_call>"
    if turn == 1 and chance % 3 == 0:
        return "Hm. \t\n "
    return f"<think>\n</think><answer> {'-'.join(pictures)} </answer>"


def digest(image: Image.Image) -> str:
    """A name for what a picture shows."""
    return sha256(repr((image.mode, image.size)).encode() + image.tobytes()).hexdigest()[:8]


def text_of(message: dict) -> str:
    """The text of one chat message."""
    parts = message["content"]
    return (
        parts
        if isinstance(parts, str)
        else "".join(part["text"] for part in parts if part["type"] == "text")
    )


def pictures_of(messages: list[dict]) -> list[Image.Image]:
    """The pictures of a conversation, decoded."""
    parts = [
        part
        for message in messages
        if isinstance(message["content"], list)
        for part in message["content"]
    ]
    return [_picture(part["image_url"]["url"]) for part in parts if part["type"] == "image_url"]


def _picture(url: str) -> Image.Image:
    if url.startswith("file:"):
        return Image.open(url2pathname(urlparse(url).path))
    head, data = url.split(",", 1)
    assert head == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(data, validate=True)))


class ChatServer:
    """The server in a thread of this process.

    Args:
        style: what it makes of stop texts: "vllm" keeps them if asked and names them, "sglang" cuts
            and names them, "plain" cuts and says nothing, "strict" is plain and refuses fields it
            does not know.
        faults: share of the requests that go wrong, in each of `FAULTS`' ways in turn.
        delay_s: seconds it thinks.
        look: False answers without decoding pictures.
        say: replaces the script by (question, turn) -> reply.
        calls: "text" leaves calls in replies, "parsed" hands them out apart, as servers with a
            tool-call parser do, "refused" takes tools only without a choice, as vLLM without such a
            parser does.
        finish: finish reason of every reply.
        models: names in its list of models; None: it has no list.
    """

    def __init__(
        self,
        *,
        style="vllm",
        faults=0.0,
        delay_s=0.0,
        look=True,
        say=None,
        port=0,
        calls="text",
        finish="stop",
        models=MODELS,
    ):
        self.finish = finish
        self.calls = calls
        self.models = models
        self.style = style
        self.faults = faults
        self.delay_s = delay_s
        self.look = look
        self.say = say
        self.port = port
        self.requests = []
        self.listings = []
        self.keys = set()
        self.refused = 0
        self.happened = Counter()
        self.running = self.most_running = 0
        self._random = random.Random(0)
        self._next_fault = count()

    def __enter__(self):
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run(ready)), daemon=True)
        self._thread.start()
        assert ready.wait(30)
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)

    @property
    def base_url(self):
        return f"http://127.0.0.1:{self.port}/v1"

    async def _run(self, ready):
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        talks = set()

        async def talk(reader, writer):
            talks.add(task := asyncio.current_task())
            try:
                await self._talk(reader, writer)
            except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                pass  # the client is gone, or the server is told to stop
            finally:
                talks.discard(task)
                writer.close()
                with suppress(ConnectionError):
                    await writer.wait_closed()

        server = await asyncio.start_server(talk, "127.0.0.1", self.port, limit=2**26)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        await self._stop.wait()
        server.close()
        for task in list(talks):
            task.cancel()
        await asyncio.gather(*talks, return_exceptions=True)

    async def _talk(self, reader, writer):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            if head.startswith("get "):
                await self._listing(head.split()[1], writer)
                continue
            length = int(head.split("content-length:")[1].split("\r\n")[0])
            body = await reader.readexactly(length)
            self.running += 1
            self.most_running = max(self.most_running, self.running)
            try:
                self.keys.add(
                    next(
                        (
                            line[22:]
                            for line in head.splitlines()
                            if line.startswith("authorization: bearer ")
                        ),
                        None,
                    )
                )
                status, headers, payload = await self._answer(json.loads(body))
            finally:
                self.running -= 1
            if status == 0:  # hang up, after half a reply if there is one
                if payload:
                    writer.write(
                        b"HTTP/1.1 200 OK\r\nContent-Type: "
                        b"application/json\r\nContent-Length: 9999\r\n\r\n" + payload
                    )
                    await writer.drain()
                return
            lines = {"Content-Type": "application/json", "Content-Length": len(payload), **headers}
            head = "\r\n".join(
                [
                    f"HTTP/1.1 {status} X",
                    *(f"{name}: {value}" for name, value in lines.items()),
                    "",
                    "",
                ]
            )
            writer.write(head.encode() + payload)
            await writer.drain()

    async def _listing(self, path, writer):
        self.listings.append(path)
        names = self.models if path == "/v1/models" else None
        found = {"object": "list", "data": [{"id": name} for name in names or ()]}
        payload = json.dumps(found).encode()
        status = 404 if names is None else 200
        head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(payload)}\r\n\r\n".encode() + payload)
        await writer.drain()

    async def _answer(self, request):
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        if self._random.random() < self.faults:
            return await self._fault()
        unknown = set(request) - {
            "model",
            "messages",
            "temperature",
            "top_p",
            "max_tokens",
            "seed",
            "stop",
        }
        if self.style == "strict" and unknown:
            self.refused += 1
            return (
                400,
                {},
                json.dumps(
                    {
                        "error": {
                            "message": f"Unrecognized request argument supplied: {min(unknown)}"
                        }
                    }
                ).encode(),
            )
        if request["model"] not in MODELS:
            return (
                404,
                {},
                json.dumps(
                    {"error": {"message": f"The model `{request['model']}` does not exist."}}
                ).encode(),
            )
        if (
            self.calls == "refused"
            and "tools" in request
            and request.get("tool_choice", "auto") == "auto"
        ):
            self.refused += 1
            return (
                400,
                {},
                b'{"error": {"message": "\\"auto\\" tool choice requires '
                b'--enable-auto-tool-choice to be set"}}',
            )
        messages = request["messages"]
        question = text_of(next(message for message in messages if message["role"] == "user"))
        if "poison" in question:
            return 400, {}, b'{"error": {"message": "this model cannot read poison"}}'
        said = [message["content"] for message in messages if message["role"] == "assistant"]
        pictures = [digest(picture) for picture in pictures_of(messages)] if self.look else []
        say = self.say or script
        for turn, text in enumerate(said) if self.say is None else ():
            assert text == script(question, turn, pictures), f"the history was changed: {text!r}"
        text = say(question, len(said), pictures)
        self.requests.append(request)
        return 200, {}, json.dumps(self._completion(text, request, messages)).encode()

    async def _fault(self):
        kind = FAULTS[next(self._next_fault) % len(FAULTS)]
        self.happened[kind] += 1
        match kind:
            case "500":
                return 500, {"retry-after-ms": 20}, b"oh no"
            case "429":
                return 429, {"Retry-After": 0.1}, b'{"error": {"message": "slow down"}}'
            case "silence":
                await asyncio.sleep(3600)
            case "cut":
                return 0, {}, b'{"choices": [{"message": {"content": "<answer>half'
            case "broken JSON":
                return 200, {}, b'{"choices": [{"message": {"content": "<answer>half'
            case "no choices":
                return 200, {}, b'{"error": {"message": "try again"}}'
        return 0, {}, b""

    def _completion(self, text, request, messages):
        ended_by = next((stop for stop in STOPS if text.endswith(stop)), None)
        choice = {"index": 0, "finish_reason": self.finish}
        if self.style in ("vllm", "sglang"):
            choice["stop_reason" if self.style == "vllm" else "matched_stop"] = ended_by
        if ended_by and not (self.style == "vllm" and request.get(KEEP_STOP)):
            text = text.removesuffix(ended_by)
        message = {"role": "assistant", "content": text}
        if self.calls == "parsed" and "<tool_call>" in text:
            said, _, call = text.removesuffix("</tool_call>").partition("<tool_call>")
            found = json.loads(call)
            function = {"name": found["name"], "arguments": json.dumps(found["arguments"])}
            message |= {
                "content": said or None,
                "tool_calls": [{"id": "x", "type": "function", "function": function}],
            }
        usage = {
            "prompt_tokens": 100 * len(messages),
            "completion_tokens": len(text),
            "total_tokens": 0,
        }
        return {
            "id": "x",
            "object": "chat.completion",
            "choices": [choice | {"message": message}],
            "usage": usage,
        }


if __name__ == "__main__":
    with ChatServer(look=False, say=lambda question, turn, pictures: sys.argv[1 + turn]) as served:
        print(served.base_url, flush=True)
        sys.stdin.read()
