"""Names that models of PyTorch use: lines that mean the same in both, values, dtypes and errors."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from support.parity import dtype_name, torch

import minidist as md


def meaning(line: str, m) -> object:
    """The value of a line in one library, as plain numbers and a dtype; or the class of its error.

    T is tensor, O is ones, F is float64; a list of tensors is looked at one by one.
    """
    names = {"m": m, "T": m.tensor, "O": m.ones, "nan": math.nan, "inf": math.inf}
    try:
        value = eval(line, names)
    except Exception as error:
        return type(error)
    return [plain(v) for v in value] if isinstance(value, list) else plain(value)


def plain(value) -> object:
    if not hasattr(value, "tolist"):
        return tuple(value) if isinstance(value, tuple) else value
    return SimpleNamespace(numbers=value.tolist(), dtype=dtype_name(value.dtype),
                           grad=value.requires_grad)  # fmt: skip


def assert_same(line: str) -> None:
    ours, theirs = meaning(line, md), meaning(line, torch)
    for a, b in zip(*(v if isinstance(v, list) else [v] for v in (ours, theirs)), strict=True):
        if isinstance(b, SimpleNamespace):
            assert (a.dtype, a.grad) == (b.dtype, b.grad), line
            np.testing.assert_allclose(a.numbers, b.numbers, rtol=1e-6, err_msg=line)
        else:
            assert a == b, f"{line}: {a}, PyTorch's {b}"


LINES = {
    "div": """
        m.div(T([5, -5, 7, -7, 0]), T([2, 2, -2, -2, 3]), rounding_mode='trunc')
        m.div(T([5, -5, 7, -7, 0]), T([2, 2, -2, -2, 3]), rounding_mode='floor')
        m.div(T([5, -5]), 2, rounding_mode=None)
        m.divide(T([5, -5]), 2.0, rounding_mode='floor')
        T([7]).div(T([2.0]), rounding_mode='trunc')
        m.div(T([7], dtype=m.uint8), T([2], dtype=m.uint8), rounding_mode='trunc')
        m.div(T([5.0, -5, 0]), 0.0, rounding_mode='trunc')
        m.div(T([inf, -inf, nan, 1e-30, -1e-30]), 2, rounding_mode='floor')
        m.div(T([5.0], requires_grad=True), 2, rounding_mode='floor')
        T([7, -7]).div_(2, rounding_mode='trunc')
        T([7, -7]).div_(2)
        m.div(T([5]), 0, rounding_mode='trunc')
        m.div(T([5]), 2, rounding_mode='up')
        m.div(T([5.0]), 2, 'floor')
        m.div(T([True]), T([True]), rounding_mode='trunc')
        m.div(T([True]), T([True]), rounding_mode='floor')
    """,
    "addcmul, addcdiv": """
        m.addcmul(T([1, 2]), T([1, 2]), T([1, 2]), value=2)
        m.addcmul(T([1, 2]), T([1, 2]), T([1.0, 2]), value=0.5)
        T([1.0, 2]).double().addcmul(T([[1.0, 2]]), T([1.0, 2]))
        T([1.0, 2]).addcmul_(T([3.0, 2]), T([1.0, 2]), value=3)
        T([1.0, 2]).addcmul_(T([[3.0, 2]]), T([1.0, 2]))
        T([1, 2]).addcmul_(T([3.0, 2]), T([1.0, 2]))
        m.addcmul(T([1.0]), 2.0, T([1.0]))
        m.addcmul(T([1.0]), T([1.0]), 2.0)
        m.addcmul(T([True]), T([True]), T([True]))
        m.addcdiv(T([1, 2]), T([1.0, 2]), T([1, 2]), value=2)
        m.addcdiv(T([1.0, 2]), T([1, 2]), T([0.0, 2]), value=2)
        T([1.0, 2]).addcdiv_(T([3.0, 2]), T([1.0, 2]), value=3)
        m.addcdiv(T([1.0, 2]), T([1, 2]), T([1, 2]))
        m.addcdiv(T([1.0]), T([1.0]), 2.0)
    """,
    "logaddexp": """
        m.logaddexp(T([1.0, 2]), T([1, 2]))
        m.logaddexp(T([inf, -inf, inf, nan, 1.0, 1e4]), T([inf, -inf, -inf, 1.0, -inf, 1e4]))
        m.logaddexp(T([1, 2]), T([1, 2]))
        m.logaddexp(T([1.0, 2]), 2.0)
    """,
    "nan_to_num": """
        m.nan_to_num(T([nan, inf, -inf, 1.0]))
        m.nan_to_num(T([nan, inf, -inf, 1.0]).half())
        m.nan_to_num(T([nan, inf, -inf, 1.0]).bfloat16())
        m.nan_to_num(T([nan, inf, -inf, 1.0]), nan=inf)
        T([nan, inf, -inf, 1.0]).nan_to_num(1.0, 2.0, 3.0)
        T([nan, inf, -inf, 1.0]).nan_to_num_(neginf=0)
        m.nan_to_num(T([nan, inf]).half(), posinf=1e6)
        m.nan_to_num(T([1, 2]), nan=1.5)
        m.nan_to_num(T([True]))
    """,
    "clamp_min, clamp_max": """
        m.clamp_min(T([1, 2]), 1.5)
        m.clamp_min(T([1, 2]), T([1.5]))
        m.clamp_max(T([1.0, nan]), T([1.0, 1.0]))
        m.clamp_max(T([1.0, 2.0]), nan)
        T([1, 2]).clamp_min_(2)
        T([1.0, 2]).clamp_max_(1.5)
        T([1, 2]).clamp_min_(1.5)
        m.clamp_min(T([1, 2]), None)
    """,
    "tensordot": """
        m.tensordot(O(2, 3, 4), O(3, 4, 5))
        m.tensordot(T([[1., 2], [3, 4]]), T([[5., 6], [7, 8]]), dims=([1, 0], [0, 1]))
        m.tensordot(T([[1, 2], [3, 4]]), T([[5, 6], [7, 8]]), 1)
        m.tensordot(O(2, 3), O(2, 3), dims=((0,), (0,)))
        m.tensordot(O(2, 3), O(2, 3), dims=T([[0], [0]]))
        m.tensordot(O(2, 1), O(2, 3), dims=([0, 1], [0, 1]))
        m.tensordot(O(2, 0), O(0, 3), dims=1)
        m.tensordot(T(2.0), T(3.0), dims=0)
        m.tensordot(O(2, 3), O(2, 3), dims=-1)
        m.tensordot(O(2, 3), O(2, 3), dims=3)
        m.tensordot(O(2, 3), O(2, 3), dims=1)
        m.tensordot(O(2, 3), O(2, 3), dims=([0], [0, 1]))
        m.tensordot(O(2, 3), O(2, 3), dims=([0, 0], [0, 0]))
        m.tensordot(O(2, 3), O(2, 3), dims=([5], [0]))
        m.tensordot(O(2, 3), O(2, 3).double())
    """,
    "addmm, baddbmm": """
        m.baddbmm(T([nan]), O(1, 2, 2), O(1, 2, 2), beta=0)
        m.addmm(T([nan]), O(2, 2), O(2, 2), beta=0)
        m.addmm(T([1.0], requires_grad=True), O(2, 2), O(2, 2), beta=0)
        m.baddbmm(O(1), O(1, 2, 2), O(1, 2, 2), beta=2, alpha=0.5)
        m.baddbmm(T([1]), O(1, 2, 2).long(), O(1, 2, 2).long(), beta=2, alpha=2)
        O(2, 2, 2).baddbmm_(O(2, 2, 3), O(2, 3, 2), alpha=2)
        O(2, 2).addmm_(O(2, 3), O(3, 2), beta=3)
        m.baddbmm(O(3), O(1, 2, 2), O(1, 2, 2))
        m.baddbmm(O(2, 1, 2, 2), O(1, 2, 2), O(1, 2, 2))
        m.baddbmm(O(2).double(), O(1, 2, 2), O(1, 2, 2))
        m.addmm(O(2).double(), O(2, 2), O(2, 2))
    """,
    "take_along_dim": """
        m.take_along_dim(T([[3, 1], [2, 4]]), T([[0]]), 1)
        T([[3, 1], [2, 4]]).take_along_dim(T([[1, 2]]))
        T([[3, 1], [2, 4]]).take_along_dim(T([[1, 0, 0]]), dim=-1)
        m.take_along_dim(T(3.0), T(0))
        m.take_along_dim(O(1, 2), m.zeros(4, 5).long(), 1)
        m.take_along_dim(T([[3, 1], [2, 4]]), T([1]), 1)
        m.take_along_dim(T([[3, 1], [2, 4]]), T([[1.0]]), 1)
        m.take_along_dim(T([[3, 1], [2, 4]]), T([[1]]).int(), 1)
        m.take_along_dim(T([[3, 1], [2, 4]]), T([[1]]), 3)
        m.take_along_dim(T(3.0), T(0), 0)
        m.take_along_dim(O(3, 2), m.zeros(2, 2).long(), 1)
    """,
    "indices": """
        m.tril_indices(3, 3)
        m.triu_indices(2, 4, 1)
        m.tril_indices(2, 4, offset=-1, dtype=m.int32)
        m.triu_indices(0, 3)
        m.tril_indices(3, 3, dtype=m.float32)
        m.tril_indices(-1, 3)
    """,
    "stride": """
        [O(2, 3).stride(), O(2, 3).T.stride(), O(4, 6)[::2, 1:].stride(), T(1.0).stride()]
        [O(2, 3).stride(-1), O(2, 3).stride(dim=0), O(2, 3).expand(4, 2, 3).stride()]
        [O(2, 0, 3).stride(), O(1, 3).stride(), O(3, 1).stride(), O(2, 3).half().stride()]
        O(2, 3).stride(2)
        T(1.0).stride(0)
        O(2, 3).size(-3)
    """,
    "new": """
        O(3).double().new_tensor([1, 2])
        O(3).new_tensor([1, 2], dtype=m.int64)
        O(3).long().new_tensor([1.7])
        O(3).long().new_tensor([1.7], dtype=None)
        O(3).new_tensor(3, requires_grad=True)
        O(3).long().new_tensor(3.0, requires_grad=True)
        O(3).half().new_zeros(2, 3)
        O(3).new_ones((2, 3), dtype=m.int64)
        O(3).long().new_zeros(2, dtype=None)
        O(3).double().new_full((2,), 1)
    """,
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", LINES)
def test_a_line_means_the_same(name):
    for line in filter(None, map(str.strip, LINES[name].splitlines())):
        assert_same(line)


def test_another_value_dtype_or_error_is_seen():
    for line in ("T([1.0]) + (m.__name__ == 'torch')", "T([1.0], dtype=getattr(m, 'float16' if "
                 "m.__name__ == 'torch' else 'float32'))", "O(2).nothing() if m.__name__ == "
                 "'torch' else O(2)"):  # fmt: skip
        with pytest.raises((AssertionError, AttributeError)):
            assert_same(line)


# Where PyTorch goes on, and minidist says what is wrong


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda x: md.addcmul(x, x, x, value=0.5), "addcmul of int64: value=0.5 must be an int"),
        (lambda x: md.addmm(x, x, x, alpha=0.5), "addmm of int64: alpha=0.5 must be an integer"),
        (lambda x: md.take_along_dim(x, x - 5, 1), "indices -4 to -4"),
        (lambda x: md.div(x, x, rounding_mode="up"), "None, 'trunc' or 'floor', not 'up'"),
        (lambda x: md.logaddexp(x, 2.0), r"argument 1 is 2.0: want a Tensor, md.tensor\(2.0\)"),
        (lambda x: md.tensordot(x, x[:1], dims=([0, 1], [1])), r"want two lists of one length"),
    ],
)
def test_an_error_says_what_to_change(call, words):
    with pytest.raises((RuntimeError, TypeError), match=words):
        call(md.ones(2, 2, dtype="int64"))


def test_what_beta_0_leaves_out_has_a_gradient_of_0():
    x = md.tensor([math.nan, 1.0], requires_grad=True)
    y = md.addmm(x, md.ones(2, 2), md.ones(2, 2), beta=0)
    y.sum().backward()
    assert y.tolist() == [[2, 2], [2, 2]] and x.grad.tolist() == [0, 0]


def test_under_autocast_a_product_is_lowered_with_what_is_added():
    with md.autocast("cpu"), torch.autocast("cpu"):
        for name, sizes in (("addmm", (2, 2)), ("baddbmm", (2, 2, 2))):
            ours, theirs = [getattr(m, name)(*[m.ones(sizes)] * 3) for m in (md, torch)]
            assert dtype_name(ours.dtype) == dtype_name(theirs.dtype) == "bfloat16"
