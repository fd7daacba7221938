"""Padding by the edges beside PyTorch's: every mode, what is cut, what is refused, 16 bits."""

import itertools

import pytest
from support.cases import numbers
from support.parity import compare, error_of, to_torch, torch

import minidist as md
from minidist.nn import functional as F

theirs = torch.nn.functional.pad
MODES = ("reflect", "replicate", "circular")
ROWS, IMAGE, VOLUME = numbers((2, 4), 0), numbers((2, 3, 4, 5), 1), numbers((1, 2, 4, 3, 5), 2)


@pytest.mark.parametrize("mode", MODES)
def test_every_pad_of_a_row_is_pytorchs(mode):
    """From more cut off than there is to more added than there is."""
    for pad in itertools.product((-5, -3, -1, 0, 1, 3, 4, 5), repeat=2):
        cut_and_wrapped = mode == "circular" and min(pad) < 0 < max(pad)
        if cut_and_wrapped and max(pad) > max(4 + min(pad), 0):
            continue  # PyTorch repeats, or reads memory that nothing was written to
        wanted = error_of(lambda p=pad: theirs(to_torch(ROWS), p, mode))
        assert error_of(lambda p=pad: F.pad(md.tensor(ROWS), p, mode)) is wanted, pad
        if wanted is None:
            compare(lambda x, p=pad: F.pad(x, p, mode), lambda x, p=pad: theirs(x, p, mode), [ROWS])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("x, pad", [
    (IMAGE, (1, 2, 3, 0)), (IMAGE, (-1, 2, 0, -2)), (IMAGE[0], (2, 0, 1, 1)),
    (VOLUME, (1, 2, 1, 1, 0, 3)), (VOLUME[0], (0, 1, -1, 0, 2, 2)),
])  # fmt: skip
def test_of_images_and_volumes(mode, x, pad):
    compare(lambda x: F.pad(x, pad, mode), lambda x: theirs(x, pad, mode), [x])


MISFITS = [
    ((4,), (1, 1)), ((2, 3, 4, 5), (1, 1)), ((4, 5), (1,) * 4), ((3, 4, 5), (1,) * 6),
    ((0, 3, 4), (1, 1)), ((2, 0, 4), (1, 1)), ((2, 3, 0), (1, 1)), ((0, 4), (1, 1)),
    ((2, 0, 4, 4), (1,) * 4), ((3, 4), (1,)), ((3, 4), (1,) * 3), ((3, 4), ()),
    ((1, 1), (0, 0, -1, -1)), ((1, 1, 1), (0, 0, 0, -1)), ((2, 3, 4), (-5, 0, 1, 1)),
]  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
def test_what_is_refused_is_what_pytorch_refuses(mode):
    ours = [error_of(lambda m=m: F.pad(md.ones(m[0]), m[1], mode)) for m in MISFITS]
    wanted = [error_of(lambda m=m: theirs(torch.ones(m[0]), m[1], mode)) for m in MISFITS]
    assert ours == wanted and {RuntimeError, NotImplementedError, None} == set(ours)


def test_errors_say_what_to_change():
    x = md.ones(2, 4)
    for error, words, pad, mode, value in (
        (NotImplementedError, "'mirror': want one of constant, reflect", (1, 1), "mirror", None),
        (NotImplementedError, r"want 2, 4 or 6 numbers for \(n, c, …\)", (1,) * 4, "reflect", None),
        (RuntimeError, "value 1.0 with mode 'reflect': leave it out", (1, 1), "reflect", 1.0),
        (RuntimeError, "'reflect': at most 3 of 4 elements", (4, 0), "reflect", None),
        (RuntimeError, "at most 3 of 4 elements, 1 of them cut", (4, -1), "circular", None),
    ):
        with pytest.raises(error, match=words):
            F.pad(x, pad, mode, value)
    assert F.pad(x, (1, 1), "reflect", 0.0).shape == (2, 6)


def test_integers_and_bools_are_padded():
    x = md.tensor([[1, 2, 3]])
    assert F.pad(x, (2, 1), "reflect").tolist() == [[3, 2, 1, 2, 3, 2]]
    assert F.pad(x > 1, (1, 1), "circular").tolist() == [[True, False, True, True, False]]
    assert F.pad(x, (1, 0), "replicate").dtype == "int64"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_copies_are_added_up_in_float32(dtype):
    """A sum of ones in bfloat16 stands still at 256."""
    x = md.ones(1, 2).to(dtype).requires_grad_()
    F.pad(x, (0, 300), "replicate").sum().backward()
    assert x.grad.dtype == x.dtype and (x.grad == md.tensor([[1.0, 301.0]]).to(dtype)).all()
