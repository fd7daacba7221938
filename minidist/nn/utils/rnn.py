"""Sequences of several lengths in one batch: packed, padded and back, as torch.nn.utils.rnn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ...kernels import arrays as xp
from ...ops import cat
from ...ops.recurrent import put_rows, take_rows
from ...tensor.tensor import Tensor


class PackedSequence(NamedTuple):
    """The steps of sequences, longest first, one after the other: made by the functions below.

    data (n, ...) holds batch_sizes[t] rows for step t. Sequence i of the batch is number
    unsorted_indices[i] by length (None: they came sorted), and sorted_indices leads back.
    """

    data: Tensor
    batch_sizes: Tensor
    sorted_indices: Tensor | None = None
    unsorted_indices: Tensor | None = None


def _places(lengths: xp.ndarray) -> Any:
    """(step, sequence) of each packed row, for falling lengths."""
    return xp.nonzero(xp.arange(max(lengths, default=0))[:, None] < lengths)


def pack_padded_sequence(
    input: Tensor, lengths: Any, batch_first: bool = False, enforce_sorted: bool = True
) -> PackedSequence:
    """Keep the first lengths[i] steps of sequence i of input (s, b, ...), or (b, s, ...)."""
    x = input.transpose(0, 1) if batch_first else input
    s, b = x.shape[:2]
    counts = xp.asarray(getattr(lengths, "data", lengths)).astype(xp.int64)
    if counts.shape != (b,):
        raise RuntimeError(f"pack_padded_sequence: lengths {counts.shape} for {b} sequences")
    if b and not (counts.min() > 0 and counts.max() <= s):
        raise RuntimeError(f"pack_padded_sequence: lengths {counts.tolist()}: want 1 to {s}")
    order = xp.argsort(-counts, kind="stable")
    if enforce_sorted and (xp.diff(counts) > 0).any():
        raise RuntimeError(
            f"pack_padded_sequence: lengths {counts.tolist()} do not fall: sort the batch by "
            "length, or pass enforce_sorted=False"
        )
    step, place = _places(counts[order])
    data = take_rows(x.reshape(s * b, *x.shape[2:]), step * b + order[place])
    sizes = Tensor(xp.bincount(step))
    if enforce_sorted:
        return PackedSequence(data, sizes)
    return PackedSequence(data, sizes, Tensor(order), Tensor(xp.argsort(order)))


def pad_packed_sequence(
    sequence: PackedSequence, batch_first: bool = False, padding_value: float = 0.0,
    total_length: int | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The packed sequences as (s, b, ...), or (b, s, ...), and their lengths (b,)."""
    data, sizes, order, back = sequence
    s, b = len(sizes.data), int(sizes.data[0])
    total = s if total_length is None else total_length
    if total < s:
        raise ValueError(f"pad_packed_sequence: total_length {total}, the longest sequence is {s}")
    counts = (sizes.data[:, None] > xp.arange(b)).sum(0)
    step, place = _places(counts)
    column = place if order is None else order.data[place]
    y = put_rows(data, step * b + column, total * b, padding_value)
    y = y.reshape(total, b, *data.shape[1:])
    lengths = Tensor(counts if back is None else counts[back.data])
    return y.transpose(0, 1) if batch_first else y, lengths


def pad_sequence(
    sequences: Sequence[Tensor], batch_first: bool = False, padding_value: float = 0.0,
    padding_side: str = "right",
) -> Tensor:  # fmt: skip
    """Sequences (length_i, ...) as one (s, b, ...), or (b, s, ...)."""
    if not sequences:
        raise RuntimeError("pad_sequence: no sequences")
    if padding_side not in ("left", "right"):
        raise ValueError(f"pad_sequence: padding_side {padding_side!r}: want 'left' or 'right'")
    counts, b = [len(x) for x in sequences], len(sequences)
    s = max(counts)
    ends = counts if padding_side == "right" else [s] * b
    rows = [xp.arange(end - n, end) * b + i for i, (n, end) in enumerate(zip(counts, ends))]
    y = put_rows(cat(sequences), xp.concatenate(rows), s * b, padding_value)
    y = y.reshape(s, b, *sequences[0].shape[1:])
    return y.transpose(0, 1) if batch_first else y


def pack_sequence(sequences: Sequence[Tensor], enforce_sorted: bool = True) -> PackedSequence:
    """Sequences (length_i, ...), packed."""
    lengths = [len(x) for x in sequences]
    return pack_padded_sequence(pad_sequence(sequences), lengths, False, enforce_sorted)
