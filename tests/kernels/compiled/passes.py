"""How the kernels of one pass over memory are compiled in tests: casts, and sums of squares."""

from minidist.kernels import half_precision, vector_norm

CASES = {
    f"cast {a} to {b}": {
        "kernel": half_precision._cast_kernel,
        "signature": {"x_ptr": f"*{a}", "y_ptr": f"*{b}", "n": "i32"},
        "constants": {"BLOCK": half_precision.BLOCK},
    }
    for a, b in (("fp32", "bf16"), ("bf16", "fp32"))
} | {
    f"squares {dtype}": {
        "kernel": vector_norm._squares_kernel,
        "signature": {"x_ptr": f"*{dtype}", "sums_ptr": "*fp32", "n": "i32"},
        "constants": {"BLOCK": vector_norm.PROGRAM},
    }
    for dtype in ("fp32", "bf16")
}  # fmt: skip
