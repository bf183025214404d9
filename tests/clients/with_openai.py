"""The official client without waiting for one answer before the next: async, and as a stream."""

import asyncio
import json
import sys

import openai

url, model, picture_uri = sys.argv[1], sys.argv[2], sys.stdin.read()
CONTENT = [
    {"type": "image_url", "image_url": {"url": picture_uri}},
    {"type": "text", "text": "Which colour?"},
]


async def main() -> None:
    async with openai.AsyncOpenAI(base_url=url, api_key="none") as client:
        ask = client.chat.completions.create
        messages = [{"role": "user", "content": CONTENT}]
        wholes = await asyncio.gather(*(ask(model=model, messages=messages) for _ in range(3)))
        streamed = ""
        async with client.chat.completions.stream(model=model, messages=messages) as events:
            async for event in events:
                streamed += event.delta if event.type == "content.delta" else ""
        found = await client.models.retrieve(model)
        try:
            await ask(model="other", messages=messages)
        except openai.NotFoundError as error:
            code = error.code
    answers = [whole.choices[0].message.content for whole in wholes]
    print(json.dumps({"answers": [*answers, streamed], "model": found.id, "code": code}))


asyncio.run(main())
