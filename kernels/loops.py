"""Loops over arrays, compiled for the CPU by Numba when they are first called.

A loop is a function of arrays and numbers that reads like C and goes through memory once:

    @loop
    def scaled(x: F[::1], factor: float, y: Out[::1]):
        for i in range(len(x)):
            y[i] = 0.5 * factor * x[i]

The annotations declare its arguments; the words are explained below. `F` stands for float32 and
for float64: each is compiled when an array of that dtype is first given. A number such as 0.5, a
`float` argument and a call of another helper have the dtype of F too, as 0.5f has in C; so write
1.0 and not 1, and real(n) for an integer n, because an integer times a float32 is a float64 for
Numba.

Every operation rounds once, in the order in which it is written, so a loop gives the same bits on
every processor, and element i does not depend on how many elements there are. NaN and infinity are
numbers like others. Only a helper declared by `@helper(sums=True)` may add in another order: a sum
over one row with vector instructions. (A loop over all rows calls it row by row, so a row's sum
does not depend on the other rows.)

Numba keeps the machine code in `__pycache__` beside this file, or in the user's cache folder if
that is read-only; NUMBA_CACHE_DIR names another folder. A changed text is compiled again. Processes
that start together wait for each other, so each loop is compiled once.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import types
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy

# Words for annotations, and what each stands for. mypy takes them for Any.
F: Any = None  # an array of float32 or float64, read: F[:, ::1] has rows without gaps
Out: Any = None  # such an array, written
OutDouble: Any = None  # an array of float64, whatever F is, written
Int: Any = None  # an array of int64, read
OutInt: Any = None  # an array of int64, written
Bits: Any = None  # an array of bool, read
OutBits: Any = None  # an array of bool, written
Bytes: Any = None  # an array of uint8, read
OutBytes: Any = None  # an array of uint8, written
Half: Any = None  # an array of 16-bit words, read: the bits of float16 or bfloat16 numbers
OutHalf: Any = None  # an array of 16-bit words, written
Word: Any = None  # a number of uint64

DTYPES = {
    "Double": "float64", "Int": "int64", "Bits": "bool", "Bytes": "uint8", "Half": "uint16",
    "Word": "uint64", "int": "int64", "bool": "bool",
}  # fmt: skip


def _dtype_of(word: str, dtype: numpy.dtype) -> numpy.dtype:
    """The dtype that a word stands for: F, Out and float are numbers of `dtype`."""
    return numpy.dtype(DTYPES.get(word.removeprefix("Out"), dtype))


def real(n: int) -> float:
    """In a loop: the integer n as a number of the dtype of F."""
    return float(n)


FLOATS = (numpy.dtype("float32"), numpy.dtype("float64"))


@functools.cache
def available() -> bool:
    """Whether Numba is installed. Without it the formulas run."""
    return importlib.util.find_spec("numba") is not None


def require() -> None:
    """Raise RuntimeError if Numba is missing."""
    if not available():
        raise RuntimeError(
            "MINIDIST_KERNELS=numba, but Numba is not installed: pip install numba, or leave "
            "MINIDIST_KERNELS away to run the formulas"
        )


class Helper:
    """A function that loops call, compiled into each of them."""

    __name__: str

    def __init__(self, function: Callable[..., Any], sums: bool = False, double: Any = None):
        functools.update_wrapper(self, function)
        self.function, self.sums, self.double = function, sums, double
        self._built: dict[numpy.dtype, Any] = {}

    def built(self, dtype: numpy.dtype) -> Any:
        """Numba's function for F = dtype."""
        if dtype not in self._built:
            double = self.double if dtype == numpy.float64 else None
            if isinstance(double, Helper):
                double = double.built(dtype)
            self._built[dtype] = double or _jit(_typed(self.function, dtype), self.sums, True)
        return self._built[dtype]

    def text(self) -> Iterator[Any]:
        """All that the machine code follows from: this function and those it calls."""
        code = self.function.__code__
        if isinstance(self.double, Helper):
            yield from self.double.text()
        yield code.co_code, code.co_consts, code.co_names, self.sums, self.function.__annotations__
        yield getattr(self.double, "__name__", None)
        for name in code.co_names:
            value = self.function.__globals__.get(name)
            if isinstance(value, Helper) and value is not self:
                yield from value.text()
            elif isinstance(value, int | float | tuple):
                yield name, value
            elif isinstance(value, types.FunctionType):
                yield name, value.__code__.co_code, value.__code__.co_consts

    def __call__(self, *args: Any) -> Any:
        raise TypeError(f"{self.function.__name__} is for loops: call it in a function with @loop")


