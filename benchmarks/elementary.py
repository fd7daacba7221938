"""How far exp, log, tanh and the others of kernels/elementary.py are from the exact value.

The error in units in the last place (ulp), the largest in each power of two of |x|, over all
float32 or every so manieth; against float64. `--plot FILE` draws it: docs/kernels-error.png.
"""

from __future__ import annotations

import argparse
import itertools
import math

import numpy as np
from minidist.kernels import elementary, functions
from minidist.kernels.each import loop_of
from minidist.kernels.loops import helper

NAMES = ["exp", "expm1", "log", "log1p", "tanh", "sigmoid", "erf", "normal"]
BINADES = np.arange(-149, 128)  # the exponents of float32, subnormal numbers included
# the bits of the first number of each, and of infinity
STARTS = [1 << i for i in range(23)] + [e << 23 for e in range(1, 256)]


@helper()
def below(x):
    return normal(x)[0]


normal = elementary.normal


def exact(name: str, x: np.ndarray) -> np.ndarray:
    """The function in float64, with a relative error far below float32's."""
    if name == "sigmoid":
        e = np.exp(-np.abs(x))
        return np.where(x < 0, e, 1) / (1 + e)
    if name == "normal":  # few numbers: the standard library's erfc keeps the digits of its tail
        return np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in x.tolist()])
    return functions.erf.formula(x) if name == "erf" else getattr(np, name)(x)


def errors(name: str, step: int) -> np.ndarray:
    """The largest error in ulp for x > 0 and for x < 0, by the exponent of x: (2, binades)."""
    f = below if name == "normal" else getattr(elementary, name)
    run, worst = loop_of(f), np.full((2, len(BINADES)), np.nan)
    step *= 200 if name == "normal" else 1
    for row, sign in enumerate((0, 1 << 31)):
        for k, (first, last) in enumerate(itertools.pairwise(STARTS)):
            bits = np.arange(first, last, max(1, min(step, (last - first) // 1000)), np.int64)
            x = (bits + sign).astype(np.uint32).view(np.float32)
            y = np.empty_like(x)
            run(x, y)
            with np.errstate(all="ignore"):
                wanted = exact(name, x.astype(np.float64))
                rounded = wanted.astype(np.float32)
                ulp = np.spacing(np.abs(rounded)).astype(np.float64)
                off = np.abs(y.astype(np.float64) - wanted) / ulp
            # no ulp where the result is 0 or infinite; the bound of Φ is one for normal numbers
            counts = np.isfinite(rounded) & (wanted != 0)
            counts &= (np.abs(wanted) > 1.2e-38) | (name != "normal")
            worst[row, k] = off[counts].max() if counts.any() else np.nan
    return worst


def draw(found: dict[str, np.ndarray], file: str) -> None:
    """One panel a function: its error over the exponent of x."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 4, figsize=(13, 5.2), sharex=True, layout="constrained")
    for axis, (name, worst) in zip(axes.flat, found.items()):
        for row, label in zip(worst, ("x > 0", "x < 0")):
            axis.plot(BINADES, row, label=label, linewidth=1.2)
        axis.set_title("Φ (normal distribution)" if name == "normal" else name, fontsize=10)
        axis.set_ylim(0, max(1.0, float(np.nanmax(worst)) * 1.15))
        axis.set_xlim(-40, 12)
        axis.axhline(0.5, color="0.7", linewidth=0.8, linestyle=":")
    axes[0, 0].legend(fontsize=8)
    figure.supxlabel("log₂ |x|", fontsize=9)
    figure.supylabel("largest error, ulp of float32", fontsize=9)
    figure.savefig(file, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--step", type=int, default=64, help="every so manieth float32")
    parser.add_argument("--plot", metavar="FILE", help="draw the errors")
    args = parser.parse_args()
    found = {name: errors(name, args.step) for name in NAMES}
    for name, worst in found.items():
        print(f"{name:8} {np.nanmax(worst):5.2f} ulp")
    if args.plot:
        draw(found, args.plot)


if __name__ == "__main__":
    main()
