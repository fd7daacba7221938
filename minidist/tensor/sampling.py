"""Sampling functions with PyTorch's names: from the default stream or a generator."""

from ..kernels import arrays as xp
from ..kernels.half_precision import wide
from . import creation
from .device import moved
from .dtypes import is_floating
from .generator import numbers_of
from .teaching import teaching
from .tensor import Tensor


def normal(mean, std, size=None, *, generator=None, dtype=None, requires_grad=False, device=None):
    """Normal numbers; mean and std are numbers (then give a size) or tensors."""
    shape = size or xp.broadcast_shapes(*(xp.shape(getattr(a, "data", a)) for a in (mean, std)))
    like = next((t for t in (mean, std) if isinstance(t, Tensor)), None)
    if like is not None:
        device, dtype = device or like.device, dtype or like.dtype
    drawn = creation.randn(*shape, dtype=dtype or "float32", device=device, generator=generator)
    return creation.tensor((drawn * std + mean).to(drawn.dtype), None, requires_grad)


@teaching
def bernoulli(input, *, generator=None):
    """1 with the probability that the input says, else 0."""
    if not is_floating(input.data):
        raise NotImplementedError(f"bernoulli of {input.dtype.name}: want probabilities, floats")
    p = wide(input.data)
    if not ((p >= 0) & (p <= 1)).all():
        raise RuntimeError("bernoulli: probabilities outside 0 to 1")
    drawn = creation.rand_like(input, dtype="float64", generator=generator)
    return (drawn < input.double()).to(input.dtype)


@teaching
def multinomial(input, num_samples, replacement=False, *, generator=None):
    """Indices drawn with probabilities in proportion to input (n) or (m, n)."""
    p = xp.atleast_2d(moved(wide(input.data), "cpu")).astype(float)  # drawn on the host
    fit = xp.isfinite(p).all() and (p >= 0).all() and (p.sum(1) > 0).all()
    if not fit or input.ndim not in (1, 2) or not is_floating(input.data):
        raise RuntimeError(
            f"multinomial of {input.dtype.name} {input.shape}: want floats (n) or (m, n), "
            "finite, not negative, not all of a row 0"
        )
    if num_samples < 1:
        raise RuntimeError(f"multinomial: {num_samples} samples: want 1 or more")
    if not replacement and num_samples > p.shape[1]:
        raise RuntimeError(f"multinomial: {num_samples} of {p.shape[1]} without replacement")
    draws = numbers_of(generator).random((len(p), num_samples) if replacement else p.shape)
    found = _with_replacement(p, draws) if replacement else _without(p, draws)[:, :num_samples]
    return Tensor(found if input.ndim == 2 else found[0]).to(input.device)


def _with_replacement(p, draws):
    ends = p.cumsum(1)
    return xp.stack([xp.searchsorted(e / e[-1], d, "right") for e, d in zip(ends, draws)])


def _without(p, draws):
    """All in the order in which they are drawn: of exponential times, the first."""
    with xp.errstate(divide="ignore"):
        return (-xp.log1p(-draws) / p).argsort(1)
