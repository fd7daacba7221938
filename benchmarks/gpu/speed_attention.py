"""How fast: flash attention forward and backward, beside PyTorch's own and, if there, cuDNN's."""

from __future__ import annotations

from collections.abc import Iterator

from .bench import OURS, TORCH, Bench, Speed, bound_of, measured
from .checks import Entry
from .machine import Machine

GOAL, CUDNN = 0.8, f"{TORCH} cuDNN"


def run(machine: Machine) -> Iterator[Entry]:
    yield from measured(Bench(machine), cases(machine.tiny))


def cases(tiny: bool) -> Iterator[Speed]:
    b, heads = (1, 2) if tiny else (4, 16)
    for s in (24,) if tiny else (4096, 1024, 16384):
        for d in (16,) if tiny else (64, 128):
            for causal in (True, False):
                for back in (False, True):
                    yield attention(b, heads, s, d, causal, back)


def attention(b: int, heads: int, s: int, d: int, causal: bool, back: bool) -> Speed:
    """Two products forward, five backward, half of them if causal (as Dao counts)."""
    flops = 4.0 * b * heads * s * s * d * (2.5 if back else 1) / (2 if causal else 1)
    name = f"attention {s} d{d}{' causal' * causal} {'backward' if back else 'forward'}"

    def make(bench: Bench):
        q, k, v = (bench.normal(b, heads, s, d, dtype="bfloat16", grad=back) for _ in range(3))
        g = bench.normal(b, heads, s, d, dtype="bfloat16")
        return {OURS: ours(bench, q, k, v, g, causal, back),
                TORCH: theirs(bench, q, k, v, g, causal, back),
                **if_it_runs(bench, q, k, v, g, causal, back)}  # fmt: skip

    repeats = 12 if s > 4096 else 30
    return Speed(name, make, "TFLOP/s", flops, bound_of("bfloat16"), GOAL, repeats=repeats)


def ours(bench: Bench, q, k, v, g, causal: bool, back: bool):
    from minidist.kernels import attention

    q, k, v, g = map(bench.array, (q, k, v, g))
    out, scale = attention.xp.empty_like(q), q.shape[-1] ** -0.5
    lse = attention.forward(q, k, v, out, causal, scale)
    grads = [attention.xp.empty_like(x) for x in (q, k, v)]

    def forward():
        attention.forward(q, k, v, out, causal, scale)
        return [out]

    def backward():
        attention.backward(g, q, k, v, out, lse, *grads, causal, scale)
        return grads

    return backward if back else forward


def theirs(bench: Bench, q, k, v, g, causal: bool, back: bool, backend="FLASH_ATTENTION"):
    from torch.nn.attention import SDPBackend, sdpa_kernel

    def forward():
        with sdpa_kernel(getattr(SDPBackend, backend)):
            attend = bench.torch.nn.functional.scaled_dot_product_attention
            return [attend(q, k, v, is_causal=causal)]

    if not back:
        return forward
    (out,) = forward()
    return lambda: bench.torch.autograd.grad(out, (q, k, v), g, retain_graph=True)


def if_it_runs(bench: Bench, *case):
    """PyTorch by cuDNN, the fastest on Hopper; not every PyTorch has it."""
    if bench.machine.tiny:
        return {}
    try:
        run = theirs(bench, *case, "CUDNN_ATTENTION")
        run()
    except (AttributeError, RuntimeError):
        return {}
    return {CUDNN: run}
