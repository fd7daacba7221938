"""Formulas for memory, traffic and time: what a run will need, before it runs."""
