"""Products: tile program ≡ loop ≡ the formula in float64; plans, bytes moved, temporary memory."""

import contextlib
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minidist.kernels import matmul as k
from minidist.kernels import matmul_plan as plan
from minidist.kernels import matmul_tma
from minidist.kernels.dispatch import using
from minidist.kernels.half_precision import BFLOAT16, wide
from support import tritons
from support.cases import LAYOUTS, SEEDS, laid_out
from support.peak import peak
from support.tritons import traffic

AMPERE, HOPPER, WIDE_HOPPER = (80, 2), (90, 2), (90, 132)  # compute capability, SMs
DTYPES = ("float32", "float16", "bfloat16", "float64")
ACTIVATIONS = (None, *k.FORMULAS)
# half of the last digit; the interpreter cuts bfloat16 off where a GPU rounds: a whole one
DIGIT = {"float64": 2**-53, "float32": 2**-24, "float16": 2**-11, "bfloat16": 2**-7}
LEAST = {"float16": 2**-25}  # half of the smallest number


def both(*args):
    with np.errstate(over="ignore"):  # the interpreter's sigmoid: exp(-x) may be infinite
        return tritons.both(*args)


@contextlib.contextmanager
def on(machine, **changes):
    """As if arrays lay on that machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "INTERPRETED", machine)
        for name, value in changes.items():
            patch.setattr(plan, name, value)
        yield


def array(shape, dtype, seed, layout="C", transposed=False):
    """Normal numbers; transposed, a view of an array that lies the other way."""
    x = np.random.default_rng(seed).standard_normal(shape[::-1] if transposed else shape)
    x = laid_out(stored(x, dtype), layout if x.size and dtype != "bfloat16" else "C")
    return x.T if transposed else x


def stored(x, dtype):
    return np.asarray(x).astype(BFLOAT16 if dtype == "bfloat16" else dtype)


def exact(x):
    return None if x is None else wide(x).astype(np.float64)


def excess(y, a, b, bias, activation, dtype, digit=None):
    """The worst error over what the rounding of k + 2 operations and of the result allows: <= 1.

    No activation's slope is over 1.13; erf and tanh are good to 1e-6 of |z|, in float32.
    """
    a, b, bias = map(exact, (a, b, bias))
    wanted = k.matmul.formula(a, b, bias, activation)
    size = np.abs(a) @ np.abs(b) + (0 if bias is None else np.abs(bias))
    inner = DIGIT["float64"] if (digit or dtype) == "float64" else DIGIT["float32"]
    allowed = 1.2 * (a.shape[-1] + 2 + 16 * (activation is not None)) * inner * size
    allowed += DIGIT[digit or dtype] * (np.abs(wanted) + allowed) + LEAST.get(dtype, 1e-300)
    assert y.shape == wanted.shape
    return (np.abs(exact(y) - wanted) / allowed).max(initial=0)


def check(m, n, depth, dtype, orders, layout="C", activation=None, bias=True, seed=0):
    a = array((m, depth), dtype, seed, layout, orders[0] == "t")
    b = array((depth, n), dtype, seed + 1, layout, orders[1] == "t")
    bias = array((n,), dtype, seed + 2) if bias else None
    for y in both(k.matmul, a, b, bias, activation):
        assert excess(y, a, b, bias, activation, dtype) <= 1


SIDES = st.sampled_from([1, 2, 7, 16, 33, 64, 72, 130])


@pytest.mark.parametrize("dtype", DTYPES)
@given(m=SIDES, n=SIDES, depth=st.sampled_from([1, 3, 8, 16, 50, 64, 136]), bias=st.booleans(),
       orders=st.sampled_from(["nn", "nt", "tn", "tt"]), layout=st.sampled_from(LAYOUTS),
       activation=st.sampled_from(ACTIVATIONS), seed=SEEDS, rows=st.integers(1, 99),
       machine=st.sampled_from([AMPERE, HOPPER, WIDE_HOPPER]))  # fmt: skip
@settings(max_examples=60)
def test_triton_is_the_loop_is_the_formula(
    dtype, m, n, depth, bias, orders, layout, activation, seed, rows, machine
):
    with on(machine), pytest.MonkeyPatch.context() as patch:
        patch.setattr(k, "ROWS", rows)
        check(m, n, depth, dtype, orders, layout, activation, bias, seed)


@pytest.mark.parametrize("m, n, depth", [(0, 3, 4), (3, 0, 4), (3, 4, 0), (0, 0, 0), (1, 1, 1)])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_sizes_of_none_and_one(m, n, depth, dtype):
    check(m, n, depth, dtype, "nn", activation="silu")
    check(m, n, depth, dtype, "tt")


ALL_TILES = [(kind, tile) for kind, tiles in plan.TILES.items() for tile in tiles]


@pytest.mark.parametrize("kind, tile", ALL_TILES, ids=lambda x: "x".join(map(str, x[:3])))
def test_every_tile(kind, tile):
    """Sizes that are no multiples of the tile's; z is kept; then slices of k."""
    dtype = "float16" if kind in ("tma", "mma", "odd") else "float32"
    step = 1 if kind == "odd" else 8
    a = array((tile.BM + 3 * step, 128), dtype, 0)[:, : 128 - 3 * step]
    b = array((tile.BN + step, 128), dtype, 1).T[: 128 - 3 * step]
    bias, (out, pre) = array((b.shape[1],), dtype, 2), array((2, len(a), b.shape[1]), dtype, 3)
    precision = kind if kind in plan.TILES and dtype == "float32" else "ieee"
    with on(HOPPER if kind == "tma" else AMPERE, TILES={kind: (tile,)}, PADS=10**6):
        ours, theirs = both(k.matmul, a, b, bias, "gelu", out, pre, precision)
        assert ours is out and theirs is out, "out is what is returned"
        assert excess(theirs, a, b, bias, "gelu", dtype) <= 1
        assert excess(pre, a, b, bias, None, dtype) <= 1
    a, b = array((40, 256), dtype, 0, transposed=True), array((256, 24 + step % 2), dtype, 1)
    with on((90 if kind == "tma" else 80, 10**4), TILES={kind: (tile,)}, SUM=0):
        for y in both(k.matmul, a, b, None, "relu", None, None, precision):
            assert excess(y, a, b, None, "relu", dtype) <= 1


