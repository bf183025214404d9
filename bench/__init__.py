"""Measurements, ratios side by side: `python -m bench [NAME ...]`. They are never tests.

task               what both engines of a comparison do: pictures, crops, score
checkpoint         the tiny model they start from
side_by_side       two processes that take turns, step by step
lfpc_side          a step of the local engine
trl_side           a step of TRL's GRPOTrainer (runs in its own virtual environment, see
                   `environments`)
grpo_step_vs_trl   the comparison
vision_sharing     the local engine with and without sharing
eval_overhead      evaluating a served model, beside a bare loop of the same requests
eval_large         evaluating on 8K pictures from disk
select_large       resolution selection on 8K pictures from disk
served_miniature   the demo's arms through a real vLLM server
                   (`python -m bench.served_miniature out/demo`)
selection          resolution selection, beside a loop over transformers' generate
selection_scale    selection of many samples by a policy that answers at once
large_picture      a large JPEG to a view and crops as PNG, exact and fast
limit              what the same work would take at best
profile_step       where a training step spends its seconds, and its counts beside the least
                   (`python -m bench profile`)
scale              seconds and memory of an import and a mixture by their rows
                   (`python -m bench scale`)
results            out/bench/results.json, and the table
"""
