"""The double's CUDA graphs: what is done while a stream captures is done again at each launch.

As on a GPU, a capture leaves no numbers: what memory held before is put back, and what was made
is NaN until the first launch. While it lasts, what CuPy 14.2 refuses then is refused: copies to or
from the host (as joining arrays, whose addresses go there), cuBLAS. So are sorts, which it may
capture, but does not promise to.
"""

import contextlib
import types
import weakref

import numpy as np

CUBLAS = {"matmul", "dot", "vdot", "inner", "einsum", "tensordot", "__matmul__", "__rmatmul__"}
SORTS = {"sort", "argsort", "lexsort", "partition", "argpartition", "searchsorted", "msort"}
JOINS = {"concatenate", "stack", "hstack", "vstack", "dstack", "column_stack", "append", "block"}
memory: weakref.WeakValueDictionary = weakref.WeakValueDictionary()  # doubles that own theirs
_streams: list = []  # the last one is current


def refuse(what):
    """A double that would make the host wait, or CuPy refuse, does it in no captured step."""
    if current() is not None:
        raise RuntimeError(f"the current stream is capturing, so {what} is disallowed")


def refuse_call(name):
    if current() is not None and name in CUBLAS:
        raise NotImplementedError(
            "calling cuBLAS API during stream capture is currently unsupported"
        )
    if name in SORTS | JOINS:
        refuse(name)


def current():
    """The capture that there is on the current stream."""
    return _streams[-1].capture if _streams else None


def done(compute, wrap, sources):
    """wrap(compute()), which is recorded if a stream is capturing."""
    result, capture = wrap(compute()), current()
    if capture is not None:
        capture.record(compute, result, sources)
    return result


class Capture:
    """What was done, and the memory as it was before."""

    def __init__(self):
        self.again: list = []
        self.before = [(d, d._a.copy()) for d in memory.values()]

    def record(self, compute, result, sources=()):
        """At a launch compute() once more, into the same memory if it is its own."""
        at = [i for i, r in enumerate(_listed(result)) if _is_new(r, sources)]
        homes = _listed(result)

        def again():
            values = _listed(compute())
            for i in at:
                homes[i]._a[...] = values[i]

        self.again.append(again)

    def end(self):
        """Nothing of it was done."""
        known = {id(d) for d, _ in self.before}
        for d in [d for d in memory.values() if id(d) not in known]:
            if d._a.dtype.kind == "f" and d._a.flags.writeable:
                d._a[...] = np.nan
        for d, numbers in self.before:
            if d._a.flags.writeable:
                d._a[...] = numbers


def _listed(value):
    return list(value) if isinstance(value, tuple | list) else [value]


def _is_new(double, sources):
    """Whether it is a double with memory of its own: no view of a source, nor a source."""
    if not hasattr(double, "_a"):
        return False
    return not any(np.may_share_memory(double._a, s._a) for s in _doubles(sources))


def _doubles(values):
    for value in values:
        if isinstance(value, tuple | list):
            yield from _doubles(value)
        elif hasattr(value, "_a"):
            yield value


class Graph:
    def __init__(self, again):
        self.again = again

    def launch(self, stream=None):
        assert current() is None
        for act in self.again:
            act()


class Stream:
    """A stream; as a block, the current one."""

    def __init__(self, null=False, non_blocking=False, ptds=False, priority=None):
        self.ptr, self.capture, self.non_blocking = 0 if null else id(self), None, non_blocking

    def __enter__(self):
        _streams.append(self)
        return self

    def __exit__(self, *error):
        assert _streams.pop() is self

    def synchronize(self):
        refuse("synchronize")

    def is_capturing(self):
        return self.capture is not None

    def begin_capture(self, mode=None):
        assert self.non_blocking, "the default stream would not be free of it"
        assert self.ptr and _streams[-1] is self and self.capture is None
        self.capture = Capture()

    def end_capture(self):
        capture, self.capture = self.capture, None
        capture.end()
        return Graph(capture.again)


NULL = Stream(null=True)


class MemoryPool:
    def __init__(self, allocator=None):
        pass

    def malloc(self, size):
        raise AssertionError("the double's memory is NumPy's")


allocators: list = []


@contextlib.contextmanager
def using_allocator(allocator=None):
    allocators.append(allocator)
    try:
        yield
    finally:
        allocators.pop()


def names():
    """Those of cupy.cuda."""
    return types.SimpleNamespace(
        Stream=Stream, MemoryPool=MemoryPool, using_allocator=using_allocator,
        get_current_stream=lambda: _streams[-1] if _streams else NULL,
    )  # fmt: skip


@contextlib.contextmanager
def launches(kernel):
    """Inside, launches of Triton kernels (of the class Kernel) are recorded too."""
    plain = kernel.__getitem__

    def with_grid(self, grid):
        launch = plain(self, grid)
        return lambda *args, **constants: done(
            lambda: launch(*args, **constants), lambda nothing: nothing, ()
        )

    kernel.__getitem__ = with_grid
    try:
        yield
    finally:
        kernel.__getitem__ = plain
