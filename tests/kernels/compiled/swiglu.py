"""How SwiGLU's kernels are compiled in tests: one wide row a program, or several narrow ones."""

from minidist.kernels import swiglu

KERNELS = {
    "forward": (swiglu._swiglu_kernel, ("x_ptr", "y_ptr")),
    "backward": (swiglu._slopes_kernel, ("g_ptr", "x_ptr", "dx_ptr")),
}
CASES = {
    f"swiglu {way} {dtype} {columns}": {
        "kernel": kernel,
        "signature": {**dict.fromkeys(arrays, f"*{dtype}"), "rows": "i32", "h": "i32"},
        "constants": {"DOUBLE": dtype == "fp64", "ROWS": swiglu.BLOCK // columns,
                      "COLUMNS": columns},
    }
    for way, (kernel, arrays) in KERNELS.items()
    for dtype, columns in (("fp32", 1024), ("fp16", 1024), ("fp16", 64), ("fp64", 1024))
}  # fmt: skip
