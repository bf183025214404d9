"""The functions of `import lfpc`, for a notebook.

Paths may be texts. All functions work inside a running event loop. Torch is imported only to load
or train a checkpoint.

policies    models as policies
commands    the commands of the command line
checks      checks of their arguments
"""
