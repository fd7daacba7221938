"""More of PyTorch's names, made of the operations in ops/: none has a gradient of its own."""

from . import ops
from .array import is_floating, name_of
from .device import moved
from .kernels import arrays as np
from .kernels.halves import wide
from .ops.index import checked, places
from .ops.op import axes_of, elementwise, want_one_dtype
from .ops.sort import Chosen
from .tensor import Tensor

# Elementwise and reductions


def isclose(input, other, rtol=1e-5, atol=1e-8, equal_nan=False):
    """Where |input - other| <= atol + rtol·|other|."""
    if input.dtype != other.dtype:
        raise RuntimeError(
            f"isclose: {name_of(input.dtype)} and {name_of(other.dtype)}: convert one"
        )

    def near(a, b):
        return (np.isclose(a, b, rtol, atol, equal_nan),)

    near.__name__ = "isclose"
    return elementwise(near)(input, other)


def allclose(input, other, rtol=1e-5, atol=1e-8, equal_nan=False):
    """Whether |input - other| <= atol + rtol·|other| everywhere."""
    return bool(isclose(input, other, rtol, atol, equal_nan).data.all())


def equal(input, other):
    """Whether both have one shape and the same elements."""
    return input.shape == other.shape and bool((input == other).data.all())


def lerp(input, end, weight):
    """On the way from input to end."""
    want_one_dtype("lerp", input, end)
    return input + weight * (end - input)


def cumprod(input, dim, *, dtype=None):
    """Each element times all before it along dim (n² numbers on the way, for zeros' sake)."""
    if not axes_of((dim,), input.ndim):
        return input.prod(dim, dtype=dtype)
    rows = movedim(input, dim, -1).unsqueeze(-2)
    with np.beside(input.data):
        before = Tensor(np.tri(rows.shape[-1], dtype=bool))
    return movedim(ops.where(before, rows, 1).prod(-1, dtype=dtype), -1, dim)


def count_nonzero(input, dim=None):
    return (input != 0).sum(dim)


def var_mean(input, dim=None, **options):
    return input.var(dim, **options), input.mean(dim, options.get("keepdim", False))


def std_mean(input, dim=None, **options):
    return input.std(dim, **options), input.mean(dim, options.get("keepdim", False))


