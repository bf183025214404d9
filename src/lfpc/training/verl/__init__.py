"""Training on clusters: verl (Ray, FSDP2, vLLM) samples and updates, with our episode, rewards,
advantages and presets.

clusters     machines, and presets for common hardware
shape        parameters and key-value bytes of a Qwen2.5-VL
estimate     memory and time of a run, by formula
versions     checks of the installed packages
translate    a run and a cluster -> verl's configuration
lines        a sample -> a line of JSON for verl's queue, with its path and no pixels
recording    workers' reports of rollouts -> metrics and episodes of a step
checkpoints  verl's checkpoints -> ours
launch       the run, from a configuration to a checkpoint
inside       code in verl's own processes, the only part whose import imports verl
"""
