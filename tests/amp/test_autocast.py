"""16 bits: bfloat16 tensors, autocast and its master weights, beside PyTorch and on a GPU."""

import copy

import numpy as np
import pytest
from minidist.kernels.half_precision import wide
from support.double import gpu

import minidist as md
from minidist import Tensor, nn, optim
from minidist.nn import functional as F
from minidist.tensor import dtypes

HALVES = ("float16", "bfloat16")
EPS = {"float16": 2.0**-11, "bfloat16": 2.0**-8}  # half of a unit in the last place, relative


def numbers(*shape, seed=0):
    return np.random.default_rng([*shape, seed]).standard_normal(shape).astype("f")


def rounded(x, dtype):
    return md.tensor(x, dtype=dtype).float().data


# Tensors of bfloat16


def test_bfloat16_is_a_dtype():
    x = md.tensor([1.0, 2.5, -3.0], dtype=md.bfloat16)
    assert x.dtype == md.bfloat16 and x.is_floating_point() and x.nbytes == 6
    assert repr(x) == "tensor([ 1.0000,  2.5000, -3.0000], dtype=bfloat16)"
    assert x.tolist() == [1, 2.5, -3] and x.sum().item() == 0.5 and bool(x[0])
    assert x.to("bfloat16") is x and x.bfloat16() is x and x.float().dtype == "float32"
    assert md.tensor([1 + 2**-9], dtype="bfloat16").item() == 1.0
    assert (x.to("float64") + 1).tolist() == [2, 3.5, -2]
    for made in (md.full((2,), 1.5, dtype=md.bfloat16), md.ones(2, dtype=md.bfloat16) * 1.5,
                 md.zeros(2, dtype=md.bfloat16) + 1.5, md.full_like(x[:2], 1.5)):  # fmt: skip
        assert made.dtype == md.bfloat16 and made.tolist() == [1.5, 1.5]
    assert md.arange(3, dtype=md.bfloat16).tolist() == [0, 1, 2]
    assert md.eye(2, dtype=md.bfloat16).tolist() == [[1, 0], [0, 1]]
    assert abs(md.randn(999, dtype=md.bfloat16).float().std().item() - 1) < 0.1
    assert copy.deepcopy(x).tolist() == x.tolist()


def test_numbers_of_uint16_are_not_taken_for_it():
    """Tokens are often stored so: their bits would mean other numbers."""
    tokens = np.array([1, 2], np.uint16)
    for make in (Tensor, md.tensor, md.from_numpy, lambda x: md.ones(2, dtype=np.uint16)):
        with pytest.raises(TypeError, match="no dtype 'uint16'"):
            make(tokens)
    with pytest.raises(TypeError, match="NumPy has not"):
        md.ones(2, dtype=md.bfloat16).numpy()


def test_changes_in_place():
    x = md.zeros(4, dtype=md.bfloat16)
    x[1:3] = 2.5
    x[0] = md.tensor(-1.0)
    x.add_(1)
    x.mul_(md.tensor([1.0, 1.0, 2.0, 2.0]))
    assert x.tolist() == [0, 3.5, 7, 2] and x.dtype == md.bfloat16
    assert x.fill_(0.5).tolist() == [0.5] * 4
    assert x.masked_fill(md.tensor([True, False, False, True]), 3).tolist() == [3, 0.5, 0.5, 3]


def test_gradients_are_summed():
    x = md.tensor([1.0, 2.0], dtype=md.bfloat16, requires_grad=True)
    (x * 3 + x * x).sum().backward()
    assert x.grad.dtype == md.bfloat16 and x.grad.tolist() == [5, 7]
    (x * 2).sum().backward()
    assert x.grad.tolist() == [7, 9]
    y = x.reshape(2, 1).expand(2, 3)
    assert md.autograd.grad(y.sum(), x)[0].tolist() == [3, 3]
    assert md.autograd.grad(x[[0, 0, 1]].sum(), x)[0].tolist() == [2, 1]


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_an_optimizer_rounds_its_parameters_once_a_step(name):
    p, q = (nn.Parameter(md.tensor(numbers(50), dtype=d)) for d in ("bfloat16", "float32"))
    q.data = wide(p.data)
    for step in range(3):
        g = rounded(numbers(50, seed=step + 1), "bfloat16")
        p.grad, q.grad = md.tensor(g, dtype="bfloat16"), md.tensor(g)
        steppers = [getattr(optim, name)([x], lr=0.01) for x in (p, q)]
        for optimizer in steppers:
            optimizer.step()
        assert np.abs(wide(p.data) - q.data).max() <= EPS["bfloat16"] * np.abs(q.data).max()
        q.data = wide(p.data)


