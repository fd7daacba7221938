"""Data parallelism: each rank holds the model and computes on its rows of the batch."""
