"""Windows that slide over planes: their sizes, for convolution and pooling alike.

One dimension is two with a first axis of size 1: everything here has two axes, and loops run along
the last.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from . import arrays as xp
from .loops import helper

Pair = tuple[int, int]


class Windows(NamedTuple):
    """How a window lies and moves; padding is ((top, bottom), (left, right))."""

    kernel: Pair
    stride: Pair = (1, 1)
    padding: tuple[Pair, Pair] = ((0, 0), (0, 0))
    dilation: Pair = (1, 1)

    def reach(self) -> Pair:
        """Rows and columns from a window's first to its last."""
        (kh, kw), (dh, dw) = self.kernel, self.dilation
        return dh * (kh - 1) + 1, dw * (kw - 1) + 1

    def grid(self, size: tuple, ceil_mode: bool = False) -> Pair:
        """Windows down and across planes of `size`, those that start inside if ceil_mode."""
        parts = zip(size, self.reach(), self.stride, self.padding)
        h, w = (fit(n, reach, step, pad, ceil_mode) for n, reach, step, pad in parts)
        if min(h, w) < 1:
            raise RuntimeError(
                f"a window of {self.kernel} with dilation {self.dilation} does not fit "
                f"{tuple(size)} padded by {self.padding}"
            )
        return h, w

    def spread(self, count: tuple, extra: tuple = (0, 0)) -> Pair:
        """The size of planes that hold so many windows, and some more rows and columns."""
        parts = zip(count, self.reach(), self.stride, self.padding, extra)
        h, w = ((n - 1) * step - sum(pad) + reach + e for n, reach, step, pad, e in parts)
        if min(h, w) < 1:
            raise RuntimeError(f"{tuple(count)} windows {self} give a size of {(h, w)}: pad less")
        return h, w

    def constants(self) -> dict[str, int]:
        """As a tile program takes them."""
        (kh, kw), (sh, sw), ((top, _), (left, _)), (dh, dw) = self
        return {"KH": kh, "KW": kw, "SH": sh, "SW": sw, "DH": dh, "DW": dw, "TOP": top,
                "LEFT": left}  # fmt: skip

    def taps(self, count: tuple) -> Iterator[tuple[tuple, tuple]]:
        """For every place in the kernel: it, and the index of what so many windows see there."""
        for place in xp.ndindex(*self.kernel):
            parts = zip(place, self.dilation, self.stride, count)
            yield place, (..., *(slice(k * d, k * d + s * (n - 1) + 1, s) for k, d, s, n in parts))

    def inside(self, padded: xp.ndarray, size: tuple) -> xp.ndarray:
        """The view without the padding."""
        (top, _), (left, _) = self.padding
        return padded[:, :, top : top + size[0], left : left + size[1]]


@helper()
def split(plane, first, left, fill, line, parts):
    """parts[a, b, i, j] = plane[first + i · down + a, j · across + b - left], or fill beside it.

    parts is (down, across, rows, pitch). The numbers of a padded plane that windows with these
    strides see at one place, each in its own, lie beside each other there, so that loops over
    windows read neighbours. line (across · pitch) is for one row among its padding.
    """
    (h, w), (down, across, rows, pitch) = plane.shape, parts.shape
    line[:] = fill
    inner = line[left : left + w]
    for i in range(rows):
        for a in range(down):
            r = first + i * down + a
            if 0 <= r < h:
                row = plane[r]
                for j in range(len(inner)):
                    inner[j] = row[j]
                if across == 2:  # apart, for the sake of vector instructions
                    even, odd = parts[a, 0, i], parts[a, 1, i]
                    for j in range(pitch):
                        even[j] = line[2 * j]
                        odd[j] = line[2 * j + 1]
                elif across == 1:
                    for j in range(pitch):
                        parts[a, 0, i, j] = line[j]
                else:
                    for b in range(across):
                        for j in range(pitch):
                            parts[a, b, i, j] = line[j * across + b]
            else:
                for b in range(across):
                    for j in range(pitch):
                        parts[a, b, i, j] = fill


