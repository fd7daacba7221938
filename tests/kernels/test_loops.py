"""Loops: their dtype, what they refuse, where they are kept; their helpers, number by number.

A loop in float32 has no arithmetic of float64, which would take twice as long. A helper of one
number gives the same bits wherever the number lies in an array, so a run does not depend on how its
arrays are cut over ranks.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import math
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from minidist.kernels import elementary, loops
from minidist.kernels.loops import F, Helper, Instruction, Int, Loop, Out, helper, real

from minidist import kernels as package

pytest.importorskip("numba")

for module in pkgutil.iter_modules(package.__path__):
    importlib.import_module(f"{package.__name__}.{module.name}")
LOOPS = {f"{loop.__module__.rpartition('.')[2]}.{loop.__name__}": loop for loop in loops.LOOPS}
F4, F8 = loops.FLOATS
DTYPES = pytest.mark.parametrize("dtype", loops.FLOATS, ids=str)

# Loops that compute in another dtype than F on purpose, and why
MIXED = {
    "half_precision.add_bfloat16": "words of 16 bits are added in float32 in either case",
    "half_precision.add_float16": "words of 16 bits are added in float32 in either case",
    "half_precision.from_float16": "the words are widened to float32 in either case",
    "half_precision.to_float16": "the words are rounded from float32 in either case",
    "vector_norm.add_squares": "squares of float32 are exact in float64, and none overflows",
}


@pytest.fixture
def declare(monkeypatch):
    """Make a loop that is in no list and in no cache."""
    monkeypatch.setattr(loops, "LOOPS", [])
    monkeypatch.setattr(loops, "_cached", lambda *about: contextlib.nullcontext())
    return Loop


# What Numba makes of them


def code(loop, dtype):
    """Its LLVM text, without the wrapper that Python calls; the cache keeps it with the code."""
    run = loop._compiled.get(dtype) or loop.compile(dtype)
    module = run.overloads[run.signatures[0]].library._get_module_for_linking()
    texts = re.split(r"^(?=define )", str(module), flags=re.M)[1:]
    return "\n".join(t[: t.find("\n}")] for t in texts if "cpython" not in t[: t.find("(")])


def of_type(word, text):
    """Its lines in which numbers of that type are computed."""
    return [line for line in text.splitlines() if re.search(rf"\b{word}\b", line)]


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_computes_in_its_own_dtype(name):
    narrow, wide = (code(LOOPS[name], dtype) for dtype in loops.FLOATS)
    found = of_type("double", narrow) + of_type("float", wide)
    assert of_type("float", narrow), "no arithmetic at all?"
    assert (name in MIXED) == bool(found), found[:5]


def one_for_1(x: F[::1], y: Out[::1]):
    for i in range(len(x)):
        y[i] = x[i] / len(x)


def one_for_real(x: F[::1], y: Out[::1]):
    for i in range(len(x)):
        y[i] = x[i] / real(len(x))


def in_a_tuple(x: F[::1], y: Out[::1]):
    total, first = 0.0, 1.0
    for i in range(len(x)):
        total += x[i]
    y[:] = total + first


def test_an_integer_that_makes_a_float64_is_seen(declare):
    assert of_type("double", code(declare(one_for_1), F4))
    assert not of_type("double", code(declare(one_for_real), F4))


def test_numbers_in_a_tuple_have_the_dtype_too(declare, monkeypatch):
    assert not of_type("double", code(declare(in_a_tuple), F4))
    plain = lambda function, dtype: function  # the control
    monkeypatch.setattr(loops, "_typed", plain)
    assert of_type("double", code(declare(in_a_tuple), F4))


# What they take and refuse


def added(x: F[:, ::1], index: Int[::1], factor: float, y: Out[:, ::1]):
    for i in range(len(index)):
        for j in range(x.shape[1]):
            y[i, j] = factor * x[index[i], j]


@pytest.fixture(scope="module")
def add():
    loop = Loop(added)
    loops.LOOPS.remove(loop)
    return loop


def arguments(dtype="float32"):
    x = np.arange(12, dtype=dtype).reshape(3, 4)
    return x, np.array([2, 0]), 2.0, np.full((2, 4), np.nan, dtype)


def unaligned(x):
    words = np.zeros(x.nbytes + 1, np.uint8)
    out = words[1:].view(x.dtype).reshape(x.shape)
    out[...] = x
    return out


def mapped(x, folder):
    np.save(folder / "x.npy", x)
    return np.load(folder / "x.npy", mmap_mode="r")


@DTYPES
@pytest.mark.parametrize("kind", ["transposed", "reversed", "strided", "unaligned", "mapped"])
def test_read_arrays_may_lie_in_memory_as_they_like(kind, dtype, add, tmp_path):
    x, index, factor, y = arguments(dtype)
    forms = {
        "transposed": lambda: np.asfortranarray(x),
        "reversed": lambda: x[::-1, ::-1].copy()[::-1, ::-1],
        "strided": lambda: np.repeat(x, 2, 1)[:, ::2],
        "unaligned": lambda: unaligned(x),
        "mapped": lambda: mapped(x, tmp_path),  # and read-only
    }
    before = x.copy()
    add(forms[kind](), np.repeat(index, 2)[::2], factor, y)
    assert np.array_equal(y, 2 * x[index]) and np.array_equal(x, before)


def read_only(y):
    y.flags.writeable = False
    return y


REFUSED = {
    "x of float64": (0, lambda x: x.astype("f8"), "y is float32, want float64"),
    "x of float16": (0, lambda x: x.astype("f2"), "want float32 or float64, not float16"),
    "x of integers": (0, lambda x: x.astype("i8"), "want float32 or float64, not int64"),
    "index of int32": (1, lambda i: i.astype("i4"), "index is int32, want int64"),
    "y of float64": (3, lambda y: y.astype("f8"), "y is float64, want float32"),
    "y with gaps": (3, lambda y: np.repeat(y, 2, 1)[:, ::2], "writes y, which has gaps"),
    "y in another order": (3, np.asfortranarray, "writes y, which has gaps or is read-only"),
    "y read-only": (3, read_only, "writes y, which has gaps or is read-only"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_loop_refuses(case, add):
    place, change, message = REFUSED[case]
    args = list(arguments())
    args[place] = change(args[place])
    before = [np.copy(a) for a in args]
    with pytest.raises(TypeError, match=f"loop added:? .*{message}|loop added {message}"):
        add(*args)
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(args, before))


@pytest.mark.parametrize("count", [0, 1, 3, 5])
def test_a_wrong_number_of_arguments(count, add):
    args = (*arguments(), 1.0)[:count]
    with pytest.raises(TypeError, match=f"loop added: {count} arguments, want x, index, factor, y"):
        add(*args)


def test_a_helper_is_not_called_outside_of_a_loop():
    with pytest.raises(TypeError, match="exp is for loops"):
        elementary.exp(1.0)


# Where they are kept

TEXT = """
from __future__ import annotations
import sys
sys.path.insert(0, {kernels!r})
from loops import F, Out, helper, loop

