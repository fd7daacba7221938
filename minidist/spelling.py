"""Other spellings: PyTorch's second names, axis for dim, and methods that are made of others."""

import functools

from . import creation, derived, draws, ops
from .inplace import in_place
from .tensor import Tensor

METHODS = """
    addmm allclose bincount count_nonzero diag equal index_add isclose lerp median
    movedim mv narrow nonzero repeat_interleave scatter select tile unflatten
    unique
""".split()  # noqa: SIM905
ALIASES = {
    "absolute": "abs", "clip": "clamp", "concat": "cat", "concatenate": "cat", "divide": "div",
    "greater": "gt", "greater_equal": "ge", "less": "lt", "less_equal": "le", "multiply": "mul",
    "negative": "neg", "not_equal": "ne", "subtract": "sub", "swapaxes": "transpose",
    "swapdims": "transpose", "true_divide": "div",
}  # fmt: skip
WITH_AXIS = """
    all amax amin any argmax argmin cumsum log_softmax logsumexp max mean min norm prod softmax std
    sum var
""".split()  # noqa: SIM905


OWN_WORDS = {"axis": "dim", "keepdims": "keepdim"}


def with_axis(operation):
    """The operation, whose dim and keepdim may be called axis and keepdims, as NumPy does."""

    @functools.wraps(operation)
    def spelled(*args, **options):
        if options:
            options = {OWN_WORDS.get(name, name): value for name, value in options.items()}
        return operation(*args, **options)

    return spelled


SPELLED = {n: getattr(ops, o) for n, o in ALIASES.items()}
SPELLED |= {n: with_axis(getattr(ops, n)) for n in WITH_AXIS}
SPELLED["cumprod"] = with_axis(derived.cumprod)
SPELLED |= {"moveaxis": derived.movedim, "broadcast_to": ops.expand, "argwhere": derived.nonzero}
SPELLED |= {"numel": Tensor.numel, "is_floating_point": Tensor.is_floating_point}
SPELLED["is_tensor"] = lambda obj: isinstance(obj, Tensor)


def _attach():
    """Give Tensor its methods that are made of others."""
    own = {name: getattr(derived, name) for name in METHODS} | SPELLED
    own |= {"bernoulli": draws.bernoulli, "multinomial": draws.multinomial}
    own |= {f"new_{n}": _new(getattr(creation, n)) for n in ("zeros", "ones", "empty", "full")}
    own |= {
        "expand_as": lambda self, other: self.expand(other.shape),
        "reshape_as": lambda self, other: self.reshape(other.shape),
        "view_as": lambda self, other: self.view(other.shape),
        "type_as": lambda self, other: self.to(other.dtype),
        "ravel": lambda self: self.reshape(-1),
        "where": lambda self, condition, other: ops.where(condition, self, other),
        "nelement": Tensor.numel,
    }
    own |= {f"{n}_": in_place(own[n], f"{n}_") for n in ("index_add", "lerp", "scatter")}
    for name in own.keys() - {"concat", "concatenate", "is_tensor"}:
        setattr(Tensor, name, own[name])


def _new(create):
    as_self = lambda self: {"dtype": self.dtype, "device": self.device}
    return lambda self, *args, **options: create(*args, **as_self(self) | options)


_attach()
