"""How the kernels of an LSTM's step are compiled in tests."""

from minidist.kernels import recurrent_cell

KERNELS = {
    "forward": (
        recurrent_cell._cell_kernel, ("a_ptr", "c_ptr", "values_ptr", "new_ptr", "state_ptr")
    ),
    "backward": (
        recurrent_cell._slopes_kernel,
        ("dh_ptr", "dnew_ptr", "values_ptr", "c_ptr", "new_ptr", "da_ptr", "dc_ptr"),
    ),
}  # fmt: skip
CASES = {
    f"lstm {way} {dtype}": {
        "kernel": kernel,
        "signature": {**dict.fromkeys(arrays, f"*{dtype}"), "h": "i32"},
        "constants": {"DOUBLE": dtype == "fp64", "BLOCK": recurrent_cell.BLOCK},
    }
    for way, (kernel, arrays) in KERNELS.items()
    for dtype in ("fp32", "fp16", "fp64")
}
