"""Encode: text as token numbers. One byte is one token, so no vocabulary has to be learned."""

import numpy as np

from ..errors import UserError

VOCAB = 256


def encode(text: str, encoding: str = "utf-8") -> np.ndarray:
    """The bytes of a text as numbers 0..255."""
    try:
        return np.frombuffer(text.encode(encoding), np.uint8)
    except UnicodeError as error:
        wrong = text[getattr(error, "start", 0)]  # some encodings do not say where
        raise UserError(
            f"'{wrong}' cannot be written in {encoding}, the encoding of the run's text: leave it "
            "out, or give another --encoding"
        ) from None


def decode(tokens: np.ndarray, encoding: str = "utf-8") -> str:
    """The text of token numbers; bytes that cannot be decoded become the replacement character."""
    return np.asarray(tokens, np.uint8).tobytes().decode(encoding, errors="replace")
