"""Policies: a script, a person, a model in this process, a served model. Import the one you need;
only a model in this process needs torch.
"""
