"""Batch: windows of tokens, chosen by (seed, step) alone, so any rank can cut its own rows."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from ..errors import UserError
from ..tensor import random
from .clean import clean
from .collect import CORPORA, collect
from .guess import guess, unusual

HELD_OUT = 0.1  # the last tenth of the text


@dataclass(frozen=True)
class Corpus:
    """The training tokens and the held-out tokens; the encoding of prompts and samples."""

    train: np.ndarray
    held_out: np.ndarray
    encoding: str = "utf-8"
    notes: tuple[str, ...] = ()  # remarks about the text, printed once

    @property
    def fingerprint(self) -> str:
        """Equal on two ranks exactly if they hold the same text."""
        return hashlib.sha256(self.train.tobytes() + self.held_out.tobytes()).hexdigest()[:16]


def load(name: str, seq: int, drop_repeats: bool = False, encoding: str | None = None) -> Corpus:
    """Collect, clean and split a corpus; each part must hold a window of seq + 1 tokens.

    The bytes of a file are never changed. `drop_repeats` leaves out repeated paragraphs, as is
    always done with the built-in corpora. `encoding`: if None, it is guessed.
    """
    content = collect(name)
    encoding = encoding or guess(content)
    notes = list(unusual(content, encoding))
    if notes:
        notes = ["; ".join(notes) + ": its bytes are used unchanged"]
    if drop_repeats or name in CORPORA:
        before = len(content)
        content, dropped = clean(content)
        notes.append(f"{dropped:,} repeated paragraphs ({before - len(content):,} bytes) left out")
    tokens = np.frombuffer(content, np.uint8)
    cut = int(len(tokens) * (1 - HELD_OUT))
    corpus = Corpus(tokens[:cut], tokens[cut:], encoding or "utf-8", tuple(notes))
    if len(corpus.held_out) < seq + 1:
        longest = len(corpus.held_out) - 1
        shorter = f"lower --seq to {longest} or " if longest > 0 else ""
        raise UserError(
            f"data '{name}' has {len(tokens)} bytes, too short for seq {seq}: its held-out tenth "
            f"({len(corpus.held_out)} bytes) must hold {seq + 1}; {shorter}give at least "
            f"{10 * (seq + 1)} bytes"
        )
    return corpus


def windows(tokens: np.ndarray, starts: np.ndarray, seq: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and their next tokens, (len(starts), seq) each."""
    rows = tokens[starts[:, None] + np.arange(seq + 1)].astype(np.int64)
    return rows[:, :-1].copy(), rows[:, 1:].copy()


def training_starts(corpus: Corpus, seq: int, batch: int, seed: int, step: int) -> np.ndarray:
    """Where the windows of one global batch start: (batch,), with replacement."""
    return random.generator(seed, "batch", step).integers(0, len(corpus.train) - seq, batch)


def held_out_starts(corpus: Corpus, seq: int, most: int) -> np.ndarray:
    """Where the windows of evaluation start: no two overlap, at most `most`, evenly spread."""
    count = (len(corpus.held_out) - 1) // seq
    return np.linspace(0, count - 1, min(count, most)).astype(np.int64) * seq