def test_gradients_of_halves_are_clipped():
    p = nn.Parameter(md.ones(3, dtype=md.bfloat16))
    p.grad = md.tensor([3.0, 0.0, 4.0], dtype=md.bfloat16)
    assert optim.clip_grad_norm_([p], 2.5).item() == 5
    np.testing.assert_allclose(p.grad.tolist(), [1.5, 0, 2])


# Operations on 16-bit numbers


A, B, ROWS = numbers(4, 6), numbers(6, 5), numbers(3, 5, 8)
CASES = {
    "add": (lambda a: a + a * 0.3, [A]),
    "exp": (lambda a: a.exp(), [A]),
    "mean": (lambda a: a.mean(1), [A]),
    "softmax": (lambda a: a.softmax(1), [A]),
    "matmul": (lambda a, b: a @ b, [A, B]),
    "linear": (F.linear, [A, numbers(7, 6), numbers(7)]),
    "gelu": (F.gelu, [A]),
    "gelu tanh": (lambda a: F.gelu(a, "tanh"), [A]),
    "layer_norm": (lambda x, w, b: F.layer_norm(x, (8,), w, b), [ROWS, numbers(8), numbers(8)]),
    "attention": (F.scaled_dot_product_attention, [numbers(2, 2, 5, 8, seed=i) for i in range(3)]),
    "conv2d": (F.conv2d, [numbers(2, 3, 6, 6), numbers(4, 3, 3, 3)]),
    "cross_entropy": (lambda x: F.cross_entropy(x, md.tensor([1, 2, 0, 5]).to(x.device)), [A]),
    "embedding": (lambda w: F.embedding(md.tensor([1, 2, 2, 0]).to(w.device), w), [A]),
    "swiglu": (F.swiglu, [A]),
    "cumsum": (lambda a: a.cumsum(1), [A]),
    "max": (lambda a: a.max(1).values, [A]),
    "sort": (lambda a: a.sort(1, descending=True).values, [A]),
    "where": (lambda a: md.where(a > 0, a, a * 2), [A]),
    "cat": (lambda a, b: md.cat([a, b.T]), [numbers(4, 6), B]),
    "pad": (lambda a: F.pad(a, (1, 2), value=0.3), [A]),
    "rotary": (F.rotary_embedding, [ROWS]),
}


def value_and_gradients(call, arrays, dtype, device="cpu"):
    xs = [md.tensor(a).to(dtype).to(device).requires_grad_() for a in arrays]
    y = call(*xs)
    assert y.dtype == dtypes.DTYPES[dtype]
    y.backward(md.tensor(numbers(*y.shape, seed=9)).to(dtype).to(device))
    return [t.detach().float().cpu().data for t in (y, *(x.grad for x in xs))]


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", CASES)
def test_operations_round_once(name, dtype):
    """Value and gradients are those of float32 on the rounded inputs, rounded."""
    call, arrays = CASES[name]
    found = value_and_gradients(call, arrays, dtype)
    exact = value_and_gradients(call, [rounded(a, dtype) for a in arrays], "float32")
    for x, y in zip(found, exact):
        steps = 4 if name == "cross_entropy" else 2.1  # its VJP's input is rounded too, and a sum
        assert np.abs(x - y).max() <= steps * EPS[dtype] * max(1, np.abs(y).max())


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", CASES)
def test_a_gpu_computes_halves_alike(name, dtype):
    call, arrays = CASES[name]
    here = value_and_gradients(call, arrays, dtype)
    with gpu():
        there = value_and_gradients(call, arrays, dtype, "cuda")
    for x, y in zip(there, here):
        assert np.abs(x - y).max() <= 6 * EPS[dtype] * max(1, np.abs(y).max())


def test_float16_fails_nothing_that_bfloat16_would_pass():
    """The control: three more bits are seen."""
    call, arrays = CASES["linear"]
    exact = value_and_gradients(call, arrays, "float32")[0]
    off = {d: np.abs(value_and_gradients(call, arrays, d)[0] - exact).max() for d in HALVES}
    assert off["bfloat16"] > 2 * EPS["float16"] * np.abs(exact).max() > off["float16"] / 3


# Autocast


DTYPES = {
    "linear": lambda m, x, w: m.nn.functional.linear(x, w),
    "matmul": lambda m, x, w: x @ w.T,
    "softmax": lambda m, x, w: x.softmax(1),
    "softmax of a product": lambda m, x, w: (x @ w.T).softmax(1),
    "sum of a product": lambda m, x, w: (x @ w.T) + x[:, :4],
    "gelu of a product": lambda m, x, w: m.nn.functional.gelu(x @ w.T),
    "exp of a product": lambda m, x, w: (x @ w.T).exp(),
    "norm of a product": lambda m, x, w: m.nn.functional.layer_norm(x @ w.T, (4,)),
    "loss of a product": lambda m, x, w: m.nn.functional.mse_loss(x @ w.T, x[:, :4]),
    "one over a product": lambda m, x, w: 1 / (x @ w.T),
    "prelu": lambda m, x, w: m.nn.functional.prelu(x, w[0, :1]),
    "float64": lambda m, x, w: x.double() @ w.double().T,
}


