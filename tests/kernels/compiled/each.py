"""How the kernels of one element at a time are compiled in tests: all of them, as launched."""

from minidist.kernels import functions, huber, pointwise
from minidist.kernels.each import each, parameters
from minidist.kernels.each_triton import BLOCK, OPTIONS, kernel_of

HALVES = "fp16", "bf16"


def case(kernel: each, dtype: str) -> dict:
    names, numbers = parameters(kernel.helper), kernel.helper.function.__annotations__
    types = {n: "fp64" for n in names if n in numbers}
    pointers = {f"{n}_ptr": f"*{dtype}" for n in (*names, "out") if n not in numbers}
    return {
        "kernel": kernel_of(kernel.helper, kernel.__name__, dtype == "fp64"),
        "signature": {**types, **pointers, "size": "i32"},
        "constants": {"BLOCK": BLOCK},
        "options": {"enable_fp_fusion": OPTIONS["enable_fp_fusion"]},
    }


CASES = {
    f"{module.__name__.rpartition('.')[2]}.{name} {dtype}": case(kernel, dtype)
    for dtype in ("fp32", "fp64")
    for module in (pointwise, functions, huber)
    for name, kernel in vars(module).items()
    if isinstance(kernel, each)
}
CASES |= {f"pointwise.silu_slope {dtype}": case(pointwise.silu_slope, dtype) for dtype in HALVES}
