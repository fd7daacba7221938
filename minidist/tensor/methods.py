"""Every operator and method of Tensor, bound to its operation: a line each.

`import minidist` imports this file after the operations, so no operation needs to know it.
"""

# mypy: disable-error-code="method-assign, assignment"
from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from .. import ops
from ..kernels import arrays as xp
from ..ops import index, shape, transfer
from ..ops.op import composite
from . import creation, inplace, sampling
from .inplace import in_place
from .tensor import Tensor


def reflected(operation: Callable) -> Callable:
    """The operation with its two arguments swapped: `1 - x` is sub(1, x)."""
    return lambda self, other: operation(other, self)


def comparison(operation: Callable) -> Callable:
    """The operation on tensors, arrays and numbers; of anything else Python decides."""
    numbers = Tensor | xp.ndarray | xp.generic | bool | int | float

    def compare(self: Tensor, other: Any) -> Any:
        return operation(self, other) if isinstance(other, numbers) else NotImplemented

    return compare


def like_self(create: Callable) -> Callable:
    """A function of creation.py, with the tensor's dtype and device unless others are given."""

    @functools.wraps(create)
    def new(self: Tensor, *args: Any, **options: Any) -> Tensor:
        given = {name: value for name, value in options.items() if value is not None}
        return create(*args, **{"dtype": self.dtype, "device": self.device} | given)

    return new


def converts(name: str, *args: Any, **options: Any) -> Callable:
    """A method that is to() with these arguments, under its own name."""

    def method(self: Tensor) -> Tensor:
        return transfer.to(self, *args, **options)

    method.__name__, method.__qualname__ = name, f"Tensor.{name}"
    return method


def cuda(self: Tensor, device: Any = None) -> Tensor:
    """On the GPU in use, or on that of a number or name."""
    return transfer.to(self, device="cuda" if device is None else device)


# NumPy's names for operations that PyTorch calls otherwise
UFUNCS = {"subtract": "sub", "multiply": "mul", "divide": "div", "power": "pow", "equal": "eq",
          "not_equal": "ne", "less": "lt", "less_equal": "le", "greater": "gt",
          "greater_equal": "ge"}  # fmt: skip


