"""Ranks in one process: a scheduler, a virtual clock, and deadlocks as errors."""
