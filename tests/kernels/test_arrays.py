"""One set of names for both kinds of arrays: by their arguments, and beside them."""

import numpy
import pytest
from minidist.kernels import arrays as xp
from support.double import gpu


def test_without_a_gpu_the_names_are_numpys_own():
    own = lambda name: getattr(xp, name) is getattr(numpy, name)
    # before its first call, a product is a function that gives BLAS its threads: test_blas.py
    names = [n for n in numpy.__all__ if n not in xp.PRODUCTS and not own(n)]
    assert not names and xp.gpu() is None and not xp.on_gpu(numpy.ones(2))


def test_with_one_functions_go_by_their_arguments():
    with gpu():
        here, there = numpy.ones(3), xp.gpu().asarray(numpy.ones(3))
        assert not xp.on_gpu(xp.exp(here)) and xp.on_gpu(xp.exp(there))
        assert xp.on_gpu(xp.concatenate([there, there])), "arrays in a list count"
        assert xp.on_gpu(xp.zeros_like(there)) and not xp.on_gpu(xp.zeros_like(here))
        assert xp.shape(there) == (3,) and isinstance(there, xp.ndarray | xp.generic)
        assert isinstance(here, xp.ndarray) and not isinstance([1], xp.ndarray)
        with pytest.raises(NotImplementedError, match="CuPy has no function vecdot"):
            xp.vecdot(there, there)
    assert xp.exp is numpy.exp and xp.ndarray is numpy.ndarray, "and then they are NumPy's again"


def test_what_is_made_of_nothing_is_made_beside_what_is_there():
    with gpu():
        there = xp.gpu().asarray(numpy.ones(3))
        assert not xp.on_gpu(xp.zeros(2))
        with xp.beside("x", there):
            made = xp.zeros(2), xp.arange(3), xp.full((2,), 1.0), xp.asarray([1, 2]), xp.eye(2)
            assert all(map(xp.on_gpu, made))
            assert not xp.on_gpu(xp.asarray(numpy.ones(2))), "an array stays where it is"
            with xp.beside(numpy.ones(2)):
                assert not xp.on_gpu(xp.zeros(2))
            assert xp.on_gpu(xp.zeros(2))
        assert not xp.on_gpu(xp.zeros(2))


def test_the_largest_of_nothing():
    with gpu():
        for x in (numpy.zeros((2, 0)), xp.gpu().asarray(numpy.zeros((2, 0)))):
            assert xp.highest(x, 1, True).tolist() == [[-numpy.inf], [-numpy.inf]]
        assert xp.highest(xp.gpu().asarray(numpy.array([1.0, 5.0]))).tolist() == 5


def test_indices_are_looked_at_where_that_costs_nothing():
    assert xp.outside(numpy.array([0, 3]), 3) and xp.outside(numpy.array([-1]), 3)
    assert not xp.outside(numpy.array([0, 2]), 3) and not xp.outside(numpy.array([], int), 3)
    with gpu() as copies:
        assert not xp.outside(xp.gpu().asarray(numpy.array([9])), 3) and not +copies


def test_an_array_is_fetched_to_another():
    with gpu():
        here, there = numpy.ones(3), xp.gpu().asarray(numpy.ones(3))
        assert xp.on_gpu(xp.at_home_of(there, here)) and xp.at_home_of(here, there) is there
        assert xp.at_home_of(here, here) is here
