"""The same runs on clusters: verl (Ray, FSDP2, vLLM) plays and updates, with our episode, rewards,
advantages and presets.

clusters     on what a run computes, and presets for common hardware
shape        parameters and key-value bytes of a Qwen2.5-VL
estimate     what that needs: memory and time, by formula
versions     are the packages those this was written for
translate    a run and a cluster -> verl's configuration
lines        a sample -> a line of JSON for verl's queue, with its path and no pixels
recording    what a worker tells of an episode -> metrics and episodes of a step
checkpoints  verl's checkpoints -> ours
launch       the run, from a configuration to a checkpoint
inside       what runs in verl's own processes; the only part that imports verl when it is imported
"""