@pytest.mark.parametrize("machine", [AMPERE, HOPPER])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_what_is_written_may_lie_anywhere(dtype, machine):
    a, b = array((33, 40), dtype, 0), array((40, 50), dtype, 1)
    with on(machine):
        for out in (np.empty((50, 33), dtype).T, np.empty((33, 99), dtype)[:, ::2][:, :50]):
            pre = np.full_like(out, np.nan)
            for y in both(k.matmul, a, b, None, "silu", out, pre):
                assert y is out and excess(y, a, b, None, "silu", dtype) <= 1
                assert excess(pre, a, b, None, None, dtype) <= 1
        for y in both(k.matmul, a, b, None, "relu", np.empty((33, 50), np.float32)):
            assert excess(y, a, b, None, "relu", "float32") <= 1


@pytest.mark.parametrize("machine", [AMPERE, HOPPER])
@pytest.mark.parametrize("shapes", [((2, 3, 5, 8), (8, 16)), ((2, 3, 5, 8), (3, 8, 16)),
                                    ((5, 8), (2, 8, 16)), ((2, 1, 5, 8), (3, 8, 7)),
                                    ((0, 5, 8), (8, 4)), ((0, 5, 8), (0, 8, 4))])  # fmt: skip
def test_stacks_of_matrices(shapes, machine):
    for dtype in ("float32", "float16"):
        a, b = (np.random.default_rng(0).integers(-4, 5, shape).astype(dtype) for shape in shapes)
        with on(machine), using("triton"):
            for y in (k.matmul(a, b, None, "relu"), k.matmul.versions["numba"](a, b, None, "relu")):
                np.testing.assert_array_equal(y, np.maximum(np.matmul(a, b), 0))


