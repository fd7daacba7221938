"""Which version of a kernel runs: by the arrays' home, by `using`, by MINIDIST_KERNELS."""

import contextvars

import numpy as np
import pytest
from minidist.kernels import arrays, gelu
from minidist.kernels.arrays import on_gpu
from minidist.kernels.dispatch import dispatched, forced, using
from support.double import gpu


@dispatched
def kernel(x, word="?"):
    """What it is for."""
    return "numpy", word


@kernel.version("triton")
def _kernel_triton(x, word="?"):
    return "triton", word


@dispatched
def only_numpy(x):
    return "numpy"


HERE = np.ones(2)


@pytest.fixture(autouse=True)
def nothing_forced(monkeypatch):
    monkeypatch.delenv("MINIDIST_KERNELS", raising=False)


@pytest.fixture
def there():
    with gpu():
        yield arrays.gpu().asarray(np.ones(2))


def test_by_default_it_goes_by_where_arrays_are(there):
    assert not on_gpu(HERE) and on_gpu(there)
    assert kernel(HERE) == ("numpy", "?")
    assert kernel(there, word="a") == ("triton", "a")
    assert kernel("no array", there) == ("triton", there)
    assert only_numpy(there) == "numpy", "where there is no other version"


def test_there_the_formula_stands_in_for_tiles_of_a_cache(there):
    both = dispatched(lambda x: "tiles")
    both.version("naive")(lambda x: "formula")
    assert both(HERE) == "tiles" and both(there) == "formula"
    assert both.plain(HERE)(0) == "tiles" and both.plain(there)(0) == "formula"
    with using("numpy"):
        assert both(HERE) == "tiles" and both(there) == "formula"


def test_using_forces_a_version_and_ends(there):
    with using("triton"):
        assert kernel(HERE)[0] == "triton" and forced() == "triton"
        with using("numpy"):
            assert kernel(there)[0] == "numpy"
        with using("naive"):
            assert kernel(HERE)[0] == "numpy", "there is no naive version of it"
        assert kernel(HERE)[0] == "triton"
    assert kernel(HERE)[0] == "numpy" and forced() is None


def test_using_ends_with_an_error_too():
    with pytest.raises(KeyError), using("triton"):
        raise KeyError
    assert forced() is None


def test_what_is_forced_here_is_not_forced_elsewhere():
    """Simulated ranks run in contexts of their own."""
    other = contextvars.copy_context()
    with using("triton"):
        assert other.run(forced) is None and forced() == "triton"


def test_the_environment_forces_a_version(monkeypatch):
    monkeypatch.setenv("MINIDIST_KERNELS", "triton")
    assert kernel(HERE)[0] == "triton"
    with using("numpy"):
        assert kernel(HERE)[0] == "numpy", "using is nearer"
    monkeypatch.setenv("MINIDIST_KERNELS", "")
    assert kernel(HERE)[0] == "numpy"


def test_unknown_versions_are_refused(monkeypatch):
    monkeypatch.setenv("MINIDIST_KERNELS", "cuda")
    with pytest.raises(ValueError, match="MINIDIST_KERNELS=cuda: want one of numpy, triton, naive"):
        kernel(HERE)
    with pytest.raises(ValueError, match="no kernels 'cuda'"), using("cuda"):
        pass
    with pytest.raises(AssertionError, match="'cuda'"):
        kernel.version("cuda")


def test_triton_on_numpy_arrays_needs_the_interpreter(monkeypatch):
    for value in ("0", None):
        if value is None:
            monkeypatch.delenv("TRITON_INTERPRET")
        else:
            monkeypatch.setenv("TRITON_INTERPRET", value)
        with using("triton"), pytest.raises(RuntimeError, match="TRITON_INTERPRET=1 before"):
            gelu.forward(HERE)


def test_a_dispatched_kernel_keeps_its_name_and_words():
    assert kernel.__name__ == "kernel" and kernel.__doc__ == "What it is for."
