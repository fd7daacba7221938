"""Fused functions on arrays, worked through in tiles that stay in the processor's cache.

A kernel knows arrays only: `forward` returns the value and what `backward` needs, and nothing here
imports the engine. The NumPy version is here; the Triton version will stand beside it.
"""
