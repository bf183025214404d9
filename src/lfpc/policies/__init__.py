"""Who replies to a context: a script, a person, a model in this process. Import the one you need;
only the model needs torch.
"""
