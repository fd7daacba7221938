"""ZeRO, stage 3: parameters are sharded too, and whole only while they are in use.

As FSDP (Zhao et al. 2023, arXiv 2304.11277): a unit's parameters are gathered before its forward
and freed after it, and so again in backward, while the next unit's are already on their way.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

from ...autograd.modes import Mode, current, is_grad_enabled
from ...autograd.tape import Joint, Node
from ...comm import Communicator
from ...kernels import arrays as xp
from ...nn import Module, Parameter
from ...optim import Optimizer
from .flat import Flat
from .lent import Lent, exchange, lies_in
from .optimizer import Zero
from .units import Unit, alike, blocks, owned_by


class Recorder:
    """Is told of the nodes of a unit's forward, as is whoever records around it."""

    def __init__(self, outer: Any):
        self.nodes: list[Node] = []
        self.beyond: Any = outer.beyond if isinstance(outer, Recorder) else outer

    def add(self, node: Node) -> None:
        self.nodes.append(node)
        if self.beyond is not True:
            self.beyond.add(node)


class Zero3(Zero):
    """An optimiser of a model whose parameters are sharded over `comm`: used as Zero.

    `units` are modules, in the order in which they run, none inside another; by default what
    the model's outermost ModuleLists hold. What is in no unit, or in several (tied weights), is
    the root's, which is whole as long as one of `methods` of the model runs, and in backward from
    its first node to its last. Outside, parameters are empty, of shape (0,) (make groups by shape
    before): `with zero.gathered():` fills them.

    Every rank must run the same units in the same order. Weights that an operation has copied
    (autocast does) are not freed before backward has used them.
    """

    stages = (3,)

    def __init__(
        self, model: Module, comm: Communicator, optimizer_class: type[Optimizer],
        params: Iterable[Any] | None = None, *, units: Sequence[Module] | None = None,
        methods: Sequence[str] = ("forward", "loss"), algorithm: str = "ring",
        replicate_comm: Communicator | None = None, **defaults: Any,
    ):  # fmt: skip
        self.modules = blocks(model) if units is None else list(units)
        super().__init__(
            model, comm, optimizer_class, params, stage=3, algorithm=algorithm,
            replicate_comm=replicate_comm, **defaults,
        )  # fmt: skip
        self.wrapped: list[tuple[Module, str, Any]] = []
        for unit in self.units:
            for method in methods if unit is self.units[0] else ("forward",):
                if hasattr(unit.module, method):
                    self._wrap(unit, method)
            unit.free()

    def _make_flats(self) -> list[Flat]:
        """Those to be trained, in the order in which backward fills them: the root's last."""
        names = {m: name for name, m in self.model.named_modules()}
        owned = owned_by(self.model, self.modules, names)
        self.units = [
            Unit(names[m] or "root", m, [
                Flat(f"{names[m] or 'root'}/{k}", params, self.comm, alone=True)
                for k, params in enumerate(alike(owned[m]))
            ])
            for m in (self.model, *self.modules)
        ]  # fmt: skip
        flats = [f for unit in (*self.units[:0:-1], self.units[0]) for f in unit.flats]
        return [f for f in flats if f.params[0].requires_grad]

    # Forward

    def _wrap(self, unit: Unit, method: str) -> None:
        function, before = getattr(unit.module, method), vars(unit.module).get(method)

        def inside(*args: Any, **options: Any) -> Any:
            with self._running(unit):
                return function(*args, **options)

        setattr(unit.module, method, inside)
        self.wrapped.append((unit.module, method, before))

    @contextlib.contextmanager
    def _running(self, unit: Unit) -> Iterator[None]:
        """The unit is whole inside, and what is recorded there lends its weights afterwards."""
        if unit.running:
            yield
            return
        was_here = unit.is_here  # backward computes it again (checkpoint), or it is gathered()
        unit.gather()
        if not was_here:
            self._prefetch(unit, 1)
        recorder = Recorder(current().recording)
        mode: Any = Mode(recording=recorder) if is_grad_enabled() else contextlib.nullcontext()
        unit.running = True
        try:
            with mode:
                yield
        finally:
            unit.running = False
            self._lend(unit, recorder.nodes)
            if not was_here:
                unit.free()

    def _prefetch(self, unit: Unit, step: int) -> None:
        number = self.units.index(unit) + step
        if step < 0:
            number = number % len(self.units)  # backward: after the root comes the last unit
        if number < len(self.units) and (step > 0 or not self.units[number].is_walked()):
            self.units[number].start()

    # Backward

    def _lend(self, unit: Unit, nodes: list[Node]) -> None:
        for node in nodes:
            exchange(node.vjps, self._take)
            node.vjps = [Joint(self._pull, unit, node.vjps)]
            unit.nodes.append(weakref.ref(node))

    def _pull(self, unit: Unit, vjps: list, g: xp.ndarray) -> list:
        """What the node's own VJPs give, with the weights that they need."""
        self._gather_again(unit)
        exchange(vjps, self._give)
        try:
            if isinstance(vjps[0], Joint):
                return vjps[0](g)
            return [None if vjp is None else vjp(g) for vjp in vjps]
        finally:
            exchange(vjps, self._take)

    def _gather_again(self, unit: Unit) -> None:
        if not unit.is_here:
            self._free_walked()
            unit.gather()
            self._prefetch(unit, -1)

    def _take(self, x: Any) -> Any:
        """A note in the place of a weight; any other array as it is."""
        if isinstance(x, Lent):
            return x
        for unit in self.units:
            for flat in unit.flats:
                if flat.whole is not None and lies_in(x, flat.whole):
                    return Lent((unit, flat, unit.steps), flat.whole, x)
        return x

    def _give(self, x: Any) -> Any:
        if not isinstance(x, Lent):
            return x
        unit, flat, steps = x.lender
        if steps != unit.steps:
            raise RuntimeError(
                f"backward through '{unit.name}' after step() has changed its weights: run forward "
                "again"
            )
        self._gather_again(unit)
        return x.found_in(flat.whole)

    def _arrived(self, number: int, p: Parameter) -> None:
        self._free_walked()
        super()._arrived(number, p)

    def _free_walked(self) -> None:
        for unit in self.units:
            if unit.is_here and not unit.running and unit.is_walked():
                unit.free()

    def sum_gradients(self) -> None:
        super().sum_gradients()
        for unit in self.units:  # what was prefetched in vain, or kept by retain_graph
            unit.nodes.clear()
            unit.free()

    def _share(self) -> None:
        for unit in self.units:
            unit.steps += 1
            unit.free()

    def _shards(self) -> list[xp.ndarray]:
        return [flat.shard for unit in self.units for flat in unit.flats]

    def whole_units(self) -> list[str]:
        """The units whose parameters are here, or on their way."""
        return [u.name for u in self.units if u.flats and (u.is_here or u.coming)]

    @contextlib.contextmanager
    def _gathered(self, write: bool) -> Iterator[None]:
        for unit in self.units:
            unit.gather()
        try:
            yield
        finally:
            for unit in self.units:
                for flat in unit.flats:
                    if write and flat.whole is not None:
                        flat.shard[...] = flat.whole[flat.start : flat.stop]
                unit.steps += write
                unit.free()

    def gathered(self, write: bool = False) -> AbstractContextManager:
        return self._gathered(write)

    def close(self) -> None:
        super().close()
        for module, method, before in self.wrapped:
            delattr(module, method)
            if before is not None:
                setattr(module, method, before)
        self.wrapped = []
        for unit in self.units:
            unit.gather()
