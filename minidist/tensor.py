"""Tensor: an array, its gradient, and operators that call the operations in ops/."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from . import printing
from .array import DTypeLike, as_array, dtype_of, is_floating, name_of
from .device import device as place
from .device import device_of, meant, moved
from .gradients import Differentiable
from .kernels import arrays as np
from .kernels.halves import BFLOAT16, as_dtype, wide


class Tensor(Differentiable):
    """An array that remembers how it was computed.

    `data` is the NumPy array itself (PyTorch's `.data` is a Tensor; ours is not). `grad` is a
    Tensor or None. Methods and operators have PyTorch's names and meanings.
    """

    __slots__ = ("data",)
    data: np.ndarray

    def __init__(self, data: Any, requires_grad: bool = False, dtype: DTypeLike = None):
        if isinstance(data, Tensor):
            data = data.data if dtype is None else as_dtype(data.data, dtype_of(dtype))
            dtype = data.dtype
        self.data = as_array(data, dtype)
        self._grad = self.node = self.alias = None
        self.history, self.wants_grad = 0, False
        if requires_grad:
            self.requires_grad_()

    @classmethod
    def of(cls, array: np.ndarray) -> Tensor:
        """Of an operation's array, which is shared; uint16 is bfloat16, of a dtype that is ours."""
        tensor = cls.__new__(cls)
        tensor.data = array
        tensor._grad = tensor.node = tensor.alias = None
        tensor.history, tensor.wants_grad = 0, False
        return tensor

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

    def dim(self) -> int:
        return self.data.ndim

    @property
    def nbytes(self) -> int:
        return self.data.nbytes

    def element_size(self) -> int:
        """Bytes of one element."""
        return self.data.itemsize

    @property
    def device(self) -> place:
        return device_of(self.data)

    @property
    def is_cuda(self) -> bool:
        return np.on_gpu(self.data)

    def is_contiguous(self) -> bool:
        return self.data.flags.c_contiguous

    def is_floating_point(self) -> bool:
        return is_floating(self.data)

    def __len__(self) -> int:
        if not self.ndim:
            raise TypeError("len() of a 0-d tensor: it has no first dimension")
        return len(self.data)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        notes = ["requires_grad=True"] * self.requires_grad
        if self.grad_fn is not None:
            notes = [f"grad_fn=<{self.grad_fn.name}>"]
        notes += [f"device='{self.device}'"] * self.is_cuda
        if self.dtype == BFLOAT16:
            return printing.text(moved(wide(self.data), "cpu"), ["dtype=bfloat16", *notes])
        return printing.text(moved(self.data, "cpu"), notes)

    def __format__(self, spec: str) -> str:
        return format(repr(self) if self.ndim else self.item(), spec)

    # Out of the Tensor world

    def item(self) -> Any:
        if self.numel() != 1:
            raise RuntimeError(f"item() of a tensor of shape {self.shape}: it needs one element")
        return wide(self.data).item()

    def tolist(self) -> Any:
        return wide(self.data).tolist()

    def numpy(self) -> np.ndarray:
        """The array itself, shared; what requires grad or is on a GPU is fetched by hand first."""
        if self.requires_grad:
            raise RuntimeError("numpy() on a tensor that requires grad: use t.detach().numpy()")
        if self.is_cuda:
            raise TypeError(f"numpy() on a tensor on {self.device}: use t.cpu().numpy()")
        if self.dtype == BFLOAT16:
            raise TypeError("numpy() of bfloat16, which NumPy has not: use t.float().numpy()")
        return self.data

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        """array + tensor is a Tensor; array += tensor writes into the array."""
        operation = getattr(ops, UFUNCS.get(ufunc.__name__, ufunc.__name__), None)
        if method == "__call__" and not options and operation is not None:
            return operation(*(Tensor(x) if isinstance(x, np.ndarray) else x for x in inputs))
        arrays = (x.numpy() if isinstance(x, Tensor) else x for x in inputs)
        return getattr(ufunc, method)(*arrays, **options)

    def __bool__(self) -> bool:
        if self.numel() != 1:
            raise RuntimeError(
                f"truth of a tensor of shape {self.shape} is ambiguous: one element is"
            )
        return bool(wide(self.data))

    def __pos__(self) -> Tensor:
        return self

    def __contains__(self, element: Any) -> bool:
        return bool((self == element).any())

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        if self.dtype.kind not in "iub" or self.dtype == BFLOAT16:
            raise TypeError(f"a tensor of {name_of(self.dtype)} as an index: convert with .long()")
        return int(self.item())

    def __reduce__(self) -> tuple:
        """Pickled, it is a leaf: the way it was computed stays behind."""
        data = moved(self.data, "cpu")
        if type(self) is Tensor:
            return Tensor, (data, self.requires_grad, self.dtype)
        return type(self), (Tensor.of(data), self.requires_grad)

    def __deepcopy__(self, memo: dict) -> Tensor:
        if not self.is_leaf:
            raise RuntimeError("deepcopy of a computed tensor: detach() it first")
        memo[id(self)] = twin = Tensor.of(self.data.copy())
        twin.wants_grad = self.requires_grad
        twin._grad = copy.deepcopy(self._grad, memo)
        return twin

    # Other types

    def to(self, *args: Any, dtype: DTypeLike = None, device: Any = None) -> Tensor:
        """In another dtype, on another device, or as a tensor is; itself if it is so already."""
        wanted, where = meant(args, dtype, device)
        y = self if where is None or self.device.is_at(where) else transfer.placed(self, where)
        if wanted is None or wanted is y.dtype or y.dtype == dtype_of(wanted):
            return y
        return ops.cast(y, dtype_of(wanted))

    def type(self, dtype: DTypeLike) -> Tensor:
        return self.to(dtype)

    def cpu(self) -> Tensor:
        return self.to(device="cpu")

    def cuda(self, device: Any = None) -> Tensor:
        """On the GPU in use, or on that of a number or name."""
        return self.to(device="cuda" if device is None else device)

    def float(self) -> Tensor:
        return self.to("float32")

    def bfloat16(self) -> Tensor:
        return self.to("bfloat16")

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


from . import inplace, ops, transfer  # noqa: E402  (they need the class above)

METHODS = """
    abs acos acosh add all amax amin any argmax argmin argsort asin asinh atan atan2 atanh
    bitwise_and bitwise_not bitwise_or bitwise_xor bmm ceil chunk clamp clone contiguous cos cosh
    cumsum diagonal div dot eq erf exp expand expm1 flatten flip floor floor_divide gather ge
    gelu gt index_select isfinite isinf isnan le log log10 log1p log2 log_softmax
    logical_and logical_not logical_or logical_xor logsumexp lt masked_fill masked_select matmul
    max maximum mean min minimum mm mul ne neg norm outer permute pow prod
    reciprocal relu remainder repeat reshape roll round rsqrt scatter_add
    sigmoid sign sin sinh softmax sort split sqrt square squeeze std sub sum t tan tanh topk
    transpose tril triu trunc unbind unsqueeze var view
""".split()  # noqa: SIM905
RENAMED = {"__neg__": "neg", "__abs__": "abs",
           "__invert__": "bitwise_not", "__getitem__": "getitem"}  # fmt: skip
OPERATORS = {
    "add": "add", "sub": "sub", "mul": "mul", "truediv": "div", "floordiv": "floor_divide",
    "mod": "remainder", "matmul": "matmul", "pow": "pow", "and": "bitwise_and",
    "or": "bitwise_or", "xor": "bitwise_xor",
}  # fmt: skip
COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
CASTS = {"half": "float16", "int": "int32", "bool": "bool", "byte": "uint8", "short": "int16",
         "char": "int8"}  # fmt: skip
UFUNCS = {"subtract": "sub", "multiply": "mul", "divide": "div", "power": "pow", "equal": "eq",
          "not_equal": "ne", "less": "lt", "less_equal": "le", "greater": "gt",
          "greater_equal": "ge"}  # fmt: skip

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
