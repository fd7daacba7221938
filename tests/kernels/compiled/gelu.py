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
}  # fmt: skip
