"""Encode: text as token numbers. One byte is one token, so no vocabulary has to be learned."""

import numpy as np

VOCAB = 256


def encode(text: str) -> np.ndarray:
    """UTF-8 bytes of a text as numbers 0..255."""
    return np.frombuffer(text.encode("utf-8"), np.uint8)


def decode(tokens: np.ndarray) -> str:
    """The text of token numbers; bytes that are no UTF-8 become the replacement sign."""
    return np.asarray(tokens, np.uint8).tobytes().decode("utf-8", errors="replace")
