"""Whether the GPU's work is being captured: not done now, but noted to be done again and again."""

from __future__ import annotations

from . import arrays


def capturing() -> bool:
    """Whether CuPy's current stream is being captured into a CUDA graph."""
    gpu = arrays.gpu()
    return gpu is not None and gpu.cuda.get_current_stream().is_capturing()


def refuse(what: str, why: str) -> None:
    """Raise RuntimeError if a stream is being captured: replayed, it would be silently wrong."""
    if capturing():
        raise RuntimeError(f"{what} cannot be captured in a CUDA graph: {why}")