def array_ufunc(self: Tensor, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
    """array + tensor is a Tensor; array += tensor writes into the array."""
    operation = getattr(ops, UFUNCS.get(ufunc.__name__, ufunc.__name__), None)
    if method == "__call__" and not options and operation is not None:
        return operation(*(Tensor(x) if isinstance(x, xp.ndarray) else x for x in inputs))
    arrays = (x.numpy() if isinstance(x, Tensor) else x for x in inputs)
    return getattr(ufunc, method)(*arrays, **options)


Tensor.__array_ufunc__ = array_ufunc
Tensor.nelement = Tensor.numel
Tensor.T = property(lambda self: shape.permute(self, *reversed(range(self.ndim))))
Tensor.mT = property(lambda self: shape.transpose(self, -2, -1))

# Arithmetic

Tensor.__add__ = ops.add
Tensor.__radd__ = reflected(ops.add)
Tensor.__sub__ = ops.sub
Tensor.__rsub__ = reflected(ops.sub)
Tensor.__mul__ = ops.mul
Tensor.__rmul__ = reflected(ops.mul)
Tensor.__truediv__ = ops.true_divide
Tensor.__rtruediv__ = composite(autocast="fp32")(reflected(ops.true_divide))
Tensor.__floordiv__ = ops.floor_divide
Tensor.__rfloordiv__ = reflected(ops.floor_divide)
Tensor.__mod__ = ops.remainder
Tensor.__rmod__ = reflected(ops.remainder)
Tensor.__pow__ = ops.pow
Tensor.__rpow__ = reflected(ops.pow)
Tensor.__matmul__ = ops.matmul
Tensor.__rmatmul__ = reflected(ops.matmul)
Tensor.__neg__ = ops.neg
Tensor.__abs__ = ops.abs
Tensor.add = ops.add
Tensor.sub = ops.sub
Tensor.subtract = ops.subtract
Tensor.mul = ops.mul
Tensor.multiply = ops.multiply
Tensor.div = ops.div
Tensor.divide = ops.divide
Tensor.true_divide = ops.true_divide
Tensor.floor_divide = ops.floor_divide
Tensor.remainder = ops.remainder
Tensor.pow = ops.pow
Tensor.neg = ops.neg
Tensor.negative = ops.negative
Tensor.lerp = ops.lerp
Tensor.maximum = ops.maximum
Tensor.minimum = ops.minimum
Tensor.clamp = ops.clamp
Tensor.clip = ops.clip
Tensor.clamp_min = ops.clamp_min
Tensor.clamp_max = ops.clamp_max
Tensor.addcmul = ops.addcmul
Tensor.addcdiv = ops.addcdiv
Tensor.logaddexp = ops.logaddexp

# Elementwise functions

Tensor.abs = ops.abs
Tensor.absolute = ops.absolute
Tensor.acos = ops.acos
Tensor.acosh = ops.acosh
Tensor.asin = ops.asin
Tensor.asinh = ops.asinh
Tensor.atan = ops.atan
Tensor.atanh = ops.atanh
Tensor.ceil = ops.ceil
Tensor.cos = ops.cos
Tensor.cosh = ops.cosh
Tensor.erf = ops.erf
Tensor.exp = ops.exp
Tensor.expm1 = ops.expm1
Tensor.floor = ops.floor
Tensor.log = ops.log
Tensor.log10 = ops.log10
Tensor.log1p = ops.log1p
Tensor.log2 = ops.log2
Tensor.reciprocal = ops.reciprocal
Tensor.relu = ops.relu
Tensor.rsqrt = ops.rsqrt
Tensor.sigmoid = ops.sigmoid
Tensor.sign = ops.sign
Tensor.sin = ops.sin
Tensor.sinh = ops.sinh
Tensor.sqrt = ops.sqrt
Tensor.square = ops.square
Tensor.tan = ops.tan
Tensor.tanh = ops.tanh
Tensor.trunc = ops.trunc
Tensor.atan2 = ops.atan2
Tensor.gelu = ops.gelu
Tensor.round = ops.round
Tensor.nan_to_num = ops.nan_to_num

# Comparisons and logic

Tensor.__eq__ = comparison(ops.eq)
Tensor.__ne__ = comparison(ops.ne)
Tensor.__lt__ = comparison(ops.lt)
Tensor.__le__ = comparison(ops.le)
Tensor.__gt__ = comparison(ops.gt)
Tensor.__ge__ = comparison(ops.ge)
Tensor.__and__ = ops.bitwise_and
Tensor.__rand__ = reflected(ops.bitwise_and)
Tensor.__or__ = ops.bitwise_or
Tensor.__ror__ = reflected(ops.bitwise_or)
Tensor.__xor__ = ops.bitwise_xor
Tensor.__rxor__ = reflected(ops.bitwise_xor)
Tensor.__invert__ = ops.bitwise_not
Tensor.eq = ops.eq
Tensor.ne = ops.ne
Tensor.lt = ops.lt
Tensor.le = ops.le
Tensor.gt = ops.gt
Tensor.ge = ops.ge
Tensor.equal = ops.equal
Tensor.greater = ops.greater
Tensor.greater_equal = ops.greater_equal
Tensor.less = ops.less
Tensor.less_equal = ops.less_equal
Tensor.not_equal = ops.not_equal
Tensor.logical_and = ops.logical_and
Tensor.logical_or = ops.logical_or
Tensor.logical_xor = ops.logical_xor
Tensor.bitwise_and = ops.bitwise_and
Tensor.bitwise_or = ops.bitwise_or
Tensor.bitwise_xor = ops.bitwise_xor
Tensor.logical_not = ops.logical_not
Tensor.bitwise_not = ops.bitwise_not
Tensor.isfinite = ops.isfinite
Tensor.isinf = ops.isinf
Tensor.isnan = ops.isnan
Tensor.isclose = ops.isclose
Tensor.allclose = ops.allclose
Tensor.where = lambda self, condition, other: ops.where(condition, self, other)
Tensor.masked_fill = ops.masked_fill

# Reductions, order

Tensor.sum = ops.sum
Tensor.mean = ops.mean
Tensor.var = ops.var
Tensor.std = ops.std
Tensor.prod = ops.prod
Tensor.norm = ops.norm
Tensor.logsumexp = ops.logsumexp
Tensor.softmax = ops.softmax
Tensor.log_softmax = ops.log_softmax
Tensor.amax = ops.amax
Tensor.amin = ops.amin
Tensor.any = ops.any
Tensor.all = ops.all
Tensor.count_nonzero = ops.count_nonzero
Tensor.cumsum = ops.cumsum
Tensor.cumprod = ops.cumprod
Tensor.max = ops.max
Tensor.min = ops.min
Tensor.median = ops.median
Tensor.argmax = ops.argmax
Tensor.argmin = ops.argmin
Tensor.sort = ops.sort
Tensor.argsort = ops.argsort
Tensor.topk = ops.topk
Tensor.unique = ops.unique
Tensor.bincount = ops.bincount

# Products

Tensor.matmul = ops.matmul
Tensor.mm = ops.mm
Tensor.bmm = ops.bmm
Tensor.mv = ops.mv
Tensor.dot = ops.dot
Tensor.outer = ops.outer
Tensor.addmm = ops.addmm
Tensor.baddbmm = ops.baddbmm

# Shapes: of one tensor, which self is, so the bare functions

Tensor.reshape = shape.reshape
Tensor.view = shape.view
Tensor.flatten = shape.flatten
Tensor.unflatten = shape.unflatten
Tensor.ravel = lambda self: shape.reshape(self, -1)
Tensor.reshape_as = lambda self, other: shape.reshape(self, other.shape)
Tensor.view_as = lambda self, other: shape.view(self, other.shape)
Tensor.permute = shape.permute
Tensor.transpose = shape.transpose
Tensor.swapaxes = shape.swapaxes
Tensor.swapdims = shape.swapdims
Tensor.movedim = shape.movedim
Tensor.moveaxis = shape.moveaxis
Tensor.t = shape.t
Tensor.squeeze = shape.squeeze
Tensor.unsqueeze = shape.unsqueeze
Tensor.expand = shape.expand
Tensor.broadcast_to = shape.broadcast_to
Tensor.expand_as = lambda self, other: shape.expand(self, other.shape)
Tensor.repeat = shape.repeat
Tensor.tile = shape.tile
Tensor.repeat_interleave = shape.repeat_interleave
Tensor.contiguous = shape.contiguous
Tensor.clone = ops.clone
Tensor.flip = shape.flip
Tensor.roll = shape.roll
Tensor.split = shape.split
Tensor.chunk = shape.chunk
Tensor.unbind = shape.unbind
Tensor.tril = shape.tril
Tensor.triu = shape.triu
Tensor.diag = shape.diag
Tensor.diagonal = shape.diagonal

# Indices

Tensor.__getitem__ = index.getitem
Tensor.gather = ops.gather
Tensor.take_along_dim = ops.take_along_dim
Tensor.scatter = ops.scatter
Tensor.scatter_add = ops.scatter_add
Tensor.index_select = ops.index_select
Tensor.index_add = ops.index_add
Tensor.masked_select = ops.masked_select
Tensor.select = shape.select
Tensor.narrow = shape.narrow
Tensor.nonzero = ops.nonzero
Tensor.argwhere = ops.argwhere

# Random

Tensor.bernoulli = sampling.bernoulli
Tensor.multinomial = sampling.multinomial

# New tensors of this dtype, on this device

Tensor.new_zeros = like_self(creation.zeros)
Tensor.new_ones = like_self(creation.ones)
Tensor.new_empty = like_self(creation.empty)
Tensor.new_full = like_self(creation.full)
Tensor.new_tensor = like_self(creation.tensor)

# Changes in place: the result is written into the tensor, and returned

Tensor.__setitem__ = inplace.setitem
Tensor.fill_ = inplace.fill_
Tensor.zero_ = inplace.zero_
Tensor.copy_ = inplace.copy_
Tensor.masked_fill_ = inplace.masked_fill_
Tensor.uniform_ = inplace.uniform_
Tensor.normal_ = inplace.normal_
Tensor.__iadd__ = in_place(ops.add, "add_")
Tensor.__isub__ = in_place(ops.sub, "sub_")
Tensor.__imul__ = in_place(ops.mul, "mul_")
Tensor.__itruediv__ = in_place(ops.div, "div_")
Tensor.__ifloordiv__ = in_place(ops.floor_divide, "floor_divide_")
Tensor.__imod__ = in_place(ops.remainder, "remainder_")
Tensor.__ipow__ = in_place(ops.pow, "pow_")
Tensor.__iand__ = in_place(ops.bitwise_and, "bitwise_and_")
Tensor.__ior__ = in_place(ops.bitwise_or, "bitwise_or_")
Tensor.__ixor__ = in_place(ops.bitwise_xor, "bitwise_xor_")
Tensor.add_ = in_place(ops.add, "add_")
Tensor.sub_ = in_place(ops.sub, "sub_")
Tensor.mul_ = in_place(ops.mul, "mul_")
Tensor.div_ = in_place(ops.div, "div_")
Tensor.floor_divide_ = in_place(ops.floor_divide, "floor_divide_")
Tensor.remainder_ = in_place(ops.remainder, "remainder_")
Tensor.pow_ = in_place(ops.pow, "pow_")
Tensor.clamp_ = in_place(ops.clamp, "clamp_")
Tensor.clip_ = in_place(ops.clip, "clip_")
Tensor.clamp_min_ = in_place(ops.clamp_min, "clamp_min_")
Tensor.clamp_max_ = in_place(ops.clamp_max, "clamp_max_")
Tensor.addcmul_ = in_place(ops.addcmul, "addcmul_")
Tensor.addcdiv_ = in_place(ops.addcdiv, "addcdiv_")
Tensor.addmm_ = in_place(ops.addmm, "addmm_")
Tensor.baddbmm_ = in_place(ops.baddbmm, "baddbmm_")
Tensor.nan_to_num_ = in_place(ops.nan_to_num, "nan_to_num_")
Tensor.lerp_ = in_place(ops.lerp, "lerp_")
Tensor.bitwise_and_ = in_place(ops.bitwise_and, "bitwise_and_")
Tensor.bitwise_or_ = in_place(ops.bitwise_or, "bitwise_or_")
Tensor.bitwise_xor_ = in_place(ops.bitwise_xor, "bitwise_xor_")
Tensor.gelu_ = in_place(ops.gelu, "gelu_")
Tensor.round_ = in_place(ops.round, "round_")
Tensor.tril_ = in_place(ops.tril, "tril_")
Tensor.triu_ = in_place(ops.triu, "triu_")
Tensor.scatter_ = in_place(ops.scatter, "scatter_")
Tensor.scatter_add_ = in_place(ops.scatter_add, "scatter_add_")
Tensor.index_add_ = in_place(ops.index_add, "index_add_")
Tensor.abs_ = in_place(ops.abs, "abs_")
Tensor.ceil_ = in_place(ops.ceil, "ceil_")
Tensor.cos_ = in_place(ops.cos, "cos_")
Tensor.erf_ = in_place(ops.erf, "erf_")
Tensor.exp_ = in_place(ops.exp, "exp_")
Tensor.expm1_ = in_place(ops.expm1, "expm1_")
Tensor.floor_ = in_place(ops.floor, "floor_")
Tensor.log_ = in_place(ops.log, "log_")
Tensor.log1p_ = in_place(ops.log1p, "log1p_")
Tensor.logical_not_ = in_place(ops.logical_not, "logical_not_")
Tensor.neg_ = in_place(ops.neg, "neg_")
Tensor.reciprocal_ = in_place(ops.reciprocal, "reciprocal_")
Tensor.relu_ = in_place(ops.relu, "relu_")
Tensor.rsqrt_ = in_place(ops.rsqrt, "rsqrt_")
Tensor.sigmoid_ = in_place(ops.sigmoid, "sigmoid_")
Tensor.sign_ = in_place(ops.sign, "sign_")
Tensor.silu_ = in_place(ops.silu, "silu_")
Tensor.sin_ = in_place(ops.sin, "sin_")
Tensor.sqrt_ = in_place(ops.sqrt, "sqrt_")
Tensor.square_ = in_place(ops.square, "square_")
Tensor.tan_ = in_place(ops.tan, "tan_")
Tensor.tanh_ = in_place(ops.tanh, "tanh_")
Tensor.trunc_ = in_place(ops.trunc, "trunc_")

# Other devices and dtypes

Tensor.to = transfer.to
Tensor.type = lambda self, dtype: transfer.to(self, dtype)
Tensor.type_as = lambda self, other: transfer.to(self, other.dtype)
Tensor.cpu = converts("cpu", "cpu")
Tensor.cuda = cuda
Tensor.half = converts("half", "float16")
Tensor.bfloat16 = converts("bfloat16", "bfloat16")
Tensor.float = converts("float", "float32")
Tensor.double = converts("double", "float64")
Tensor.byte = converts("byte", "uint8")
Tensor.char = converts("char", "int8")
Tensor.short = converts("short", "int16")
Tensor.long = converts("long", "int64")
Tensor.int = converts("int", "int32")
Tensor.bool = converts("bool", "bool")
