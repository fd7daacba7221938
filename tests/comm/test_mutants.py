"""Planted faults, each one that shipped somewhere: the tests of collectives must see every one."""

import numpy as np
import pytest
from comm import test_algorithms as gates
from comm import test_collectives, test_fingerprint, test_ledger, test_nonblocking
from support.ranks import ALGORITHMS, collective_module

from minidist.comm import communicator, ledger, shard_bounds
from minidist.comm.collectives import binomial, ring, tags
from minidist.comm.collectives.recursive import halve, largest_power_of_two
from minidist.comm.guard import fingerprint
from minidist.comm.simulated import scheduler
from minidist.comm.simulated import world as simulated


def a_chunk_is_never_added(comm, flat, bounds, combine):
    keep = flat[slice(*bounds[comm.rank])].copy()
    ring.ring_reduce_scatter(comm, flat, bounds, combine)
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
    ring.ring_all_gather(comm, flat, [*bounds[:-1], (0, 0)], tag)


def ranks_beyond_the_power_of_two_are_forgotten(comm, flat, combine):
    p = largest_power_of_two(comm.size)
    if comm.rank < p:
        halve(comm, flat, shard_bounds(flat.size, p), [[k] for k in range(p)], combine)


def their_result_never_comes(comm, flat):
    del comm, flat


def its_own_chunk_is_sent_again(comm, flat, bounds, tag):
    BRUCK_ALL_GATHER(comm, flat, bounds, tag)
    flat[: bounds[0][1]] = flat[slice(*bounds[comm.rank])][: bounds[0][1]]


def chunks_are_handed_out_shifted(comm, flat, bounds, root):
    LINEAR_SCATTER(comm, flat, [*bounds[1:], bounds[0]], root)


def the_root_is_always_0(comm, flat, root):
    LINEAR_BROADCAST(comm, flat, 0)


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
    CHAIN_SCAN(comm, flat, lambda a, b, out: np.copyto(out, b))


def one_is_left_out(comm, flat, bounds, combine):
    PAIRWISE_REDUCE_SCATTER(comm, flat, bounds, combine)
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


def blocks_arrive_unturned(comm, flat, bounds, out, out_bounds):
    BRUCK_ALL_TO_ALL(comm, flat, bounds, out, out_bounds)
    blocks = out.reshape(comm.size, -1)
    blocks[...] = np.roll(blocks, 1, axis=0)


def nothing_is_compared(prints, sites=False):
    del prints, sites


def the_own_are_counted_twice(self, source, dest, collective, tag, array):
    count(self, source, dest, collective, tag, array)
    count(self, source, dest, collective, tag, array)


split = simulated.SimulatedCommunicator._split
children, count = binomial.children, ledger.Ledger.count
BRUCK_ALL_GATHER, BRUCK_ALL_TO_ALL = (ALGORITHMS[n]["bruck"] for n in ("all_gather", "all_to_all"))
LINEAR_SCATTER, LINEAR_BROADCAST = (ALGORITHMS[n]["linear"] for n in ("scatter", "broadcast"))
CHAIN_SCAN = ALGORITHMS["scan"]["chain"]
PAIRWISE_REDUCE_SCATTER = ALGORITHMS["reduce_scatter"]["pairwise"]
BROADCAST = collective_module("broadcast")
BARRIER = lambda: [
    test_collectives.test_nobody_leaves_a_barrier_before_all_have_come(4, seed)
    for seed in range(99)
]  # fmt: skip
SPLIT = lambda: gates.test_every_collective_works_in_a_split(5)
MISMATCH = lambda: test_fingerprint.test_a_mismatch_shows_both_call_sites("shape", None)
FAULTS = [  # where, what is there, the fault, the test that must fail
    (ALGORITHMS["reduce_scatter"], "ring", a_chunk_is_never_added,
     lambda: gates.test_reduce_scatter("ring")),
    (ALGORITHMS["all_reduce"], "ring", the_whole_is_sent_each_time,
     lambda: gates.test_all_reduce("ring")),
    (ALGORITHMS["all_gather"], "ring", the_last_chunk_is_dropped,
     lambda: gates.test_all_gather("ring")),
    (ALGORITHMS["all_reduce"], "rabenseifner", ranks_beyond_the_power_of_two_are_forgotten,
     lambda: gates.test_all_reduce("rabenseifner")),
    (collective_module("all_reduce"), "send_to_extra_rank", their_result_never_comes,
     lambda: gates.test_all_reduce("doubling")),
    (ALGORITHMS["all_gather"], "bruck", its_own_chunk_is_sent_again,
     lambda: gates.test_all_gather("bruck")),
    (ALGORITHMS["scatter"], "linear", chunks_are_handed_out_shifted,
     lambda: gates.test_scatter_and_gather("linear")),
    (ALGORITHMS["broadcast"], "linear", the_root_is_always_0,
     lambda: gates.test_broadcast("linear")),
    (ALGORITHMS["broadcast"], "tree", nothing_is_sent, lambda: gates.test_broadcast("tree")),
    (BROADCAST, "wait_all", a_send_is_not_waited_for, lambda: gates.test_broadcast("linear")),
    (BROADCAST, "wait_all", a_send_is_not_waited_for, lambda: gates.test_broadcast("tree")),
    (communicator.Communicator, "sendrecv", a_receive_is_not_waited_for,
     lambda: gates.test_all_gather("ring")),
    (ring, "pass_on", everybody_sends_first, lambda: gates.test_all_reduce("ring")),
    (ALGORITHMS["scan"], "chain", operands_are_not_combined, lambda: gates.test_scan("chain")),
    (ALGORITHMS["reduce_scatter"], "pairwise", one_is_left_out,
     lambda: gates.test_reduce_scatter("pairwise")),
    (ALGORITHMS["barrier"], "dissemination", one_round_is_missing, BARRIER),
    (simulated.SimulatedCommunicator, "_split", the_group_is_the_world, SPLIT),
    (communicator.Communicator, "_shifted", all_send_at_the_same_tags,
     lambda: test_nonblocking.test_many_at_once_waited_for_in_any_order()),
    (binomial, "children", a_child_is_forgotten, lambda: gates.test_reduce("tree")),
    (ALGORITHMS["all_to_all"], "bruck", blocks_arrive_unturned,
     lambda: gates.test_all_to_all_by_bruck()),
    (scheduler, "compare", nothing_is_compared, MISMATCH),
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
