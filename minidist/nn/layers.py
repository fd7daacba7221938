"""Linear, Embedding, Dropout, Upsample, Flatten: PyTorch's names, arguments and parameters."""

from __future__ import annotations

from typing import Any

from ..tensor import creation
from ..tensor.dtypes import DEFAULT, DTypeLike
from ..tensor.tensor import Tensor
from . import functional as F
from . import init
from .module import Module, Parameter


def refuse_inplace(inplace: bool) -> None:
    if inplace:
        raise ValueError("inplace=True: layers here never write into their input: leave it out")


def empty(*size: int, dtype: DTypeLike) -> Parameter:
    """A parameter that reset_parameters fills."""
    return Parameter(creation.zeros(*size, dtype=dtype))


class Linear(Module):
    """y = x Wᵀ + b, weight (out, in), bias (out,), both uniform in ±1/sqrt(in) at first."""

    shown = ("in_features", "out_features", "bias?")

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, *, dtype: DTypeLike = DEFAULT
    ):
        self.in_features, self.out_features = in_features, out_features
        self.weight = empty(out_features, in_features, dtype=dtype)
        self.bias = empty(out_features, dtype=dtype) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        init.default_(self.weight, self.bias)

    def forward(self, input: Tensor) -> Tensor:
        if isinstance(input, tuple | list):
            kind = type(input).__name__
            raise TypeError(f"Linear: a {kind} where a Tensor belongs (an RNN returns two things)")
        return F.linear(input, self.weight, self.bias)


class Embedding(Module):
    """A table of vectors, weight (num_embeddings, embedding_dim), standard normal at first.

    Row padding_idx starts at 0 and gets no gradient.
    """

    shown = ("*num_embeddings", "*embedding_dim")

    def __init__(
        self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None, *,
        dtype: DTypeLike = DEFAULT, _weight: Tensor | None = None,
    ):  # fmt: skip
        if padding_idx is not None:
            n = num_embeddings
            assert -n <= padding_idx < n, f"padding_idx {padding_idx} of {n} rows"
            padding_idx %= n
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.padding_idx = padding_idx
        if _weight is not None:
            self.weight = Parameter(_weight, requires_grad=False)
            return
        self.weight = empty(num_embeddings, embedding_dim, dtype=dtype)
        self.reset_parameters()

    @classmethod
    def from_pretrained(
        cls, embeddings: Tensor, freeze: bool = True, padding_idx: int | None = None
    ) -> Embedding:
        """A layer that uses the tensor `embeddings` (rows, width) itself; trained if not freeze."""
        assert embeddings.ndim == 2, f"from_pretrained: {embeddings.shape}: want (rows, width)"
        rows, width = embeddings.shape
        made = cls(rows, width, padding_idx, _weight=embeddings)
        made.weight.requires_grad_(not freeze)
        return made

    def reset_parameters(self) -> None:
        init.normal_(self.weight)
        if self.padding_idx is not None:
            self.weight.data[self.padding_idx] = 0

    def forward(self, input: Tensor) -> Tensor:
        return F.embedding(input, self.weight, self.padding_idx)

    def extra_repr(self) -> str:
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return super().extra_repr() + padding


class Dropout(Module):
    """Zero elements with probability p while training.

    `name` keys the mask where counter-based randomness is in force (`random.at`): two layers
    of one model need two names.
    """

    shown = ("p", "inplace")
    function: Any = staticmethod(F.dropout)

    def __init__(self, p: float = 0.5, inplace: bool = False, *, name: str = "dropout"):
        refuse_inplace(inplace)
        if not 0 <= p <= 1:
            raise ValueError(f"dropout: p = {p}: want 0 <= p <= 1")
        self.p, self.inplace, self.name = p, inplace, name

    def forward(self, input: Tensor) -> Tensor:
        return self.function(input, self.p, self.training, self.name)


class Dropout2d(Dropout):
    """Zero whole channels of (n, c, h, w) with probability p while training."""

    function = staticmethod(F.dropout2d)

    def __init__(self, p: float = 0.5, inplace: bool = False, *, name: str = "dropout2d"):
        super().__init__(p, inplace, name=name)


class Flatten(Module):
    """Merge the dimensions from start_dim to end_dim: all but the batch's by default."""

    shown = ("start_dim", "end_dim")

    def __init__(self, start_dim: int = 1, end_dim: int = -1):
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, input: Tensor) -> Tensor:
        return input.flatten(self.start_dim, self.end_dim)


class Unflatten(Module):
    """Split dimension dim into the sizes unflattened_size; one of them may be -1."""

    shown = ("dim", "unflattened_size")

    def __init__(self, dim: int, unflattened_size: Any):
        sizes = unflattened_size if isinstance(unflattened_size, tuple | list) else None
        if not isinstance(dim, int) or sizes is None or not all(isinstance(n, int) for n in sizes):
            raise TypeError(
                f"Unflatten: dim {dim!r}, sizes {unflattened_size!r}: want an int and ints"
            )
        self.dim, self.unflattened_size = dim, unflattened_size

    def forward(self, input: Tensor) -> Tensor:
        return input.unflatten(self.dim, self.unflattened_size)


class Upsample(Module):
    """Resize (n, c, l) or (n, c, h, w) to `size` or by `scale_factor`, as F.interpolate."""

    def __init__(
        self, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
        align_corners: bool | None = None, recompute_scale_factor: bool | None = None,
    ):  # fmt: skip
        several = isinstance(scale_factor, tuple | list)
        self.size, self.scale_factor = size, tuple(map(float, scale_factor)) if several else (
            None if scale_factor is None else float(scale_factor)
        )  # fmt: skip
        self.mode, self.align_corners = mode, align_corners
        self.recompute_scale_factor = recompute_scale_factor

    def forward(self, input: Tensor) -> Tensor:
        how = self.size, self.scale_factor, self.mode, self.align_corners
        return F.interpolate(input, *how, self.recompute_scale_factor)

    def extra_repr(self) -> str:
        name = "size" if self.scale_factor is None else "scale_factor"
        return f"{name}={getattr(self, name)!r}, mode={self.mode!r}"


class Identity(Module):
    """Its input; takes any arguments and forgets them."""

    def __init__(self, *args: Any, **kwargs: Any):
        pass

    def forward(self, input: Any) -> Any:
        return input
