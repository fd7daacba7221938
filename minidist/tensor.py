"""Tensor: an array, its gradient, and operators that call the operations in ops/."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from .array import DTypeLike, as_array, dtype_of
from .gradients import Differentiable


class Tensor(Differentiable):
    """An array that remembers how it was computed.

    `data` is the NumPy array itself (PyTorch's `.data` is a Tensor; ours is not). `grad` is a
    Tensor or None. Methods and operators have PyTorch's names and meanings.
    """

    __slots__ = ("data",)
    __array_priority__ = 100  # array + tensor asks the tensor first
    data: np.ndarray

    def __init__(self, data: Any, requires_grad: bool = False, dtype: DTypeLike = None):
        self.data = as_array(data.data if isinstance(data, Tensor) else data, dtype)
        self._grad = self.node = self.alias = None
        self.history, self.wants_grad = 0, False
        if requires_grad:
            self.requires_grad_()

    # What it is

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def ndim(self) -> int:
        return self.data.ndim

    @property
    def dtype(self) -> np.dtype:
        return self.data.dtype

    def size(self, dim: int | None = None) -> Any:
        return self.shape if dim is None else self.shape[dim]

    def numel(self) -> int:
        return self.data.size

    def __len__(self) -> int:
        if not self.ndim:
            raise TypeError("len() of a 0-d tensor: it has no first dimension")
        return len(self.data)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        text = np.array2string(self.data, separator=", ", prefix="tensor(")
        note = ", requires_grad=True" if self.requires_grad else ""
        return f"tensor({text}, dtype={self.dtype.name}{note})"

    def __format__(self, spec: str) -> str:
        return format(repr(self) if self.ndim else self.item(), spec)

    # Out of the Tensor world

    def item(self) -> Any:
        if self.numel() != 1:
            raise RuntimeError(f"item() of a tensor of shape {self.shape}: it needs one element")
        return self.data.item()

    def tolist(self) -> Any:
        return self.data.tolist()

    def numpy(self) -> np.ndarray:
        """The array itself, shared; a tensor that requires grad is detached first, by hand."""
        if self.requires_grad:
            raise RuntimeError("numpy() on a tensor that requires grad: use t.detach().numpy()")
        return self.data

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def __bool__(self) -> bool:
        if self.numel() != 1:
            raise RuntimeError(
                f"truth of a tensor of shape {self.shape} is ambiguous: one element is"
            )
        return bool(self.data)

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    # Other types

    def to(self, dtype: DTypeLike) -> Tensor:
        return self if self.dtype == dtype_of(dtype) else ops.cast(self, dtype_of(dtype))

    def float(self) -> Tensor:
        return self.to("float32")

    def double(self) -> Tensor:
        return self.to("float64")

    def long(self) -> Tensor:
        return self.to("int64")

    # Operators and the methods that are operations of the same name: see the tables below.
    __add__: Any
    __sub__: Any
    __mul__: Any
    __truediv__: Any
    __pow__: Any
    __matmul__: Any
    __neg__: Any
    __getitem__: Any
    T: Any
    mT: Any

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


def _compare(function: Any, a: Tensor, b: Any) -> Any:
    """Elementwise, as in PyTorch; hash and dict keys go by identity all the same."""
    numbers = Tensor | np.ndarray | np.generic | bool | int | float
    return function(a, b) if isinstance(b, numbers) else NotImplemented


from . import inplace, ops  # noqa: E402  (they need the class above)

METHODS = """
    abs acos add all allclose amax amin any argmax argmin argsort asin atan atan2 bitwise_and
    bitwise_not bitwise_or bitwise_xor bmm ceil chunk clamp clone contiguous cos cosh cumsum
    diagonal div dot eq equal erf exp expand expm1 flatten flip floor floor_divide gather ge
    gelu gt index_select isfinite isinf isnan le log log10 log1p log2 log_softmax
    logical_and logical_not logical_or logical_xor logsumexp lt masked_fill masked_select matmul
    max maximum mean min minimum mm mul ne neg nonzero norm outer permute pow prod
    reciprocal relu remainder repeat reshape roll round rsqrt scatter_add
    sigmoid sign sin sinh softmax sort split sqrt square squeeze std sub sum t tan tanh topk
    transpose tril triu trunc unbind unsqueeze var view
""".split()  # noqa: SIM905
RENAMED = {"clip": "clamp", "swapaxes": "transpose", "__neg__": "neg", "__abs__": "abs",
           "__invert__": "bitwise_not", "__getitem__": "getitem"}  # fmt: skip
OPERATORS = {
    "add": "add", "sub": "sub", "mul": "mul", "truediv": "div", "floordiv": "floor_divide",
    "mod": "remainder", "matmul": "matmul", "pow": "pow", "and": "bitwise_and",
    "or": "bitwise_or", "xor": "bitwise_xor",
}  # fmt: skip
COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
CASTS = {"half": "float16", "int": "int32", "bool": "bool"}

for _name in METHODS:
    setattr(Tensor, _name, getattr(ops, _name))
for _name, _operation in RENAMED.items():
    setattr(Tensor, _name, getattr(ops, _operation))
for _name, _operation in OPERATORS.items():
    _function = getattr(ops, _operation)
    setattr(Tensor, f"__{_name}__", _function)
    setattr(Tensor, f"__r{_name}__", lambda self, other, f=_function: f(other, self))
for _name in COMPARISONS:
    _function = getattr(ops, _name)
    setattr(Tensor, f"__{_name}__", lambda self, other, f=_function: _compare(f, self, other))
for _name, _dtype in CASTS.items():
    setattr(Tensor, _name, lambda self, dtype=_dtype: self.to(dtype))
Tensor.T = property(lambda self: ops.permute(self, *reversed(range(self.ndim))))
Tensor.mT = property(lambda self: ops.transpose(self, -2, -1))
inplace.attach(ops)
