"""Measure every picture of a dataset once, judge it by a policy, repair it, write versions of the dataset."""
