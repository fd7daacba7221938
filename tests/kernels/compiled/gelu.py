"""How GELU's kernels are compiled in tests."""

from minidist.kernels import gelu

CASES = {
    f"gelu {form} {dtype}": {
        "kernel": gelu._gelu_kernel,
        "signature": {"x_ptr": f"*{dtype}", "y_ptr": f"*{dtype}", "slope_ptr": f"*{dtype}",
                      "n": "i32"},
        "constants": {"TANH": form == "tanh", "DOUBLE": dtype == "fp64", "BLOCK": gelu.BLOCK},
    }
    for form in ("exact", "tanh")
    for dtype in ("fp32", "fp16", "fp64")
} | {
    f"gelu backward {dtype}": {
        "kernel": gelu._scale_kernel,
        "signature": {"g_ptr": f"*{dtype}", "slope_ptr": f"*{dtype}", "dx_ptr": f"*{dtype}",
                      "n": "i32"},
        "constants": {"DOUBLE": dtype == "fp64", "BLOCK": gelu.BLOCK},
    }
    for dtype in ("fp32", "bf16")
}  # fmt: skip
