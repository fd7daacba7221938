"""How fast is it: contestants in turns, CUDA events around each run, medians; results compared.

PyTorch allocates what both work on, and ours sees the same memory as CuPy's arrays. Both launch on
the default stream. Before each run a large array is read, so that L2 holds nothing of use, and in
that time Python runs ahead: what is measured is the GPU's time, not that of launching. PyTorch runs
as it comes, but for TF32, which is off; sums of 16 bits may be rounded to 16 bits on their way.
"""

from __future__ import annotations

import functools
import gc
import statistics
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from minidist.kernels.half_precision import BFLOAT16

from .checks import BOUNDS, Entry, check, told
from .machine import Machine

OURS, TORCH = "minidist", "PyTorch"
UNITS = {"TFLOP/s": 1e9, "GB/s": 1e6}  # of so many a millisecond
FLUSHED, AHEAD = 1 << 30, 30  # bytes read before a run; so often before the first, some ms


class Speed(NamedTuple):
    """make(bench) -> {contestant: run}; `amount` of FLOPs or bytes is what a run takes.

    The goal is a ratio to the speed of the contestant `beside`. What ours and PyTorch's return is
    compared, within `bound`.
    """

    name: str
    make: Callable[[Bench], dict[str, Callable[[], Any]]]
    unit: str
    amount: float
    bound: float
    goal: float | None = None
    beside: str = TORCH
    repeats: int = 30


class Bench:
    """Tensors of PyTorch's, arrays on their memory, and a clock."""

    def __init__(self, machine: Machine):
        import torch

        self.machine, self.torch = machine, torch
        self.device = "cpu" if machine.tiny else "cuda"
        self.generator = torch.Generator(self.device).manual_seed(0)
        torch.backends.cuda.matmul.allow_tf32 = False

    @functools.cached_property
    def junk(self) -> Any:
        """Made when it is first read: where nothing is, it would count as PyTorch's memory."""
        return self.torch.zeros(FLUSHED // 4, device=self.device)

    def dtype(self, name: str) -> Any:
        return getattr(self.torch, name)

    def normal(self, *shape: int, dtype: str = "float32", grad: bool = False) -> Any:
        x = self.torch.randn(shape, generator=self.generator, device=self.device)
        return x.to(self.dtype(dtype)).requires_grad_(grad)

    def below(self, n: int, *shape: int) -> Any:
        return self.torch.randint(0, n, shape, generator=self.generator, device=self.device)

    def array(self, tensor: Any) -> Any:
        """The tensor's own memory as an array."""
        x = tensor.detach()
        assert x.is_contiguous()
        name = str(x.dtype).removeprefix("torch.")
        dtype = BFLOAT16 if name == "bfloat16" else np.dtype(name)
        if self.machine.xp is np:
            plain = x.view(self.torch.int16) if name == "bfloat16" else x
            return plain.numpy().view(dtype)
        cuda = self.machine.xp.cuda
        memory = cuda.UnownedMemory(x.data_ptr(), x.nbytes, x)
        return self.machine.xp.ndarray(tuple(x.shape), dtype, cuda.MemoryPointer(memory, 0))

    def tensor(self, array: Any, like: Any) -> Any:
        """A copy, of `like`'s dtype."""
        out = self.torch.empty(array.shape, dtype=like.dtype, device=self.device)
        self.array(out)[...] = array
        return out

    def free(self) -> None:
        gc.collect()
        if not self.machine.tiny:
            self.machine.synchronize()
            self.machine.xp.get_default_memory_pool().free_all_blocks()
            self.torch.cuda.empty_cache()

    def difference(self, ours: Any, theirs: Any) -> float:
        """The largest, each array's beside its largest number."""
        found = [0.0]
        for a, t in zip(ours, theirs, strict=True):
            t = t.detach()
            assert tuple(a.shape) == tuple(t.shape), f"ours {a.shape}, PyTorch's {t.shape}"
            a = self.tensor(a, t).double() if t.numel() < 1 << 27 else self.tensor(a, t).float()
            scale = max(1e-9, float(t.abs().max()))
            found.append(float((a - t).abs().max()) / scale)
        return float(np.max(found))

    # The clock

    def event(self, contestant: str) -> Any:
        if contestant.startswith(TORCH):
            return self.torch.cuda.Event(enable_timing=True)
        return self.machine.xp.cuda.Event()

    def between(self, start: Any, end: Any) -> float:
        """Milliseconds."""
        if hasattr(start, "elapsed_time"):
            return start.elapsed_time(end)
        return self.machine.xp.cuda.get_elapsed_time(start, end)

    def race(
        self, contestants: dict[str, Callable[[], Any]], repeats: int, flush: bool = True
    ) -> dict[str, float]:
        """Median milliseconds of each."""
        assert not self.machine.tiny, "the interpreter is not timed"
        for _ in range(3):
            for run in contestants.values():
                run()
        marks: dict[str, list] = {name: [] for name in contestants}
        for _ in range(AHEAD if flush else 0):
            self.junk.sum()
        for _ in range(repeats):
            for name, run in contestants.items():
                if flush:
                    self.junk.sum()
                start, end = self.event(name), self.event(name)
                start.record()
                run()
                end.record()
                marks[name].append((start, end))
        self.machine.synchronize()
        return {
            name: statistics.median(self.between(*pair) for pair in pairs)
            for name, pairs in marks.items()
        }


def measured(bench: Bench, speeds: Iterable[Speed]) -> Iterator[Entry]:
    """Of each its check, and on a GPU its times."""
    for speed in speeds:
        yield from _measured(bench, speed)
        bench.free()  # of what the one before has dropped


def _measured(bench: Bench, speed: Speed) -> Iterator[Entry]:
    try:
        contestants = speed.make(bench)
    except Exception as problem:
        yield {"kind": "check", "name": f"{speed.name}: made", "ok": False, **told(problem)}
        return
    both = (contestants[OURS], contestants[TORCH])
    yield check(f"{speed.name}: as PyTorch", speed.bound, _apart, bench, *both)
    if not bench.machine.tiny:
        yield timed(bench, speed, contestants)


def _apart(bench: Bench, ours: Callable[[], Any], theirs: Callable[[], Any]) -> float:
    return bench.difference(ours(), theirs())


def timed(bench: Bench, speed: Speed, contestants: dict[str, Callable[[], Any]]) -> Entry:
    try:
        return told_as(speed, bench.race(contestants, speed.repeats))
    except Exception as problem:
        return {"kind": "check", "name": f"{speed.name}: timed", "ok": False, **told(problem)}


def told_as(speed: Speed, ms: dict[str, float]) -> Entry:
    """A measurement as the record has it."""
    figures = {name: speed.amount / UNITS[speed.unit] / t for name, t in ms.items()}
    ratio = figures[OURS] / figures[speed.beside]
    return {
        "kind": "speed", "name": speed.name, "unit": speed.unit, "ms": ms, "figures": figures,
        "beside": speed.beside, "ratio": ratio, "goal": speed.goal,
        "met": None if speed.goal is None else ratio >= speed.goal, "repeats": speed.repeats,
    }  # fmt: skip


def bound_of(dtype: str) -> float:
    return 2 * BOUNDS[dtype]  # both round
