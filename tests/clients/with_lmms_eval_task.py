"""lmms-eval: the whole of it, with its task `vstar_bench` on a local copy of the table. Prints the
score of each question by its id."""

import json
import sys

from lmms_eval.evaluator import simple_evaluate

url, name, folder = sys.argv[1:]
results = simple_evaluate(
    model="openai",
    model_args=f"model_version={name},base_url={url},api_key=none",
    tasks=[{"task": "vstar_bench", "dataset_path": folder}],
    gen_kwargs="max_new_tokens=256",  # the task's 16 cut an answer in words
    force_simple=True,
)
scores = [row["vstar_overall_acc"] for row in results["samples"]["vstar_bench"]]
print(json.dumps({row["question_id"]: row["score"] for row in scores}))
