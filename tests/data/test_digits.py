"""The digits: real images, split by the seed, every class held out alike."""

import builtins

import numpy as np
import pytest

from minidist.errors import UserError

pytest.importorskip("sklearn", reason="scikit-learn is not installed: it carries the digits")


@pytest.fixture(scope="module")
def load():
    from minidist.data.digits import load_digits

    return load_digits


def test_sizes_types_and_range(load):
    x, y, test_x, test_y = load(0)
    assert len(x) == len(y) and len(test_x) == len(test_y)
    assert len(y) + len(test_y) == 1797 and len(test_y) == pytest.approx(1797 / 5, abs=5)
    assert x.shape[1:] == test_x.shape[1:] == (8, 8)
    assert (x.dtype, y.dtype) == (np.float32, np.int64)
    assert x.min() == 0 and x.max() == 1


def test_every_class_is_held_out_alike(load):
    _, y, _, test_y = load(3)
    share = np.bincount(test_y) / (np.bincount(y) + np.bincount(test_y))
    assert np.abs(share - 0.2).max() < 0.01


def test_parts_are_disjoint_and_complete(load):
    x, _, test_x, _ = load(1)
    rows = {a.tobytes() for a in x}, {a.tobytes() for a in test_x}
    assert not rows[0] & rows[1]
    assert len(rows[0] | rows[1]) == 1797


def test_the_seed_alone_decides(load):
    assert load(5)[3].tolist() == load(5)[3].tolist()
    assert load(5)[3].tolist() != load(6)[3].tolist()


def test_without_scikit_learn_the_error_says_what_to_install(load, monkeypatch):
    real = builtins.__import__

    def absent(name, *args, **options):
        if name.startswith("sklearn"):
            raise ImportError(name)
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(UserError, match="pip install scikit-learn"):
        load(0)
