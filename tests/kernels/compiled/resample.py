"""How the kernels of resampling are compiled in tests."""

from minidist.kernels import resample

SIZES = dict.fromkeys(("outer", "n", "m", "inner"), "i32")
DTYPES = [("fp32", "fp32"), ("bf16", "fp32"), ("fp64", "fp64")]  # of numbers and of weights


def constants(dtype, columns):
    block = {"ROWS": resample.BLOCK // columns, "COLUMNS": columns}
    return {"DOUBLE": dtype == "fp64", **block}


CASES = {
    f"resample {dtype} {columns}": {
        "kernel": resample._lines_kernel,
        "signature": {"x_ptr": f"*{dtype}", "low_ptr": "*i64", "high_ptr": "*i64",
                      "weight_ptr": f"*{weight}", "y_ptr": f"*{weight}", **SIZES},
        "constants": constants(dtype, columns),
    }
    for dtype, weight in DTYPES
    for columns in (64, resample.BLOCK)
} | {
    f"resample backward {dtype} {columns}": {
        "kernel": resample._sums_kernel,
        "signature": {"g_ptr": f"*{dtype}", "lows_ptr": "*i64", "highs_ptr": "*i64",
                      "weight_ptr": f"*{weight}", "dx_ptr": f"*{dtype}", **SIZES},
        "constants": constants(dtype, columns),
    }
    for dtype, weight in DTYPES
    for columns in (64, resample.BLOCK)
} | {
    f"resample backward nearest {dtype}": {
        "kernel": resample._sums_kernel,
        "signature": {"g_ptr": f"*{dtype}", "lows_ptr": "*i64", "dx_ptr": f"*{dtype}", **SIZES},
        "constants": {"highs_ptr": None, "weight_ptr": None, **constants(dtype, 64)},
    }
    for dtype, _ in DTYPES
}  # fmt: skip
