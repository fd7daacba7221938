"""How softmax's kernels are compiled in tests: narrow rows, the widest in registers, wide ones."""

from minidist.kernels import softmax

WIDTHS = {"narrow": 128, "whole": softmax.WIDEST, "wide": 50304}


def case(width: int, dtype: str, back: bool, log: bool) -> dict:
    width = width // 2 if dtype == "fp64" and width == softmax.WIDEST else width
    wide, _, constants = softmax.cut(4096, width, dtype == "fp64")
    warps = constants.pop("num_warps")
    forward = softmax._wide_kernel if wide else softmax._rows_kernel
    backward = softmax._wide_slope_kernel if wide else softmax._rows_slope_kernel
    names = ("g_ptr", "y_ptr", "dx_ptr") if back else ("x_ptr", "y_ptr")
    return {
        "kernel": backward if back else forward,
        "signature": {**dict.fromkeys(names, f"*{dtype}"), "rows": "i32", "v": "i32"},
        "constants": {"LOG": log, **constants},
        "options": {"num_warps": warps},
    }


CASES = {
    f"{'log-' if log else ''}softmax {way} {name} {dtype}": case(width, dtype, way == "back", log)
    for log, dtype in ((False, "fp32"), (False, "fp16"), (False, "fp64"), (True, "fp16"))
    for way in ("forward", "back")
    for name, width in WIDTHS.items()
}
