"""Errors that teach where a slip is easy: integers, a tensor for a list, labels out of range."""

import pytest

import minidist as md
from minidist.nn import functional as F

WHOLE = md.ones(1, 2, 6).long()
SLIPS = {
    "gelu of int64: convert with .float()": (NotImplementedError, lambda: F.gelu(WHOLE)),
    "packed of int64": (NotImplementedError, lambda: F.packed_attention(WHOLE, 1)),
    "attention of int64": (
        NotImplementedError, lambda: F.scaled_dot_product_attention(WHOLE, WHOLE, WHOLE)),
    "layer_norm of int64": (NotImplementedError, lambda: F.layer_norm(WHOLE, (6,))),
    "cat takes a list": (TypeError, lambda: md.cat(md.ones(2), md.ones(2))),
    r"input \(2,\) and weight \(\)": (RuntimeError, lambda: F.linear(md.ones(2), md.tensor(1.0))),
    "targets .* are not classes 0 to 2": (
        RuntimeError, lambda: F.ctc_loss(md.zeros(3, 1, 3), md.tensor([[3]]), [3], [1])),
    "targets .*-1.* are not classes": (
        RuntimeError, lambda: F.ctc_loss(md.zeros(3, 1, 3), md.tensor([-1]), [3], [1])),
}  # fmt: skip


@pytest.mark.parametrize("text", SLIPS)
def test_a_slip_is_told(text):
    kind, slip = SLIPS[text]
    with pytest.raises(kind, match=text):
        slip()


def test_labels_past_their_length_are_nobodys():
    loss = F.ctc_loss(md.zeros(3, 1, 3), md.tensor([[1, 99]]), [3], [1])
    assert loss.isfinite().item()
