"""VLMEvalKit: its OpenAI-compatible model, from a checkout, at once and as a stream."""

import json
import sys
from pathlib import Path
from types import ModuleType

url, name, folder, checkout = sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4])
# these two import every model and benchmark that there is, and what those need
for package in ("vlmeval", "vlmeval.api"):
    sys.modules[package] = ModuleType(package)
    sys.modules[package].__path__ = [str(checkout.joinpath(*package.split(".")))]

from vlmeval.api.gpt import OpenAIWrapper  # noqa: E402

answers = {}
for kind in ("at once", "streamed"):
    model = OpenAIWrapper(
        name, api_base=f"{url}/chat/completions", key="none", retry=1, stream=kind == "streamed"
    )
    answers[kind] = [
        model.generate([{"type": "image", "value": str(one)}, {"type": "text", "value": "Colour?"}])
        for one in sorted(folder.glob("*.png"))
    ]
print(json.dumps(answers))
