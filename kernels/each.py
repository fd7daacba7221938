"""Kernels of one element at a time, and the loop and the tile program that they share.

    @each
    def silu(x):                    # the formula, of whole arrays
        return x / (1 + xp.exp(-x))

    @silu.of
    def silu_of(x):                 # the same of one number; other loops may call it too
        return x * sigmoid(x)

    silu(x)                         # runs one of them

`silu.of` makes a loop from the helper: for every i, out[i] = silu_of(x[i]). It makes the tile
program from the helper's text, too (each_triton.py). A kernel takes arrays of one shape, which are
the helper's parameters without an annotation, then numbers, which are its parameters of `float`.

The ladder, k arrays of n numbers of b bytes:

- formula: whole arrays, an operation at a time: each temporary goes through memory. 16 bits are
  widened to float32 before, and the result is rounded.
- loop: reads the arrays and writes the result once, (k + 1)nb bytes.
- tile program: a block of elements in registers, and the same bytes. In float32 it has the loop's
  bits; 16 bits are widened in registers.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

from . import arrays as xp
from .dispatch import Kernel
from .each_triton import BLOCK, OPTIONS, kernel_of
from .half_precision import as_dtype, is_half, wide
from .launch import real
from .loops import F, Helper, Loop, Out, loop  # noqa: F401 - F and Out are the loop's annotations


def loop_of(f: Helper, name: str = "") -> Loop:
    """The loop out[i] = f(a[i], b[i], …, numbers) for a helper f(a, b, …, number: float)."""
    number = f.function.__annotations__  # the parameters that have one are numbers
    declared = "".join(f"{n}: {'float' if n in number else 'F[::1]'}, " for n in parameters(f))
    given = ", ".join(n if n in number else f"{n}[i]" for n in parameters(f))
    text = f"""
def {name or f.__name__}_loop({declared}out: Out[::1]):
    for i in range(len(out)):
        out[i] = f({given})
"""
    return loop_from(text, f)


def loop_from(text: str, f: Helper) -> Loop:
    """The loop of that text, in which `f` is the helper. Loops of one helper need several names."""
    code = f.function.__code__
    text = "\n" * (code.co_firstlineno - 2) + text  # a traceback, and Numba's cache, name this line
    scope: dict[str, Any] = {"f": f, "__name__": f.function.__module__}
    exec(compile(text, code.co_filename, "exec"), scope)
    return loop(next(value for value in scope.values() if isinstance(value, FunctionType)))


def parameters(f: Helper) -> tuple[str, ...]:
    """The names of a helper's parameters."""
    code = f.function.__code__
    return code.co_varnames[: code.co_argcount]


class each(Kernel):
    """A function of arrays of one shape, then numbers. Element i of the result follows from the
    elements i of the arrays."""

    __name__: str
    helper: Helper  # the same of one number
    loop: Loop

    def __init__(self, formula: Callable[..., xp.ndarray]):
        super().__init__(formula)
        self.function, self.versions["naive"] = formula, self._whole

    def of(self, function: Callable[..., Any] | Helper) -> Helper:
        """Declare the same function of single numbers: loop and tile program are made from it."""
        self.helper = function if isinstance(function, Helper) else Helper(function)
        self.loop = loop_of(self.helper, self.__name__)
        number = self.helper.function.__annotations__
        self.arrays = sum(name not in number for name in parameters(self.helper))
        self.version("numba")(self._each)
        self.version("triton")(self._tiles)
        return self.helper

    def _each(self, *arguments: Any) -> xp.ndarray:
        arrays, out = self._fitted(arguments)
        flat = (a.reshape(-1) for a in arrays)
        self.loop(*flat, *arguments[self.arrays :], out.reshape(-1))
        return out

    def _tiles(self, *arguments: Any) -> xp.ndarray:
        x = arguments[0]
        if not real(x) or any(a.dtype != x.dtype for a in arguments[: self.arrays]):
            return self.plain(x)(*arguments)
        arrays, out = self._fitted(arguments)
        numbers = map(float, arguments[self.arrays :])
        kernel = kernel_of(self.helper, self.__name__, x.dtype == xp.float64)
        with xp.errstate(all="ignore"):  # the interpreter's: a GPU warns of nothing
            kernel[(-(-out.size // BLOCK),)](*arrays, *numbers, out, out.size, **OPTIONS)
        return out

    def _fitted(self, arguments: tuple) -> tuple[list[xp.ndarray], xp.ndarray]:
        """The arrays without gaps, and a new one for the result. They must be of one shape."""
        arrays = [xp.asarray(a, order="C") for a in arguments[: self.arrays]]
        out = xp.empty_like(arrays[-1])
        if any(a.shape != out.shape for a in arrays):  # the loop would read past the end of one
            shapes = " and ".join(str(a.shape) for a in arrays)
            raise ValueError(f"{self.__name__}: arrays of shapes {shapes}: want one shape")
        return arrays, out

    def _whole(self, *arguments: Any) -> xp.ndarray:
        x = arguments[self.arrays - 1]
        if is_half(x):  # else every operation would round
            return as_dtype(self._whole(*map(wide, arguments)), x.dtype)
        if x.dtype.kind not in "fc":
            raise NotImplementedError(
                f"{self.__name__} of {x.dtype.name}: convert with .float() first"
            )
        with xp.errstate(over="ignore"):  # exp(-x) may be infinite: 1 / (1 + it) is 0
            return self.function(*arguments)
