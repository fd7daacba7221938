"""The digits: real images, in [0, 1], split by class and by seed."""

import sys

import numpy as np
import pytest

from minidist.data.digits import load_digits
from minidist.errors import UserError


def rows(x: np.ndarray, y: np.ndarray) -> list[bytes]:
    return sorted(a.tobytes() + bytes([b]) for a, b in zip(x, y))


@pytest.fixture(scope="module")
def split():
    pytest.importorskip("sklearn", reason="scikit-learn is not installed: it carries the digits")
    return load_digits(0)


def test_they_are_all_there_once(split):
    from sklearn.datasets import load_digits as bundled

    x, y, test_x, test_y = split
    images, labels = bundled(return_X_y=True)
    expected = (images / 16).astype("float32").reshape(-1, 8, 8)
    both = np.concatenate([x, test_x]), np.concatenate([y, test_y])
    assert rows(*both) == rows(expected, labels) and len(labels) == 1797
    assert (x.dtype, y.dtype, x.shape[1:]) == (np.float32, np.int64, (8, 8))
    assert both[0].min() == 0 and both[0].max() == 1


def test_every_class_gives_a_fifth(split):
    _, y, _, test_y = split
    train, test = np.bincount(y), np.bincount(test_y)
    np.testing.assert_array_equal(test, (train + test) // 5)
    assert abs(len(test_y) / 1797 - 0.2) < 0.003


def test_the_seed_decides(split):
    again, other = load_digits(0), load_digits(1)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(split, again))
    assert rows(*other[2:]) != rows(*split[2:])


def test_both_parts_are_shuffled(split):
    for y in (split[1], split[3]):
        assert 0.05 < np.mean(y[1:] == y[:-1]) < 0.15, "neighbours are of one class by chance alone"


def test_without_scikit_learn_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(UserError, match="pip install scikit-learn"):
        load_digits()
