"""Planted faults, each one that shipped somewhere: the tests of collectives must see every one."""

import numpy as np
import pytest
from comm import test_algorithms as gates
from comm import test_collectives, test_fingerprint, test_ledger, test_nonblocking

from minidist.comm import communicator, ledger, shard_bounds
from minidist.comm.collectives import (
    bruck,
    chain,
    dissemination,
    doubling,
    exchange,
    gathering,
    linear,
    pairwise,
    reduction,
    ring,
    rooted,
    tags,
    tree,
)
from minidist.comm.guard import fingerprint
from minidist.comm.simulated import scheduler as hub
from minidist.comm.simulated import world as simulated


def a_chunk_is_never_added(comm, flat, bounds, combine):
    keep = flat[slice(*bounds[comm.rank])].copy()
    ring.reduce_scatter_flat(comm, flat, bounds, combine)
    flat[slice(*bounds[comm.rank])] -= keep


def the_whole_is_sent_each_time(comm, flat, combine):
    total, going, coming = flat.copy(), flat.copy(), np.empty_like(flat)
    for _ in range(comm.size - 1):
        right, left = (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size
        comm.sendrecv(going, right, coming, left, tags.REDUCE_SCATTER)
        combine(total, coming, out=total)
        going, coming = coming, going
    flat[:] = total


def the_last_chunk_is_dropped(comm, flat, bounds, tag):
    ring.all_gather_flat(comm, flat, [*bounds[:-1], (0, 0)], tag)


def ranks_beyond_the_power_of_two_are_forgotten(comm, flat, combine):
    p = doubling.power(comm.size)
    if comm.rank < p:
        doubling._halve(comm, flat, shard_bounds(flat.size, p), [[k] for k in range(p)], combine)


def their_result_never_comes(comm, flat):
    del comm, flat


def its_own_chunk_is_sent_again(comm, flat, bounds, tag):
    bruck.all_gather_flat(comm, flat, bounds, tag)
    flat[: bounds[0][1]] = flat[slice(*bounds[comm.rank])][: bounds[0][1]]


def chunks_are_handed_out_shifted(comm, flat, bounds, root):
    linear.scatter_flat(comm, flat, [*bounds[1:], bounds[0]], root)


def the_root_is_always_0(comm, flat, root):
    linear.broadcast_flat(comm, flat, 0)


def nothing_is_sent(comm, flat, root):
    del comm, flat, root


def a_send_is_not_waited_for(requests):
    del requests


def a_receive_is_not_waited_for(self, array, dest, out, source, tag=0):
    self.irecv(out, source, tag)
    self.isend(array, dest, tag).wait()
    return out


def everybody_sends_first(comm, going, arriving, tag):
    comm.send(going, (comm.rank + 1) % comm.size, tag)
    comm.recv(arriving, (comm.rank - 1) % comm.size, tag)


def operands_are_not_combined(comm, flat, combine):
    chain.scan_flat(comm, flat, lambda a, b, out: np.copyto(out, b))


def one_is_left_out(comm, flat, bounds, combine):
    pairwise.reduce_scatter_flat(comm, flat, bounds, combine)
    flat[slice(*bounds[comm.rank])] -= 1.0


def one_round_is_missing(comm):
    distance = 1
    while 2 * distance < comm.size:
        ahead, behind = (comm.rank + distance) % comm.size, (comm.rank - distance) % comm.size
        comm.sendrecv(np.empty(0, "u1"), ahead, np.empty(0, "u1"), behind, tags.BARRIER)
        distance *= 2


def the_group_is_the_world(self, color, key):
    return split(self, 0, key)


def all_send_at_the_same_tags(self, tag):
    return tag


def a_child_is_forgotten(place, size):
    return children(place, size)[:-1] if place else children(place, size)


def blocks_arrive_unturned(comm, blocks):
    return np.roll(all_to_all_flat(comm, blocks), 1, axis=0)


def nothing_is_compared(prints, sites=False):
    del prints, sites


def the_own_are_counted_twice(self, source, dest, collective, tag, array):
    count(self, source, dest, collective, tag, array)
    count(self, source, dest, collective, tag, array)


split = simulated.SimulatedCommunicator._split
children, all_to_all_flat, count = tree.children, bruck.all_to_all_flat, ledger.Ledger.count
BARRIER = lambda: [
    test_collectives.test_nobody_leaves_a_barrier_before_all_have_come(4, seed)
    for seed in range(99)
]  # fmt: skip
SPLIT = lambda: gates.test_every_collective_works_in_a_split(5)
MISMATCH = lambda: test_fingerprint.test_a_mismatch_shows_both_call_sites("shape", None)
FAULTS = [  # where, what is there, the fault, the test that must fail
    (exchange.REDUCE_SCATTER, "ring", a_chunk_is_never_added,
     lambda: gates.test_reduce_scatter("ring")),
    (reduction.ALGORITHMS, "ring", the_whole_is_sent_each_time,
     lambda: gates.test_all_reduce("ring")),
    (gathering.ALGORITHMS, "ring", the_last_chunk_is_dropped,
     lambda: gates.test_all_gather("ring")),
    (reduction.ALGORITHMS, "rabenseifner", ranks_beyond_the_power_of_two_are_forgotten,
     lambda: gates.test_all_reduce("rabenseifner")),
    (doubling, "_hand_out", their_result_never_comes, lambda: gates.test_all_reduce("doubling")),
    (gathering.ALGORITHMS, "bruck", its_own_chunk_is_sent_again,
     lambda: gates.test_all_gather("bruck")),
    (rooted.SCATTER, "linear", chunks_are_handed_out_shifted,
     lambda: gates.test_scatter_and_gather("linear")),
    (rooted.BROADCAST, "linear", the_root_is_always_0, lambda: gates.test_broadcast("linear")),
    (rooted.BROADCAST, "tree", nothing_is_sent, lambda: gates.test_broadcast("tree")),
    (linear, "wait_all", a_send_is_not_waited_for, lambda: gates.test_broadcast("linear")),
    (tree, "wait_all", a_send_is_not_waited_for, lambda: gates.test_broadcast("tree")),
    (communicator.Communicator, "sendrecv", a_receive_is_not_waited_for,
     lambda: gates.test_all_gather("ring")),
    (ring, "_pass_on", everybody_sends_first, lambda: gates.test_all_reduce("ring")),
    (exchange.SCAN, "chain", operands_are_not_combined, lambda: gates.test_scan("chain")),
    (exchange.REDUCE_SCATTER, "pairwise", one_is_left_out,
     lambda: gates.test_reduce_scatter("pairwise")),
    (dissemination.ALGORITHMS, "dissemination", one_round_is_missing, BARRIER),
    (simulated.SimulatedCommunicator, "_split", the_group_is_the_world, SPLIT),
    (communicator.Communicator, "_shifted", all_send_at_the_same_tags,
     lambda: test_nonblocking.test_many_at_once_waited_for_in_any_order()),
    (tree, "children", a_child_is_forgotten, lambda: gates.test_reduce("tree")),
    (bruck, "all_to_all_flat", blocks_arrive_unturned, lambda: gates.test_all_to_all_by_bruck()),
    (hub, "compare", nothing_is_compared, MISMATCH),
    (fingerprint, "NEVER_COMPARED", ("rank", "label", "site", "shape"), MISMATCH),
    (ledger.Ledger, "count", the_own_are_counted_twice,
     lambda: test_ledger.test_each_rank_of_a_ring_sends_its_share()),
]  # fmt: skip


@pytest.mark.parametrize(
    "where, name, fault, gate",
    FAULTS,
    ids=[getattr(fault, "__name__", "shape_is_not_compared") for _, _, fault, _ in FAULTS],
)
def test_a_planted_fault_is_seen(where, name, fault, gate, monkeypatch):
    with monkeypatch.context() as patch:
        (patch.setitem if isinstance(where, dict) else patch.setattr)(where, name, fault)
        with pytest.raises(BaseException) as seen:
            gate()
    assert not isinstance(seen.value, KeyboardInterrupt)
    assert not isinstance(seen.value, (TypeError, NameError, AttributeError)), "the fault runs"
