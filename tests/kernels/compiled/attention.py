"""How flash attention's kernels are compiled in tests: a head's width, causal or not, and masked;
tiles by TMA for Hopper alone, by addresses for both GPUs."""

from __future__ import annotations

from typing import Any

from minidist.kernels import flash_backward, flash_plan, flash_triton

KERNELS = {
    "forward": flash_triton._forward_kernel,
    "keys": flash_backward._keys_kernel,
    "queries": flash_backward._queries_kernel,
}
ALONG = {"forward": "kv", "keys": "qg", "queries": "kv"}  # what a program goes along
ARRAYS = ["q", "k", "v", "g", "out", "dq", "dk", "dv", "mask", "dmask"]
TYPES = dict.fromkeys(("lse", "delta", "base"), "*fp32") | dict.fromkeys(
    ("scale", "factor"), "fp32"
)


def case(way: str, dtype: str, width: int, causal: bool, kind: str) -> dict[str, Any]:
    """Causal ones are not of whole tiles: more is compared."""
    kernel = KERNELS[way]
    found, tile = flash_plan.choose(way, width, kind)
    wide, own = flash_plan.width(width), tile.BN if way == "keys" else tile.BM
    instruction = {80: "mma.sync", 90: "wgmma" if own >= 64 else "mma.sync"}
    absent = {} if kind == "masked" else dict.fromkeys(("mask", "dmask"))
    constants = {
        "CAUSAL": causal, "NEGATIVE": False, "PRECISION": "ieee", "WIDEN": False,
        "BOXED": found == "box", "EVEN": not causal, "D": width, "E": width, "BD": wide, "BE": wide,
        "BM": tile.BM, "BN": tile.BN, **absent,
    }  # fmt: skip
    names = kernel.function.__code__.co_varnames[: kernel.function.__code__.co_argcount]
    signature = {n: TYPES.get(n, f"*{dtype}" if n in ARRAYS else "i32") for n in names}
    if found == "box":
        rows = tile.BM if way == "keys" else tile.BN
        signature |= dict.fromkeys(ALONG[way], f"tensordesc<{dtype}[1,1,{rows},{wide}]>")
    return {
        "kernel": kernel,
        "signature": {n: signature[n] for n in names if n not in constants},
        "constants": {n: value for n, value in constants.items() if n in names},
        "options": {"num_warps": tile.num_warps, "num_stages": tile.num_stages},
        "expect": {} if dtype == "fp32" else instruction,
        "gpus": {"box": (90,), "half": (80,)}.get(kind, (80, 90)),
    }


def delta(dtype: str, width: int) -> dict[str, Any]:
    kernel = flash_backward._delta_kernel
    names = kernel.function.__code__.co_varnames[: kernel.function.__code__.co_argcount]
    wide = flash_plan.width(width)
    constants = {"WIDEN": False, "E": width, "BE": wide, "BM": flash_backward.NUMBERS // wide}
    return {
        "kernel": kernel,
        "signature": {
            n: TYPES.get(n, f"*{dtype}" if n in ARRAYS else "i32")
            for n in names if n not in constants
        },
        "constants": constants,
    }  # fmt: skip


HALVES = [("fp16", width, causal, kind) for width in (64, 128) for causal in (False, True)
          for kind in ("box", "half")]  # fmt: skip
HALVES += [("bf16", width, kind == "box", kind) for width in (64, 128) for kind in ("box", "half")]
OTHERS = [
    ("fp16", 256, True, "box"), ("fp16", 256, True, "half"), ("fp16", 80, False, "box"),
    ("fp16", 32, True, "box"), ("fp16", 32, True, "half"),
    ("fp16", 64, False, "masked"), ("fp16", 128, False, "masked"),
    ("fp32", 64, True, "single"), ("fp32", 64, False, "single"), ("fp32", 128, True, "single"),
]  # fmt: skip
CASES = {
    f"attention {way} {dtype} {width}{' causal' if causal else ''} {kind}": case(
        way, dtype, width, causal, kind
    )
    for dtype, width, causal, kind in HALVES + OTHERS
    for way in KERNELS
}
CASES |= {f"attention delta {dtype} {width}": delta(dtype, width)
          for dtype, width in (("fp16", 64), ("bf16", 128), ("fp32", 64))}  # fmt: skip
