"""Tensor: an array, its gradient, and operators that call the operations in ops/."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from . import autograd
from .array import DTypeLike, as_array, dtype_of, is_floating


class Tensor:
    """An array that remembers how it was computed.

    `data` is the NumPy array itself (PyTorch's `.data` is a Tensor; ours is not). `grad` is a
    Tensor or None. Methods and operators have PyTorch's names and meanings.
    """

    __slots__ = ("__weakref__", "data", "grad", "node", "requires_grad")
    __array_priority__ = 100  # array + tensor asks the tensor first
    data: np.ndarray

    def __init__(self, data: Any, requires_grad: bool = False, dtype: DTypeLike = None):
        self.data = as_array(data.data if isinstance(data, Tensor) else data, dtype)
        self.grad: Tensor | None = None
        self.node: autograd.Node | None = None
        self.requires_grad = False
        self.requires_grad_(requires_grad)

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

    @property
    def is_leaf(self) -> bool:
        return self.node is None or isinstance(self.node, autograd.Leaf)

    @property
    def grad_fn(self) -> autograd.Node | None:
        return None if self.is_leaf else self.node

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

    # Gradients

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        if requires_grad and not is_floating(self.data):
            raise RuntimeError(
                f"only floating-point tensors have gradients, not {self.dtype.name}: "
                "convert with .float() first"
            )
        if not requires_grad and not self.is_leaf:
            raise RuntimeError("requires_grad_(False) on a computed tensor: use t.detach()")
        self.requires_grad = requires_grad
        return self

    def detach(self) -> Tensor:
        """The same data, off the tape."""
        return Tensor(self.data)

    def backward(self, gradient: Any = None, retain_graph: bool = False) -> None:
        """Fill `grad` of every leaf this tensor was computed from, as torch.Tensor.backward.

        `gradient` is the cotangent, of this tensor's shape; a single element needs none.
        """
        root = autograd.source(self)
        if root is None:
            raise RuntimeError(
                "backward() on a tensor that does not require grad: none of the tensors it was "
                "computed from does, or it was computed inside no_grad()"
            )
        autograd.backward(root, self._cotangent(gradient), retain_graph)

    def _cotangent(self, gradient: Any) -> np.ndarray:
        if gradient is None:
            if self.numel() != 1:
                raise RuntimeError(
                    f"backward() without a gradient needs one element, not shape {self.shape}: "
                    "pass gradient=, or sum first"
                )
            return np.ones_like(self.data)
        array = np.asarray(gradient.data if isinstance(gradient, Tensor) else gradient)
        if array.shape != self.shape:
            raise RuntimeError(
                f"gradient of shape {array.shape} for a tensor of shape {self.shape}"
            )
        return array.astype(self.dtype, copy=False)

    def accumulate_grad(self, cotangent: np.ndarray, owned: bool) -> None:
        """Add an array to `grad`; one that something else holds too is copied first."""
        if self.grad is None:
            self.grad = Tensor(cotangent if owned else cotangent.copy())
        else:
            self.grad.data += cotangent

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

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


def _compare(function: Any, a: Tensor, b: Any) -> Any:
    """Elementwise, as in PyTorch; hash and dict keys go by identity all the same."""
    other = b.data if isinstance(b, Tensor) else b
    if not isinstance(other, np.ndarray | np.generic | bool | int | float):
        return NotImplemented
    return Tensor(function(a.data, other))


from . import ops  # noqa: E402  (ops needs the class above)

METHODS = (
    "clone", "exp", "log", "sqrt", "tanh", "pow", "sum", "mean", "amax", "reshape", "view",
    "flatten", "transpose", "permute", "squeeze", "unsqueeze", "expand", "matmul", "softmax",
    "gelu", "relu",
)  # fmt: skip
OPERATORS = {
    "add": "add", "sub": "sub", "mul": "mul", "truediv": "div", "matmul": "matmul", "pow": "pow",
}  # fmt: skip
COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")

for _name in METHODS:
    setattr(Tensor, _name, getattr(ops, _name))
for _name, _operation in OPERATORS.items():
    _function = getattr(ops, _operation)
    setattr(Tensor, f"__{_name}__", _function)
    setattr(Tensor, f"__r{_name}__", lambda self, other, f=_function: f(other, self))
for _name in COMPARISONS:
    _function = getattr(operator, _name)
    setattr(Tensor, f"__{_name}__", lambda self, other, f=_function: _compare(f, self, other))
Tensor.__neg__, Tensor.__getitem__ = ops.neg, ops.getitem
Tensor.T = property(lambda self: ops.permute(self, *reversed(range(self.ndim))))
