"""ZeRO, stage 3: parameters are sharded too, and full only while they are in use (FSDP).

How it works (Zhao et al. 2023, arXiv 2304.11277):
1. A model is divided into units, usually its blocks. Between steps a rank has only its shards of
   the units' parameters; the parameters' own arrays are empty.
2. Before a unit runs, its parameters are all-gathered, and the next unit's all-gather is started:
   `Zero3._gather_unit`, which forward and backward both call. After the unit they are freed.
3. The tape would keep the weights alive, because VJPs save them. So every weight that a VJP of the
   unit saved is replaced by a FreedWeight, which says where in the unit it lay, and put back while
   the VJP runs (autograd/saved.py).
4. When the gradients of a unit are complete they are reduce-scattered, as in stage 2.
5. The optimiser updates the shards. Nothing is gathered after it: the next forward does that.
"""

from __future__ import annotations

import contextlib
import math
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy

from ...autograd.modes import Mode, current, is_grad_enabled
from ...autograd.saved import Packed, map_saved
from ...autograd.tape import Joint, Node
from ...autograd.versions import owner
from ...comm import Communicator, Request, iall_gather
from ...kernels import arrays as xp
from ...nn import Module, Parameter
from ...optim import Optimizer
from .flat import FlatParameter
from .optimizer import Zero
from .units import alike, blocks, owned_by


class Unit:
    """A module whose parameters are gathered, freed and summed together.

    Its flats hold parameters of one dtype each; frozen ones are apart.
    """

    def __init__(self, name: str, module: Module, flats: list[FlatParameter]):
        self.name, self.module, self.flats = name, module, flats
        self.pending: list[Request] | None = None
        self.is_gathered, self.in_forward = True, False
        self.nodes: list[weakref.ref[Node]] = []  # recorded in forward, not yet pulled in backward
        self.steps = 0  # how often its shards were updated

    def start_gather(self) -> None:
        """Start to gather the parameters; this rank goes on meanwhile."""
        if not self.is_gathered and self.pending is None:
            self.pending = [
                iall_gather(f.comm, f.shard, counts=f.counts, label=f"parameter/{f.name}")
                for f in self.flats
            ]

    def gather(self) -> None:
        """Wait until the parameters are full."""
        if self.is_gathered:
            return
        self.start_gather()
        for flat, request in zip(self.flats, self.pending or ()):
            flat.use(request.wait())
        self.pending, self.is_gathered = None, True

    def free(self) -> None:
        """Keep the shards only; the parameters' own arrays become empty."""
        for request in self.pending or ():
            request.wait()
        self.pending, self.is_gathered = None, False
        for flat in self.flats:
            flat.full = None
            for p in flat.params:
                p.data = xp.empty_like(flat.shard, shape=0)

    def backward_is_over(self) -> bool:
        """Whether all nodes of the unit have been pulled, or dropped with their graph."""
        while self.nodes and _is_over(self.nodes[-1]()):
            self.nodes.pop()
        return not self.nodes


def _is_over(node: Node | None) -> bool:
    return node is None or node.vjps is None


class FreedWeight(Packed):
    """In a VJP, in the place of a weight that was freed: its unit, and where in that it lay."""

    def __init__(self, unit: Unit, flat: FlatParameter, weight: xp.ndarray):
        assert flat.full is not None
        self.unit, self.flat, self.steps = unit, flat, unit.steps
        self.shape, self.strides = weight.shape, weight.strides
        self.dense = weight.flags.c_contiguous
        self.first = (_address(weight) - _address(flat.full)) // flat.full.itemsize

    def view_of(self, full: xp.ndarray) -> xp.ndarray:
        """The weight, as a view of a flat array that was gathered anew."""
        if self.dense:
            return full[self.first : self.first + math.prod(self.shape)].reshape(self.shape)
        library: Any = xp.gpu() if xp.on_gpu(full) else numpy
        view = library.lib.stride_tricks.as_strided
        return view(full[self.first :], self.shape, self.strides)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        raise RuntimeError(f"a weight of shape {self.shape} is used, but it was freed: gather it")


