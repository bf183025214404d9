"""Evaluations of a policy: accuracy, crop dependence, and the confidence in both."""
