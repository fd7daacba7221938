"""The Tensor, and how one is made."""
