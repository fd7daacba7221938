"""Flat storage: tensors side by side in one array, so that one pass over memory updates them all.

How it works:
1. `Flat` copies leaves of one dtype into one array that starts on a cache line. The `data` of each
   leaf becomes a view of it, its place. There is a second such array for their gradients.
2. A hook on each leaf copies its gradient into its place as soon as backward has completed it,
   while the gradient is still in the cache. After backward, `grad` of every leaf is a view.
3. An optimiser's step, the gradient norm and an all-reduce then work on the whole array, in one
   call (optim/optimizer.py, nn/utils/clip_grad.py, parallel/data/sum_gradients.py).
4. Nothing is lost if a program assigns to `data` or `grad`: `settle` copies what it finds into its
   place. If a leaf has no gradient, or another dtype by now, `settle` returns False, and the leaves
   must be taken one by one.

All leaves of a Flat share memory. So a change in place of one of them counts as a change of all, if
it comes between a forward and its backward.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from weakref import WeakValueDictionary

from ..kernels import arrays as xp
from .tensor import Tensor

DTYPES = ("float32", "float64")

_flats: WeakValueDictionary[int, Flat] = WeakValueDictionary()  # by id of the array of gradients


class Flat:
    """Leaves of one dtype, on the CPU, that require grad."""

    def __init__(self, leaves: Sequence[Tensor]):
        self.leaves = list(leaves)
        shapes, count = [t.shape for t in leaves], sum(t.numel() for t in leaves)
        self.data, self.grad = (xp.aligned(count, leaves[0].dtype) for _ in range(2))
        self.places, self.grads = xp.cut(self.data, shapes), xp.cut(self.grad, shapes)
        for t, place in zip(leaves, self.places):
            place[...] = t.data
            t.data = place
        self.handles = [
            t.register_post_accumulate_grad_hook(partial(_take, place=grad))
            for t, grad in zip(leaves, self.grads)
        ]
        _flats[id(self.grad)] = self

    def settle(self) -> bool:
        """Bring all data and gradients into their places; False if a leaf cannot be."""
        for t, place in zip(self.leaves, self.places):
            if t.grad is None or not _alike(t.data, place) or not _alike(t.grad.data, place):
                return False
        for t, place, grad in zip(self.leaves, self.places, self.grads):
            if t.data is not place:
                place[...] = t.data
                t.data = place
            _take(t, grad)
        return True


def _alike(array: xp.ndarray, place: xp.ndarray) -> bool:
    """Whether an array of the leaf fits into its place."""
    return array is place or (
        array.shape == place.shape and array.dtype == place.dtype and type(array) is type(place)
    )


def _take(t: Tensor, place: xp.ndarray) -> None:
    """Move the gradient into its place."""
    if t.grad is not None and t.grad.data is not place and _alike(t.grad.data, place):
        place[...] = t.grad.data
        t.grad = Tensor.of(place)


def flattened(leaves: Iterable[Tensor]) -> list[Flat]:
    """Lay leaves side by side, a Flat for each dtype. Those that cannot be are left as they are.

    That is a leaf that requires no grad, lies on a GPU, has 16 bits, or shares its memory.
    """
    by_dtype: dict[str, list[Tensor]] = {}
    for t in leaves:
        own = not t.is_cuda and t.data.base is None
        if own and t.requires_grad and t.dtype.name in DTYPES:
            by_dtype.setdefault(t.dtype.name, []).append(t)
    return [Flat(same) for same in by_dtype.values() if len(same) > 1]


def flats_of(leaves: Iterable[Tensor]) -> list[Flat]:
    """Every Flat that one of these leaves is in."""
    bases = {id(t.data.base) for t in leaves}
    return [flat for flat in _flats.values() if id(flat.data) in bases]


def stretch(gradients: Sequence[xp.ndarray]) -> xp.ndarray | None:
    """The part of a Flat's gradients that these are, in order; None if they are not adjacent."""
    flat = _flats.get(id(gradients[0].base))
    if flat is None:
        return None
    first = next((i for i, g in enumerate(flat.grads) if g is gradients[0]), len(flat.grads))
    row = flat.grads[first : first + len(gradients)]
    if len(row) < len(gradients) or any(a is not b for a, b in zip(row, gradients)):
        return None
    start = sum(g.size for g in flat.grads[:first])
    return flat.grad[start : start + sum(g.size for g in row)]


def whole(gradients: Iterable[xp.ndarray]) -> list[xp.ndarray]:
    """The same numbers in fewer arrays: all gradients of a Flat as its one array."""
    rest: list[xp.ndarray] = []
    found: dict[int, list[xp.ndarray]] = {}
    for g in gradients:
        (found.setdefault(id(g.base), []) if id(g.base) in _flats else rest).append(g)
    for key, parts in found.items():
        flat = _flats[key]
        complete = sorted(map(id, parts)) == sorted(map(id, flat.grads))
        rest += [flat.grad] if complete else parts
    return rest
