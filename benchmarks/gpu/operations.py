"""Right: every operation, layer and optimiser on the GPU in float32 against the CPU in float64."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np

from .checks import Entry, check, difference
from .machine import Machine
from .op_table import LAYERS, OPS, OPTIMISERS, drawn

BOUND = 1e-4  # of values and gradients, beside numbers of at least 1
Place = tuple[Machine | None, str]  # None: the CPU, the one to compare with; and the dtype
EXACT = (None, "float64")


def run(machine: Machine) -> Iterator[Entry]:
    if machine.mine():
        yield from api(machine)
    here = (machine, "float32")
    for table, work in ((OPS, _operation), (LAYERS, _layer), (OPTIMISERS, _optimiser)):
        for name, case in table.items():
            if machine.mine():
                yield check(name, BOUND, _apart, work, here, case)


def _apart(work: Callable[..., list[np.ndarray]], here: Place, case: Any) -> float:
    return difference(work(here, case), work(EXACT, case))


def api(machine: Machine) -> Iterator[Entry]:
    """How tensors get there and back."""
    import minidist as md

    numbers = np.arange(6.0, dtype=np.float32).reshape(2, 3)

    def there_and_back() -> float:
        t = md.tensor(numbers).to(machine.device)
        assert machine.has(t.data) and t.device.type == machine.device, f"data is {type(t.data)}"
        assert t.cpu().device.type == "cpu" and isinstance(t.cpu().data, np.ndarray)
        return difference([t.cpu().numpy()], [numbers])

    def made_there() -> float:
        made = [md.tensor(numbers, device=machine.device), md.zeros(2, 3, device=machine.device)]
        assert all(machine.has(t.data) for t in made)
        return difference([machine.get(t.data) for t in made], [numbers, numbers * 0])

    def random_numbers() -> float:
        both = []
        for device in ("cpu", machine.device):
            md.manual_seed(3)
            both.append(md.randn(40, device=device).cpu().numpy())
        return difference(*([x] for x in both))

    yield check("to(device), cpu()", 0, there_and_back)
    yield check("made on the device", 0, made_there)
    yield check("random numbers of a seed", BOUND, random_numbers)
    if machine.device == "cuda":
        yield check("cuda.is_available()", 0, lambda: float(not md.cuda.is_available()))
        yield check("cuda.synchronize()", 0, lambda: float(md.cuda.synchronize() is not None))


def using(place: Place) -> contextlib.AbstractContextManager:
    """What to compare with is NumPy's text."""
    from minidist.kernels.dispatch import using

    return using("numba") if place[0] is None else contextlib.nullcontext()


def tensors(place: Place, arrays: list[np.ndarray]) -> list[Any]:
    import minidist as md

    machine, dtype = place
    device = "cpu" if machine is None else machine.device
    cast = [a.astype(dtype) if a.dtype.kind == "f" else a for a in arrays]
    return [md.tensor(a, device=device) for a in cast]


def arrays(place: Place, found: list[Any]) -> list[np.ndarray]:
    """The arrays of tensors, after a check that each is on the device asked for."""
    machine, dtype = place
    for t in found:
        home = np.ndarray if machine is None else machine.xp.ndarray
        assert isinstance(t.data, home), f"a result is {type(t.data).__module__}'s"
        assert t.data.dtype.kind != "f" or t.data.dtype == dtype, f"a result is {t.data.dtype}"
    return [t.data if machine is None else machine.get(t.data) for t in found]


def slopes(place: Place, results: list[Any], sources: list[Any]) -> list[np.ndarray]:
    """Values of results, and what random cotangents of theirs make of the sources' gradients."""
    cotangents = tensors(place, [np.sin(np.arange(t.numel()) + 1.0).reshape(t.shape)
                                 for t in results])  # fmt: skip
    live = [(y * g).sum() for y, g in zip(results, cotangents) if y.requires_grad]
    if live:
        sum(live[1:], live[0]).backward()
    grads = [t.grad for t in sources if t.grad is not None]
    return arrays(place, [y.detach() for y in results]) + arrays(place, grads)


def _flat(result: Any) -> list[Any]:
    if isinstance(result, tuple | list):
        return [t for part in result for t in _flat(part)]
    return [] if result is None else [result]


def _operation(place: Place, case: tuple[Callable[..., Any], list]) -> list[np.ndarray]:
    import minidist as md
    from minidist.nn import functional

    function, arguments = case
    m = SimpleNamespace(**vars(md) | {"F": functional})
    inputs = tensors(place, [drawn(a, seed) for seed, a in enumerate(arguments)])
    sources = [t.requires_grad_() for t in inputs if t.is_floating_point()]
    md.manual_seed(0)
    with using(place):
        return slopes(place, _flat(function(m, *inputs)), sources)


def _layer(place: Place, case: tuple[Callable[..., Any], list]) -> list[np.ndarray]:
    import minidist as md
    from minidist import nn

    make, arguments = case
    md.manual_seed(0)
    module = _placed(place, make(nn))
    inputs = tensors(place, [drawn(a, seed) for seed, a in enumerate(arguments)])
    with using(place):
        results = _flat(module(*inputs))
        return slopes(place, results, list(module.parameters()))


def _placed(place: Place, module: Any) -> Any:
    machine, _ = place
    module = copy.deepcopy(module)
    return module.double() if machine is None else module.to(machine.device)


def _optimiser(place: Place, make: Callable[..., Any]) -> list[np.ndarray]:
    """Three steps, of clipped gradients."""
    from minidist import optim

    params = [t.requires_grad_() for t in tensors(place, [drawn((6, 8), 0), drawn((5, 3), 1)])]
    with using(place):
        optimiser = make(optim, params)
        for _ in range(3):
            optimiser.zero_grad()
            sum((p**2).sum() for p in params).backward()
            optim.clip_grad_norm_(params, 5.0)
            optimiser.step()
    return arrays(place, [p.detach() for p in params])
