"""Samples folders before training: checks, mixtures, exports."""
