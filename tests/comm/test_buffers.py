"""Arrays of a GPU (the strict double of CuPy) as messages and in collectives, in both ways."""

import numpy as np
import pytest
from minidist.kernels import arrays
from support.double import copies, gpu

from minidist import comm as c
from minidist.comm import CommSelf, buffers, simulate
from minidist.comm.communicator import Communicator

CALLS = {
    "all_reduce": lambda comm, x: c.all_reduce(comm, x, "mean"),
    "out": lambda comm, x: c.all_reduce(comm, x, out=x),
    "ring": lambda comm, x: c.all_reduce(comm, x, algorithm="ring"),
    "rabenseifner": lambda comm, x: c.all_reduce(comm, x, "max", "rabenseifner"),
    "broadcast": lambda comm, x: c.broadcast(comm, x, 1),
    "reduce": lambda comm, x: c.reduce(comm, x, 2),
    "gather": lambda comm, x: c.gather(comm, x[: comm.rank + 1], 1),
    "all_gather": lambda comm, x: c.all_gather(comm, x[: comm.rank + 1]),
    "bruck": lambda comm, x: c.all_gather(comm, x[: comm.rank + 1], algorithm="bruck"),
    "reduce_scatter": lambda comm, x: c.reduce_scatter(comm, x),
    "all_to_all": lambda comm, x: c.all_to_all(comm, x),
    "all_to_all bruck": lambda comm, x: c.all_to_all(comm, x, algorithm="bruck"),
    "scan": lambda comm, x: c.scan(comm, x),
    "strided": lambda comm, x: c.all_reduce(comm, x[:, ::2]),
    "iall_reduce": lambda comm, x: c.iall_reduce(comm, x).wait(),
}


def array(comm):
    return np.arange(24.0).reshape(6, 4) * (comm.rank + 1)


@pytest.mark.parametrize("aware", [False, True])
@pytest.mark.parametrize("name", CALLS)
def test_a_collective_gives_on_a_gpu_what_it_gives_on_the_host(name, aware, monkeypatch):
    monkeypatch.setattr(Communicator, "cuda_aware", aware)
    expected = simulate(lambda comm: CALLS[name](comm, array(comm)), 3)
    with gpu():
        cupy = arrays.gpu()
        copies.clear()
        found = simulate(lambda comm: CALLS[name](comm, cupy.asarray(array(comm))), 3)
        assert bool(copies.total()) != aware, "a CUDA-aware transport needs no copy on the host"
        for mine, wanted in zip(found, expected):
            assert (mine is None) == (wanted is None)
            if wanted is not None:
                assert isinstance(mine, cupy.ndarray) and (mine.get() == wanted).all()


def test_messages_from_and_to_a_gpu():
    with gpu():
        cupy = arrays.gpu()

        def main(comm):
            x = cupy.asarray(array(comm))
            if comm.rank == 0:
                comm.send(x[:, ::2], 1)
                return comm.send(x, 1)
            out, host = cupy.zeros((6, 2)), np.zeros((6, 4))
            return comm.recv(out, 0).get(), comm.recv(host, 0)

        strided, host = simulate(main, 2)[1]
        assert (strided == np.arange(24.0).reshape(6, 4)[:, ::2]).all()
        assert (host == np.arange(24.0).reshape(6, 4)).all()


def test_a_buffer_is_staged_or_settled_by_one_switch(monkeypatch):
    with gpu():
        cupy = arrays.gpu()
        waits = []
        stream = type("stream", (), {"synchronize": lambda self: waits.append(1)})
        monkeypatch.setattr(cupy.cuda, "get_current_stream", stream, raising=False)
        x = cupy.asarray(np.arange(6.0).reshape(2, 3))
        assert isinstance(buffers.send_buffer(x.T, False), np.ndarray)
        assert isinstance(buffers.receive_buffer(x, False), np.ndarray) and not waits
        out = buffers.send_buffer(x.T, True)
        assert isinstance(out, cupy.ndarray) and out.flags.c_contiguous and len(waits) == 1
        assert buffers.receive_buffer(x, True) is x and len(waits) == 2
        assert buffers.receive_buffer(x.T, True) is not x
        buffers.fill(x, np.ones((3, 2)))
        assert (x.get() == 1).all()


@pytest.mark.parametrize("name", CALLS)
def test_one_rank_needs_no_host(name):
    with gpu():
        cupy = arrays.gpu()
        copies.clear()
        if name not in ("broadcast", "reduce", "gather"):  # whose roots are other ranks
            CALLS[name](CommSelf(), cupy.asarray(array(CommSelf())))
        assert not copies.total()
