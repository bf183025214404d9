"""inspect-ai: a task of a samples folder, scored by its own rules."""

import json
import sys
from pathlib import Path

from inspect_ai import Task, eval
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ChatMessageUser, ContentImage, ContentText
from inspect_ai.scorer import exact

url, model, folder, logs = sys.argv[1], sys.argv[2], Path(sys.argv[3]), sys.argv[4]
rows = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]


def sample(row):
    picture = ContentImage(image=str(folder / row["image"]))
    asked = [ChatMessageUser(content=[picture, ContentText(text=row["question"])])]
    return Sample(id=row["id"], input=asked, target=row["answer"])


task = Task(dataset=MemoryDataset([sample(row) for row in rows]), scorer=exact())
(log,) = eval(
    task,
    model=f"openai-api/lfpc/{model}",
    model_base_url=url,
    log_dir=logs,
    display="none",
    max_connections=100,
)
right = {one.id: one.scores["exact"].value == "C" for one in log.samples or ()}
print(json.dumps({"status": log.status, "right": right}))