class Instruction(Helper):
    """An instruction of LLVM's that Python has no word for: function(builder, *values)."""

    def built(self, dtype: numpy.dtype) -> Any:
        if dtype not in self._built:
            from numba.extending import intrinsic
            from numba.np.numpy_support import from_dtype

            def type_of(word: str) -> Any:  # Bits are here those of a number of F, as an integer
                bits = word == "Bits"
                return from_dtype(
                    numpy.dtype(f"i{dtype.itemsize}") if bits else _dtype_of(word, dtype)
                )

            *words, result = map(type_of, self.function.__annotations__.values())

            def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
                return self.function(builder, *values)

            def one(typing, a):
                return result(*words), emit

            def two(typing, a, b):
                return result(*words), emit

            def three(typing, a, b, c):
                return result(*words), emit

            self._built[dtype] = intrinsic((one, two, three)[len(words) - 1])
        return self._built[dtype]


class Loop(Helper):
    """A function of arrays; calling it runs the machine code for their dtype."""

    def __init__(self, function: Callable[..., Any]):
        super().__init__(function)
        words = [str(w) for w in function.__annotations__.values()]
        # the argument whose dtype F is
        self._at = next(i for i, w in enumerate(words) if w.startswith(("F[", "Out[")))
        self._compiled: dict[numpy.dtype, Any] = {}
        LOOPS.append(self)

    def __call__(self, *args: Any) -> None:
        try:
            dtype = args[self._at].dtype
        except IndexError:
            raise self._of_count(args) from None
        run = self._compiled.get(dtype)
        if run is None:
            run = self.compile(dtype)
        try:
            run(*args)
        except TypeError:  # Numba found an array of another layout, or of another dtype
            run(*self._fitted(args, dtype))

    def _fitted(self, args: tuple, dtype: numpy.dtype) -> list[Any]:
        """The arguments, with copies of read arrays that have gaps. Refuses what else is amiss."""
        words = self.function.__annotations__.items()
        if len(args) != len(words):
            raise self._of_count(args)
        fitted = []
        for (name, word), value in zip(words, args):
            if "[" in word:
                wanted = _dtype_of(word.partition("[")[0], dtype)
                if value.dtype != wanted:
                    raise TypeError(f"loop {self.__name__}: {name} is {value.dtype}, want {wanted}")
                if word.startswith("Out") and not value.flags.carray:
                    raise TypeError(
                        f"loop {self.__name__} writes {name}, which has gaps or is read-only "
                        f"(strides {value.strides}): give a C-contiguous array"
                    )
                value = numpy.ascontiguousarray(value)
            fitted.append(value)
        return fitted

    def _of_count(self, args: tuple) -> TypeError:
        wanted = ", ".join(self.function.__annotations__)
        return TypeError(f"loop {self.__name__}: {len(args)} arguments, want {wanted}")

    def compile(self, dtype: numpy.dtype) -> Any:
        """The machine code for F = dtype: from the cache, or compiled now."""
        if dtype not in FLOATS:
            raise TypeError(f"loop {self.__name__}: want float32 or float64, not {dtype}")
        run = _jit(_typed(self.function, dtype), self.sums)
        with _cached(run, self, dtype):
            run.compile(_signature(self.function, dtype))
        run.disable_compile()
        self._compiled[dtype] = run
        return run


_announce: ContextVar[Callable[[str], None]] = ContextVar("announce", default=lambda name: None)


@contextlib.contextmanager
def announced(note: Callable[[str], None]) -> Iterator[None]:
    """Inside, note(name) is called before this process compiles a loop, or waits for another one
    that does."""
    token = _announce.set(note)
    try:
        yield
    finally:
        _announce.reset(token)


LOOPS: list[Loop] = []  # all there are, in the order in which their files are loaded


def loop(function: Callable[..., Any]) -> Loop:
    """Declare a loop; its annotations are the types of its arguments, all positional."""
    return Loop(function)


def helper(*, sums: bool = False, double: Any = None) -> Callable[[Callable[..., Any]], Helper]:
    """Declare a function for loops. `sums`: it may add in any order. `double`: where F is float64,
    this one is taken instead: a helper, or a function that Numba knows, such as math.exp."""
    return lambda function: Helper(function, sums, double)


# Vector instructions also for what is left of a row after whole vectors. LLVM unrolls a loop to 32
# numbers a turn; a row of 28 would otherwise be done number by number (a maximum over windows of
# 2 x 2 of planes 32 wide takes 0.5 ms in place of 8.2).
LLVM = "-epilogue-vectorization-minimum-VF=8"


@functools.cache
def _set_up() -> None:
    from llvmlite import binding

    binding.set_option("minidist", LLVM)


def _jit(function: Callable[..., Any], sums: bool, inner: bool = False) -> Any:
    import numba

    _set_up()

    # error_model: a check for division by zero would stop vectorisation (AdamW takes 4 times as
    # long). No flag says that there is no NaN or infinity. Wrappers for C, and for Python if only
    # loops call the function, would be compiled too.
    options: Any = {
        "error_model": "numpy",
        "fastmath": {"reassoc", "contract", "nsz"} if sums else False,
        "no_cfunc_wrapper": True,
        "no_cpython_wrapper": inner,
    }
    return numba.njit(function, **options)


