"""The guard on four real ranks: what differs is said on every rank, nobody waits for ever."""

import re
import time
from pathlib import Path

import pytest
from support.proofs import proofs

PROGRAM = Path(__file__).parent / "programs" / "comm_guard.py"
pytestmark = pytest.mark.mpi


def told(mpirun, folder, how, **env):
    """What the guard told each rank, the job, and how long it took."""
    start = time.monotonic()
    done = mpirun(4, PROGRAM, how, folder, env={"MINIDIST_DEBUG": "1", **env})
    texts = {int(p.stem): p.read_text() for p in folder.glob("*.txt")}
    return texts, done, time.monotonic() - start


def runs(process):
    """Whether there is such a process that is not dead."""
    try:
        return "State:\tZ" not in Path("/proc", process, "status").read_text()
    except OSError:
        return False


SAID = {
    "operation": "operation is all_reduce on rank 0, but barrier on rank 2",
    "dtype": "dtype is float64 on rank 0, but float32 on rank 2",
    "shape": r"shape is (4,) on rank 0, but (3,) on rank 2",
    "rest": r"shape is (2,) on rank 0, but (3,) on rank 2",
    "reduction": "reduction is sum on rank 0, but max on rank 2",
    "root": "root is 0 on rank 0, but 1 on rank 2",
    "counts": "counts is [1, 1, 1, 1] on rank 0, but [0, 0, 4, 0] on rank 2",
    "algorithm": "algorithm is tree on rank 0, but ring on rank 2",
    "number": "number is 2 on rank 0, but 3 on rank 2",
    "beside": r"shape is (2,) on rank 0, but (4,) on rank 2",
}


@pytest.fixture(scope="module")
def mismatches(mpirun, tmp_path_factory):
    """What the guard told the ranks, by what differed: one job goes from each to the next."""
    folder = tmp_path_factory.mktemp("guard")
    for how in SAID:
        (folder / how).mkdir()
    ways = ["number", *(how for how in SAID if how != "number")]  # its text has the calls so far
    _, done, _ = told(mpirun, folder, ",".join(ways))
    assert done.returncode == 0, "nothing was sent: ranks can go on after it\n" + done.stderr
    return {how: {int(p.stem): p.read_text() for p in (folder / how).glob("*.txt")} for how in SAID}


@pytest.mark.parametrize("how", SAID)
def test_a_mismatch_is_said_on_every_rank_with_both_call_sites(mismatches, how):
    texts = mismatches[how]
    assert sorted(texts) == [0, 1, 2, 3]
    for text in texts.values():
        assert text.startswith("MismatchError: ") and SAID[how] in text
        sites = re.findall(r"rank (\d): .* at \S*comm_guard\.py:\d+ in ", text)
        assert sites == ["0", "2"]


def test_call_sites_are_compared_too_if_wanted(mpirun, tmp_path):
    texts, done, _ = told(mpirun, tmp_path, "another_line")
    assert done.returncode == 0 and not texts
    texts, *_ = told(mpirun, tmp_path, "another_line", MINIDIST_DEBUG="2")
    assert sorted(texts) == [0, 1, 2, 3] and "site is " in texts[1]


def test_calls_on_different_groups_meet(mpirun, tmp_path):
    texts, done, seconds = told(mpirun, tmp_path, "group", MINIDIST_TIMEOUT="3")
    assert done.returncode != 0 and seconds < 15
    assert "group is 2 to 3 on rank 2, but 0 to 3 on rank 3" in texts[2]
    assert "group is 0 to 3 on rank 0, but 2 to 3 on rank 2" in texts[3]


def test_a_rank_that_stays_away_is_named_with_what_it_did_last(mpirun, tmp_path):
    texts, done, seconds = told(mpirun, tmp_path, "stays_away", MINIDIST_TIMEOUT="2")
    assert done.returncode != 0 and seconds < 15
    assert re.search(r"rank \d of 4 \| minidist.comm.errors.DeadlineError", done.stderr)
    text = texts[0]
    assert re.match(r"DeadlineError: rank 0 has waited 2\.\d s in all_reduce #2 'grad/w1'", text)
    away = r"rank 2 not in all_reduce #2 'grad/w1'; rank 2 last seen \d\.\d s ago in recv"
    assert re.search(away + r"\(source=1, tag=0\) #1 at \S*comm_guard.py:\d+ in stays_away", text)
    assert "rank 1 is in all_reduce #2 'grad/w1' too" in text
    assert "MINIDIST_TIMEOUT" in text


def test_a_rank_that_exits_is_not_waited_for(mpirun, tmp_path):
    texts, done, seconds = told(mpirun, tmp_path, "exits")
    assert done.returncode != 0 and seconds < 15
    assert re.search(
        r"rank 2 last seen \S+ s ago before it exited, after barrier #1 'start'", texts[0]
    )


@pytest.mark.parametrize("how", ["fails", *proofs("exits")])
def test_an_exit_is_not_waited_for_without_debug_either(mpirun, tmp_path, how):
    texts, done, seconds = told(mpirun, tmp_path, how, MINIDIST_DEBUG="0")
    assert done.returncode != 0 and seconds < 15
    assert any("rank 2 last seen" in text and "before it exited" in text for text in texts.values())


def test_a_stopped_rank_is_named_and_ended(mpirun, tmp_path):
    texts, done, seconds = told(mpirun, tmp_path, "stopped", MINIDIST_TIMEOUT="2")
    assert done.returncode != 0 and seconds < 20
    found = re.search(
        r"rank 2 last seen \S+ s ago after barrier #1 'start' .*\(process (\d+)\)", texts[0]
    )
    deadline = time.monotonic() + 10
    while runs(found[1]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not runs(found[1]), "the stopped process is gone too"


def test_a_killed_rank_ends_the_job_with_its_reason(mpirun, tmp_path):
    _, done, seconds = told(mpirun, tmp_path, "killed")
    assert done.returncode != 0 and seconds < 15
    assert re.search(r"signal:? 9|EXIT CODE: 9|signal 9", done.stdout + done.stderr, re.I)
