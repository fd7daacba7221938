"""Point-to-point messages and split: values, and arguments refused before anything is sent."""

import numpy as np
import pytest

from minidist.comm import Ledger, MismatchError, simulate


def test_results_come_back_in_rank_order():
    assert simulate(lambda comm: (comm.rank, comm.size), 3) == [(0, 3), (1, 3), (2, 3)]


def test_messages_between_two_ranks_keep_their_order_and_tags():
    def main(comm):
        if comm.rank == 0:
            late = comm.isend(np.array([9]), 1, tag=7)
            for value in (1, 2, 3):
                comm.send(np.array([value]), 1)
            return late.wait().tolist()
        first = [comm.recv(np.zeros(1, int), 0).item() for _ in range(3)]
        return [*first, comm.recv(np.zeros(1, int), 0, tag=7).item()]

    assert simulate(main, 2) == [[9], [1, 2, 3, 9]]


@pytest.mark.parametrize("dtype", ["bool", "float16", "i8", ">f4", "complex64", "M8[s]"])
def test_any_dtype_and_layout_arrives_as_it_left(dtype):
    sent = np.arange(24).reshape(4, 6).astype("i8").astype(dtype)

    def main(comm):
        if comm.rank == 0:
            return comm.send(sent[::2, ::-3], 1)
        out = np.zeros((4, 4), dtype)
        return comm.recv(out[1:3, ::2], 0)

    np.testing.assert_array_equal(simulate(main, 2)[1], sent[::2, ::-3])


def test_a_ring_of_sendrecv_passes_everything_on():
    def main(comm):
        out = np.empty(1, int)
        right, left = (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size
        return comm.sendrecv(np.array([comm.rank]), right, out, left).item()

    assert simulate(main, 4) == [3, 0, 1, 2]
    assert simulate(main, 1) == [0]


@pytest.mark.parametrize("seed", [None, 0, 1])
@pytest.mark.parametrize("out", [np.zeros(3), np.zeros(4, np.float32), np.zeros(3, np.int32)])
def test_a_receive_of_another_size_or_dtype_names_both(out, seed):
    def main(comm):
        if comm.rank == 0:
            comm.send(np.ones(3, np.float32), 1)
        else:
            comm.recv(out, 0)

    with pytest.raises(MismatchError, match=r"float32 \(3,\) = 12 bytes") as caught:
        simulate(main, 2, seed=seed)
    assert f"`out` is {out.dtype} {out.shape}" in str(caught.value)


WRONG = [
    (lambda comm, x: comm.send(x, 2), ValueError, "dest=2, but ranks are 0 to 1"),
    (lambda comm, x: comm.recv(x, -1), ValueError, "source=-1, but ranks are 0 to 1"),
    (lambda comm, x: comm.send(x, 1, tag=-1), ValueError, "tag=-1"),
    (lambda comm, x: comm.send(x, 1, tag=40_000), ValueError, "tags are 0 to 32767"),
    (lambda comm, x: comm.send([1.0], 1), TypeError, "needs a NumPy array, got list"),
    (lambda comm, x: comm.send(x.astype(object), 1), TypeError, "holds pointers"),
    (lambda comm, x: comm.send(x, 0.5), TypeError, "float"),
    (lambda comm, x: comm.recv(np.broadcast_to(x, (2, 3)), 1), ValueError, "read-only"),
    (lambda comm, x: comm.sendrecv(x, 5, x, 1), ValueError, "sendrecv: dest=5"),
    (lambda comm, x: comm.split(-3), ValueError, "use 0 or more, or None"),
]


@pytest.mark.parametrize("call, error, text", WRONG)
def test_wrong_arguments_are_refused_before_any_message(call, error, text):
    sent = []

    def main(comm):
        with Ledger(comm) as ledger:
            try:
                call(comm, np.ones(3))
            finally:
                sent.append(ledger.messages)

    with pytest.raises(error, match=text):
        simulate(main, 2)
    assert sent == [0]


def test_split_groups_by_color_and_orders_by_key():
    def main(comm):
        group = comm.split(comm.rank % 2, key=-comm.rank)
        out = np.empty(1, int)
        right, left = (group.rank + 1) % group.size, (group.rank - 1) % group.size
        group.sendrecv(np.array([comm.rank]), right, out, left)
        return group.rank, group.size, out.item()

    assert simulate(main, 5) == [(2, 3, 2), (1, 2, 3), (1, 3, 4), (0, 2, 1), (0, 3, 0)]


def test_split_leaves_out_ranks_without_color_and_nests():
    def main(comm):
        group = comm.split(None if comm.rank == 1 else 0)
        if group is None:
            return None
        return group.split(group.rank // 2).size

    assert simulate(main, 4) == [2, None, 2, 1]


def test_messages_of_two_communicators_never_meet():
    def main(comm):
        group = comm.split(0)
        if comm.rank == 0:
            both = [comm.isend(np.array([1]), 1), group.isend(np.array([2]), 1)]
            return [request.wait().item() for request in both]
        return [group.recv(np.zeros(1, int), 0).item(), comm.recv(np.zeros(1, int), 0).item()]

    assert simulate(main, 2) == [[1, 2], [2, 1]]