def _typed(function: Callable[..., Any], dtype: numpy.dtype) -> Callable[..., Any]:
    """A copy of the function whose floats are numbers of `dtype`, and whose helpers are built."""
    number = dtype.type

    def typed(value: Any) -> Any:
        if isinstance(value, Helper):
            return value.built(dtype)
        if value is real:
            return number
        if type(value) is tuple:  # of numbers, as in a, b = 0.0, 1.0
            return tuple(map(typed, value))
        return number(value) if type(value) is float else value

    code = function.__code__
    scope = dict(function.__globals__)
    scope.update({name: typed(scope[name]) for name in code.co_names if name in scope})
    code = code.replace(co_consts=tuple(map(typed, code.co_consts)))
    copy = types.FunctionType(code, scope, function.__name__, function.__defaults__)
    copy.__module__, copy.__qualname__ = function.__module__, function.__qualname__
    return copy


def _signature(function: Callable[..., Any], dtype: numpy.dtype) -> tuple[Any, ...]:
    """Numba's types of the arguments, from the annotations."""
    from numba import types as numba_types
    from numba.np.numpy_support import from_dtype

    def type_of(word: str) -> Any:
        kind, array, axes = word.rstrip("]").partition("[")
        number = from_dtype(_dtype_of(kind, dtype))
        if not array:
            return number
        layout: Any = "C" if axes.endswith("::1") else "A"
        readonly = not kind.startswith("Out")  # takes arrays that may be written to as well
        return numba_types.Array(number, axes.count(",") + 1, layout, readonly=readonly)

    return tuple(type_of(str(word)) for word in function.__annotations__.values())


def cache_folder() -> str | None:
    """Where machine code is kept; None if no folder can be written."""
    from numba.core.caching import FunctionCache

    try:
        return FunctionCache(cache_folder).cache_path
    except RuntimeError:
        return None


@contextlib.contextmanager
def _cached(run: Any, source: Loop, dtype: numpy.dtype) -> Iterator[None]:
    """Inside, run.compile reads its machine code from the cache or adds it."""
    from numba.core.caching import FunctionCache, IndexDataCacheFile
    from numba.core.runtime import rtsys

    try:
        cache = FunctionCache(run.py_func)
    except RuntimeError:  # no folder can be written: compile without a cache
        _announce.get()(source.__name__)
        yield
        return
    # Files of their own for each text, dtype and processor. Numba's name has a number, and it
    # writes which number is whose before the code itself: whoever reads in between, or after a
    # crash, would run the code of the text before.
    text, base = _stamp(*source.text()), cache._impl.filename_base
    name = f"{base}-{text}-{_stamp(dtype, run.targetctx.codegen().magic_tuple())}"
    cache._cache_file = IndexDataCacheFile(cache.cache_path, name, source_stamp=text)
    lock = _Lock(Path(cache.cache_path) / f"{base}.lock")
    cached, save = vars(cache), cache.save_overload

    def load(*key: Any) -> Any:
        # Numba's own load_overload first fills its tables of types and functions, which takes
        # 0.3 s. Only a compilation needs them; machine code needs the run-time library.
        rtsys.initialize(key[1])
        with cache._guard_against_spurious_io_errors():
            return cache._load_overload(*key)

    def load_or_wait(*key: Any) -> Any:
        found = load(*key)
        if found is None:
            _announce.get()(source.__name__)
            lock.acquire()  # another process may be compiling it
            found = load(*key)
        return found

    def save_or_not(*compiled: Any) -> None:
        with contextlib.suppress(OSError):  # a full disk: the next process compiles it again
            for old in Path(cache.cache_path).glob(f"{base}-*"):
                if not old.name.startswith(f"{base}-{text}"):
                    old.unlink(missing_ok=True)
            save(*compiled)

    cached["load_overload"], cached["save_overload"] = load_or_wait, save_or_not
    run._cache = cache
    try:
        yield
    finally:
        lock.release()


@functools.cache
def _own_text() -> bytes:
    return Path(__file__).read_bytes()


def _stamp(*values: Any) -> str:
    """A name for what the machine code follows from; this file is a part of it."""
    return hashlib.sha256(_own_text() + repr(values).encode()).hexdigest()[:16]


class _Lock:
    """A file that one process at a time holds; the system frees it when the process ends."""

    def __init__(self, path: Path):
        self.path, self._file = path, None  # type: Path, Any

    def acquire(self) -> None:
        try:
            import fcntl

            self._file = open(self.path, "w")  # noqa: SIM115
            fcntl.flock(self._file, fcntl.LOCK_EX)
        except (ImportError, OSError):  # a file system without locks: compile at the same time
            self.release()

    def release(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
