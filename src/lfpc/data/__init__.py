"""Samples before they are played: checking a folder, choosing the first view of each sample."""