def median(input, dim=None, keepdim=False):
    """The middle element, the lower of two; or (values, indices) of those along dim."""
    if dim is None or not axes_of((dim,), input.ndim):
        values, indices = input.flatten().sort()
        middle = (input.numel() - 1) // 2
        return values[middle] if dim is None else Chosen(values[middle], indices[middle])
    both = (narrow(t, dim, (input.shape[dim] - 1) // 2, 1) for t in input.sort(dim))
    return Chosen(*(t if keepdim else t.squeeze(dim) for t in both))


def unique(input, sorted=True, return_inverse=False, return_counts=False, dim=None):
    """The different elements, or slices along dim, in order."""
    array = wide(input.data) if dim is not None else wide(input.data).reshape(-1)
    found = np.unique(array, False, return_inverse, return_counts, dim)
    if not return_inverse and not return_counts:
        return Tensor(found).to(input.dtype)
    if return_inverse and dim is None:
        found = found[0], found[1].reshape(input.shape), *found[2:]
    return Tensor(found[0]).to(input.dtype), *map(Tensor, found[1:])


def _whole(x):
    return x.dtype.kind in "iu" and not is_floating(x.data)


def bincount(input, weights=None, minlength=0):
    """How often 0, 1, 2, … stand in a vector, or the sums of their weights."""
    if input.ndim != 1 or not _whole(input) or (input.data < 0).any():
        raise RuntimeError(
            f"bincount of {name_of(input.dtype)} {input.shape}: want integers (n), >= 0"
        )
    if weights is None:
        return Tensor(np.bincount(input.data, None, minlength))
    dtype = "float32" if weights.dtype == "float32" else "float64"
    return Tensor(np.bincount(input.data, wide(weights.data), minlength).astype(dtype))


# Shapes


def movedim(input, source, destination):
    """Dimensions source at the places destination, the others in their order."""
    (here, there), n = (axes_of(d, input.ndim) for d in (source, destination)), input.ndim
    order = [d for d in range(n) if d not in here]
    for place, d in sorted(zip(there, here)):
        order.insert(place, d)
    return input.permute(order)


def unflatten(input, dim, sizes):
    """One dimension as several."""
    at = axes_of((dim,), input.ndim)[0]
    return input.reshape(*input.shape[:at], *sizes, *input.shape[at + 1 :])


def narrow(input, dim, start, length):
    """length slices along dim, from start on."""
    at, size = axes_of((dim,), input.ndim)[0], input.shape[dim]
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
    if isinstance(repeats, Tensor) and not _whole(repeats):
        raise RuntimeError(f"repeat_interleave: repeats of {name_of(repeats.dtype)}: want integers")
    if np.size(times) not in (1, x.shape[at]):
        raise RuntimeError(f"repeat_interleave: {np.size(times)} repeats for {x.shape[at]} slices")
    return x.index_select(at, Tensor(np.repeat(np.arange(x.shape[at]), times)).to(x.device))


def diag(input, diagonal=0):
    """A vector as the diagonal of a matrix, or the diagonal of a matrix."""
    if input.ndim not in (1, 2):
        raise RuntimeError(f"diag of shape {input.shape}: want one or two dimensions")
    if input.ndim == 2:
        return ops.diagonal(input, diagonal)
    away = abs(diagonal)
    with np.beside(input.data):
        on_it = Tensor(np.eye(len(input) + away, k=diagonal, dtype=bool))
    rows = ops.pad(input, (0, away) if diagonal > 0 else (away, 0))
    return ops.where(on_it, rows.unsqueeze(1), 0)


def meshgrid(*tensors, indexing="ij"):
    """Each vector spread over the grid of all."""
    xs = tensors[0] if isinstance(tensors[0], tuple | list) else tensors
    want_one_dtype("meshgrid", *xs)
    shape = [x.numel() for x in xs]
    lines = (x.reshape([-1 if j == i else 1 for j in range(len(xs))]) for i, x in enumerate(xs))
    grid = tuple(line.expand(shape) for line in lines)
    return tuple(t.transpose(0, 1) for t in grid) if indexing == "xy" and len(xs) > 1 else grid


def hstack(tensors):
    xs = [x if x.ndim else x.reshape(1) for x in tensors]
    return ops.cat(xs, 0 if xs[0].ndim == 1 else 1)


def vstack(tensors):
    return ops.cat([x if x.ndim > 1 else x.reshape(1, -1) for x in tensors])


# Indices


def scatter(input, dim, index, src=None, *, value=None):
    """For dim 1: y = x, then y[i, index[i, j]] = src[i, j], or = src, a number."""
    src = value if src is None else src
    if not input.ndim:
        rows = (t.reshape(-1) if isinstance(t, Tensor) else t for t in (index, src))
        return scatter(input.reshape(1), dim, *rows).reshape(())
    sources = [src] if isinstance(src, Tensor) else []
    want_one_dtype("scatter", input, *sources)
    axis, y = checked("scatter", input, dim, index.data, *sources), input.clone()
    y[places(axis, index.data)] = src[tuple(map(slice, index.shape))] if sources else src
    return y


def index_add(input, dim, index, source, *, alpha=1):
    """y = x, then y[index[i]] += alpha·source[i] along dim."""
    at = (*axes_of((dim,), source.ndim), 0)[0]
    if (
        index.shape != (source.shape or (1,))[at : at + 1]
        or input.ndim != source.ndim
        or any(n != m for d, (n, m) in enumerate(zip(input.shape, source.shape)) if d != at)
    ):
        raise (RuntimeError if index.ndim < 2 else IndexError)(
            f"index_add along {dim}: index {index.shape}, source {source.shape} for {input.shape}: "
            "want one index for each slice of the source, and equal sizes elsewhere"
        )
    spread = index.reshape([-1 if d == at else 1 for d in range(source.ndim)]).expand(source.shape)
    return input.scatter_add(dim, spread, source if alpha == 1 else source * alpha)


# Products


def mv(input, vec):
    """(n, k) @ (k) -> (n)."""
    if (input.ndim, vec.ndim) != (2, 1):
        raise RuntimeError(f"mv of shapes {input.shape} and {vec.shape}: want (n, k) and (k)")
    return input @ vec


def addmm(input, mat1, mat2, *, beta=1, alpha=1):
    """beta·input + alpha·(mat1 @ mat2)."""
    product = ops.mm(mat1, mat2)
    return input.expand(product.shape) * beta + product * alpha


def normalize(input, p=2.0, dim=1, eps=1e-12):
    """Each row along dim over its p-norm, or over eps if that is larger."""
    return input / input.norm(p, dim, True).clamp(min=eps)


def cosine_similarity(x1, x2, dim=1, eps=1e-8):
    """The cosine of the angle between rows along dim."""
    return (normalize(x1, 2, dim, eps) * normalize(x2, 2, dim, eps)).sum(dim)


# Of indices


def nonzero(input, *, as_tuple=False):
    """The indices of what is not 0, one row an element; or one vector a dimension, to index by."""
    found = Tensor(np.argwhere(wide(input.data)))
    return found.unbind(1) if as_tuple else found


def one_hot(tensor, num_classes=-1):
    """(...) class numbers -> (..., num_classes): 1 at the number, 0 elsewhere."""
    i = tensor.data
    if i.dtype != np.int64 or (num_classes < 0 and not i.size):
        raise RuntimeError(f"one_hot of {i.dtype.name} {i.shape}: want int64, or give num_classes")
    count = int(i.max()) + 1 if num_classes < 0 else num_classes
    if np.outside(i, count):
        raise RuntimeError(f"one_hot: {i.min()} to {i.max()} are not classes 0 to {count - 1}")
    with np.beside(i):
        return Tensor((i[..., None] == np.arange(count)).astype(np.int64))
