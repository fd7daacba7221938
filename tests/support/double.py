"""A stand-in for CuPy without a GPU, stricter than CuPy: what passes here does not hide a copy.

Its arrays hold NumPy's, but refuse what CuPy refuses: methods, functions and parameters that CuPy
14.2 lacks (their names were recorded from it: cupy_names.json), NumPy's functions on its arrays,
and arrays of NumPy as operands. Each copy to the host is counted, also that of one number.
Reductions give arrays without dimensions, as CuPy's do, and never NumPy's scalars. What it does
while a stream captures is recorded: double_capture.
"""

import contextlib
import json
import sys
import types
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from minidist.kernels import arrays
from minidist.kernels.launch import Kernel

from support import double_capture as capture

NAMES = json.loads(Path(__file__).with_name("cupy_names.json").read_text("utf-8"))
SAFE = bool | int | float | complex | np.generic | np.dtype | type | str | slice | None
copies: Counter = Counter()  # to the host, by what asked for them


class ndarray:
    """An array "on the GPU"."""

    __array_priority__ = 100

    def __init__(self, array, base=None):
        self._a, self.base = array, base
        if base is None:
            capture.memory[id(self)] = self

    shape = property(lambda self: self._a.shape, lambda self, s: setattr(self._a, "shape", s))
    strides = property(lambda self: self._a.strides)
    ndim = property(lambda self: self._a.ndim)
    size = property(lambda self: self._a.size)
    dtype = property(lambda self: self._a.dtype)
    itemsize = property(lambda self: self._a.itemsize)
    nbytes = property(lambda self: self._a.nbytes)
    flags = property(lambda self: types.SimpleNamespace(
        c_contiguous=self._a.flags.c_contiguous, f_contiguous=self._a.flags.f_contiguous,
        owndata=self.base is None))  # fmt: skip
    device = property(lambda self: types.SimpleNamespace(id=0))
    data = property(lambda self: types.SimpleNamespace(
        ptr=self._a.__array_interface__["data"][0]))  # fmt: skip
    T = property(lambda self: wrapped(self._a.T, [self]))
    mT = property(lambda self: wrapped(self._a.mT, [self]))
    real = property(lambda self: wrapped(self._a.real, [self]))
    imag = property(lambda self: wrapped(self._a.imag, [self]))

    def _fetch(self, why):
        capture.refuse(why)
        copies[why] += 1
        return self._a

    def get(self, out=None):
        if out is None:
            return self._fetch("get").copy()
        out[...] = self._fetch("get")
        return out

    def set(self, array):
        capture.refuse("set")
        assert isinstance(array, np.ndarray) and array.shape == self.shape
        self._a[...] = array

    def item(self):
        return self._fetch("item").item()

    def tolist(self):
        return self._fetch("tolist").tolist()

    def nonzero(self):
        capture.refuse("nonzero")
        copies["nonzero"] += 1
        return wrapped(self._a.nonzero(), [self])

    def __bool__(self):
        return bool(self._fetch("bool"))

    def __int__(self):
        return int(self._fetch("int"))

    def __index__(self):
        return self._fetch("index").__index__()

    def __float__(self):
        return float(self._fetch("float"))

    def __len__(self):
        return len(self._a)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __array__(self, *args, **options):
        raise TypeError("Implicit conversion to a NumPy array is not allowed: use .get()")

    def __array_function__(self, function, *rest):
        raise TypeError(f"numpy.{function.__name__} on a GPU array: want kernels.arrays' name")

    def __array_ufunc__(self, ufunc, method, *inputs, **options):
        if ufunc.signature is not None or method != "__call__" or any(
            isinstance(x, np.ndarray) for x in inputs
        ):  # fmt: skip
            return NotImplemented
        return getattr(sys.modules["cupy"], ufunc.__name__)(*inputs, **options)

    def __getitem__(self, key):
        key = _key(key)
        return done(lambda: self._a[key], [self])

    def __setitem__(self, key, value):
        key, value = bare(key), bare(value)  # a mask may choose where: no one has to know it
        done(lambda: self._a.__setitem__(key, value))

    def __getattr__(self, name):
        parameters = NAMES["methods"].get(name)
        if parameters is None or parameters == "property":
            raise AttributeError(f"CuPy's array has no {name!r}")

        def method(*args, **options):
            _check(f"ndarray.{name}", parameters, args, options)
            sources, args, options = [self, *args, *options.values()], bare(args), bare(options)
            return done(lambda: getattr(self._a, name)(*args, **options), sources)

        return method

    def __deepcopy__(self, memo):
        return done(self._a.copy)

    def __reduce__(self):
        raise TypeError("a GPU array is pickled by way of the host: use .get()")

    def __repr__(self):
        return f"on the GPU: {self._a!r}"

    __hash__ = None  # type: ignore[assignment]


ndarray.__module__ = "cupy"


def _operator(name):
    def operate(self, other=None):
        if isinstance(other, np.ndarray) and not isinstance(other, np.generic):
            raise TypeError(f"{name} of a GPU array and a NumPy array: move one")
        if other is not None and not isinstance(other, ndarray | SAFE):
            return NotImplemented
        capture.refuse_call(name)
        args = () if other is None else (bare(other),)
        result = done(lambda: getattr(self._a, name)(*args), [self])
        return self if name.startswith("__i") and name != "__invert__" else result

    return operate


BINARY = "add sub mul truediv floordiv mod pow matmul and or xor lshift rshift"
for _name in BINARY.split():
    for _form in ("__%s__", "__r%s__", "__i%s__"):
        setattr(ndarray, _form % _name, _operator(_form % _name))
