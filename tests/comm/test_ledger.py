"""The ledger counts what a rank sends, message by message."""

import numpy as np
import pytest

from minidist.comm import (
    Ledger,
    all_reduce,
    barrier,
    broadcast,
    bus_bandwidth,
    iall_reduce,
    simulate,
)


def exchange(comm, tag=0):
    return comm.sendrecv(
        np.ones(3, np.float32), 1 - comm.rank, np.empty(3, np.float32), 1 - comm.rank, tag
    )


def test_messages_and_bytes_are_counted_by_route():
    def main(comm):
        with Ledger(comm) as ledger:
            exchange(comm)
            exchange(comm)
            exchange(comm, tag=5)
        exchange(comm)
        return dict(ledger.sent), ledger.messages, ledger.bytes, ledger.table()

    for rank, (sent, messages, nbytes, table) in enumerate(simulate(main, 2)):
        assert sent == {(rank, 1 - rank, "", 0): [2, 24], (rank, 1 - rank, "", 5): [1, 12]}
        assert (messages, nbytes) == (3, 36)
        assert [line.split() for line in table.splitlines()[1:]] == [
            [str(rank), str(1 - rank), "0", "2", "24"],
            [str(rank), str(1 - rank), "5", "1", "12"],
            ["total", "3", "36"],
        ]


def test_an_outer_ledger_counts_what_an_inner_one_does():
    def main(comm):
        with Ledger(comm) as outer:
            exchange(comm)
            with Ledger(comm) as inner:
                exchange(comm)
        return outer.messages, inner.messages, comm.ledger

    assert simulate(main, 2) == [(2, 1, None)] * 2


def test_each_rank_of_a_ring_sends_its_share():
    def main(comm):
        with Ledger(comm) as ledger:
            all_reduce(comm, np.ones(12, np.float32), algorithm="ring")
        return ledger.messages, ledger.bytes, ledger.by("dest", "collective")

    assert simulate(main, 4) == [
        (6, 72, {((rank + 1) % 4, "all_reduce"): (6, 72)}) for rank in range(4)
    ]


def test_a_ledger_of_all_ranks_and_by_collective():
    def main(comm):
        with Ledger(comm) as ledger:
            all_reduce(comm, np.ones(12, np.float32), algorithm="ring")
            broadcast(comm, np.ones(3), root=1)
            barrier(comm)
            exchange(comm)
            together = ledger.of_all_ranks()
        return ledger.messages, together

    mine, ledgers = zip(*simulate(main, 2))
    assert sum(mine) == ledgers[0].messages, "to put them together is not counted"
    assert ledgers[0].sent == ledgers[1].sent
    assert ledgers[0].by("collective") == {
        ("all_reduce",): (4, 96), ("broadcast",): (1, 24), ("barrier",): (2, 0), ("",): (2, 24),
    }  # fmt: skip
    assert ledgers[0].by("source") == {(0,): (4, 60), (1,): (5, 84)}
    assert "all_reduce" in ledgers[0].table()


def test_a_log_lists_each_message_in_order():
    def main(comm):
        with Ledger(comm, log=True) as ledger:
            exchange(comm, tag=3)
            all_reduce(comm, np.ones((2, 2)), algorithm="doubling")
        return ledger.messages_sent

    for rank, (first, second) in enumerate(simulate(main, 2)):
        assert first == (rank, 1 - rank, "", 3, "<f4", (3,), 12)
        assert second[:3] == (rank, 1 - rank, "all_reduce") and second[4:] == ("<f8", (4,), 32)


def test_bus_bandwidth_is_what_each_link_carries():
    assert bus_bandwidth("all_reduce", 1000, 4, 1.0) == 1500
    assert bus_bandwidth("all_gather", 1000, 4, 2.0) == 375
    assert bus_bandwidth("broadcast", 1000, 4, 1.0) == 1000
    with pytest.raises(ValueError, match="known are all_reduce"):
        bus_bandwidth("barrier", 1, 2, 1.0)


def test_what_goes_on_when_a_ledger_is_opened_is_counted_by_it():
    def main(comm):
        going = iall_reduce(comm, np.ones(8), algorithm="ring")
        with Ledger(comm) as ledger:
            going.wait()
        return ledger.messages

    assert all(sent >= 1 for sent in simulate(main, 4))


def test_a_ledger_counts_what_goes_through_splits_by_world_ranks():
    def main(comm):
        group = comm.split(comm.rank % 2)
        with Ledger(comm) as ledger:
            barrier(group)
        return ledger.by("source", "dest")

    assert simulate(main, 4) == [{(k, (k + 2) % 4): (1, 0)} for k in range(4)]
