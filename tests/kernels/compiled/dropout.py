"""How dropout's kernel is compiled in tests: samples of whole counts, or with numbers left over."""

from minidist.kernels import dropout

CASES = {
    f"dropout {kind} {dtype}": {
        "kernel": dropout._dropout_kernel,
        "signature": {
            "x_ptr": f"*{dtype}", "y_ptr": f"*{dtype}",
            **dict.fromkeys(("counts", "size", "each", "below"), "i32"),
            **dict.fromkeys(("key0", "key1", "low", "high"), "u64"), "scale": "fp64",
        },
        "constants": {"WHOLE": kind == "whole", "DOUBLE": dtype == "fp64",
                      "COUNTS": dropout.COUNTS},
    }
    for kind, dtype in (("whole", "fp32"), ("whole", "fp16"), ("whole", "fp64"), ("rest", "fp32"))
}  # fmt: skip
