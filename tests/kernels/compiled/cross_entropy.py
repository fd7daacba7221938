"""How cross-entropy's kernels are compiled in tests: wide rows, and several narrow ones."""

from minidist.kernels import cross_entropy


def _case(kernel, arrays, dtype, columns, **constants):
    wide = "*fp64" if dtype == "fp64" else "*fp32"
    types = {**dict.fromkeys(arrays, f"*{dtype}"), "target_ptr": "*i64", "sums_ptr": wide}
    rows = cross_entropy.BLOCK // columns
    return {
        "kernel": kernel,
        "signature": {**types, "rows": "i32", "v": "i32"},
        "constants": {"DOUBLE": dtype == "fp64", "ROWS": rows, "COLUMNS": columns, **constants},
        "options": {"num_warps": 8},
    }


SIZES = [("fp32", 4096), ("fp16", 4096), ("fp16", 16), ("fp32", 256), ("fp64", 4096)]
LOSSES = {
    f"cross_entropy {'in place' if in_place else 'forward'} {dtype} {columns}": _case(
        cross_entropy._loss_kernel, ("x_ptr", "loss_ptr"), dtype, columns, IN_PLACE=in_place
    )
    for dtype, columns in SIZES
    for in_place in (False, True)
}
SLOPES = {
    f"cross_entropy backward {dtype} {columns}": _case(
        cross_entropy._slope_kernel, ("g_ptr", "x_ptr", "dx_ptr"), dtype, columns
    )
    for dtype, columns in SIZES
}
CASES = {**LOSSES, **SLOPES}