@pytest.mark.parametrize("machine", [AMPERE, HOPPER])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_linear_layer_forward_and_backward(dtype, machine):
    """Whole numbers, whose sums are exact in float32: the last bit must agree."""
    rng, shapes = np.random.default_rng(0), [(48, 24), (40, 24), (48, 40), (40,)]
    x, w, g, bias = (rng.integers(-3, 4, shape).astype(np.float32) for shape in shapes)
    x16, w16, g16, bias16 = (stored(v, dtype) for v in (x, w, g, bias))
    with on(machine):
        for call, wanted in (
            ((k.matmul, x16, w16.T, bias16), x @ w.T + bias),
            ((k.matmul, g16, w16), g @ w),
            ((k.matmul, g16.T, x16), g.T @ x),
            ((k.column_sums, g16), g.sum(0)),
        ):
            for y in both(*call):
                if dtype == "bfloat16":  # the interpreter cuts digits off
                    np.testing.assert_allclose(wide(y), wanted, rtol=2**-7)
                else:
                    np.testing.assert_array_equal(y, stored(wanted, dtype))


def test_transposed_views_are_no_copies():
    x = np.ones((3, 64, 40), np.float16)
    for view in (x, x.swapaxes(1, 2), x[:1, :, 8:], x[1:, 5:6], x[:, :, :1]):
        assert plan.operand(view, 10**6).array is view
    assert not np.shares_memory(plan.operand(x[:, ::2, ::2], 0).array, x)
    odd = x[:, :, 1:]
    assert plan.operand(odd, 0).array is odd and not plan.operand(odd, 0).tma
    assert plan.operand(odd, 10**6).tma, "what many rows use is copied to where TMA reads it"


@given(m=st.integers(1, 9000), n=st.integers(1, 9000), depth=st.integers(1, 9000),
       kind=st.sampled_from(list(plan.TILES)), batches=st.sampled_from([1, 7]))  # fmt: skip
