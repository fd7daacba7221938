"""On a GPU (its double): first values, changes in place, indices, states from the CPU."""

import numpy as np
import pytest
from support.double import copies, gpu

import minidist as md
from minidist import nn, optim
from minidist.nn import functional as F

DTYPES = ("float32", "bfloat16")


def numbers(*shape, seed=0):
    return np.random.default_rng([*shape, seed]).standard_normal(shape).astype("f")


@pytest.fixture(autouse=True)
def there():
    with gpu():
        yield


FIRST = """
    normal_ uniform_ trunc_normal_ eye_ xavier_uniform_ kaiming_normal_ orthogonal_
""".split()  # noqa: SIM905


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FIRST)
def test_first_values_are_the_cpus(name, dtype):
    found = []
    for device in ("cpu", "cuda"):
        md.manual_seed(0)
        p = nn.Parameter(md.zeros(4, 3, dtype=dtype, device=device))
        getattr(nn.init, name)(p)
        assert p.device.type == device and p.dtype == md.tensor([], dtype=dtype).dtype
        found.append(p.tolist())
    assert found[0] == found[1]


@pytest.mark.parametrize("dtype", DTYPES)
def test_changes_in_place(dtype):
    x = md.zeros(3, dtype=dtype, device="cuda")
    x[:2] = md.ones(2)
    x[2] = 5
    assert x.tolist() == [1, 1, 5] and x.is_cuda
    x[1:] = [2.0, 3.0]
    x[[0]] = 7
    x[md.tensor([2])] = 8.0
    assert x.tolist() == [7, 2, 8] and x[md.tensor([0, 2])].tolist() == x[[0, 2]].tolist() == [7, 8]
    assert md.zeros(3, dtype=dtype).copy_(x).tolist() == [7, 2, 8]
    assert x.normal_().is_cuda and x.uniform_().is_cuda and x.fill_(2).tolist() == [2, 2, 2]


def test_the_gradient_of_a_value_from_the_cpu_goes_back():
    v, x = md.ones(2, requires_grad=True), md.zeros(3, 2, device="cuda")
    x[:] = v
    (x * 2).sum().backward()
    assert not v.grad.is_cuda and v.grad.tolist() == [6, 6]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", "Adagrad Adam Lion RMSprop SGD".split())  # noqa: SIM905
def test_a_state_from_the_cpu_is_moved(name, dtype):
    """And a step after it asks the host for nothing."""
    options = {"momentum": 0.9} if name in ("SGD", "RMSprop") else {}
    p = nn.Parameter(md.tensor(numbers(4), dtype=dtype))
    p.grad = md.tensor(numbers(4, seed=1), dtype=dtype)
    here = getattr(optim, name)([p], **options)
    here.step()
    q = nn.Parameter(p.detach().cuda())
    q.grad = p.grad.cuda()
    there = getattr(optim, name)([q], **options)
    there.load_state_dict(here.state_dict())
    copies.clear()
    here.step(), there.step()
    assert not +copies
    np.testing.assert_allclose(q.tolist(), p.tolist(), rtol=2.0**-7 if dtype != "float32" else 1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["attention", "LSTM"])
def test_dropped_alike(name, dtype):
    """Their masks are drawn on the host."""
    layer = {"attention": nn.MultiheadAttention(8, 2, dropout=0.3),
             "LSTM": nn.LSTM(8, 8, 2, dropout=0.3)}[name].to(dtype)  # fmt: skip
    x, found = md.tensor(numbers(5, 2, 8), dtype=dtype), []
    for device in ("cpu", "cuda"):
        md.manual_seed(0)
        layer.to(device)
        y = layer(*[x.to(device)] * (3 if name == "attention" else 1))[0]
        y.float().sum().backward()
        found.append(y.detach().float().cpu().data)
    assert np.abs(found[0] - found[1]).max() < (0.03 if dtype == "bfloat16" else 1e-5)


def test_draws():
    p = md.tensor([0.0, 1.0], device="cuda")
    assert md.multinomial(p, 1).is_cuda and md.normal(p, 1.0).is_cuda
    assert md.normal(0.0, 1.0, (2,), device="cuda").is_cuda
    assert p.repeat_interleave(md.tensor([1, 2]).cuda()).tolist() == [0, 1, 1]


X = numbers(2, 3)
APART = {
    "cross_entropy: argument 1": lambda x: F.cross_entropy(x, md.tensor([0, 1])),
    "cross_entropy: argument 2": lambda x: F.cross_entropy(x, md.tensor([0, 1]).cuda(), md.ones(3)),
    "nll_loss: argument 1": lambda x: F.nll_loss(x, md.tensor([0, 1])),
    "linear_cross_entropy: argument 2": lambda x: F.linear_cross_entropy(x, x, md.tensor([0, 1])),
    "embedding: argument 0": lambda x: F.embedding(md.tensor([0]), x),
    "batch_norm: argument 1": lambda x: F.batch_norm(x, md.zeros(3), md.ones(3)),
    "where: argument 0": lambda x: md.where(md.tensor([True, False, True]), x, 0.0),
    "grad is of another dtype, or on another device": lambda x: setattr(x, "grad", md.ones(2, 3)),
}


@pytest.mark.parametrize("text", APART)
def test_what_is_elsewhere_is_named(text):
    with pytest.raises(RuntimeError, match=text):
        APART[text](md.tensor(X).cuda())


def test_a_weighted_mean_has_the_losses_dtype():
    x, classes = md.tensor(X, dtype=md.bfloat16).cuda(), md.tensor([0, 1]).cuda()
    weight = md.ones(3, dtype=md.bfloat16).cuda()
    assert F.cross_entropy(x, classes, weight).dtype == md.bfloat16


@pytest.mark.filterwarnings("ignore:invalid value")
def test_the_first_nan_is_counted():
    x = md.tensor([-1.0, 1.0], device="cuda").bfloat16()
    with md.autograd.detect_anomaly(), pytest.raises(RuntimeError, match="NaN: 1 of 2 values"):
        x.log()
