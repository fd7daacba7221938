"""How the kernels of an LSTM's and of a GRU's step are compiled in tests."""

from minidist.kernels import gru_cell, lstm_cell

KERNELS = {
    "lstm forward": (lstm_cell._cell_kernel, "gates m c b state new"),
    "lstm backward": (lstm_cell._slopes_kernel, "g dh dc gates c new da"),
    "gru forward": (gru_cell._cell_kernel, "gates m h b state hidden"),
    "gru backward": (gru_cell._slopes_kernel, "g dh gates hidden h da dm dold"),
}


def case(kernel, arrays, dtype):
    """As launched for many units."""
    names = (f"{name}_ptr" for name in arrays.split())
    units = "units" if kernel.function.__module__.endswith("gru_cell") else "h"
    constants = {"DOUBLE": dtype == "fp64", "BLOCK": lstm_cell.BLOCK}
    signature = {**dict.fromkeys(names, f"*{dtype}"), units: "i32"}
    return {"kernel": kernel, "signature": signature, "constants": constants}


CASES = {
    f"{name} {dtype}": case(kernel, arrays, dtype)
    for name, (kernel, arrays) in KERNELS.items()
    for dtype in ("fp32", "fp16", "fp64")
}
