"""Tensor parallelism: the weights of a layer in parts, one a rank."""
