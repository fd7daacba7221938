"""Which modules of a model are ZeRO-3's units, and which parameters belong to each of them."""

from __future__ import annotations

from ...nn import Module, ModuleList, Parameter


def blocks(model: Module) -> list[Module]:
    """The modules in the outermost ModuleLists of a model: a transformer's layers."""
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
    """Each unit's parameters. The model itself has those of no unit, and of several (tied)."""
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
    """The parameters grouped by dtype, and by whether they are trained."""
    groups: dict[tuple, list[Parameter]] = {}
    for p in params:
        groups.setdefault((str(p.dtype), p.requires_grad), []).append(p)
    return list(groups.values())
