"""Operations that rearrange: their VJPs rearrange back."""

import itertools
import math

from ..autograd.tape import Joint
from ..autograd.versions import owner
from ..kernels import arrays as xp
from ..tensor.device import moved
from ..tensor.tensor import Tensor
from .elementwise import where
from .index import getitem
from .op import axes_of, differentiable, is_integer, result_dtype, unbroadcast, want_one_dtype
from .pad import pad


def _sizes(shape: tuple) -> tuple:
    """reshape(2, 3) and reshape((2, 3)) mean the same."""
    return tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], tuple | list) else shape


@differentiable(autocast="fallthrough", moves_only=True)
def _reshape(x, shape):
    before = x.shape
    try:
        wrong = any(n < -1 for n in shape)  # NumPy would treat it as -1
    except TypeError:
        text = (
            "want whole numbers; .to(dtype) converts numbers, and nothing reinterprets their bits"
        )
        raise TypeError(f"view or reshape to {shape}: {text}") from None
    if wrong:
        raise RuntimeError(f"reshape: negative size in {shape}: only -1 has a meaning")
    try:
        y = x.reshape(shape)
    except ValueError:
        raise RuntimeError(
            f"reshape: {x.size} elements of shape {before} do not fill {shape}"
        ) from None
    return y, lambda g: g.reshape(before)


def reshape(x, *sizes, shape=None):
    """The same elements in another shape; one size may be -1."""
    return _reshape(x, _sizes(sizes) if shape is None else tuple(shape))


view = reshape


def flatten(x, start_dim=0, end_dim=-1):
    """Merge the dimensions from start_dim to end_dim, both included."""
    if not x.ndim:
        return _reshape(x, (1,))
    start, end = axes_of((start_dim,), x.ndim)[0], axes_of((end_dim,), x.ndim)[0] + 1
    if start >= end:
        raise RuntimeError(f"flatten: start_dim {start_dim} comes after end_dim {end_dim}")
    return _reshape(x, (*x.shape[:start], math.prod(x.shape[start:end]), *x.shape[end:]))


@differentiable(autocast="fallthrough", moves_only=True)
def _permute(x, dims):
    back = tuple(xp.argsort(dims))
    return x.transpose(dims), lambda g: g.transpose(back)


def permute(x, *order, dims=None):
    """Dimension i of the result is dimension dims[i] of x."""
    dims = tuple(_sizes(order) if dims is None else dims)
    if len(dims) != x.ndim:
        raise RuntimeError(f"permute: {dims} does not name each of the {x.ndim} dimensions once")
    return _permute(x, axes_of(dims, x.ndim) if dims else ())


def transpose(x, dim0, dim1):
    """Swap two dimensions."""
    swapped, dims = axes_of((dim0,), x.ndim) + axes_of((dim1,), x.ndim), list(range(x.ndim))
    for a, b in zip(swapped, reversed(swapped)):
        dims[a] = b
    return _permute(x, tuple(dims))


def squeeze(x, dim=None):
    """Drop the dimensions dim (one or several) whose size is 1, or all of size 1."""
    drop = () if dim in ((), []) else axes_of(dim, x.ndim)  # () means no dimension
    return _reshape(x, tuple(n for i, n in enumerate(x.shape) if n != 1 or i not in drop))


def unsqueeze(x, dim):
    """A new dimension of size 1 at dim."""
    at = axes_of((dim,), x.ndim + 1)[0]
    return _reshape(x, (*x.shape[:at], 1, *x.shape[at:]))


def t(input):
    """The transpose of a matrix; vectors and numbers stay."""
    if input.ndim > 2:
        raise RuntimeError(f"t() of {input.ndim} dimensions: use .mT, transpose or permute")
    return input.T


def contiguous(input):
    """The same tensor, copied if its elements do not follow one another in memory."""
    return input if input.data.flags.c_contiguous else input.clone()


@differentiable(autocast="fallthrough", moves_only=True)
def _expand(x, shape):
    before = x.shape
    try:
        y = xp.broadcast_to(x, shape)
        y = x.reshape(shape) if y.size == x.size else y  # writable: no repeats
    except ValueError:
        raise RuntimeError(f"expand: {before} to {shape}: only sizes of 1 can grow") from None
    return y, lambda g: unbroadcast(g, before)


