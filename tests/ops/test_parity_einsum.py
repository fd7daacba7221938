"""Einsum in all its forms beside PyTorch's: values and gradients."""

import numpy as np
import pytest
from support.cases import numbers
from support.parity import compare, torch

import minidist as md

X, Y, ROW, LONG = numbers((2, 3, 4), 0), numbers((2, 3, 4), 1), numbers((4,), 2), numbers((7,), 4)
NONE, ONE, SQUARE = np.zeros((0, 3)), np.array(1.5), numbers((3, 3), 3)
INT = np.array([[3, -3, 0], [-1, 2, 5]])
MATRIX, OTHER, THIRD = numbers((3, 4), 0), numbers((4, 5), 1), numbers((5, 3), 2)
CUBE = numbers((3, 3, 3), 3)
EINSUMS = {
    "ij,jk->ik": [MATRIX, OTHER], "ij,jk": [MATRIX, OTHER], "ij->ji": [MATRIX], "ba": [MATRIX],
    "ij->": [MATRIX], "ij->i": [MATRIX], "aB": [MATRIX], " i j , j k -> k i ": [MATRIX, OTHER],
    "ii": [SQUARE], "ii->i": [SQUARE], "iii->i": [CUBE], "iij->j": [CUBE], "iji->ij": [CUBE],
    "iij,jkk->ik": [CUBE, CUBE], "ii,ii->i": [SQUARE, SQUARE], "i,i": [LONG, LONG],
    "i,j->ij": [LONG, LONG], "i,j->ji": [LONG, ROW], "i,j->": [LONG, ROW], "i,i->i": [LONG, LONG],
    "bij,bjk->bik": [CUBE, CUBE], "bij,bkj->bik": [CUBE, CUBE], "bij,bjk->ki": [CUBE, CUBE],
    "bij,jk->bik": [CUBE, SQUARE], "bij,bij->b": [CUBE, CUBE], "bij,bij->bij": [CUBE, CUBE],
    "bij,bi->bj": [CUBE, SQUARE], "bij,cij->bc": [CUBE, CUBE], "ijk,kji->j": [CUBE, CUBE],
    "ij,jk,kl->il": [MATRIX, OTHER, THIRD], "ij,jk,ki": [MATRIX, OTHER, THIRD],
    "ij,jk,ki->j": [MATRIX, OTHER, THIRD], "i,i,i->i": [LONG] * 3, "i,j,k->kij": [ROW, LONG, ROW],
    "...ij,...jk->...ik": [X, numbers((4, 2), 5)], "...ij,...kj->...ik": [X, Y],
    "...j->...": [X], "...j": [X], "...j->j...": [X], "i...->...": [X], "i...j->...": [X],
    "...i,...i": [X, ROW], "...,...": [X, ROW], "...a,b->...ba": [X, ROW], "...i->i": [X],
    "b...d,d...->b...": [X, numbers((4, 3), 6)], ",->": [ONE, ONE], ",ij": [ONE, MATRIX],
    "ij,ij->ij": [MATRIX, MATRIX[:1]], "ij,ij": [MATRIX, MATRIX[:, :1]], "ij->...ij": [MATRIX],
    "ij,kj->ik": [MATRIX[:, :1], MATRIX], "...ij,...jk": [X[:1], numbers((3, 4, 2), 7)],
    "ij,jk->ik ": [NONE, numbers((3, 2), 8)], "ji,jk->ik": [NONE, NONE], "ij,ij->j": [NONE, NONE],
    "bqhd,bkhd->bhqk": [numbers((2, 3, 2, 4), 0), numbers((2, 5, 2, 4), 1)],
    "bhqk,bkhd->bqhd": [numbers((2, 2, 3, 5), 0), numbers((2, 5, 2, 4), 1)],
    "ij,jk->": [INT, INT.T.copy()],
}  # fmt: skip


@pytest.mark.parametrize("equation", EINSUMS)
def test_einsum(equation):
    ours, theirs = (lambda *x, m=m: m.einsum(equation, *x) for m in (md, torch))
    compare(ours, theirs, EINSUMS[equation])


def test_einsum_of_a_list_of_operands():
    for m in (md, torch):
        x, y = m.tensor([[1.0, 2.0], [3.0, 4.0]]), m.tensor([[5.0, 6.0], [7.0, 8.0]])
        assert m.einsum("ij,jk", [x, y]).tolist() == (x @ y).tolist()
