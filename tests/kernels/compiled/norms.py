"""How layer and RMS norm's kernels are compiled in tests: rows in registers, and wide ones."""

from minidist.kernels import norm_triton as k

ROWS = 8192
WIDTHS = {"narrow": 128, "whole": 1024, "widest": k.WIDEST, "wide": 12288}


def case(kernel, dtype: str, width: int, centred: bool, *names: str, **constants) -> dict:
    """An RMS norm has no bias."""
    double = dtype == "fp64"
    width = width // 4 if double and width == k.WIDEST else width
    _, cut = k.cut(ROWS, width, double, centred, back="g_ptr" in names)
    warps, kind = cut.pop("num_warps"), "*fp64" if double else "*fp32"
    types = {"stats_ptr": kind, "sums_ptr": kind, "rows": "i32", "h": "i32", "share": "i32"}
    absent = {"b_ptr": None} if "b_ptr" in names and not centred else {}
    return {
        "kernel": kernel,
        "signature": {n: types.get(n, f"*{dtype}") for n in names if n not in absent},
        "constants": {**cut, **constants, **absent},
        "options": {"num_warps": warps},
    }


def forward(dtype: str, name: str, centred: bool) -> dict:
    kernel = k._wide_forward_kernel if name == "wide" else k._forward_kernel
    names = "x_ptr", "w_ptr", "b_ptr", "y_ptr", "stats_ptr", "rows", "h"
    return case(kernel, dtype, WIDTHS[name], centred, *names, eps=1e-5)


def backward(dtype: str, name: str, centred: bool) -> dict:
    names = "g_ptr", "x_ptr", "w_ptr", "stats_ptr", "dx_ptr", "sums_ptr", "rows", "h", "share"
    slope = name != "wide"
    return case(k._backward_kernel, dtype, WIDTHS[name], centred, *names, SLOPE=slope)


def slope(dtype: str, centred: bool) -> dict:
    names = "g_ptr", "x_ptr", "w_ptr", "stats_ptr", "dx_ptr", "rows", "h"
    return case(k._wide_slope_kernel, dtype, WIDTHS["wide"], centred, *names)


def added(kind: str, dtype: str) -> dict:
    return {
        "kernel": k._add_up_kernel,
        "signature": {"sums_ptr": f"*{kind}", "out_ptr": f"*{dtype}", "programs": "i32",
                      "h": "i32"},
        "constants": {"COLUMNS": k.COLUMNS_ADDED},
    }  # fmt: skip


SERVED = [("layer", "fp32"), ("layer", "fp16"), ("layer", "fp64"), ("rms", "fp16"), ("rms", "fp32")]
CASES = {
    f"{norm} norm {way} {name} {dtype}": make(dtype, name, norm == "layer")
    for norm, dtype in SERVED
    for way, make in (("forward", forward), ("back", backward))
    for name in WIDTHS
}
CASES |= {
    f"{norm} norm slope wide {dtype}": slope(dtype, norm == "layer") for norm, dtype in SERVED
}
CASES |= {f"norm sums {kind} {dtype}": added(kind, dtype)
          for kind, dtype in (("fp32", "fp32"), ("fp32", "fp16"), ("fp64", "fp64"))}  # fmt: skip