def expand(x, *shape):
    """Repeat dimensions of size 1 without copying; -1 keeps a size."""
    shape = _sizes(shape)
    kept = (None,) * (len(shape) - x.ndim) + x.shape
    sizes = tuple(k if n == -1 else n for n, k in zip(shape, kept))
    if len(sizes) < x.ndim or None in sizes:
        raise RuntimeError(f"expand: {x.shape} to {shape}: a new dimension needs a size")
    return _expand(x, sizes)


@differentiable(autocast="promote")
def _cat(*arrays, dim):
    edges = xp.cumsum([a.shape[dim] for a in arrays])[:-1].tolist()
    dtypes = [a.dtype for a in arrays]

    def vjp(g):
        return [p.astype(t, copy=False) for p, t in zip(xp.split(g, edges, dim), dtypes)]

    return xp.concatenate(arrays, dim, dtype=result_dtype(arrays)), Joint(vjp)


def _tensors(name, tensors, error=ValueError):
    if not isinstance(tensors, list | tuple):
        raise TypeError(f"{name} takes a list or tuple of tensors, and dim by name or after it")
    for i, x in enumerate(tensors):
        if not isinstance(x, Tensor):
            raise TypeError(f"{name}: element {i} is a {type(x).__name__}, not a tensor")
    if not tensors:
        raise error(f"{name}: no tensors: give one or more")
    return tensors


def _cat_without_empty(tensors, dim):
    """Tensors of shape (0,) fit all others, as in PyTorch: only their dtype counts."""
    y = cat([x for x in tensors if x.shape != (0,)], dim)
    return y.to(result_dtype(tuple(x.data for x in tensors)))


def cat(tensors, dim=0):
    """Tensors one after the other along dim; all other sizes must be equal."""
    shapes = [t.shape for t in _tensors("cat", tensors)]
    if not all(shapes):
        raise RuntimeError(f"cat: tensors without dimensions: {shapes}: unsqueeze(0) each")
    if (0,) in shapes and any(len(s) > 1 for s in shapes):
        return _cat_without_empty(tensors, dim)
    at = axes_of((dim,), len(shapes[0]))[0]
    if len({(len(s), s[:at], s[at + 1 :]) for s in shapes}) > 1:
        raise RuntimeError(f"cat along {dim}: sizes differ elsewhere too: {shapes}")
    return _cat(*tensors, dim=at)


def stack(tensors, dim=0):
    """Tensors of one shape side by side along a new dimension."""
    shapes = [x.shape for x in _tensors("stack", tensors, RuntimeError)]
    if len(set(shapes)) > 1:
        raise RuntimeError(f"stack: shapes {shapes}: want one or more, all equal")
    return cat([unsqueeze(x, dim) for x in tensors], dim)


# Into pieces


def _size(name, input, dim, error):
    if not input.ndim:
        raise error(f"{name} of a 0-d tensor: it has no dimension")
    return input.shape[axes_of((dim,), input.ndim)[0]]


def _slices(input, dim, parts):
    at = axes_of((dim,), input.ndim)[0]
    return tuple(getitem(input, (slice(None),) * at + (part,)) for part in parts)


def split(input, split_size_or_sections, dim=0):
    """Pieces of one size along dim (the last may be smaller), or of the sizes in a list."""
    sizes, n = split_size_or_sections, _size("split", input, dim, RuntimeError)
    if isinstance(sizes, int):
        if sizes < 0 or (n and not sizes):
            raise RuntimeError(f"split: size {sizes} for {n} along {dim}: want 1 or more")
        sizes = [max(min(sizes, n - i), 0) for i in range(0, max(n, 1), max(sizes, 1))]
    if sum(sizes) != n or min(sizes, default=0) < 0:
        raise RuntimeError(f"split: sizes {sizes} do not add up to {n} along {dim}")
    ends = itertools.accumulate(sizes)
    return _slices(input, dim, [slice(end - size, end) for size, end in zip(sizes, ends)])


