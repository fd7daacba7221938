"""How batch norm's kernels are compiled in tests: images, rows, small planes, and one number."""

from minidist.kernels import batch_norm as k

SHAPES = {"images": (32, 64, 3136), "planes": (256, 512, 49), "rows": (4096, 1024, 1)}
KERNELS = {
    "moments": k._moments_kernel,
    "sums": k._sums_kernel,
    "forward": k._forward_kernel,
    "backward": k._slope_kernel,
}
PARTIAL = ("n", "c", "length", "tiles", "parts", "share")


def names(kernel):
    return kernel.function.__code__.co_varnames[: kernel.function.__code__.co_argcount]


def case(kernel, dtype, shape, **ones):
    """`ones`: integers that are 1, which Triton makes constants."""
    sums = "*fp64" if dtype == "fp64" else "*fp32"
    types = {"sums_ptr": sums, **dict.fromkeys(PARTIAL, "i32")}
    constants = k.cut(shape, dtype == "fp64")[2] | ones
    return {
        "kernel": kernel,
        "signature": {n: types.get(n, f"*{dtype}") for n in names(kernel) if n not in constants},
        "constants": constants,
    }


def merged(dtype, parts):
    return {
        "kernel": k._merge_kernel,
        "signature": {"sums_ptr": "*fp64" if dtype == "fp64" else "*fp32", "c": "i32",
                      **dict.fromkeys(("mean_ptr", "variance_ptr"), f"*{dtype}"),
                      **({} if parts == 1 else {"parts": "i32"})},
        "constants": {"PARTS": parts, "CHANNELS": min(k.MERGED // parts, k.ABREAST),
                      **({"parts": 1} if parts == 1 else {})},
    }  # fmt: skip


CASES = {
    f"batch norm {name} {shape} {dtype}": case(
        kernel, dtype, SHAPES[shape], **({"length": 1} if shape == "rows" else {})
    )
    for name, kernel in KERNELS.items()
    for shape, dtype in (("images", "fp32"), ("images", "bf16"), ("images", "fp64"),
                         ("planes", "fp32"), ("rows", "fp32"), ("rows", "fp64"))
} | {
    f"batch norm {name} of one tile": case(
        kernel, "fp32", (1, 1, 1), **{n: 1 for n in PARTIAL if n in names(kernel)}
    )
    for name, kernel in KERNELS.items()
} | {
    f"batch norm merged {parts} {dtype}": merged(dtype, parts)
    for parts, dtype in ((512, "fp32"), (64, "fp64"), (1, "fp32"))
}  # fmt: skip