def _address(array: Any) -> int:
    return array.data.ptr if xp.on_gpu(array) else array.__array_interface__["data"][0]


def is_view(array: xp.ndarray, full: xp.ndarray | None) -> bool:
    """Whether `array` is a view of the flat array `full`, and of its dtype."""
    return full is not None and owner(array) is owner(full) and array.dtype == full.dtype


class UnitRecorder:
    """Notes the nodes of a unit's forward, and passes them on to a recorder around it."""

    def __init__(self, outer: Any):
        self.nodes: list[Node] = []
        self.beyond: Any = outer.beyond if isinstance(outer, UnitRecorder) else outer

    def add(self, node: Node) -> None:
        self.nodes.append(node)
        if self.beyond is not True:
            self.beyond.add(node)


class Zero3(Zero):
    """An optimiser of a model whose parameters are sharded over `comm`: used as Zero.

    `units` are modules, in the order in which they run, none inside another; by default the modules
    in the model's outermost ModuleLists. Parameters of no unit, or of several (tied weights), are
    the root unit's. It is full as long as one of `methods` of the model runs, and in backward from
    its first node to its last. Outside, parameters are empty, of shape (0,), so make groups by
    shape before. `with zero.gathered():` makes them full.

    Every rank must run the same units in the same order. Weights that an operation has copied
    (autocast does) are not freed before backward has used them.
    """

    stages = (3,)

    def __init__(
        self, model: Module, comm: Communicator, optimizer_class: type[Optimizer],
        params: Iterable[Any] | None = None, *, units: Sequence[Module] | None = None,
        methods: Sequence[str] = ("forward", "loss"), algorithm: str = "ring",
        replicate_comm: Communicator | None = None, average: bool = False, **defaults: Any,
    ):  # fmt: skip
        self.modules = blocks(model) if units is None else list(units)
        super().__init__(
            model, comm, optimizer_class, params, stage=3, algorithm=algorithm,
            replicate_comm=replicate_comm, average=average, **defaults,
        )  # fmt: skip
        self.wrapped: list[tuple[Module, str, Any]] = []
        for unit in self.units:
            for method in methods if unit is self.units[0] else ("forward",):
                if hasattr(unit.module, method):
                    self._wrap(unit, method)
            unit.free()

    def _make_flats(self) -> list[FlatParameter]:
        """The trained ones, in the order in which backward fills them: the root's last."""
        names = {m: name for name, m in self.model.named_modules()}
        owned = owned_by(self.model, self.modules, names)
        self.units = [
            Unit(names[m] or "root", m, [
                FlatParameter(f"{names[m] or 'root'}/{k}", params, self.comm, copy_shard=True)
                for k, params in enumerate(alike(owned[m]))
            ])
            for m in (self.model, *self.modules)
        ]  # fmt: skip
        flats = [f for unit in (*self.units[:0:-1], self.units[0]) for f in unit.flats]
        return [f for f in flats if f.params[0].requires_grad]

    # Gathering

    def _gather_unit(self, unit: Unit, step: int) -> None:
        """Make a unit's parameters full, and start to gather the next unit's.

        1. Forward calls this before the unit's module runs (step 1). Backward calls it before each
           of the unit's nodes is pulled (step -1); only the first call has something to do.
        2. In backward the units whose nodes have all been pulled are freed first. So one unit is
           full at a time, beside the root.
        3. The all-gather of all ranks' shards is waited for. Usually it was started while the unit
           before was computed (4), and is complete.
        4. The all-gather of the next unit is started, and goes on while this unit is computed.
        5. The unit is freed when its module returns (_running), and in backward when its last node
           has been pulled (_free_finished, here and whenever a gradient is complete).
        """
        if unit.is_gathered:
            return
        if step < 0:
            self._free_finished()
        unit.gather()
        self._prefetch(unit, step)

    def _prefetch(self, unit: Unit, step: int) -> None:
        number = self.units.index(unit) + step
        if step < 0:
            number = number % len(self.units)  # backward: after the root comes the last unit
        if number >= len(self.units):
            return
        if step > 0 or not self.units[number].backward_is_over():
            self.units[number].start_gather()

    def _free_finished(self) -> None:
        for unit in self.units:
            if unit.is_gathered and not unit.in_forward and unit.backward_is_over():
                unit.free()

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
        """Inside, the unit is full; after it, the weights are taken out of its nodes."""
        if unit.in_forward:
            yield
            return
        was_gathered = unit.is_gathered  # by backward, which recomputes (checkpoint); or gathered()
        self._gather_unit(unit, 1)
        recorder = UnitRecorder(current().recording)
        mode: Any = Mode(recording=recorder) if is_grad_enabled() else contextlib.nullcontext()
        unit.in_forward = True
        try:
            with mode:
                yield
        finally:
            unit.in_forward = False
            self._pack_weights(unit, recorder.nodes)
            if not was_gathered:
                unit.free()

    # Backward

    def _pack_weights(self, unit: Unit, nodes: list[Node]) -> None:
        """Replace the weights that the nodes' VJPs saved; each node gathers them when pulled."""
        for node in nodes:
            map_saved(node.vjps, self._pack)
            node.vjps = [Joint(self._pull, unit, node.vjps)]
            unit.nodes.append(weakref.ref(node))

    def _pull(self, unit: Unit, vjps: list, g: xp.ndarray) -> list:
        """The cotangents from the node's own VJPs, with the weights put back while they run."""
        self._gather_unit(unit, -1)
        map_saved(vjps, self._unpack)
        try:
            if isinstance(vjps[0], Joint):
                return vjps[0](g)
            return [None if vjp is None else vjp(g) for vjp in vjps]
        finally:
            map_saved(vjps, self._pack)

    def _pack(self, x: Any) -> Any:
        """A FreedWeight in the place of a weight; any other array as it is."""
        if isinstance(x, Packed):
            return x
        for unit in self.units:
            for flat in unit.flats:
                if is_view(x, flat.full):
                    return FreedWeight(unit, flat, x)
        return x

    def _unpack(self, x: Any) -> Any:
        if not isinstance(x, FreedWeight):
            return x
        if x.steps != x.unit.steps:
            raise RuntimeError(
                f"backward through '{x.unit.name}' after step() has changed its weights: run "
                "forward again"
            )
        self._gather_unit(x.unit, -1)  # a weight of another unit: tied, or the root's
        assert x.flat.full is not None
        return x.view_of(x.flat.full)

    def _arrived(self, number: int, p: Parameter) -> None:
        self._free_finished()
        super()._arrived(number, p)

    def sum_gradients(self) -> None:
        super().sum_gradients()
        for unit in self.units:  # prefetched in vain, or kept by retain_graph
            unit.nodes.clear()
            unit.free()

    # Between steps

    def _gather_updated(self) -> None:
        """Nothing is gathered after a step: each unit is before it runs."""
        for unit in self.units:
            unit.steps += 1
            unit.free()

    def _shards(self) -> list[xp.ndarray]:
        return [flat.shard for unit in self.units for flat in unit.flats]

    def gathered_units(self) -> list[str]:
        """The units whose parameters are full, or being gathered."""
        return [u.name for u in self.units if u.flats and (u.is_gathered or u.pending)]

    @contextlib.contextmanager
    def _gathered(self, write: bool) -> Iterator[None]:
        for unit in self.units:
            unit.gather()
        try:
            yield
        finally:
            for unit in self.units:
                for flat in unit.flats:
                    if write and flat.full is not None:
                        flat.shard[...] = flat.full[flat.start : flat.stop]
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