@pytest.mark.parametrize("name", DTYPES)
def test_dtypes_are_those_of_pytorch_on_a_gpu(name):
    """PyTorch's rule for CUDA. On its CPU, exp and sums of 16 bits stay in 16 bits: coarser."""
    wanted = {"linear": "h", "matmul": "h", "gelu of a product": "h", "prelu": "h", "float64": "d"}
    x, w = md.tensor(numbers(3, 6)), md.tensor(numbers(4, 6))
    for dtype in HALVES:
        with md.autocast("cpu", dtype):
            y = DTYPES[name](md, x, w)
        names = {"h": dtype, "d": "float64"}
        assert y.dtype == dtypes.DTYPES[names.get(wanted.get(name, ""), "float32")]


LOSSES = {
    "mse_loss": lambda x, t: F.mse_loss(x, t),
    "l1_loss": lambda x, t: F.l1_loss(x, t),
    "huber_loss": lambda x, t: F.huber_loss(x, target=t),
    "kl_div": lambda x, t: F.kl_div(x, t.abs()),
    "binary_cross_entropy_with_logits": F.binary_cross_entropy_with_logits,
    "cosine_similarity": F.cosine_similarity,
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_of_16_bits_is_computed_in_float32_throughout(name):
    """PyTorch lists the whole loss: a difference in 16 bits before it would be rounded."""
    x, t = (md.tensor(numbers(8, 6, seed=i)).bfloat16() for i in (1, 2))
    with md.autocast("cpu"):
        found = LOSSES[name](x, t)
    assert found.tolist() == LOSSES[name](x.float(), t.float()).tolist()
    assert found.tolist() != LOSSES[name](x, t).tolist(), "the control: outside of autocast"


def test_pytorch_takes_the_same_products_in_halves():
    torch = pytest.importorskip("torch")
    for name in ("linear", "matmul", "gelu of a product"):
        x, w = numbers(3, 6), numbers(4, 6)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            theirs = DTYPES[name](torch, torch.from_numpy(x), torch.from_numpy(w))
        with md.autocast("cpu", dtype=md.bfloat16):
            ours = DTYPES[name](md, md.tensor(x), md.tensor(w))
        assert theirs.dtype == torch.bfloat16 and ours.dtype == md.bfloat16
        off = np.abs(ours.float().data - theirs.float().numpy()).max()
        assert off <= 2.1 * EPS["bfloat16"] * np.abs(ours.float().data).max()


def test_gradients_reach_the_masters_in_float32():
    layer, x = nn.Linear(6, 4), md.tensor(numbers(3, 6))
    with md.autocast("cpu", "float16"):
        y = layer(x)
        assert y.dtype == "float16" and layer.weight.dtype == "float32"
    (y * 1e-4).sum().backward()
    g = layer.weight.grad
    assert g.dtype == "float32" and y.grad_fn is not None
    exact = np.broadcast_to(x.data.sum(0) * np.float32(1e-4), (4, 6))
    assert 0 < np.abs(g.data - exact).max() < 1e-3 * np.abs(exact).max()


def test_a_block_a_decorator_and_its_end():
    x = md.tensor(numbers(3, 3))
    product = lambda: (x @ x).dtype

    @md.autocast("cpu", dtype=md.bfloat16)
    def inside():
        assert md.is_autocast_enabled()
        with md.autocast("cpu", enabled=False):
            assert product() == "float32"
        with md.autocast("cuda"):
            assert product() == "float32", "x is not on a GPU"
        return product()

    assert inside() == md.bfloat16 and product() == "float32" and not md.is_autocast_enabled()
    with md.autocast("cpu"):
        assert product() == md.bfloat16, "PyTorch's default on a CPU"
    with gpu(), md.autocast("cuda"):
        assert (x.cuda() @ x.cuda()).dtype == "float16", "and on a GPU"


def test_what_cannot_be_is_refused():
    with pytest.raises(RuntimeError, match="autocast on 'tpu': want 'cpu' or 'cuda'"):
        md.autocast("tpu")
    with pytest.raises(RuntimeError, match="autocast to float32: want float16 or bfloat16"):
        md.autocast("cpu", md.float32)
    with pytest.raises(RuntimeError, match="dtypes bfloat16 and float32"):
        md.ones(2, 2) @ md.ones(2, 2, dtype=md.bfloat16)


def test_no_mixed_dtypes_are_refused_inside():
    with md.autocast("cpu"):
        assert (md.ones(2, 2) @ md.ones(2, 2, dtype=md.float16)).dtype == md.bfloat16
