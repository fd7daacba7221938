"""How group norm's kernels are compiled in tests: images, small planes, rows, and one number."""

from minidist.kernels import group_norm as k

GROUPS = {"images": (10, 4096), "planes": (64, 49), "rows": (2048, 1), "small": (4, 4)}
NUMBERS = ("rows", "groups", "size", "length")
STATS = ("stats_ptr", "sums_ptr")


def case(kernel, dtype, shape, **ones):
    """`ones`: integers that are 1, which Triton makes constants."""
    names = kernel.function.__code__.co_varnames[: kernel.function.__code__.co_argcount]
    constants = k.cut(*shape, dtype == "fp64")
    warps = constants.pop("num_warps")
    constants |= ones | ({"eps": 1e-5} if "eps" in names else {})
    types = dict.fromkeys(NUMBERS, "i32")
    types |= dict.fromkeys(STATS, "*fp64" if dtype == "fp64" else "*fp32")
    return {
        "kernel": kernel,
        "signature": {n: types.get(n, f"*{dtype}") for n in names if n not in constants},
        "constants": constants,
        "options": {"num_warps": warps},
    }


CASES = {
    f"group norm {way} {shape} {dtype}": case(
        kernel, dtype, GROUPS[shape], **({"length": 1} if shape == "rows" else {})
    )
    for way, kernel in (("forward", k._forward_kernel), ("backward", k._backward_kernel))
    for shape, dtype in (("images", "fp32"), ("images", "bf16"), ("images", "fp64"),
                         ("planes", "fp32"), ("rows", "fp32"), ("small", "fp32"))
} | {
    f"group norm {way} of one number": case(kernel, "fp32", (1, 1), **dict.fromkeys(NUMBERS, 1))
    for way, kernel in (("forward", k._forward_kernel), ("backward", k._backward_kernel))
}  # fmt: skip
