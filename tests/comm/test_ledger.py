"""The ledger counts what a rank sends, message by message."""

import numpy as np

from minidist.comm import Ledger, all_reduce, simulate


def exchange(comm, tag=0):
    return comm.sendrecv(
        np.ones(3, np.float32), 1 - comm.rank, np.empty(3, np.float32), 1 - comm.rank, tag
    )


def test_messages_and_bytes_are_counted_by_source_dest_and_tag():
    def main(comm):
        with Ledger(comm) as ledger:
            exchange(comm)
            exchange(comm)
            exchange(comm, tag=5)
        exchange(comm)
        return dict(ledger.sent), ledger.messages, ledger.bytes, ledger.table()

    for rank, (sent, messages, nbytes, table) in enumerate(simulate(main, 2)):
        assert sent == {(rank, 1 - rank, 0): [2, 24], (rank, 1 - rank, 5): [1, 12]}
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
            all_reduce(comm, np.ones(12, np.float32))
        return ledger.messages, ledger.bytes, {dest for _, dest, _ in ledger.sent}

    assert simulate(main, 4) == [(6, 72, {(rank + 1) % 4}) for rank in range(4)]
