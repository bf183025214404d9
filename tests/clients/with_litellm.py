"""litellm, whole and as a stream."""

import json
import sys

import litellm

url, model, picture_uri = sys.argv[1], sys.argv[2], sys.stdin.read()
CONTENT = [
    {"type": "image_url", "image_url": {"url": picture_uri}},
    {"type": "text", "text": "Which colour?"},
]


def ask(**options):
    return litellm.completion(
        model=f"openai/{model}",
        api_base=url,
        api_key="none",
        messages=[{"role": "user", "content": CONTENT}],
        **options,
    )


whole = ask(max_tokens=1000).choices[0].message
chunks = [chunk.choices[0].delta for chunk in ask(stream=True) if chunk.choices]
streamed = "".join(delta.content or "" for delta in chunks)
print(json.dumps({"answers": [whole.content, streamed], "reasoning": whole.reasoning_content}))
