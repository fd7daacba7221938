"""How the kernels of convolution are compiled in tests."""

from minidist.kernels import conv
from minidist.kernels.windows import Windows

SIZES = dict.fromkeys(("lines", "channels", "h", "w", "ho", "wo"), "i32")
BLOCK = {"ROWS": conv.BLOCK // 64, "COLUMNS": 64}
WINDOWS = {
    "1x1": Windows((1, 1)),
    "3x3": Windows((3, 3), (1, 1), ((1, 1), (1, 1))),
    "7x7": Windows((7, 7), (2, 2), ((3, 3), (3, 3))),
}
KINDS = [(win, dtype) for win in WINDOWS for dtype in ("fp32", "bf16", "fp64")]

CASES = {
    f"conv unrolled {win} {dtype}": {
        "kernel": conv._unroll_kernel,
        "signature": {"x_ptr": f"*{dtype}", "columns_ptr": f"*{dtype}", **SIZES},
        "constants": {**WINDOWS[win].constants(), **BLOCK},
    }
    for win, dtype in KINDS
} | {
    f"conv rolled back {win} {dtype}": {
        "kernel": conv._roll_back_kernel,
        "signature": {"columns_ptr": f"*{dtype}", "dx_ptr": f"*{dtype}", "images": "i32", **SIZES},
        "constants": {"DOUBLE": dtype == "fp64", **WINDOWS[win].constants(), **BLOCK},
    }
    for win, dtype in KINDS
}  # fmt: skip
