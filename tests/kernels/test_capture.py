"""Kernels that a CUDA graph can replay: Adam's count on the device, an embedding without a sort."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minidist.kernels import adamw, embedding
from minidist.kernels.dispatch import using
from support.cases import LAYOUTS, SEEDS, laid_out
from support.tritons import poisoned, traffic

VERSIONS = ["numba", "naive", "triton"]
HYPER = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-5}
BOUND = {"float32": 3e-7, "float64": 1e-13}  # factors, relatively


# Adam


def stepped(version, dtype, step, lr=0.1, **options):
    """Parameters and moments after a step, from the same ones each time."""
    rng = np.random.default_rng(0)
    p, g, m = (rng.standard_normal(1500).astype(dtype) for _ in range(3))
    v, highest = (rng.uniform(0.01, 2, 1500).astype(dtype) for _ in range(2))
    highest = highest if options.pop("amsgrad", False) else None
    options = {"weight_decay": 0.1, **HYPER, **options}
    with using(version):
        adamw.step_(p, g, m, v, step=step, lr=lr, highest=highest, **options)
    return [p, m, v] + ([] if highest is None else [highest])


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("lr", [0.1, np.array(0.1), np.array(0.1, "f")])
@pytest.mark.parametrize(
    "options", [{}, {"weight_decay": 0.0}, {"decoupled": False}, {"amsgrad": True}]
)
def test_a_count_on_the_device_gives_the_same_step(version, dtype, lr, options):
    count = np.array(2)
    wanted = stepped("numba", dtype, 3, float(lr), **options)
    found = stepped(version, dtype, count, lr, **options)
    assert count == 3
    bound = 2e-6 if dtype == "float32" else 1e-12
    assert max(np.abs(a - b).max() for a, b in zip(found, wanted)) <= bound


TEXTS = {"numba": adamw._counted, "triton": adamw._counted_triton}


def factors(text, dtype, done, decoupled=True, **hyper):
    step, hyper = np.array(done), {**HYPER, **hyper}
    found = TEXTS[text](
        np.empty(1, dtype), step, 0.1, **hyper, weight_decay=0.1, decoupled=decoupled
    )
    assert step == done + 1
    return found


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("done", [0, 1, 999, 10**6])
def test_the_factors_of_a_step(text, dtype, done):
    root, rest = (1 - 0.999 ** (done + 1)) ** 0.5, 1 - 0.9 ** (done + 1)
    wanted = np.array([0.1 * root / rest, 1e-5 * root, 1 - 0.1 * 0.1])
    found = factors(text, dtype, done)
    assert np.abs(found / wanted - 1).max() <= BOUND[dtype]
    assert factors(text, dtype, done, decoupled=False)[2] == np.dtype(dtype).type(0.1)


@pytest.mark.parametrize("text", TEXTS)
def test_betas_of_0(text):
    found = factors(text, "float64", 0, beta1=0.0, beta2=0.0)
    np.testing.assert_allclose(found, [0.1, 1e-5, 0.99], rtol=1e-14)


def test_in_float32_the_first_factors_would_be_off():
    one = np.float32(1)
    assert abs(float((one - np.float32(0.999)) / 0.001) - 1) > 10 * BOUND["float32"]


def test_bytes_moved_by_adam():
    """Beside the arrays: the count twice, three factors once, and again for each program."""
    with traffic() as count:
        stepped("triton", "float32", np.array(2))
    assert dict(count) == {"load": 4 * 4 * 1500 + 8 + 2 * 12, "store": 3 * 4 * 1500 + 8 + 12}


# The embedding's gradient

SHAPES = [(1, 1, 1), (40, 5, 3), (30, 300, 20), (25, 8, 1), (50, 3, 90)]  # n, h, rows


@pytest.fixture(params=["whole", "pieces"])
def pieces(request, monkeypatch):
    """All indices looked at together, or 16 at a time."""
    monkeypatch.setattr(embedding, "capturing", lambda: True)
    if request.param == "pieces":
        monkeypatch.setattr(embedding, "SEEN", 16)


def difference(dtype, g, index, rows):
    with using("triton"), poisoned():
        found = embedding.backward(g, index, rows)
    wanted = embedding.backward.formula(g.astype("float64"), index, rows)
    assert found.dtype == g.dtype and found.shape == wanted.shape
    return (np.abs(found - wanted) / np.maximum(1, np.abs(wanted))).max(initial=0)


@pytest.mark.parametrize(
    "dtype, bound", [("float16", 2**-10), ("float32", 1e-6), ("float64", 1e-14)]
)
def test_without_sorting_it_is_the_formula(dtype, bound, pieces):
    @given(shape=st.sampled_from(SHAPES), seed=SEEDS, layout=st.sampled_from(LAYOUTS))
    @settings(max_examples=5, deadline=None)
    def check(shape, seed, layout):
        rng, (n, h, rows) = np.random.default_rng(seed), shape
        g = laid_out(rng.standard_normal((n, h)).astype(dtype), layout)
        assert difference(dtype, g, rng.integers(0, rows, n), rows) <= bound

    check()


def test_an_index_outside_adds_nothing(pieces):
    g = np.ones((4, 3), "f")
    with using("triton"):
        table = embedding.backward(g, np.array([2, -1, 9, 2]), 3)
    assert table.tolist() == [[0] * 3, [0] * 3, [2] * 3]


def test_every_index_is_read_for_every_row(pieces):
    """Of rows that come first, all from there on; g once."""
    n, h = 40, 5
    with using("triton"), traffic() as count:
        embedding.backward(np.ones((n, h), "f"), np.arange(n), n)
    assert count["store"] == 4 * n * h
    assert count["load"] - 4 * n * h >= 8 * n * n


def test_a_row_that_is_not_the_first_but_adds_is_seen(pieces, monkeypatch):
    kernel = embedding._first_kernel

    class LastIndexMissing:
        def __getitem__(self, grid):
            def launch(g, index, table, n, *rest, **constants):
                kernel[grid](g, index, table, n - 1, *rest, **constants)

            return launch

    monkeypatch.setattr(embedding, "_first_kernel", LastIndexMissing())
    g = np.ones((9, 3), "f")
    assert difference("float32", g, np.zeros(9, int), 2) > 0.01
