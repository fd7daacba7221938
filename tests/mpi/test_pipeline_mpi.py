"""Pipelines on real ranks: the bits of one process, the order and messages of simulated ranks."""

import json
import runpy
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from support.pipeline_cases import accumulated, evaluated
from support.proofs import keeping, proofs

from minidist.comm import simulate
from minidist.parallel.pipeline.schedules import make

FILE = Path(__file__).with_name("programs") / "pipeline_stages.py"
PROGRAM = runpy.run_path(str(FILE))
CASES, STEPS = PROGRAM["CASES"], PROGRAM["STEPS"]
pytestmark = pytest.mark.mpi


def start(mpirun, folder, n, *args):
    done = mpirun(n, FILE, folder, *args, timeout=120)
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(n)]


@pytest.fixture(scope="module", params=[2, *proofs(4)])
def real(request, mpirun, tmp_path_factory):
    """What each rank found, all cases in one job."""
    return start(mpirun, tmp_path_factory.mktemp("ranks"), request.param)


@cache
def simulated(n):
    return json.loads(json.dumps(simulate(PROGRAM["results"], n, seed=n)))


@cache
def one_process(name, m):
    return PROGRAM["digests"](accumulated(name, PROGRAM["ROWS"], m, STEPS))


def assert_one_process(ranks, kind, name):
    """Every loss on every rank, every gradient of every step, and the state after the last."""
    wanted = one_process(name, PROGRAM["MICROBATCHES"][len(ranks)])
    losses, gradients, state = zip(*(rank[f"{kind} {name}"]["numbers"] for rank in ranks))
    assert all(mine == wanted[0] for mine in losses), "another loss"
    for mine in gradients:
        for k, step in enumerate(mine):
            for parameter, g in step.items():
                assert g == wanted[1][k][parameter], f"step {k}: gradient of {parameter} differs"
    assert {key: value for mine in state for key, value in mine.items()} == wanted[2]


@pytest.mark.parametrize("kind, name", CASES)
def test_real_ranks_have_the_bits_of_one_process(real, kind, name):
    assert_one_process(real, kind, name)


@pytest.mark.parametrize("kind, name", CASES)
def test_real_ranks_do_what_the_schedule_says(real, kind, name):
    n = len(real)
    schedule = make(kind, n, PROGRAM["MICROBATCHES"][n])
    found = [rank[f"{kind} {name}"] for rank in real]
    assert [each["order"] for each in found] == [
        [str(step) for step in order] for order in schedule.orders
    ]
    own = [count for each in found for *_, name, _, count, _ in each["sent"] if not name]
    crossing = sum(map(schedule.crosses, range(schedule.stages)))
    assert sum(own) == 2 * schedule.microbatches * crossing * STEPS


def test_all_else_is_as_on_simulated_ranks(real):
    """Messages and bytes by source, destination, collective and tag; the evaluation, too."""
    for mine, theirs in zip(real, simulated(len(real)), strict=True):
        assert mine.keys() == theirs.keys()
        for case in mine:
            assert mine[case] == theirs[case], case


def test_evaluation_is_that_of_one_process(real):
    digest = PROGRAM["digest"]
    wanted = [(loss, list(map(digest, outputs))) for loss, outputs in evaluated((1, 5))]
    for kind in PROGRAM["EVALUATED"]:
        last = 0 if kind == "zbv" else len(real) - 1
        for rank, found in enumerate(each["evaluated"][kind] for each in real):
            assert found == [[loss, of if rank == last else []] for loss, of in wanted]


def test_a_tied_embedding_left_alone_on_real_ranks_is_seen(mpirun, tmp_path):
    with pytest.raises(AssertionError, match=r"wte.weight differs|another loss"):
        assert_one_process(start(mpirun, tmp_path, 2, "mutant"), "1f1b", "gpt")


# The trainer


def test_stages_train_as_one_process_to_the_bit(real):
    """float32, clipped, AdamW, dropout; and another count of micro-batches is seen."""
    alone, other = (
        json.loads(json.dumps(simulate(lambda comm, m=m: PROGRAM["train"](comm, m), 1)[0]))
        for m in ({}, {"microbatches": 4})
    )
    layouts = PROGRAM["LAYOUTS"][len(real)]
    whole = [i for i, layout in enumerate(layouts) if layout["pp"] == len(real)]
    assert whole
    for i in whole:
        for records, loss, state in (rank["trained"][i] for rank in real):
            assert [records, loss] == alone[:2] != other[:2]
            assert state.items() <= alone[2].items()


FLAGS = (
    "--model gpt-nano --steps 3 --batch 9 --seq 12 --dropout 0.1 --eval-every 2 --warmup 1 "
    "--sample 9"
)
LAYOUTS = ["--pp 2 --dp 2 --schedule zb-h1", "--pp 2 --tp 2 --microbatches 3"]


def records(folder):
    """What metrics.jsonl says, but for how long it took."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in line.items() if k != "tokens_per_s"} for line in lines]


def files(folder):
    """The last checkpoint: parameters and moments."""
    last = folder / "checkpoints" / "step-000003"
    return [(last / f"{name}.safetensors").read_bytes() for name in ("model", "optimizer")]


@pytest.mark.parametrize("layout", keeping(LAYOUTS[1:], LAYOUTS))
def test_the_command_writes_the_bits_of_simulated_ranks(mpirun, tmp_path, layout):
    real, simulated = tmp_path / "real", tmp_path / "simulated"
    command = ["-m", "minidist.cli", "train", *FLAGS.split(), *layout.split(), "--out"]
    for done in (
        mpirun(4, *command, real),
        subprocess.run(
            [sys.executable, *command, simulated, "--simulate", "--ranks", "4"],
            capture_output=True, text=True, timeout=60,
        ),
    ):  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert records(real) == records(simulated)
    assert files(real) == files(simulated)