def test_plans_can_be_carried_out(m, n, depth, kind, batches):
    tile, slices = plan.choose(kind, batches, m, n, depth, 132)
    assert tile in plan.TILES[kind] and depth % slices == 0
    assert slices == 1 or (batches == 1 and depth // slices % 64 == 0)


def test_plans_suit_the_shape():
    choose = lambda m, n, depth: plan.choose("tma", 1, m, n, depth, 132)
    for size in (2048, 4096, 8192):
        assert choose(size, size, size) == (plan.TILES["tma"][0], 1)
    assert choose(512, 512, 512)[0].BM == 64, "128 × 256 would leave 124 of 132 SMs idle"
    assert choose(1, 4096, 4096)[1] > 1 and choose(768, 768, 16384)[1] > 1


@pytest.mark.parametrize("tile", plan.TILES["tma"], ids=lambda t: f"{t.BM}x{t.BN}")
@pytest.mark.parametrize("itemsize", [2, 4])
def test_stages_fit_shared_memory(tile, itemsize):
    stages = matmul_tma.stages(tile, itemsize)
    used = stages * (tile.BM + tile.BN) * tile.BK * 2 + tile.BM * tile.BN // tile.parts * itemsize
    assert stages >= 2 and tile.together * (used + 1024 + 128) <= matmul_tma.SHARED


def test_wrong_arguments_are_told():
    a = np.ones((3, 4), np.float32)
    for wrong in ((a, a), (a, a[0]), (a[0], a.T)):
        with pytest.raises(ValueError, match=r"want \(…, m, k\) by"):
            k.matmul(*wrong)
    with pytest.raises(ValueError, match=r"into \(3, 4\): want \(3, 3\)"):
        k.matmul(a, a.T, None, None, a)
    with on(AMPERE), using("triton"), pytest.raises(ValueError, match="'tf16': want ieee, tf32"):
        k.matmul(a, a.T, None, None, None, None, "tf16")
    for y in ("numba", "naive", "triton"):
        with pytest.raises(ValueError, match="'gelo': want None or one of relu, gelu"):
            k.matmul.versions[y](a, a.T, None, "gelo")


# Traffic and memory


@pytest.mark.parametrize("m, n, depth", [(128, 192, 64), (130, 70, 48)])
def test_bytes_moved_by_pointers(m, n, depth):
    """A tile reads (BM + BN) k numbers, and BN of the bias: past c's end the same ones again."""
    a, b, bias = (array(shape, "float32", 0) for shape in ((m, depth), (depth, n), (n,)))
    tile = plan.TILES["ieee"][1]
    with on(AMPERE, TILES={"ieee": (tile,)}), traffic() as count:
        both(k.matmul, a, b, bias)
    tiles = math.ceil(m / tile.BM) * math.ceil(n / tile.BN)
    read = tiles * ((tile.BM + tile.BN) * depth + tile.BN)
    assert dict(count) == {"load": 4 * read, "store": 4 * m * n}


@pytest.mark.parametrize("m, n, depth", [(128, 192, 64), (136, 72, 48)])
def test_bytes_moved_by_tma(m, n, depth):
    """What lies outside is not read: a once a column of tiles, b once a row of them."""
    a, b = array((m, depth), "float16", 0), array((n, depth), "float16", 1).T
    tile = plan.TILES["tma"][3]
    with on(HOPPER, TILES={"tma": (tile,)}), traffic() as count:
        both(k.matmul, a, b)
    read = math.ceil(n / tile.BN) * m * depth + math.ceil(m / tile.BM) * n * depth
    assert dict(count) == {"load": 2 * read, "store": 2 * m * n}


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_temporary_memory(activation):
    a, b, bias = (array(s, "float32", 0) for s in ((3000, 64), (64, 256), (256,)))
    assert peak(k.matmul, a, b, bias, activation) < 1 << 14
    a, b = a.astype(np.float16), b.astype(np.float16)
    most = 4 * (b.size + k.ROWS * (a.shape[1] + b.shape[1])) + (1 << 14)
    assert peak(k.matmul, a, b, None, activation) < most


# The controls: what the assertions above must refuse


def planted(patch, module, name, **constants):
    """The kernel, with other constants than it is launched with."""
    kernel = getattr(module, name)

    class Wrong:
        def __getitem__(self, grid):
            return lambda *args, **given: kernel[grid](*args, **{**given, **constants})

    patch.setattr(module, name, Wrong())


def test_float32_is_not_float64():
    a, b = array((40, 100), "float32", 0), array((100, 40), "float32", 1)
    for y in both(k.matmul, a, b):
        assert excess(y, a, b, None, None, "float32") <= 1
        assert excess(y, a, b, None, None, "float32", digit="float64") > 1e3


@pytest.mark.parametrize(
    "machine, module, name, wrong",
    [
        (AMPERE, k, "_matmul_kernel", {"EVEN_K": True}),
        (AMPERE, k, "_matmul_kernel", {"A_T": True}),
        (AMPERE, k, "_matmul_kernel", {"ACTIVATION": "gelu_tanh"}),
        (HOPPER, matmul_tma, "_matmul_tma_kernel", {"A_T": True}),
        (HOPPER, matmul_tma, "_matmul_tma_kernel", {"ACTIVATION": "relu"}),
    ],
)
def test_planted_mistakes_are_seen(machine, module, name, wrong):
    a = np.full((64, 104), np.nan, np.float16)[:, :56]  # a mask forgotten reads NaN
    a[...] = array((64, 56), "float16", 0)
    b = np.full((128, 64), np.nan, np.float16)[:56]
    b[...] = array((56, 64), "float16", 1)
    with on(machine, TILES={kind: tiles[-1:] for kind, tiles in plan.TILES.items()}):
        assert excess(both(k.matmul, a, b, None, "gelu")[1], a, b, None, "gelu", "float16") <= 1
        with pytest.MonkeyPatch.context() as patch:
            planted(patch, module, name, **wrong)
            y = both(k.matmul, a, b, None, "gelu")[1]
        assert not excess(y, a, b, None, "gelu", "float16") <= 1


def test_the_order_of_tiles_does_not_matter():
    a, b = array((300, 16), "float32", 0), array((16, 200), "float32", 1)
    wanted = both(k.matmul, a, b)[1]
    with pytest.MonkeyPatch.context() as patch:
        planted(patch, k, "_matmul_kernel", GROUP=2)
        np.testing.assert_array_equal(both(k.matmul, a, b)[1], wanted)
