"""The examples of pipelines: they end as one process does, print what ran, and see a fault."""

import re
import runpy
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from support.proofs import keeping, proofs

from minidist.comm.communicator import Communicator
from minidist.parallel.data.sum_gradients import Bucketed
from minidist.parallel.pipeline.run import runtime

FOLDER = Path(__file__).resolve().parent.parent / "tutorials" / "examples"
CLOCK = "by a simulated clock"
SAID = {  # by four ranks, simulated or real
    "naive_pipeline": ["75.0% if messages took none", "rank 3: gradients of one process"],
    "gpipe": [
        "idle 27.3% of all time, 37.5% over the ideal",  # 3 / 11 and 3 / 8
        "rank 0 F0F1F2F3F4F5F6F7··················B0──B1──B2──B3──B4──B5──B6──B7──",
        *(f"rank {rank} held 8 of 8 micro-batches at most; loss" for rank in range(4)),
    ],
    "one_f_one_b": [
        "gpipe predicted, F 1 and B 2 long: idle 27.3% of all time, 37.5% over the ideal",
        "1f1b predicted, F 1 and B 2 long: idle 27.3% of all time, 37.5% over the ideal",
        "rank 0 F0F1F2F3············B0──F4B1──F5B2──F6B3──F7B4──··B5──··B6──··B7──",
        *(f"gpipe rank {rank} held 8 of 8 micro-batches at most" for rank in range(4)),
        *(f"1f1b rank {rank} held {4 - rank} of 8 micro-batches at most" for rank in range(4)),
    ],
    "zero_bubble": [
        "1f1b predicted: 66 long, 37.5% over the ideal; 27.3% of all time is idle, 18 within",
        "zb-h1 predicted: 54 long, 12.5% over the ideal; 11.1% of all time is idle, 6 within",
        "zbv predicted: 51 long, 6.2% over the ideal; 5.9% of all time is idle, 0 within",
        "zbv rank 3: loss",
    ],
    "dp_pipeline": [
        "rank 0, stage 0 of replica 0: messages a step {'send': 6, 'all_reduce': 2}, then 2 across",
        "rank 3, stage 1 of replica 1: messages a step {'send': 6, 'all_reduce': 2, 'broadcast': 1}"
        ", then 2 across replicas",
    ],
}
LANES = {"naive_pipeline": 4, "gpipe": 8, "one_f_one_b": 16, "zero_bubble": 24, "dp_pipeline": 4}
CLOCKED = {"gpipe": 1, "one_f_one_b": 2, "zero_bubble": 3}  # how often the clock is named
# How many percent simulated ranks are idle: as many as predicted, and a little for the messages.
IDLE = {"gpipe": (27.3, 28), "one_f_one_b": (27.3, 28), "naive_pipeline": (75, 76)}
each_example = pytest.mark.parametrize("name", SAID)


def path_of(name: str) -> Path:
    return FOLDER / f"{name}.py"


@cache
def run_alone(name: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(path_of(name))]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def check(done: subprocess.CompletedProcess, name: str, clocked: int) -> None:
    assert done.returncode == 0, done.stderr
    missing = [text for text in SAID[name] if text not in done.stdout]
    assert not missing, f"{missing} is not in {done.stdout}"
    lanes = re.findall(r"^rank \d [FBIW·].*$", done.stdout, re.M)
    assert len(lanes) == LANES[name] and max(map(len, lanes)) <= 100, done.stdout
    assert done.stdout.count(CLOCK) == clocked
    if name == "naive_pipeline":  # nobody overlaps: at most one rank of four works at a time
        assert 75 <= min(idle(done)) <= max(idle(done)) < 100


def idle(done: subprocess.CompletedProcess) -> list[float]:
    """Percent of all time, as executed."""
    return [float(n) for n in re.findall(r"(?:clock: idle|ranks are idle) ([\d.]+)%", done.stdout)]


def losses(done: subprocess.CompletedProcess) -> list[str]:
    return re.findall(r"loss (\d\.\d{6})", done.stdout)


@each_example
def test_alone(name):
    check(run_alone(name), name, CLOCKED.get(name, 0))


@pytest.mark.parametrize("name", IDLE)
def test_simulated_ranks_show_the_times_that_the_lesson_is_about(name):
    low, high = IDLE[name]
    found = idle(run_alone(name))
    assert found and all(low <= percent < high for percent in found), run_alone(name).stdout


@pytest.mark.parametrize("name", ["gpipe", "one_f_one_b", "zero_bubble"])
def test_simulated_ranks_execute_the_timeline_that_was_predicted(name):
    lanes = re.findall(r"^rank \d [FBIW·].*$", run_alone(name).stdout, re.M)
    assert lanes
    for at in range(0, len(lanes), 8):
        assert lanes[at : at + 4] == lanes[at + 4 : at + 8]


def test_simulated_replicas_execute_side_by_side():
    lanes = re.findall(r"^rank \d ([FBIW·].*)$", run_alone("dp_pipeline").stdout, re.M)
    assert lanes[0] == lanes[1] != lanes[2] == lanes[3]


@pytest.mark.mpi
@pytest.mark.parametrize("name", keeping(["zero_bubble", "dp_pipeline"], SAID))
def test_four_real_ranks(mpirun, name):
    done = mpirun(4, path_of(name))
    check(done, name, 0)
    assert losses(done) == losses(run_alone(name))


@pytest.mark.mpi
@pytest.mark.parametrize("name", ["one_f_one_b", *proofs("dp_pipeline")])
def test_three_real_ranks(mpirun, name):
    """Stages that are not equally long; and no two stages, but three replicas."""
    done = mpirun(3, path_of(name))
    assert done.returncode == 0, done.stderr
    assert losses(done) == losses(run_alone(name))[: len(losses(done))]


# Controls: the assertion at the end of each sees what is wrong


def rolled(comm, out, source, tag=0):
    """The rows of a message in another order."""
    out[...] = np.roll(RECV(comm, out, source, tag), 1, 0)
    return out


def rolled_back(run, stage, i, x):
    """A gradient handed to the rows beside its own."""
    if x.grad is not None:
        x.grad.data[...] = np.roll(x.grad.data, 1, 0)
    PASS_GRADIENT(run, stage, i, x)


def not_summed(self):
    return None


RECV, PASS_GRADIENT = Communicator.recv, runtime.Run._pass_gradient
FAULTS = {
    "naive_pipeline": (Communicator, "recv", rolled),
    "gpipe": (runtime.Run, "_pass_gradient", rolled_back),
    "one_f_one_b": (runtime.Tied, "sum_gradients", not_summed),
    "zero_bubble": (runtime.Tied, "sum_gradients", not_summed),
    "dp_pipeline": (Bucketed, "sum_gradients", not_summed),
}


@each_example
def test_a_planted_fault_ends_it(name, monkeypatch):
    monkeypatch.setattr(*FAULTS[name])
    with pytest.raises(AssertionError, match=r"another|but|weight|bias|away"):
        runpy.run_path(str(path_of(name)), run_name="__main__")
