"""gradcheck: does a function's backward pass agree with finite differences, and keep the laws?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .autograd.modes import Mode, no_grad
from .autograd.tape import Joint, Leaf, Node, behind, walk_back
from .tensor.dtypes import float64, is_floating
from .tensor.tensor import Tensor


def gradcheck(
    fn: Callable[..., Any], inputs: Sequence[Any], eps: float = 1e-6, atol: float = 1e-7,
    rtol: float = 1e-6, raise_exception: bool = True, fast_mode: bool = False, *,
    complex_step: bool = False, seed: int = 0,
) -> bool:  # fmt: skip
    """Check the gradients of `fn(*inputs)`, a tensor or several, by every floating input.

    Inputs are float64 arrays or tensors (parameters that `fn` reads on its own may stand among
    them). Each entry's gradient is held against a central difference, and so is the slope in one
    random direction, which is all that fast_mode looks at; `fn` must be smooth within eps. With
    complex_step, differences are of the imaginary part at x + 1e-30·i instead, exact to rounding,
    for an fn that is analytic and made of operations that NumPy has for complex numbers; the
    tolerances then are 1e-12 at most (Squire & Trapp 1998).

    Every VJP on the way is moreover called with cotangents of other strides, 0 among them. It
    writes to nothing and keeps nothing that it returns. An AssertionError names the input, the
    entry and both values, or the law that was broken (or False is returned, without
    raise_exception).
    """
    try:
        check = _Check(fn, inputs, seed)
        check.laws()
        probe = _Probe(check, 1e-30, complex_step) if complex_step else _Probe(check, eps)
        bounds = (min(atol, 1e-12), min(rtol, 1e-12)) if complex_step else (atol, rtol)
        if not fast_mode:
            for i, g in check.gradients.items():
                _check_close(i, g, probe.slopes(i), *bounds)
        _check_direction(check, probe, *bounds)
    except AssertionError:
        if raise_exception:
            raise
        return False
    return True


class _Check:
    """A function, its inputs and cotangents, and the gradients of one backward pass."""

    def __init__(self, fn: Callable[..., Any], inputs: Sequence[Any], seed: int):
        self.fn, self.rng = fn, np.random.default_rng(seed)
        self.tensors = [
            x if isinstance(x, Tensor) else Tensor(np.array(x, copy=None)) for x in inputs
        ]
        self.checked = {i: t for i, t in enumerate(self.tensors) if is_floating(t.data)}
        for i, t in self.checked.items():
            known = t.dtype == float64
            assert known, f"input {i} is {t.dtype.name}: finite differences need float64"
            t.requires_grad_().grad = None
        self.before = [t.data.tobytes() for t in self.tensors]
        self.outputs = self.run()
        self.cotangents = [self.rng.standard_normal(y.shape) for y in self.outputs]

    def run(self) -> tuple[Tensor, ...]:
        outputs = self.fn(*self.tensors)
        return tuple(outputs) if isinstance(outputs, tuple | list) else (outputs,)

    def laws(self) -> None:
        """All that can be told without differences."""
        self.untouched()
        for a, b in zip(self.outputs, self.run()):
            same = a.data.tobytes() == b.data.tobytes()
            assert same, "fn gives other values when it is called again: fix its random numbers"
        self.gradients = self.backward()
        _check_own_memory(self.gradients, self.checked, self.cotangents)
        again = self.backward()
        for i, g in self.gradients.items():
            same = g.tobytes() == again[i].tobytes()
            assert same, f"input {i}: a second backward gives other bits"
        _check_vjps(self.roots())
        self.untouched()

    def untouched(self) -> None:
        for i, (t, before) in enumerate(zip(self.tensors, self.before)):
            assert t.data.tobytes() == before, f"input {i} was written to by forward or backward"

    def roots(self) -> list[tuple[Node, np.ndarray]]:
        pairs = zip(self.outputs, self.cotangents)
        return [y.root(c) for y, c in pairs if y.requires_grad]

    def backward(self) -> dict[int, np.ndarray]:
        """One backward pass; zeros where nothing arrives. The graph stays."""
        before = [c.tobytes() for c in self.cotangents]
        for t in self.checked.values():
            t.grad = None
        walk_back(self.roots(), retain_graph=True)
        for c, b in zip(self.cotangents, before):
            assert c.tobytes() == b, "backward wrote into the cotangent it was given"
        grads = {i: t.grad for i, t in self.checked.items()}
        return {i: np.zeros(self.checked[i].shape) if g is None else g.data
                for i, g in grads.items()}  # fmt: skip


def _check_own_memory(gradients: dict, checked: dict, cotangents: list[np.ndarray]) -> None:
    """Each gradient has its input's shape and dtype, and memory that nothing else uses."""
    for i, g in gradients.items():
        t = checked[i]
        assert g.shape == t.shape, f"input {i} has shape {t.shape}, its gradient {g.shape}"
        assert g.dtype == t.dtype, f"input {i} is {t.dtype}, its gradient {g.dtype}"
        others = {f"input {k}": x.data for k, x in checked.items()}
        others |= {f"gradient {k}": h for k, h in gradients.items() if k != i}
        others |= {f"cotangent {k}": c for k, c in enumerate(cotangents)}
        for name, array in others.items():
            assert not np.shares_memory(g, array), f"gradient {i} shares memory with {name}"


# Every VJP on the way back, called with cotangents in awkward memory


