"""Ways of sharing the work, one strategy a file, on an explicit mesh of ranks."""

from .mesh import Mesh

__all__ = ["Mesh"]
