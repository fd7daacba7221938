"""Units of a model: modules whose parameters are gathered, freed and summed together."""

from __future__ import annotations

import weakref

from ...autograd.tape import Node
from ...comm import Request, iall_gather
from ...kernels import arrays as xp
from ...nn import Module, ModuleList, Parameter
from .flat import Flat


class Unit:
    """A module's parameters, which come and go together: flats of one dtype, frozen ones apart."""

    def __init__(self, name: str, module: Module, flats: list[Flat]):
        self.name, self.module, self.flats = name, module, flats
        self.coming: list[Request] | None = None
        self.is_here, self.running = True, False
        self.nodes: list[weakref.ref[Node]] = []  # recorded in forward, to be walked in backward
        self.steps = 0  # how often its shards were updated

    def start(self) -> None:
        """Let the parameters come, beside what this rank does next."""
        if not self.is_here and self.coming is None:
            self.coming = [
                iall_gather(f.comm, f.shard, counts=f.counts, label=f"parameter/{f.name}")
                for f in self.flats
            ]

    def gather(self) -> None:
        if self.is_here:
            return
        self.start()
        for flat, request in zip(self.flats, self.coming or ()):
            flat.spread(request.wait())
        self.coming, self.is_here = None, True

    def free(self) -> None:
        """Hold the shard alone; the parameters' arrays are empty."""
        for request in self.coming or ():
            request.wait()
        self.coming, self.is_here = None, False
        for flat in self.flats:
            flat.whole = None
            for p in flat.params:
                p.data = xp.empty_like(flat.shard, shape=0)

    def is_walked(self) -> bool:
        """Whether backward is through with it, or nothing is left to go back through."""
        while self.nodes and _is_over(self.nodes[-1]()):
            self.nodes.pop()
        return not self.nodes


def _is_over(node: Node | None) -> bool:
    return node is None or node.vjps is None


def blocks(model: Module) -> list[Module]:
    """What the outermost ModuleLists of a model hold."""
    found: list[Module] = []
    inside: set[Module] = set()
    for module in model.modules():
        if isinstance(module, ModuleList) and module not in inside:
            found += module
            inside.update(module.modules())
    return [m for m in dict.fromkeys(found) if any(True for _ in m.parameters())]


def owned_by(
    model: Module, units: list[Module], names: dict[Module, str]
) -> dict[Module, list[Parameter]]:
    """Each module's parameters; of the model those that are no unit's, or several units'."""
    seen: dict[Module, Module] = {}
    users: dict[Parameter, list[Module]] = {p: [] for p in model.parameters()}
    for unit in units:
        if unit not in names or unit is model:
            raise ValueError(f"Zero3: the unit {type(unit).__name__} is no module inside the model")
        for m in unit.modules():
            if m in seen and (m is unit or m is seen[m]):
                raise ValueError(
                    f"Zero3: units '{names[seen[m]]}' and '{names[unit]}' lie inside each other, "
                    "or are one: give one of them"
                )
            seen[m] = unit
        for p in unit.parameters():
            users[p].append(unit)
    owned: dict[Module, list[Parameter]] = {m: [] for m in (model, *units)}
    for p, of in users.items():
        owned[of[0] if len(of) == 1 else model].append(p)
    return owned


def alike(params: list[Parameter]) -> list[list[Parameter]]:
    """By dtype, and whether they are trained."""
    groups: dict[tuple, list[Parameter]] = {}
    for p in params:
        groups.setdefault((str(p.dtype), p.requires_grad), []).append(p)
    return list(groups.values())
