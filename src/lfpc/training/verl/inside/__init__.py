"""Code that runs in verl's own processes. Its import imports verl.

start       verl's whole configuration, and the start of a run
section     our own section of that configuration
plugin      registration of our parts, in every process
engine      verl's training engine, with a frozen vision tower
dataset     the run's questions, step by step
loop        one rollout: our episode against verl's sampling server
pixels      pictures on their way from worker to trainer
workers     the processes that play
trainer     verl's synchronous trainer, writing our run folder
runner      the process that drives a run
"""
