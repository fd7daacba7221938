"""Gradients of tensors: the half of Tensor that is about them, and autograd.grad."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

from . import autograd, saved
from .array import is_floating
from .kernels import arrays as np
from .kernels.halves import ONE, added, as_dtype

if TYPE_CHECKING:
    from .hooks import RemovableHandle
    from .views import View


class Differentiable:
    """What a Tensor knows of its gradient."""

    __slots__ = ("__weakref__", "_grad", "alias", "history", "node", "wants_grad")
    data: np.ndarray
    _grad: Tensor | None
    alias: View | None  # the tensor whose memory this one is a view of
    history: int  # how often a recorded change in place gave it a new node
    node: autograd.Node | None
    wants_grad: bool

    @property
    def requires_grad(self) -> bool:
        if self.alias is not None and self.alias.stale():
            self.alias.refresh(self)
        return self.wants_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.requires_grad_(value)

    @property
    def is_leaf(self) -> bool:
        return not self.requires_grad or self.node is None or isinstance(self.node, autograd.Leaf)

    @property
    def grad_fn(self) -> autograd.Node | None:
        return None if self.is_leaf else self.node

    @property
    def grad(self) -> Tensor | None:
        if self._grad is None and not self.is_leaf and not self.retains_grad:
            warnings.warn(
                "reading .grad of a tensor that is not a leaf: backward() leaves it None; call "
                "retain_grad() on it before",
                stacklevel=2,
            )
        return self._grad

    @grad.setter
    def grad(self, new: Tensor | None) -> None:
        if new is not None and not isinstance(new, Tensor):
            raise TypeError(f"grad is a Tensor or None, not {type(new).__name__}")
        if new is not None and new.shape != self.data.shape:
            raise RuntimeError(f"grad of shape {new.shape} for a tensor of shape {self.data.shape}")
        if new is not None and (
            new.dtype != self.data.dtype or np.on_gpu(new.data) != np.on_gpu(self.data)
        ):
            raise RuntimeError(
                "grad is of another dtype, or on another device: use grad.to(tensor)"
            )
        self._grad = new

    @property
    def _version(self) -> int:
        """How often its memory was changed in place by an operation."""
        return saved.last_change_of(self.data).changes

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        if requires_grad and not is_floating(self.data):
            raise RuntimeError(
                f"only floating-point tensors have gradients, not {self.data.dtype.name}: "
                "convert with .float() first"
            )
        if not requires_grad and not self.is_leaf:
            raise RuntimeError("requires_grad_(False) on a computed tensor: use t.detach()")
        self.wants_grad = bool(requires_grad)
        return self

    def detach(self) -> Tensor:
        """The same data, off the tape."""
        return Tensor.of(self.data)

    def detach_(self) -> Self:
        """Take this tensor itself off the tape."""
        if self.alias is not None:
            raise RuntimeError("detach_() of a view would cut what it is a view of: use detach()")
        self.node, self.wants_grad = None, False
        return self

    def backward(
        self, gradient: Any = None, retain_graph: bool | None = None, create_graph: bool = False,
        inputs: Any = None,
    ) -> None:  # fmt: skip
        """Fill `grad` of every leaf this tensor was computed from, as torch.Tensor.backward.

        `gradient` is the cotangent, of this tensor's shape; a single element needs none. With
        `inputs`, only these leaves are filled.
        """
        backward(self, gradient, retain_graph, create_graph, inputs)

    def root(self, gradient: Any = None) -> tuple[autograd.Node, np.ndarray]:
        """Where backward begins, and with which cotangent."""
        node = autograd.source(self)
        if node is None:
            raise RuntimeError(
                "backward() on a tensor that does not require grad: none of the tensors it was "
                "computed from does, or it was computed inside no_grad()"
            )
        return node, self._cotangent(gradient)

    def _cotangent(self, gradient: Any) -> np.ndarray:
        if gradient is None:
            if self.data.size != 1:
                raise RuntimeError(
                    f"backward() without a gradient needs one element, not shape {self.data.shape}"
                    ": pass gradient=, or sum first"
                )
            return np.full_like(self.data, ONE.get(self.data.dtype, 1))
        array = np.asarray(gradient.data if isinstance(gradient, Tensor) else gradient)
        if array.shape != self.data.shape:
            raise RuntimeError(
                f"gradient of shape {array.shape} for a tensor of shape {self.data.shape}"
            )
        return as_dtype(np.at_home_of(self.data, array), self.data.dtype)

    def accumulate_grad(self, cotangent: np.ndarray, owned: bool) -> None:
        """Add an array to `grad`; one that something else holds too is copied first."""
        if self._grad is None:
            self._grad = Tensor.of(cotangent if owned else cotangent.copy())
        else:
            added(self._grad.data, cotangent, self._grad.data)

    @property
    def retains_grad(self) -> bool:
        watch = None if self.node is None else self.node.watch
        return watch is not None and watch.kept is not None and watch.kept() is self

    def retain_grad(self) -> None:
        """Let backward() fill `grad` of this tensor too, which was computed."""
        watch = hooks.watch(self._hooked("retain_grad"))
        if not self.is_leaf:
            watch.kept = weakref.ref(self)

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
        """Call hook(gradient) when this tensor's is complete; a Tensor it returns replaces it."""
        return hooks.RemovableHandle(hooks.watch(self._hooked("register_hook")).hooks, hook)

    def register_post_accumulate_grad_hook(self, hook: Callable[[Tensor], None]) -> RemovableHandle:
        """Call hook(tensor) when backward() has added all of its part to this leaf's `grad`.

        That is in the middle of backward, as soon as the leaf's last use has been walked.
        """
        node = self._hooked("register_post_accumulate_grad_hook")
        if not self.is_leaf:
            raise RuntimeError("register_post_accumulate_grad_hook() is for leaves alone")
        return hooks.RemovableHandle(hooks.watch(node).after, hook)

    def _hooked(self, name: str) -> autograd.Node:
        node = autograd.source(self)
        if node is None:
            raise RuntimeError(f"{name}() on a tensor that does not require grad: it gets none")
        return node


