"""Cleaning a dataset: measure every picture once, judge it by a policy, find duplicates, write versions."""
