"""Parameters as one vector and back, for code that treats a model as a point in space."""

from __future__ import annotations

from collections.abc import Iterable

from ...autograd.modes import no_grad
from ...ops import cat
from ...tensor.tensor import Tensor


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """All elements of the parameters in one vector, in order; gradients flow back to them."""
    return cat([p.reshape(-1) for p in parameters])


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Write the elements of a vector into the parameters, in order.

    The values are copied, and the vector must have as many elements as the parameters together.
    (In PyTorch they share memory, and surplus elements are ignored.)
    """
    if not isinstance(vec, Tensor):
        raise TypeError(f"vector_to_parameters: want a Tensor, not {type(vec).__name__}")
    parameters = list(parameters)
    sizes = [p.numel() for p in parameters]
    if vec.shape != (sum(sizes),):
        raise RuntimeError(
            f"vector_to_parameters: a vector of shape {vec.shape} for {len(sizes)} parameters of "
            f"{sum(sizes)} elements: want shape ({sum(sizes)},)"
        )
    with no_grad():
        for p, part in zip(parameters, vec.split(sizes)):
            p.copy_(part.reshape(p.shape))
