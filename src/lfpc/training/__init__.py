"""Reinforcement learning of the crop policy: GRPO over episodes.

config      configuration of a run
presets     the paper's runs and ablations as configurations
draw        samples and first views of a step
groups      episodes of one sample -> rollout group with advantages
advantages  rewards of a rollout group -> advantages
rollouts    episodes -> tokens and mask
loss        log-probabilities and advantages -> loss
lengths     whether rollouts fit into their limit
update      one optimiser step
local       the loop on one device
faults      lack of memory and infinite weights, in a sentence
state       checkpoints to resume from
statistics  episodes of a step -> metrics
trackers    metrics in TensorBoard, wandb and trackio
alarms      metrics -> warnings about a failing run
options     command-line options: run, engine, machines
verl        the same runs on clusters
"""