for _name in "lt le eq ne gt ge neg abs invert pos".split():  # noqa: SIM905
    setattr(ndarray, f"__{_name}__", _operator(f"__{_name}__"))


def bare(value):
    """NumPy's array of a double; what CuPy would not take is refused."""
    if isinstance(value, ndarray):
        return value._a
    if isinstance(value, list | tuple):
        return type(value)(map(bare, value))
    if isinstance(value, dict):
        return {k: bare(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}: a NumPy array of shape {value.shape}")
    return value


def wrapped(value, sources=()):
    """Results as doubles; one that is a view knows whose memory it has."""
    if isinstance(value, tuple | list):
        return type(value)(wrapped(v, sources) for v in value)
    if not isinstance(value, np.ndarray | np.generic):
        return value
    for source in sources:
        if isinstance(source, ndarray):
            if value is source._a:
                return source
            if _root(value) is _root(source._a):
                return ndarray(value, source if source.base is None else source.base)
    return ndarray(np.asarray(value))


def done(compute, sources=()):
    """What compute() gives, as doubles; on a stream that captures, also at every launch."""
    return capture.done(compute, lambda value: wrapped(value, sources), sources)


def _root(array):
    while isinstance(getattr(array, "base", None), np.ndarray):
        array = array.base
    return array


def _key(key):
    parts = key if isinstance(key, tuple) else (key,)
    masked = any(isinstance(p, ndarray) and p.dtype == bool for p in parts)
    if masked:
        capture.refuse("a mask as an index")
    copies["a mask as an index"] += masked
    return bare(key)


def _check(name, parameters, args, options):
    capture.refuse_call(name.removeprefix("ndarray."))
    if "**kwargs" not in parameters:
        unknown = options.keys() - set(parameters)
        if unknown:
            raise TypeError(f"CuPy's {name} takes no {unknown}")
        if not any(p.startswith("*") for p in parameters) and len(args) > len(parameters):
            raise TypeError(f"CuPy's {name} takes {len(parameters)} arguments")
    if options.get("kind") not in (None, "stable"):
        raise ValueError(f"CuPy's {name} sorts by kind='stable' alone")


UFUNC = ["x1", "x2", "out", "dtype", "casting"]
WAITS = {"unique", "argwhere", "flatnonzero", "nonzero", "array_equal", "bincount", "allclose"}


class _Function:
    def __init__(self, name, parameters):
        self.__name__, self.parameters = name, UFUNC if parameters == "ufunc" else parameters
        self.is_ufunc = parameters == "ufunc"

    def __call__(self, *args, **options):
        if self.parameters != "any":
            _check(self.__name__, self.parameters, args, options)
        if self.__name__ in WAITS:
            capture.refuse(self.__name__)
            copies[self.__name__] += 1
        return self._call(getattr(np, self.__name__), *args, **options)

    def _call(self, function, *args, **options):
        sources, args, options = [*args, *options.values()], bare(args), bare(options)
        return done(lambda: function(*args, **options), sources)

    def at(self, a, index, *values):
        assert self.__name__ in ("add", "subtract", "maximum", "minimum"), self.__name__
        args = bare(a), _key(index), *map(bare, values)
        done(lambda: getattr(np, self.__name__).at(*args))

    def accumulate(self, a, axis=0):
        if self.__name__ not in ("add", "multiply"):
            raise NotImplementedError(f"CuPy's {self.__name__}.accumulate")
        return self._call(getattr(np, self.__name__).accumulate, a, axis)

    def outer(self, a, b):
        return self._call(getattr(np, self.__name__).outer, a, b)


def asarray(a, dtype=None, order=None):
    """Uploads what is NumPy's; one number goes with the launch of a kernel that fills."""
    if isinstance(a, ndarray):
        return done(lambda: np.asarray(a._a, dtype, order), [a])
    numbers = np.array(bare(a) if isinstance(a, list | tuple) else a, dtype, order=order)
    if numbers.ndim:
        capture.refuse("an upload")
    return done(numbers.copy)


def module():
    """The module: names that CuPy has, and a GPU that is there."""
    cupy = types.ModuleType("cupy")
    for name, parameters in NAMES["functions"].items():
        if hasattr(np, name):
            setattr(cupy, name, _Function(name, parameters))
    cupy.ndarray, cupy.asarray, cupy.__version__ = ndarray, asarray, NAMES["cupy"] + " (a double)"
    cupy.ascontiguousarray = lambda a, dtype=None: asarray(a, dtype, "C")
    cupy.asnumpy = lambda a: a.get()
    cupy.cuda = capture.names()
    cupy.cuda.is_available, cupy.cuda.Device = lambda: True, Device
    cupy.cuda.runtime = types.SimpleNamespace(getDeviceCount=lambda: 1)
    return cupy


class Device:
    """The one GPU there is."""

    compute_capability, attributes = "80", {"MultiProcessorCount": 4}

    def __init__(self, id=0):
        assert id == 0
        self.id = id

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def use(self):
        pass

    def synchronize(self):
        capture.refuse("synchronize")
        copies["synchronize"] += 1


@contextlib.contextmanager
def gpu() -> Iterator[Counter]:
    """Inside, there is a GPU, which is this; yields the count of copies to the host."""
    before, sys.modules["cupy"] = sys.modules.get("cupy"), module()
    copies.clear()
    try:
        arrays.enable(sys.modules["cupy"])
        with capture.launches(Kernel):
            yield copies
    finally:
        arrays.disable()
        del sys.modules["cupy"]
        if before is not None:
            sys.modules["cupy"] = before