def _check_vjps(roots: list[tuple[Node, np.ndarray]]) -> None:
    """Walk back once more through VJPs that are each called several times and compared."""
    nodes = [n for n in behind(n for n, _ in roots) if not isinstance(n, Leaf)]
    originals = [node.vjps for node in nodes]
    for node in nodes:
        node.vjps = [Joint(_watched(node, node.vjps))]
    try:
        walk_back(roots, retain_graph=True)
    finally:
        for node, vjps in zip(nodes, originals):
            node.vjps = vjps


def _watched(node: Node, vjps: Any) -> Callable[[np.ndarray], list]:
    """node.pull with its own VJPs, its results compared over cotangents in several layouts."""
    plain = Node(node.name, node.sources, vjps)

    def pull(g: np.ndarray) -> list:
        results = _pull(plain, np.array(g, order="C"))
        _check_layout(plain, _strided(g), results, "strided")
        for value in g.flat[:1]:
            flat = np.full(g.shape, value)
            _check_layout(plain, np.broadcast_to(value, g.shape), _pull(plain, flat), "stride-0")
        return results

    return pull


def _check_layout(node: Node, g: np.ndarray, expected: list, layout: str) -> None:
    for k, (a, b) in enumerate(zip(_pull(node, g), expected)):
        if node.sources[k] is None or a is None or b is None:
            continue
        where = f"{node.name}, VJP {k}"
        assert not np.shares_memory(a, b), f"{where}: it returns memory that it keeps"
        close = a.shape == b.shape and np.allclose(a, b, rtol=1e-9, atol=1e-11, equal_nan=True)
        assert close, f"{where}: another result for a {layout} cotangent"


def _pull(node: Node, g: np.ndarray) -> list:
    """node.pull(g), which may not write into g."""
    before, wanted = g.tobytes(), [s for s in node.sources if s is not None]
    try:
        results = node.pull(g, wanted)
    except ValueError as error:  # NumPy's word on writing to a stride-0 array
        raise AssertionError(f"{node.name}: a VJP refused its cotangent: {error}") from error
    assert g.tobytes() == before, f"{node.name}: a VJP wrote into its cotangent"
    return [None if r is None else np.asarray(r) for r in results]


def _strided(g: np.ndarray) -> np.ndarray:
    """An equal array, every other element of a larger one, axes reversed in memory."""
    wide = np.full([2 * n + 1 for n in g.shape[::-1]], np.nan, g.dtype)
    every_other: Any = (..., *(slice(1, 2 * n, 2) for n in g.shape[::-1]))
    view = wide[every_other].transpose()
    view[...] = g
    return view


# Finite differences


class _Probe:
    """Slopes of the outputs, weighed by their cotangents, as their inputs are moved a little."""

    def __init__(self, check: _Check, eps: float, complex_step: bool = False):
        self.check, self.eps, self.complex = check, eps, complex_step

    def slopes(self, number: int) -> np.ndarray:
        """By each entry of an input."""
        slopes = np.empty(self.check.tensors[number].shape)
        for index in np.ndindex(slopes.shape):
            step = np.zeros(slopes.shape)
            step[index] = 1
            slopes[index] = self.along({number: step})
        return slopes

    def along(self, steps: dict[int, np.ndarray]) -> float:
        """(f(x + eps·step) - f(x - eps·step)) / 2eps, or Im f(x + i·eps·step) / eps."""
        if self.complex:
            with Mode(complex_numbers=True):
                changes = [y.imag / self.eps for y in self._moved(steps, 1j * self.eps)]
        else:
            above, below = self._moved(steps, self.eps), self._moved(steps, -self.eps)
            changes = [(a - b) / (2 * self.eps) for a, b in zip(above, below)]
        return sum(float(np.sum(d * c)) for d, c in zip(changes, self.check.cotangents))

    def _moved(self, steps: dict[int, np.ndarray], by: complex) -> list[np.ndarray]:
        """The outputs for inputs moved by so many steps; the inputs are put back."""
        kept = {i: t.data for i, t in self.check.checked.items()}
        try:
            for i, data in kept.items():
                self.check.tensors[i].data = np.asarray(data + by * steps.get(i, 0))
            with no_grad():
                return [np.array(y.data) for y in self.check.run()]
        finally:
            for i, data in kept.items():
                self.check.tensors[i].data = data


def _check_direction(check: _Check, probe: _Probe, atol: float, rtol: float) -> None:
    """All inputs moved at once, in one random direction."""
    steps = {i: np.asarray(check.rng.standard_normal(t.shape)) for i, t in check.checked.items()}
    parts = [g * steps[i] for i, g in check.gradients.items()]
    analytic, numeric = sum(float(p.sum()) for p in parts), probe.along(steps)
    scale = max(1.0, *(float(np.abs(p).max(initial=0)) for p in parts))
    assert abs(analytic - numeric) <= atol + rtol * scale, (
        f"along a random direction: analytic {analytic:.12g}, numeric {numeric:.12g}"
    )


def _check_close(
    number: int, analytic: np.ndarray, numeric: np.ndarray, atol: float, rtol: float
) -> None:
    """Every entry, within rtol of the largest of its input's slopes."""
    scale = max(1.0, float(np.abs(numeric).max(initial=0)))
    # not (a <= b), for a NaN
    wrong = np.argwhere(~(np.abs(analytic - numeric) <= atol + rtol * scale))
    if len(wrong):
        at = tuple(int(i) for i in wrong[0])
        raise AssertionError(
            f"input {number} at {at}: analytic {analytic[at]:.12g}, numeric {numeric[at]:.12g} "
            f"({len(wrong)} of {analytic.size} entries differ)"
        )
