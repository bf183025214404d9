"""LangChain, whole and as a stream."""

import json
import sys

from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI

url, model, picture_uri = sys.argv[1], sys.argv[2], sys.stdin.read()
CONTENT = [
    {"type": "text", "text": "Which colour?"},
    {"type": "image_url", "image_url": {"url": picture_uri}},
]

chat = ChatOpenAI(base_url=url, api_key="none", model=model)
message = HumanMessage(content=CONTENT)
whole = chat.invoke([message])
streamed = "".join(str(chunk.content) for chunk in chat.stream([message]))
read = whole.usage_metadata["input_tokens"]
print(json.dumps({"answers": [whole.content, streamed], "read": read}))
