"""How the kernels of CTC are compiled in tests."""

from minidist.kernels import ctc

SIZES = dict.fromkeys(("n", "c", "longest", "blank"), "i32")
SPELLED = {"labels_ptr": "*i64", "lengths_ptr": "*i64", "sizes_ptr": "*i64"}
KINDS = [("fp32", 64), ("fp32", 512), ("fp32", ctc.WIDEST), ("bf16", 512), ("fp64", ctc.WIDEST)]


def options(states):
    return {"num_warps": min(8, max(1, states // 128))}


CASES = {
    f"ctc {dtype} {states}": {
        "kernel": ctc._forward_kernel,
        "signature": {"logs_ptr": f"*{dtype}", **SPELLED, "losses_ptr": f"*{dtype}",
                      "alpha_ptr": f"*{dtype}", "steps": "i32", **SIZES},
        "constants": {"DOUBLE": dtype == "fp64", "STATES": states},
        "options": options(states),
    }
    for dtype, states in KINDS
} | {
    f"ctc shares {dtype} {states}": {
        "kernel": ctc._shares_kernel,
        "signature": {"g_ptr": f"*{dtype}", "losses_ptr": f"*{dtype}", "logs_ptr": f"*{dtype}",
                      "alpha_ptr": f"*{dtype}", **SPELLED,
                      "shares_ptr": "*fp64" if dtype == "fp64" else "*fp32", **SIZES},
        "constants": {"DOUBLE": dtype == "fp64", "STATES": states},
        "options": options(states),
    }
    for dtype, states in KINDS
} | {
    f"ctc classes {dtype} {classes}": {
        "kernel": ctc._classes_kernel,
        "signature": {"shares_ptr": "*fp64" if dtype == "fp64" else "*fp32", **SPELLED,
                      "out_ptr": f"*{dtype}", **SIZES},
        "constants": {"STATES": ctc.COMPARED // classes, "CLASSES": classes},
    }
    for dtype, classes in (("fp32", ctc.CLASSES), ("fp32", 32), ("bf16", 32), ("fp64", ctc.CLASSES))
}  # fmt: skip
