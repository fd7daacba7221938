"""How the kernel that sums an embedding's cotangents is compiled in tests."""

from minidist.kernels import embedding

CASES = {
    f"embedding backward {dtype} {columns}": {
        "kernel": embedding._runs_kernel,
        "signature": {"g_ptr": f"*{dtype}", "order_ptr": "*i64", "starts_ptr": "*i64",
                      "table_ptr": f"*{dtype}", "h": "i32"},
        "constants": {"DOUBLE": dtype == "fp64", "RUN": embedding.RUN, "COLUMNS": columns},
    }
    for dtype, columns in (("fp32", 256), ("fp16", 256), ("fp16", 64), ("fp64", 256))
}  # fmt: skip
CASES |= {
    f"embedding backward without sorting {dtype} {columns}": {
        "kernel": embedding._first_kernel,
        "signature": {"g_ptr": f"*{dtype}", "index_ptr": "*i64", "table_ptr": f"*{dtype}",
                      "n": "i32", "h": "i32", "rows": "i32"},
        "constants": {"DOUBLE": dtype == "fp64", "SEEN": embedding.SEEN, "RUN": embedding.RUN,
                      "COLUMNS": columns},
    }
    for dtype, columns in (("fp32", 256), ("fp16", 64), ("fp64", 256))
}  # fmt: skip
