"""How the kernels of pooling are compiled in tests."""

from minidist.kernels import pool
from minidist.kernels.windows import Windows

SIZES = dict.fromkeys(("lines", "h", "w", "ho", "wo"), "i32")
STRIDES = dict.fromkeys(("down_row", "down_column", "across_row", "across_column"), "i32")
BLOCK = {"ROWS": pool.BLOCK // 64, "COLUMNS": 64}
WINDOWS = {
    "2x2": Windows((2, 2), (2, 2)),
    "3x3": Windows((3, 3), (2, 2), ((1, 1), (1, 1))),
    "7x7": Windows((7, 7), (3, 3), ((0, 0), (0, 0)), (2, 2)),
}
KINDS = [("2x2", "fp32", "u8"), ("3x3", "fp32", "u8"), ("3x3", "bf16", "u8"), ("3x3", "fp64", "u8"),
         ("7x7", "fp16", "u16")]  # fmt: skip

CASES = {
    f"max pool {win} {dtype}": {
        "kernel": pool._max_kernel,
        "signature": {"x_ptr": f"*{dtype}", "y_ptr": f"*{dtype}", "which_ptr": f"*{which}",
                      **SIZES},
        "constants": {"LEAST": -(2**63) if dtype == "i64" else float("-inf"),
                      **WINDOWS[win].constants(), **BLOCK},
    }
    for win, dtype, which in (*KINDS, ("2x2", "i64", "u8"))
} | {
    f"max pool backward {win} {dtype}": {
        "kernel": pool._max_slope_kernel,
        "signature": {"g_ptr": f"*{dtype}", "which_ptr": f"*{which}", "dx_ptr": f"*{dtype}",
                      **SIZES},
        "constants": {"DOUBLE": dtype == "fp64", **WINDOWS[win].constants(), **BLOCK},
    }
    for win, dtype, which in KINDS
} | {
    f"mean pool {dtype} {taps} taps": {
        "kernel": pool._mean_kernel,
        "signature": {"x_ptr": f"*{dtype}", "down_ptr": f"*{matrix}", "across_ptr": f"*{matrix}",
                      "rows_ptr": "*i32", "columns_ptr": "*i32", "y_ptr": f"*{matrix}", **SIZES,
                      **STRIDES},
        "constants": {"DOUBLE": dtype == "fp64", "ROWS": pool.BLOCK // taps // columns,
                      "COLUMNS": columns, "TAPS": taps},
    }
    for dtype, matrix, taps, columns in (
        ("fp32", "fp32", 1, 64), ("fp32", "fp32", 2, 32), ("fp32", "fp32", 64, 1),
        ("bf16", "fp32", 2, 32), ("fp64", "fp64", 2, 32),
    )
} | {
    "mean pool bands": {
        "kernel": pool._bands_kernel,
        "signature": {"matrix_ptr": "*fp32", "bands_ptr": "*i32", "n": "i32", "down": "i32",
                      "across": "i32"},
        "constants": {"BLOCK": 64},
    }
}  # fmt: skip
