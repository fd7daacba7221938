"""Which version runs: by the arrays' home and dtype, by `using`, by MINIDIST_KERNELS."""

import contextlib
import contextvars

import numpy as np
import pytest
from minidist.kernels import arrays, gelu, loops
from minidist.kernels.arrays import on_gpu
from minidist.kernels.dispatch import forced, formula, using
from support.double import gpu


@formula
def kernel(x, word="?"):
    """What it is for."""
    return "naive", word


@kernel.version("numba")
def _kernel_loop(x, word="?"):
    return "numba", word


@kernel.version("triton")
def _kernel_triton(x, word="?"):
    return "triton", word


@formula
def only_formula(x):
    return "naive"


HERE = np.ones(2)


@pytest.fixture(autouse=True)
def environment(ask_for_kernels):
    return ask_for_kernels


@pytest.fixture
def there():
    with gpu():
        yield arrays.gpu().asarray(np.ones(2))


def test_by_default_it_goes_by_where_arrays_are(there):
    assert not on_gpu(HERE) and on_gpu(there)
    assert kernel(HERE) == ("numba", "?")
    assert kernel(there, word="a") == ("triton", "a")
    assert kernel("no array", there) == ("triton", there)
    assert only_formula(HERE) == only_formula(there) == "naive"


@pytest.mark.parametrize(
    "dtype, version",
    [("f4", "numba"), ("f8", "numba"), ("f2", "naive"), ("i4", "naive"), ("c8", "naive")],
)
def test_loops_serve_float32_and_float64(dtype, version):
    for name in (None, "numba"):
        with using(name) if name else contextlib.nullcontext():
            assert kernel(HERE.astype(dtype))[0] == version


def test_a_kernel_may_serve_every_dtype():
    every = formula(lambda x: "naive")
    every.version("numba", dtypes=None)(lambda x: "numba")
    assert every(HERE.astype("i4")) == every("no array") == "numba"


def test_without_numba_formulas_run(monkeypatch):
    monkeypatch.setattr(loops, "available", lambda: False)
    assert kernel(HERE)[0] == "naive"
    with using("numba"), pytest.raises(RuntimeError, match="Numba is not installed: pip install"):
        kernel(HERE)


def test_there_the_formula_stands_in_for_tiles_of_a_cache(there):
    both = formula(lambda x: "formula")
    both.version("numba", dtypes=None)(lambda x: "tiles")
    assert both(HERE) == "tiles" and both(there) == "formula"
    assert both.plain(HERE)(0) == "tiles" and both.plain(there)(0) == "formula"
    with using("numba"):
        assert both(HERE) == "tiles" and both(there) == "formula"


def test_using_forces_a_version_and_ends(there):
    with using("triton"):
        assert kernel(HERE)[0] == "triton" and forced() == "triton"
        with using("numba"):
            assert kernel(HERE)[0] == "numba" and kernel(there)[0] == "naive"
        with using("naive"):
            assert kernel(HERE)[0] == "naive"
        assert kernel(HERE)[0] == "triton"
    assert kernel(HERE)[0] == "numba" and forced() is None


def test_using_ends_with_an_error_too():
    with pytest.raises(KeyError), using("triton"):
        raise KeyError
    assert forced() is None


def test_what_is_forced_here_is_not_forced_elsewhere():
    """Simulated ranks run in contexts of their own."""
    other = contextvars.copy_context()
    with using("triton"):
        assert other.run(forced) is None and forced() == "triton"


def test_the_environment_forces_a_version(environment):
    environment("triton")
    assert kernel(HERE)[0] == "triton"
    with using("numba"):
        assert kernel(HERE)[0] == "numba", "using is nearer"
    environment("")
    assert kernel(HERE)[0] == "numba"


def test_unknown_versions_are_refused(environment):
    environment("cuda")
    with pytest.raises(ValueError, match="MINIDIST_KERNELS=cuda: want one of naive, numba, triton"):
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
