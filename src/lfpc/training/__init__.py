"""Reinforcement learning of the crop policy: GRPO over episodes.

config      what a run is
presets     the paper's runs and ablations, as rows
advantages  rewards of a rollout group -> advantages
rows        episodes -> tokens and mask
loss        log-probabilities and advantages -> loss
update      one optimiser step
draw        which questions a step is played on, and seen how
local       the loop, on one device
state       what a run needs to continue exactly
statistics  episodes of a step -> metrics
trackers    where numbers and episodes are shown while a run goes on
alarms      metrics that say a run has gone wrong
options     what the command line can be told: run, engine, machines
verl        the same runs on clusters
"""
