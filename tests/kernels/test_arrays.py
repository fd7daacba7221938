"""One set of names for both kinds of arrays: by their arguments, and beside them."""

import numpy
import pytest
from double import gpu
from minidist.kernels import arrays as np


def test_without_a_gpu_the_names_are_numpys_own():
    names = [n for n in numpy.__all__ if getattr(np, n) is not getattr(numpy, n)]
    assert not names and np.gpu() is None and not np.on_gpu(numpy.ones(2))


def test_with_one_functions_go_by_their_arguments():
    with gpu():
        here, there = numpy.ones(3), np.gpu().asarray(numpy.ones(3))
        assert not np.on_gpu(np.exp(here)) and np.on_gpu(np.exp(there))
        assert np.on_gpu(np.concatenate([there, there])), "arrays in a list count"
        assert np.on_gpu(np.zeros_like(there)) and not np.on_gpu(np.zeros_like(here))
        assert np.shape(there) == (3,) and isinstance(there, np.ndarray | np.generic)
        assert isinstance(here, np.ndarray) and not isinstance([1], np.ndarray)
        with pytest.raises(NotImplementedError, match="CuPy has no function vecdot"):
            np.vecdot(there, there)
    assert np.exp is numpy.exp and np.ndarray is numpy.ndarray, "and then they are NumPy's again"


def test_what_is_made_of_nothing_is_made_beside_what_is_there():
    with gpu():
        there = np.gpu().asarray(numpy.ones(3))
        assert not np.on_gpu(np.zeros(2))
        with np.beside("x", there):
            made = np.zeros(2), np.arange(3), np.full((2,), 1.0), np.asarray([1, 2]), np.eye(2)
            assert all(map(np.on_gpu, made))
            assert not np.on_gpu(np.asarray(numpy.ones(2))), "an array stays where it is"
            with np.beside(numpy.ones(2)):
                assert not np.on_gpu(np.zeros(2))
            assert np.on_gpu(np.zeros(2))
        assert not np.on_gpu(np.zeros(2))


def test_the_largest_of_nothing():
    with gpu():
        for x in (numpy.zeros((2, 0)), np.gpu().asarray(numpy.zeros((2, 0)))):
            assert np.highest(x, 1, True).tolist() == [[-numpy.inf], [-numpy.inf]]
        assert np.highest(np.gpu().asarray(numpy.array([1.0, 5.0]))).tolist() == 5


def test_indices_are_looked_at_where_that_costs_nothing():
    assert np.outside(numpy.array([0, 3]), 3) and np.outside(numpy.array([-1]), 3)
    assert not np.outside(numpy.array([0, 2]), 3) and not np.outside(numpy.array([], int), 3)
    with gpu() as copies:
        assert not np.outside(np.gpu().asarray(numpy.array([9])), 3) and not +copies


def test_an_array_is_fetched_to_another():
    with gpu():
        here, there = numpy.ones(3), np.gpu().asarray(numpy.ones(3))
        assert np.on_gpu(np.at_home_of(there, here)) and np.at_home_of(here, there) is there
        assert np.at_home_of(here, here) is here
