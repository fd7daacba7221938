"""What a rank of benchmarks/pipeline.py measures when it is asked, and the model and its sizes.

Run as a program it is a rank of ours, under mpirun; benchmarks/pipeline_torch.py is PyTorch's.
"""

import argparse
import json
import socket
import statistics
import time

import numpy as np
from collectives import constants

from minidist.autograd.split import backward_input
from minidist.autograd.tape import source
from minidist.comm import barrier, mpi_world
from minidist.models.gpt import GPT, GPTConfig
from minidist.parallel.pipeline import Pipeline
from minidist.parallel.pipeline.cut import ranges
from minidist.parallel.pipeline.schedules import make
from minidist.tensor.dtypes import keep_heap
from minidist.tensor.tensor import Tensor

LAYERS, HIDDEN, HEADS, SEQ, VOCAB = 8, 256, 4, 128, 1024
MICROBATCHES, ROWS = 8, 2
TOKENS = MICROBATCHES * ROWS * SEQ
CASES = {  # by the name shown: ours, chunks a rank, and PyTorch's
    "gpipe": ("gpipe", 1, "ScheduleGPipe"),
    "1f1b": ("1f1b", 1, "Schedule1F1B"),
    "interleaved v2": ("interleaved", 2, "ScheduleInterleaved1F1B"),
    "zb-h1": ("zb-h1", 1, None),
    "zb-h1 v2": ("zb-h1", 2, "ScheduleInterleavedZeroBubble"),
    "zb-h2": ("zb-h2", 1, None),
    "zbv": ("zbv", 2, "ScheduleZBVZeroBubble"),
    "dualpipev": ("dualpipev", 2, "ScheduleDualPipeV"),
}


def schedule_of(case, ranks):
    name, chunks, _ = CASES[case]
    return make(name, ranks, MICROBATCHES, chunks)


def batch():
    """Tokens and what follows each: (m, rows, s) both."""
    words = np.random.default_rng(0).integers(0, VOCAB, (MICROBATCHES, ROWS, SEQ + 1))
    return words[:, :, :-1].copy(), words[:, :, 1:].copy()


def model_of(layers):
    """Our GPT of some layers; its weights depend on their names alone."""
    return GPT(GPTConfig(LAYERS, HIDDEN, HEADS, SEQ, VOCAB), layers=layers)


def timed(step, barrier, count):
    """Seconds of each step, from when all ranks begin until all are done."""
    seconds = []
    for _ in range(count):
        barrier()
        start = time.perf_counter()
        step()
        barrier()
        seconds.append(time.perf_counter() - start)
    return seconds


def costs(stages, repeats):
    """Median seconds of F, I and W of each stage on this rank alone, after one not counted."""
    (tokens, targets), model = batch(), model_of(range(LAYERS))
    states = np.random.default_rng(1).standard_normal((ROWS, SEQ, HIDDEN)).astype(np.float32)
    found = []
    for part in ranges(LAYERS, stages):
        x = Tensor(tokens[0]) if part[0] == 0 else Tensor(states).requires_grad_()
        target = Tensor(targets[0]) if part[-1] == LAYERS - 1 else None
        runs = [_forward_backward(model, part, x, target) for _ in range(repeats + 1)]
        found.append([statistics.median(kind) for kind in zip(*runs[1:])])
    return found


def _forward_backward(model, part, x, target):
    """Seconds of one F, one I and one W."""
    x.grad, times = None, [time.perf_counter()]
    y = model.stage(x, part)
    if target is not None:
        y = model.loss_of(y, target, "sum")
    times.append(time.perf_counter())
    late = backward_input(source(y), np.ones_like(y.data), [x] if x.requires_grad else [])
    times.append(time.perf_counter())
    late.backward()
    times.append(time.perf_counter())
    return np.diff(times).tolist()


class Ours:
    """A rank of our job; what it is asked are its public methods."""

    def __init__(self):
        keep_heap()
        self.comm, self.made = mpi_world(), {}
        self.rank = self.comm.rank

    def links(self):
        """α and β, in seconds and seconds a byte."""
        return list(map(float, constants(self.comm)[:2]))

    def costs(self, stages, repeats):
        """Those of every stage, on rank 0; the others sleep."""
        return costs(stages, repeats) if self.rank == 0 else None

    def steps(self, case, count):
        """Each step's seconds, loss, squared norm of this rank's gradients, and its computing."""
        if case not in self.made:
            self.made[case] = self._make(case)
            self._step(case)
        pipeline, computing = self.made[case][0], []

        def step():
            self.loss, times = self._step(case), pipeline.executed
            busy = sum(end - start for _, start, end in times)
            computing.append([times[0][1], times[-1][2], busy])

        seconds = timed(step, lambda: barrier(self.comm), count)
        counted = {id(p) for p in pipeline.tied.counted}
        grads = [p.grad.data for p in pipeline.module.parameters() if id(p) not in counted]
        norm2 = sum(float(np.vdot(g, g)) for g in grads)
        return {"seconds": seconds, "loss": self.loss, "norm2": norm2, "computing": computing}

    def _make(self, case):
        schedule = schedule_of(case, self.comm.size)
        layers, mine = ranges(LAYERS, schedule.stages), schedule.stages_of(self.rank)
        model = model_of([i for stage in mine for i in layers[stage]])
        stages = {k: lambda x, part=layers[k]: model.stage(x, part) for k in mine}
        criterion = lambda states, target: model.loss_of(states, target, "sum")
        data = [[Tensor(part) for part in parts] for parts in batch()]
        return Pipeline(model, stages, criterion, self.comm, schedule), data

    def _step(self, case):
        pipeline, data = self.made[case]
        pipeline.module.zero_grad()
        return pipeline.step(*data, scale=1 / TOKENS) / TOKENS


def serve(kind):
    """Be a rank: answer what the benchmark asks, a line of JSON each, and sleep in between."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    worker, port = kind(), parser.parse_args().port
    with socket.create_connection(("127.0.0.1", port)) as link, link.makefile("rw") as lines:
        print(worker.rank, file=lines, flush=True)
        for line in lines:
            what, told = json.loads(line)
            print(json.dumps(getattr(worker, what)(**told)), file=lines, flush=True)


if __name__ == "__main__":
    serve(Ours)
