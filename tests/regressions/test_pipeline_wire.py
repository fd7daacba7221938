"""Bugs of what stages send each other and save: messages lost, and layers under other numbers."""

import re
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import numpy as np
import pytest
from support.stages import ALONE, near, piped, stepped

from minidist import data
from minidist.comm import Ledger, simulate
from minidist.comm.communicator import Communicator, Request
from minidist.comm.errors import CommError
from minidist.errors import UserError
from minidist.parallel.pipeline.needs import receive_for
from minidist.parallel.pipeline.run.runtime import HANDLERS, Run
from minidist.parallel.pipeline.schedules import NAMES, make
from minidist.train import checkpoint
from minidist.train.config import TrainConfig
from minidist.train.loop import Trainer

# Messages: each that was sent was received, and none was dropped


class Noted(Request):
    """A receive that notes its message once it is there."""

    def __init__(self, request, note):
        self.request, self.note = request, note

    def wait(self):
        array = self.request.wait()
        self.note()
        return array

    def is_completed(self):
        return self.request.is_completed()


def a_step(comm, kind):
    """What this rank sent of its own, by (source, dest, tag), and what it was told."""
    with Ledger(comm) as ledger:
        numbers = stepped(piped(comm, kind, 8))
    own = {(r.source, r.dest, r.tag): n for r, (n, _) in ledger.sent.items() if not r.collective}
    return Counter(own), numbers


def the_ledger_closes(ranks, kind):
    received = Counter()

    def irecv(own, out, source, tag=0):
        request, route = IRECV(own, out, source, tag), (source, own.rank, tag)
        return request if own.inside else Noted(request, lambda: received.update([route]))

    with mock.patch.object(Communicator, "irecv", irecv):
        try:
            sent, numbers = zip(*simulate(lambda comm: a_step(comm, kind), ranks))
        except CommError as error:
            raise AssertionError("a message without its other side") from error
    schedule = make(kind, ranks, 8)
    crossing = sum(map(schedule.crosses, range(schedule.stages)))
    assert sum(sent, Counter()) == received
    assert received.total() == 2 * 8 * crossing, "another number of messages than the formula's"
    near(numbers, ALONE)


IRECV = Communicator.irecv


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("ranks", [2, 4])
def test_the_ledger_closes(ranks, kind):
    """pytorch/pytorch#152938: a batch of sends and receives whose work was dropped."""
    the_ledger_closes(ranks, kind)


def dropped(run, action):
    """The third activation is not sent."""
    if action.microbatch == 2:
        run.buffers.pop(action.received)
    else:
        SEND(run, action)


def sent_twice(run, action):
    buffers = dict(run.buffers)
    SEND(run, action)
    if action.microbatch == 2:
        run.buffers.update(buffers)
        SEND(run, action)


def not_waited_for(run, action):
    """The third activation is read before it is there."""
    need = receive_for(action)
    if need in run.receiving and need.kind == "RECV_F" and action.microbatch == 2:
        run.receiving.pop(need)
        run.buffers[need] = np.zeros_like(run.pipeline.shapes.empty(0, run.inputs[2]))
    WAIT(run, action)


SEND, WAIT = HANDLERS["SEND_F"], Run._wait_for_message


@pytest.mark.parametrize("mutant", [dropped, sent_twice])
def test_a_message_too_few_or_too_many_is_seen(mutant, monkeypatch):
    monkeypatch.setitem(HANDLERS, "SEND_F", mutant)
    with pytest.raises(AssertionError):
        the_ledger_closes(2, "1f1b")


def test_work_that_nobody_waits_for_is_seen(monkeypatch):
    monkeypatch.setattr(Run, "_wait_for_message", not_waited_for)
    with pytest.raises(AssertionError):
        the_ledger_closes(2, "1f1b")


# Checkpoints

RUN = TrainConfig(model="gpt-nano", steps=4, batch=6, seq=8, warmup=1, clip=0.5, microbatches=2)
CORPUS = data.Corpus(*np.random.default_rng(2).integers(0, 256, (2, 400)))


def trained(folder, pp, steps):
    """Losses and norms of some steps by pp stages, from the last checkpoint to a new one."""

    def main(comm):
        trainer = Trainer(replace(RUN, pp=pp), comm, CORPUS)
        if steps.start:
            names = trainer.passes.names
            checkpoint.load(checkpoint.last(folder), trainer.model, trainer.optimizer, names)
        found = [trainer.step(k) for k in steps]
        given = folder, steps.stop, trainer.model, trainer.optimizer, 0
        checkpoint.save(*given, writes=comm.rank == 0, stages=trainer.pp)
        return [(each["loss"], each["grad_norm"]) for each in found]

    return simulate(main, pp)[0]


def what_one_layout_saved_another_continues(folder, before, after):
    try:
        curve = trained(folder, before, range(2)) + trained(folder, after, range(2, 4))
    except UserError as error:
        raise AssertionError("a checkpoint that cannot be read") from error
    assert curve == uninterrupted()


@cache
def uninterrupted():
    with TemporaryDirectory() as folder:
        return trained(Path(folder), 1, range(4))


@pytest.mark.parametrize("before, after", [(2, 1), (1, 2), (2, 2)])
def test_what_one_layout_saved_another_continues(tmp_path, before, after):
    """NVIDIA/Megatron-LM#7452, item 12: layers saved by their number within the stage."""
    what_one_layout_saved_another_continues(tmp_path, before, after)


def renamed(arrays, number):
    """Of layers h.i, those of number(i) in place."""
    change = lambda name: re.sub(r"\bh\.(\d+)", lambda found: f"h.{number(int(found[1]))}", name)
    return {change(name): array for name, array in arrays.items()}


def saved_by_local_number(arrays, comm):
    return JOINED(renamed(arrays, lambda i: 0), comm)  # a stage has one layer


def saved_permuted(arrays, comm):
    return renamed(JOINED(arrays, comm), lambda i: 1 - i)


JOINED = checkpoint.gather_stages


@pytest.mark.parametrize("mutant", [saved_by_local_number, saved_permuted])
@pytest.mark.parametrize("after", [1, 2])
def test_another_number_of_a_layer_is_seen(tmp_path, mutant, after, monkeypatch):
    monkeypatch.setattr(checkpoint, "gather_stages", mutant)
    with pytest.raises(AssertionError):
        what_one_layout_saved_another_continues(tmp_path, 2, after)