FACTOR = {factor}

@helper()
def once(x):
    return {once}

@loop
def first(x: F[::1], y: Out[::1]):
    for i in range(len(x)):
        y[i] = FACTOR * once(x[i])

@loop
def second(x: F[::1], y: Out[::1]):
    for i in range(len(x)):
        y[i] = once(once(x[i]))
"""
RUN = """
import sys, numba, numpy as np
import own, loops
{before}
print("ready", flush=True)
sys.stdin.readline()
compiled, values = 0, []
for loop in loops.LOOPS:
    y = np.zeros(1)
    loop(np.full(1, 3.0), y)
    values.append(y[0])
    compiled += sum(loop._compiled[y.dtype].stats.cache_misses.values())
print(compiled, *map(int, values))
"""
KERNELS = str(Path(loops.__file__).resolve().parent)


class Processes:
    """Processes that load a module of two loops and call them: what each of them compiles."""

    def __init__(self, folder):
        self.folder = folder
        self.write()

    def write(self, factor=2.0, once="x + 1.0"):
        text = TEXT.format(kernels=KERNELS, factor=factor, once=once)
        (self.folder / "own.py").write_text(text)

    def run(self, count=1, before="", **environment):
        environment = {"PYTHONDONTWRITEBYTECODE": "1", **environment}
        started = [
            subprocess.Popen(
                [sys.executable, "-c", RUN.format(before=before)], cwd=self.folder, text=True,
                env={**os.environ, **environment}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            )
            for _ in range(count)
        ]  # fmt: skip
        ready = [process.stdout.readline() for process in started]
        for process in started:  # all of them go on at the same time
            process.stdin.write("\n")
            process.stdin.flush()
        lines = [process.communicate()[0].split() for process in started]
        assert ready == ["ready\n"] * count
        return [(int(compiled), [int(v) for v in values]) for compiled, *values in lines]


@pytest.fixture
def processes(tmp_path):
    return Processes(tmp_path)


def test_a_second_process_compiles_nothing_and_a_changed_text_is_compiled(processes):
    kept, other = processes.folder / "__pycache__", processes.folder / "other"
    assert processes.run() == [(2, [8, 5])]
    assert processes.run() == [(0, [8, 5])]
    files = len(list(kept.iterdir()))
    processes.write(once="x * 2.0 + 1.0")  # the helper: both loops
    assert processes.run() == [(2, [14, 15])]
    assert len(list(kept.iterdir())) == files, "the code of the text before is deleted"
    processes.write(once="x * 2.0 + 1.0", factor=3.0)  # a number that one of them uses
    assert processes.run() == [(1, [21, 15])]
    assert processes.run(NUMBA_CACHE_DIR=str(other)) == [(2, [21, 15])]
    assert len(list(other.rglob("*.nbc"))) == 2 and len(list(kept.iterdir())) == files


def test_processes_that_start_together_compile_each_loop_once(processes):
    found = processes.run(4)
    assert sum(compiled for compiled, _ in found) == 2
    assert all(values == [8, 5] for _, values in found)


def test_without_the_lock_more_are_compiled_and_the_values_are_right(processes):
    """The control, which is what happens on a file system without locks."""
    found = processes.run(2, "loops._Lock.acquire = lambda self: None")
    assert sum(compiled for compiled, _ in found) > 2
    assert all(values == [8, 5] for _, values in found)


def test_a_process_says_so_before_it_waits_for_the_one_that_compiles(monkeypatch, tmp_path):
    from numba.core import config

    happened = []
    monkeypatch.setattr(loops, "LOOPS", [])
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(loops._Lock, "acquire", lambda lock: happened.append("waits"))
    with loops.announced(happened.append):
        Loop(added).compile(F4)
        Loop(added).compile(F4)  # its code is on disk now, so no process waits
    assert happened == ["added", "waits"]


def full(*about):
    raise OSError(28, "No space left on device")


def refused(*about, **options):
    raise PermissionError(13, "Permission denied")


@pytest.mark.parametrize("amiss", ["a full disk", "no folder to write to"])
def test_loops_run_where_they_cannot_be_kept(amiss, monkeypatch, tmp_path):
    from numba.core import caching, config

    monkeypatch.setattr(loops, "LOOPS", [])
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    with monkeypatch.context() as patch:
        if amiss == "a full disk":
            patch.setattr(caching.IndexDataCacheFile, "_save_data", full)
        else:
            patch.setattr(caching.tempfile, "TemporaryFile", refused)
        (x, *rest, y), loop = arguments(), Loop(added)
        loop(x, *rest, y)
        assert np.array_equal(y, 2 * x[[2, 0]]) and not list(tmp_path.rglob("*.nbc"))
    for compiled in (1, 0):
        stats = Loop(added).compile(F4).stats
        assert len(stats.cache_misses) == compiled and len(list(tmp_path.rglob("*.nbc"))) == 1


def test_the_text_of_a_loop_is_the_same_in_every_process():
    """It names no place in memory, such as the representation of an object has."""
    for loop in LOOPS.values():
        assert " at 0x" not in repr(list(loop.text())), loop.__name__


# Helpers, number by number

SINGLE = {
    name: value
    for name, value in vars(elementary).items()
    if isinstance(value, Helper)
    and not isinstance(value, Instruction)
    and [*inspect.signature(value.function).parameters] == ["x"]
    and not name.startswith("row_")
}

PAIRS = {"normal", "normal_double", "reduced"}  # they return two numbers: the first is compared


def over_all(names):
    """A loop y[k, i] = f_k(x[i]) of all these functions."""
    text = "def all_of_them(x: F[::1], y: Out[:, ::1]):\n"
    for k, name in enumerate(names):
        first = "[0]" if name in PAIRS else ""
        text += f"    for i in range(len(x)):\n        y[{k}, i] = {name}(x[i]){first}\n"
    scope = {name: SINGLE[name] for name in names}
    exec(text, scope)
    return scope["all_of_them"]


def differing(loop, count, dtype, lengths=range(1, 41)):
    """Whether a piece of x gives other bits than the same numbers in the middle of all."""
    edges = [0.0, -0.0, 1.0, -1.0, 0.5, -0.625, 88.0, -104.0, np.inf, -np.inf, np.nan, 1e-40, 1e30]
    spread = np.random.default_rng(0).standard_normal(100) * np.repeat([0.1, 1, 10, 50], 25)
    x = np.concatenate([edges, spread]).astype(dtype)
    whole = np.zeros((count, len(x)), dtype)
    loop(x, whole)
    for n in lengths:
        for start in range(0, len(x) - n, 7):
            part = np.zeros((count, n), dtype)
            loop(x[start : start + n].copy(), part)
            if not np.array_equal(part, whole[:, start : start + n], equal_nan=True):
                return True
    return False


@DTYPES
def test_a_number_does_not_depend_on_its_place(dtype, declare):
    names = sorted(SINGLE)
    assert {"exp", "tanh", "sigmoid", "erf"} <= set(names)
    assert not differing(declare(over_all(names)), len(names), dtype)


def two_ways(x: F[::1], y: Out[:, ::1]):
    body = len(x) // 8 * 8
    for i in range(body):
        y[0, i] = (x[i] * 0.1) * 0.3
    for i in range(body, len(x)):
        y[0, i] = x[i] * (0.1 * 0.3)


def test_a_remainder_that_is_computed_otherwise_is_seen(declare):
    assert differing(declare(two_ways), 1, F4)


def of_rows(x: F[:, ::1], y: F[:, ::1], out: Out[:, ::1]):
    for i in range(len(x)):
        out[i, 0] = elementary_max(x[i])
        out[i, 1] = elementary_sum(x[i])
        out[i, 2] = elementary_dot(x[i], y[i])


elementary_max, elementary_sum = elementary.row_max, elementary.row_sum
elementary_dot = elementary.row_dot


def rows_differ(loop, dtype):
    """Whether a row alone gives other bits than among others; some rows hold NaN or infinity."""
    rng = np.random.default_rng(0)
    for v in (*range(20), 31, 32, 33, 64, 100, 257):
        x, y = rng.standard_normal((2, 7, v)).astype(dtype)
        x[4:5, :1], x[5:6, v // 2 : v // 2 + 1] = np.nan, np.inf
        many = np.zeros((7, 3), dtype)
        loop(x, y, many)
        for i in range(7):
            alone = np.zeros((1, 3), dtype)
            loop(x[i : i + 1].copy(), y[i : i + 1].copy(), alone)
            if not np.array_equal(alone[0], many[i], equal_nan=True):
                return True
    return False


@DTYPES
def test_a_row_does_not_depend_on_other_rows(dtype, declare):
    assert not rows_differ(declare(of_rows), dtype)


@helper(sums=True)
def running(x, total):
    for j in range(len(x)):
        total += x[j]
    return total


def running_total(x: F[:, ::1], y: F[:, ::1], out: Out[:, ::1]):
    total = 0.0
    for i in range(len(x)):
        total = running(x[i], total)
        out[i, 0] = total


def test_a_sum_over_all_rows_is_seen(declare):
    assert rows_differ(declare(running_total), F4)


@DTYPES
def test_what_the_row_helpers_return(dtype, declare):
    """Beside the sums in float64; the maximum of nothing is -inf, and NaN is above all."""
    loop, rng = declare(of_rows), np.random.default_rng(1)
    for v in (0, 1, 7, 8, 33, 300):
        x, y = rng.standard_normal((2, 5, v)).astype(dtype)
        x[2:3, v // 2 : v // 2 + 1] = np.nan
        out = np.full((5, 3), 7, dtype)
        loop(x, y, out)
        wide, also = x.astype("f8"), y.astype("f8")
        assert np.array_equal(out[:, 0], x.max(1, initial=-math.inf), equal_nan=True)
        bound = 1e-5 if dtype == F4 else 1e-13
        np.testing.assert_allclose(out[:, 1], wide.sum(1), atol=bound * max(v, 1))
        np.testing.assert_allclose(out[:, 2], (wide * also).sum(1), atol=bound * max(v, 1))
