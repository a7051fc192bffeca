"""Cleaning of datasets: measure every picture once, assign verdicts by a policy, repair, write versions."""
