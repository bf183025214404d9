"""Samples before they are played: reading published files, checking a folder, choosing the first
view of each sample.
"""