def chunk(input, chunks, dim=0):
    """At most so many pieces of one size along dim; the last may be smaller."""
    n = _size("chunk", input, dim, RuntimeError)
    if chunks < 1:
        raise RuntimeError(f"chunk into {chunks}: want 1 or more")
    return split(input, -(-n // chunks) if n else [0] * chunks, dim)


def unbind(input, dim=0):
    """The slices along dim, without it."""
    return _slices(input, dim, range(_size("unbind", input, dim, IndexError)))


# More of the same, in another order, or less


def repeat(input, *sizes):
    """Copies side by side, sizes[i] of them along dimension i; more sizes are new dimensions."""
    sizes = _sizes(sizes)
    shape = (1,) * (len(sizes) - input.ndim) + input.shape
    if len(shape) > len(sizes) or any(r < 0 for r in sizes):
        raise RuntimeError(f"repeat: {sizes} for {input.shape}: want a number >= 0 a dimension")
    if set(sizes) <= {1}:
        return _reshape(input, shape).clone()
    apart = _reshape(input, tuple(n for m in shape for n in (1, m)))
    spread = _expand(apart, tuple(n for pair in zip(sizes, shape) for n in pair))
    whole = _reshape(spread, tuple(r * m for r, m in zip(sizes, shape)))
    copied = owner(whole.data) is not owner(input.data)
    return whole if copied else whole.clone()  # in new dimensions alone it is still a view


@differentiable(autocast="fallthrough", moves_only=True)
def _flip(x, axes):
    return xp.flip(x, axes).copy(), lambda g: xp.flip(g, axes)


def flip(input, *to, dims=None):
    """Backwards along dims."""
    dims = _sizes(to) if dims is None else dims
    return _flip(input, axes_of(dims, input.ndim) if dims else ())


@differentiable(autocast="fallthrough", moves_only=True)
def _roll(x, shifts, axes):
    return xp.roll(x, shifts, axes), lambda g: xp.roll(g, xp.negative(shifts), axes)


def roll(input, shifts, dims=None):
    """Shifted along dims, or all elements in a row; what falls off the end comes in in front."""
    axes = None if dims is None else axes_of(dims, input.ndim)
    if xp.size(shifts) != (1 if axes is None else len(axes)):
        raise (RuntimeError if input.ndim else IndexError)(f"roll: shifts {shifts} for dims {dims}")
    return _roll(input, shifts, axes)


@differentiable(autocast="fallthrough")
def _triangle(x, keep, diagonal):
    if x.ndim < 2:
        raise RuntimeError(f"{keep.__name__} of shape {x.shape}: want two dimensions or more")
    return keep(x, diagonal), lambda g: keep(g, diagonal)


def tril(input, diagonal=0):
    """The lower triangle of each matrix, zeros above the diagonal."""
    return _triangle(input, xp.tril, diagonal)


def triu(input, diagonal=0):
    """The upper triangle of each matrix, zeros below the diagonal."""
    return _triangle(input, xp.triu, diagonal)


@differentiable(autocast="fallthrough", moves_only=True)
def _diagonal(x, offset, axes):
    shape = x.shape

    def vjp(g):
        whole = xp.zeros(shape, g.dtype)
        on_it = xp.moveaxis(whole, axes, (-2, -1))
        i = xp.arange(g.shape[-1])
        on_it[..., i - min(offset, 0), i + max(offset, 0)] = g
        return whole

    y = x.diagonal(offset, *axes)
    if not xp.on_gpu(x):
        y.flags.writeable = x.flags.writeable
    return y, vjp


def diagonal(input, offset=0, dim1=0, dim2=1):
    """The elements at (i, i + offset) of dimensions dim1 and dim2, as the last dimension."""
    return _diagonal(input, offset, axes_of((dim1, dim2), input.ndim))


def movedim(input, source, destination):
    """Dimensions source at the places destination, the others in their order."""
    (here, there), n = (axes_of(d, input.ndim) for d in (source, destination)), input.ndim
    if len(here) != len(there):
        raise RuntimeError(
            f"movedim: from {source} to {destination}: want as many dimensions in each"
        )
    order = [d for d in range(n) if d not in here]
    for place, d in sorted(zip(there, here)):
        order.insert(place, d)
    return input.permute(order)


def unflatten(input, dim, sizes):
    """Split a dimension into several; one of their sizes may be -1."""
    n, at = _size("unflatten", input, dim, RuntimeError), axes_of((dim,), input.ndim)[0]
    known, sizes = math.prod(m for m in sizes if m != -1), tuple(sizes)
    filled = tuple(n // max(known, 1) if m == -1 else m for m in sizes)
    if sizes.count(-1) > 1 or math.prod(filled) != n or min(filled, default=-1) < 0:
        where = f"dimension {dim} of {input.shape}"
        raise RuntimeError(f"unflatten: {sizes} for {where}: want sizes whose product is {n}")
    return input.reshape(*input.shape[:at], *filled, *input.shape[at + 1 :])


def narrow(input, dim, start, length):
    """length slices along dim, from start on."""
    size = _size("narrow", input, dim, RuntimeError)
    at = axes_of((dim,), input.ndim)[0]
    if not -size <= start <= size:
        raise IndexError(f"narrow: start {start} of {size} along {dim}: want {-size} to {size}")
    start += size * (start < 0)
    if not 0 <= length <= size - start:
        raise RuntimeError(f"narrow: {length} from {start} of {size} along {dim}")
    return input[(slice(None),) * at + (slice(start, start + length),)]


def select(input, dim, index):
    return input[(slice(None),) * axes_of((dim,), input.ndim)[0] + (index,)]


def tile(input, *dims):
    """repeat, with ones in front of dims if there are too few."""
    dims = tuple(dims[0]) if len(dims) == 1 and isinstance(dims[0], tuple | list) else dims
    return input.repeat((1,) * (input.ndim - len(dims)) + dims)


def repeat_interleave(input, repeats, dim=None):
    """Each slice along dim (element, if None) so many times in a row."""
    x, at = (input.flatten(), 0) if dim is None else (input, dim)
    times = moved(repeats.data, "cpu") if isinstance(repeats, Tensor) else repeats
    if isinstance(repeats, Tensor) and not is_integer(repeats):
        raise RuntimeError(f"repeat_interleave: repeats of {repeats.dtype.name}: want integers")
    if xp.size(times) not in (1, x.shape[at]):
        raise RuntimeError(f"repeat_interleave: {xp.size(times)} repeats for {x.shape[at]} slices")
    return x.index_select(at, Tensor(xp.repeat(xp.arange(x.shape[at]), times)).to(x.device))


def diag(input, diagonal=0):
    """A vector as the diagonal of a matrix, or the diagonal of a matrix."""
    if input.ndim not in (1, 2):
        raise RuntimeError(f"diag of shape {input.shape}: want one or two dimensions")
    if input.ndim == 2:
        return _diagonal(input, diagonal, (0, 1)).clone()
    away = abs(diagonal)
    with xp.beside(input.data):
        on_it = Tensor(xp.eye(len(input) + away, k=diagonal, dtype=bool))
    rows = pad(input, (0, away) if diagonal > 0 else (away, 0))
    return where(on_it, rows.unsqueeze(1), False)  # also for bools: 0 would make them integers


def meshgrid(*tensors, indexing="ij"):
    """Each vector spread over the grid of all."""
    if indexing not in ("ij", "xy"):
        raise RuntimeError(f"meshgrid: indexing {indexing!r}: want 'ij' or 'xy'")
    xs = tensors[0] if isinstance(tensors[0], tuple | list) else tensors
    want_one_dtype("meshgrid", *xs)
    shape = [x.numel() for x in xs]
    lines = (x.reshape([-1 if j == i else 1 for j in range(len(xs))]) for i, x in enumerate(xs))
    grid = tuple(line.expand(shape) for line in lines)
    return tuple(t.transpose(0, 1) for t in grid) if indexing == "xy" and len(xs) > 1 else grid


def hstack(tensors):
    """Side by side: along the second dimension, or the only one."""
    xs = [x if x.ndim else x.reshape(1) for x in _tensors("hstack", tensors, RuntimeError)]
    return cat(xs, 0 if xs[0].ndim == 1 else 1)


def vstack(tensors):
    """One below the other: a vector is a row."""
    xs = _tensors("vstack", tensors, RuntimeError)
    return cat([x if x.ndim > 1 else x.reshape(1, -1) for x in xs])


# Other names that PyTorch has

concat = concatenate = cat
swapaxes = swapdims = transpose
moveaxis, broadcast_to = movedim, expand
