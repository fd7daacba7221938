"""From raw text to batches: collect, clean, encode, batch."""

from .batch import Corpus, held_out_starts, load, training_starts, windows
from .collect import CORPORA
from .encode import VOCAB, decode, encode

__all__ = [
    "CORPORA",
    "VOCAB",
    "Corpus",
    "decode",
    "encode",
    "held_out_starts",
    "load",
    "training_starts",
    "windows",
]
