"""Summaries of records, with intervals and tests."""
