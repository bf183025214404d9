"""VLMEvalKit: its HR-Bench 4K on a local table, without a judge. Prints the score of each row by
its index, and the accuracy."""

import json
import os
import sys
from pathlib import Path
from types import ModuleType

url, name, folder, checkout = sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4])
os.environ |= {"LMUData": str(folder), "PRED_FORMAT": "tsv"}
# these import every model and benchmark that there is, and what those need
for package in ("vlmeval", "vlmeval.api", "vlmeval.dataset"):
    sys.modules[package] = ModuleType(package)
    sys.modules[package].__path__ = [str(checkout.joinpath(*package.split(".")))]

from vlmeval.api.gpt import OpenAIWrapper  # noqa: E402
from vlmeval.dataset.image_mcq import HRBenchDataset  # noqa: E402
from vlmeval.smp import dump, load  # noqa: E402

HRBenchDataset.DATASET_MD5 = {}  # of the published file
benchmark = HRBenchDataset("HRBench4K")
model = OpenAIWrapper(name, api_base=f"{url}/chat/completions", key="none", retry=1)
rows = benchmark.data.drop(columns="image")
rows["prediction"] = [model.generate(benchmark.build_prompt(n)) for n in range(len(rows))]
dump(rows, str(folder / "said.tsv"))
table = benchmark.evaluate(str(folder / "said.tsv"), model="exact_matching", nproc=1)
scored = load(str(folder / "said_exact_matching_result.tsv"))
overall = table[(table["cycle"] == "Average") & (table["type"] == "all")]
print(
    json.dumps(
        {
            "right": dict(zip(map(str, scored["index"]), map(float, scored["hit"]), strict=True)),
            "accuracy": float(overall["accuracy"].iloc[0]),
        }
    )
)