def backward(
    tensors: Any, grad_tensors: Any = None, retain_graph: bool | None = None,
    create_graph: bool = False, inputs: Any = None,
) -> None:  # fmt: skip
    """Fill `grad` of every leaf behind one or several tensors: torch.autograd.backward."""
    _want_first_order(create_graph)
    targets = None if inputs is None else _sources(_several(inputs))
    autograd.walk_back(_roots(tensors, grad_tensors), bool(retain_graph), targets)


def grad(
    outputs: Any, inputs: Any, grad_outputs: Any = None, retain_graph: bool | None = None,
    create_graph: bool = False, allow_unused: bool = False,
) -> tuple:  # fmt: skip
    """The gradients of the sum of `outputs` by `inputs`, inner tensors too: torch.autograd.grad."""
    _want_first_order(create_graph)
    targets = _sources(_several(inputs))
    roots = _roots(outputs, grad_outputs)
    found = autograd.walk_back(roots, bool(retain_graph), targets, capture=True)
    for i, target in enumerate(targets):
        if target not in found and not allow_unused:
            raise RuntimeError(
                f"grad: the outputs do not depend on input {i}, or it appears to not have been "
                "used in the graph: pass allow_unused=True to get None for it"
            )
    return tuple(Tensor.of(found[t]) if t in found else None for t in targets)


def _roots(outputs: Any, gradients: Any) -> list[tuple[autograd.Node, np.ndarray]]:
    ys = _several(outputs)
    gs = (None,) * len(ys) if gradients is None else _several(gradients)
    if len(gs) != len(ys):
        raise RuntimeError(f"backward: {len(gs)} gradients for {len(ys)} outputs: want one each")
    return [y.root(g) for y, g in zip(ys, gs)]


def _several(tensors: Any) -> tuple:
    return tuple(tensors) if isinstance(tensors, tuple | list) else (tensors,)


def _sources(tensors: tuple) -> list[autograd.Node]:
    sources = [autograd.source(x) for x in tensors]
    if None in sources:
        raise RuntimeError(f"input {sources.index(None)} of backward does not require grad")
    return sources  # type: ignore[return-value]


def _want_first_order(create_graph: bool) -> None:
    if create_graph:
        raise NotImplementedError(
            "create_graph=True: second derivatives are not supported: VJPs are functions on arrays "
            "and leave no graph behind (take finite differences of first gradients instead)"
        )


from . import hooks  # noqa: E402  (they need the class above)
from .tensor import Tensor  # noqa: E402
