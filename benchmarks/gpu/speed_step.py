"""How fast: a training step of GPT-2 (124M) in bfloat16, beside PyTorch eager and compiled."""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from .bench import OURS, TORCH, Bench
from .checks import Entry, check, told
from .machine import Machine
from .torch_gpt import gpt
from .training import tokens

Step = Callable[[], Any]  # a training step; returns its loss
OPTIONS = {"lr": 3e-4, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}
STEPS = 2  # to compare, of which the second has seen an update
FORMULA = "6N + 12 L h s FLOPs a token, N all parameters (the tied embedding once)"


class Sizes(NamedTuple):
    layers: int
    hidden: int
    heads: int
    positions: int
    vocab: int
    batch: int


LARGE, TINY = Sizes(12, 768, 12, 1024, 50304, 8), Sizes(1, 8, 2, 6, 10, 1)


def run(machine: Machine) -> Iterator[Entry]:
    bench, sizes = Bench(machine), TINY if machine.tiny else LARGE
    for dtype, bound in ((None, 2e-3), ("bfloat16", 5e-2)):
        name = f"losses of {STEPS} steps in {dtype or 'float32'}: as PyTorch"
        yield check(name, bound, apart, bench, sizes, dtype)
    bench.free()
    if machine.tiny:
        return
    for name, make, dtype in (
        (OURS, ours, "bfloat16"),
        (f"{TORCH} eager", theirs, "bfloat16"),
        (f"{OURS} float32", ours, None),
        (f"{TORCH} compiled", compiled, "bfloat16"),
    ):
        try:
            yield timed(bench, sizes, name, make(bench, sizes, dtype))
        except Exception as problem:
            yield {"kind": "check", "name": f"{name}: timed", "ok": False, **told(problem)}
        bench.free()


def apart(bench: Bench, sizes: Sizes, dtype: str | None) -> float:
    """How far the losses of both are from each other, from the same weights on the same tokens."""
    found = []
    for make in (ours, theirs):
        step = make(bench, sizes, dtype)
        found.append([float(step().item()) for _ in range(STEPS)])
        del step
        bench.free()
    return float(np.abs(np.subtract(*found)).max())


@functools.cache  # its random numbers take seconds
def model_of(sizes: Sizes) -> Any:
    """On the CPU; not to be trained itself."""
    from minidist.models.gpt import GPT, GPTConfig

    return GPT(GPTConfig(*sizes[:5]))


def ours(bench: Bench, sizes: Sizes, dtype: str | None) -> Step:
    import minidist as md
    from minidist.optim import AdamW

    device = bench.machine.device
    model = copy.deepcopy(model_of(sizes)).to(device)
    x, y = (md.tensor(t, device=device) for t in tokens(sizes.batch, sizes.positions, sizes.vocab))
    optimiser = AdamW(model.parameters(), **OPTIONS)

    def step() -> Any:
        with contextlib.nullcontext() if dtype is None else md.autocast(device, dtype):
            loss = model.loss(x, y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return loss

    return step


def theirs(bench: Bench, sizes: Sizes, dtype: str | None, compiling: bool = False) -> Step:
    torch = bench.torch
    model = gpt(*sizes[:5])
    weights = {name: torch.from_numpy(p.data) for name, p in model_of(sizes).named_parameters()}
    model.load_state_dict(weights)
    model = model.to(bench.device)
    x, y = (
        torch.from_numpy(t).to(bench.device)
        for t in tokens(sizes.batch, sizes.positions, sizes.vocab)
    )
    optimiser = torch.optim.AdamW(model.parameters(), fused=True, **OPTIONS)
    run = torch.compile(model) if compiling else model

    def step() -> Any:
        with torch.autocast(bench.device, torch.bfloat16, enabled=dtype is not None):
            loss = run(x, y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return loss.detach()

    return step


def compiled(bench: Bench, sizes: Sizes, dtype: str | None) -> Step:
    return theirs(bench, sizes, dtype, compiling=True)


def timed(bench: Bench, sizes: Sizes, name: str, step: Step) -> Entry:
    """Tokens a second, the share of the GPU's peak, and the most memory that arrays took."""
    (ms,) = bench.race({name: step}, 20, flush=False).values()
    count = sizes.batch * sizes.positions
    per_token = 6 * parameters(sizes) + 12 * sizes.layers * sizes.hidden * sizes.positions
    peak, rate = bench.machine.peak(), 1e3 * count / ms
    return {
        "kind": "training", "name": name, "ms": ms, "tokens/s": rate,
        "FLOPs a token": per_token, "formula": FORMULA, "peak FLOP/s": peak,
        "MFU": None if peak is None else rate * per_token / peak,
        **memory(bench, name, step), "sizes": sizes._asdict(), "loss": float(step().item()),
    }  # fmt: skip


def parameters(sizes: Sizes) -> int:
    from minidist.models.gpt import GPTConfig
    from minidist.plan.gpt import gpt_parameters

    return gpt_parameters(GPTConfig(*sizes[:5]))


def memory(bench: Bench, name: str, step: Step) -> Entry:
    """Bytes in arrays at most, and bytes that the allocator holds."""
    if name.startswith(TORCH):
        cuda = bench.torch.cuda
        cuda.reset_peak_memory_stats()
        step()
        cuda.synchronize()
        return {"peak bytes": cuda.max_memory_allocated(), "held bytes": cuda.memory_reserved()}
    pool = bench.machine.xp.get_default_memory_pool()
    watched = watch(bench.machine.xp)
    with watched:
        step()
        bench.machine.synchronize()
    return {"peak bytes": watched.most, "held bytes": pool.total_bytes()}


def watch(cupy: Any) -> Any:
    """Follows the bytes in CuPy's arrays: `most` is the largest number of them."""

    class Watch(cupy.cuda.MemoryHook):
        name = "watch"

        def __init__(self) -> None:
            self.now = self.most = cupy.get_default_memory_pool().used_bytes()

        def malloc_postprocess(self, **of: Any) -> None:
            self.now += of["mem_size"]
            self.most = max(self.most, self.now)

        def free_postprocess(self, **of: Any) -> None:
            self.now -= of["mem_size"]

    return Watch()
