"""Numbers of 16 bits in float32 and back: float16, and bfloat16, which uint16 arrays hold."""

import numpy as np

ONE = {np.dtype(np.uint16): 0x3F80}  # 1 as bfloat16


def wide(x: np.ndarray) -> np.ndarray:
    """float32 of float16 and bfloat16 numbers; any others as they are."""
    if x.dtype == np.uint16:
        return (x.astype(np.uint32) << 16).view(np.float32)
    return x.astype(np.float32) if x.dtype == np.float16 else x


def store(x: np.ndarray, out: np.ndarray) -> None:
    """x into out, rounded to the nearest number (of two, the even one) that out can hold."""
    if out.dtype != np.uint16:
        out[...] = x
        return
    x = x.astype(np.float32)
    bits = x.view(np.uint32)
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    out[...] = np.where(np.isnan(x), 0x7FC0, rounded)
