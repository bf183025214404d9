"""lmms-eval: its OpenAI-compatible models, with a picture each as its tasks hand them over."""

import json
import sys
from pathlib import Path

from lmms_eval.api.instance import Instance, unwrap_generation_output
from lmms_eval.models import get_model
from PIL import Image

url, name, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
pictures = sorted(folder.glob("*.png"))


def messages(picture):
    content = [{"type": "image", "url": visuals(picture)[0]}, {"type": "text", "text": "Colour?"}]
    return [{"role": "user", "content": content}]


def visuals(picture):
    return [Image.open(picture).convert("RGB")]


def request(number, simple):
    asked = {"max_new_tokens": 1024, "temperature": 0}
    given = (asked, visuals) if simple else (messages, asked)
    place = {"task": "colours", "doc_id": number, "repeats": 1}
    return Instance("generate_until", ("Colour?", *given, number, "colours", "test"), 0, place)


answers = {}
for kind in ("simple", "chat"):
    model = get_model("openai", force_simple=kind == "simple")(
        model=name, base_url=url, api_key="none", max_retries=1, timeout=60
    )
    model.task_dict["colours"] = {"test": pictures}
    said = model.generate_until([request(n, kind == "simple") for n in range(len(pictures))])
    answers[kind] = [unwrap_generation_output(one)[0] for one in said]
print(json.dumps(answers))
