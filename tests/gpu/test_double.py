"""The double refuses what CuPy refuses: else nothing that passes on it would be proof."""

import numpy as np
import pytest
from minidist.kernels import arrays
from support.double import copies, gpu


def there(x):
    return arrays.gpu().asarray(np.asarray(x))


@pytest.fixture(autouse=True)
def on_a_gpu():
    with gpu():
        yield


def test_it_does_not_become_numpys_unasked():
    x = there([1.0, 2.0])
    for convert in (np.asarray, np.array, lambda x: np.ones(2) + x, lambda x: x + np.ones(2)):
        with pytest.raises(TypeError):
            convert(x)
    with pytest.raises(TypeError):
        np.matmul(x, x)
    with pytest.raises(TypeError):
        np.concatenate([x, x])
    assert isinstance(np.exp(x), type(x)), "ufuncs come through the protocol, as CuPy's do"
    assert isinstance(np.float32(2) * x, type(x))


def test_what_cupy_has_not_is_refused():
    x = there(np.ones((2, 3)))
    for call in (
        lambda: x.max(initial=0), lambda: x.sum(where=x > 0), lambda: x.setflags(write=False),
        lambda: arrays.gpu().vecdot(x, x), lambda: arrays.gpu().exp(x, where=x > 0),
        lambda: x.argsort(kind="quicksort"), lambda: arrays.gpu().maximum.accumulate(x),
    ):  # fmt: skip
        with pytest.raises((TypeError, AttributeError, ValueError, NotImplementedError)):
            call()


def test_reductions_give_arrays_and_numbers_are_counted():
    x = there([3.0, 1.0])
    assert x.max().shape == () and not +copies
    assert float(x.max()) == 3 and int(x.sum()) == 4 and bool(x[0] > 2)
    assert +copies == {"float": 1, "int": 1, "bool": 1}


def test_views_know_their_owner():
    x = there(np.zeros((2, 3)))
    view = x.T[1:].reshape(2, 2)
    assert view.base is x or view.base is None
    assert x[0].base is x and x.T[1].base is x
    x[0, 1] = 5.0
    assert x.T[1].tolist() == [5, 0]