def fit(n: int, reach: int, step: int, pad: Pair, ceil_mode: bool) -> int:
    """How many windows an axis of n takes."""
    room = n + sum(pad) - reach
    if not ceil_mode:
        return room // step + 1
    count = -(-room // step) + 1
    return count - ((count - 1) * step >= n + pad[0])


def per_axis(name: str, value: Any, dims: int, fill: int) -> Pair:
    """A number for both axes, or one for each; in 1-d the first axis has `fill`."""
    values = tuple(value) if isinstance(value, tuple | list) else (value,) * dims
    values = values * dims if len(values) == 1 else values
    if len(values) != dims:
        raise RuntimeError(f"{name} {value}: want one number or {dims}")
    return (fill, *values)[-2:]


def windows(
    name: str, dims: int, kernel: Any, stride: Any, padding: Any = 0, dilation: Any = 1
) -> Windows:
    """Windows from PyTorch's arguments: numbers or one an axis, padding also 'same' or 'valid'."""
    size, step, spread = (
        per_axis(f"{name}: {what}", value, dims, 1)
        for what, value in (("kernel", kernel), ("stride", stride), ("dilation", dilation))
    )
    if isinstance(padding, str):
        pads = _named_padding(name, padding, size, step, spread)
    else:
        low = per_axis(f"{name}: padding", padding, dims, 0)
        pads = ((low[0], low[0]), (low[1], low[1]))
    if min(*size, *step, *spread) < 1 or min(map(min, pads)) < 0:
        raise RuntimeError(
            f"{name}: kernel {size}, stride {step}, dilation {spread}, padding {pads}: "
            "want at least 1, and padding at least 0"
        )
    return Windows(size, step, pads, spread)


def pool_windows(
    name: str, dims: int, kernel: Any, stride: Any, padding: Any, dilation: Any = 1
) -> Windows:
    """windows() whose stride is the kernel if None, and whose padding leaves something to see."""
    win = windows(name, dims, kernel, kernel if stride in (None, ()) else stride, padding, dilation)
    if any(pad[0] > reach // 2 for pad, reach in zip(win.padding, win.reach())):
        raise RuntimeError(f"{name}: padding {padding}: want at most half of {win.reach()}")
    return win


def check_planes(name: str, dims: int, x: tuple) -> None:
    """An input (n, c, l) or (n, c, h, w), or one without n."""
    if len(x) not in (dims + 1, dims + 2):
        raise RuntimeError(
            f"{name}: input {x}: want {dims + 1} dimensions (channels first) "
            f"or {dims + 2} (a batch of them)"
        )


def check_channels(
    name: str, dims: int, x: tuple, weight: tuple, bias: tuple | None, groups: int, transposed: bool
) -> None:
    """The weight's first two sizes are (out, in / groups), if transposed (in, out / groups)."""
    check_planes(name, dims, x)
    first, second = (*weight, 0, 0)[:2]
    into, out = (first, second * groups) if transposed else (second * groups, first)
    if len(weight) != dims + 2 or groups < 1 or first % groups or x[-dims - 1] != into:
        raise RuntimeError(
            f"{name}: input {x}, weight {weight}, {groups} groups: the weight wants {dims + 2} "
            f"dimensions and {into} input channels, and groups divide its first size"
        )
    if bias not in (None, (out,)):
        raise RuntimeError(f"{name}: bias {bias}: want one for each of {out} channels")


def adaptive_sizes(name: str, dims: int, output_size: Any) -> tuple:
    """One wanted size an axis, None to keep it; in 1-d the first is 1."""
    wanted = output_size if isinstance(output_size, tuple | list) else (output_size,) * dims
    if len(wanted) != dims or any(n is not None and n < 0 for n in wanted):
        raise RuntimeError(f"{name}: output_size {output_size}: want {dims}, each at least 0")
    return (1, *wanted)[-2:]


def output_padding(name: str, dims: int, extra: Any, win: Windows) -> Pair:
    """Rows and columns that a transposed convolution adds."""
    more = per_axis(f"{name}: output_padding", extra, dims, 0)
    if any(not 0 <= e < max(s, d) for e, s, d in zip(more, win.stride, win.dilation)):
        raise RuntimeError(f"{name}: output_padding {more}: want less than stride or dilation")
    return more


def _named_padding(name: str, padding: str, size: Pair, step: Pair, spread: Pair) -> Any:
    if padding not in ("valid", "same"):
        raise RuntimeError(f"{name}: padding {padding!r}: want numbers, 'valid' or 'same'")
    if padding == "same" and step != (1, 1):
        raise RuntimeError(f"{name}: padding 'same' needs stride 1, not {step}")
    total = (d * (k - 1) if padding == "same" else 0 for k, d in zip(size, spread))
    return tuple((n // 2, n - n // 2) for n in total)
