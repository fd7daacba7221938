"""Agreeing on an error, ending all ranks for one, and staying light to import."""

import subprocess
import sys

import pytest

from minidist.comm import AgreedExit, abort_on_error, agree, simulate, world_from_env
from minidist.comm.guard.abort import exit_code


@pytest.mark.parametrize("size", [1, 2, 4])
def test_ranks_agree_on_the_first_error(size):
    def main(comm):
        nothing = agree(comm, None)
        last = agree(comm, "no é file" if comm.rank == size - 1 else None)
        each = agree(comm, f"bad line {comm.rank}")
        return nothing, last, each, agree(comm, "same"), agree(comm, "")

    number = f"rank {size - 1}: " if size > 1 else ""
    zero = "rank 0: " if size > 1 else ""
    expected = (None, f"{number}no é file", f"{zero}bad line 0", "same", "")
    assert simulate(main, size) == [expected] * size


class Spy:
    """A rank of an MPI world, of which only abort is used."""

    rank, size, native = 2, 4, object()

    def __init__(self):
        self.codes = []

    def abort(self, code):
        self.codes.append(code)


@pytest.mark.parametrize(
    "error, codes, text",
    [
        (ValueError("broken"), [1], "rank 2 of 4 | ValueError: broken"),
        (KeyboardInterrupt(), [130], "rank 2 of 4 | KeyboardInterrupt"),
        (SystemExit(3), [3], "rank 2 of 4 | exits with 3"),
        (SystemExit("no data"), [1], "rank 2 of 4 | exits with no data"),
        (SystemExit(0), [], ""),
        (SystemExit(None), [], ""),
        (AgreedExit(2), [], ""),
    ],
)
def test_a_failure_on_one_rank_aborts_all_and_says_which(error, codes, text, capsys):
    spy = Spy()
    with pytest.raises(type(error)), abort_on_error(spy):
        raise error
    err = capsys.readouterr().err
    assert spy.codes == codes
    assert text in err
    assert all(line.startswith("rank 2 of 4 | ") for line in err.splitlines())


def test_simulated_ranks_let_the_error_pass():
    def main(comm):
        with abort_on_error(comm):
            raise KeyError(comm.rank)

    with pytest.raises(KeyError):
        simulate(main, 2)


def test_exit_codes_are_the_shells():
    errors = [SystemExit(0), SystemExit(None), SystemExit("text"), SystemExit(7), OSError()]
    assert [exit_code(error) for error in errors] == [0, 0, 1, 7, 1]


@pytest.mark.parametrize(
    "env, world",
    [
        ({}, (0, 1)),
        ({"PMI_RANK": "3", "PMI_SIZE": "4"}, (3, 4)),
        ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "PMIX_RANK": "1"}, (1, 2)),
        ({"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8", "SLURM_NTASKS": "16"}, (5, 8)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "16"}, (0, 1)),
        ({"PMI_RANK": "", "PMI_SIZE": "4"}, (0, 1)),
    ],
)
def test_the_launchers_environment_tells_rank_and_size(env, world):
    assert world_from_env(env) == world


def loaded_after(statement):
    heavy = "[m for m in ('mpi4py', 'greenlet', 'threadpoolctl') if m in sys.modules]"
    code = f"import sys; {statement}; print({heavy})"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout


def test_importing_starts_and_loads_nothing_heavy():
    assert loaded_after("import minidist.comm").strip() == "[]"
    assert "greenlet" in loaded_after("from minidist.comm import simulate")
    assert "mpi4py" not in loaded_after("from minidist.comm import mpi_world")


def test_names_that_are_loaded_at_first_use_are_listed_too():
    code = "import minidist.comm as c; print({'simulate', 'launch', 'mpi_world'} <= set(%s))"
    listed, loaded = (
        subprocess.run([sys.executable, "-c", code % names], capture_output=True, text=True).stdout
        for names in ("dir(c)", "vars(c)")
    )
    assert (listed.strip(), loaded.strip()) == ("True", "False")


def test_a_world_of_one_needs_no_mpirun_and_a_missing_mpi4py_says_how_to_get_it():
    code = (
        "import sys; sys.modules['mpi4py'] = None\n"
        "from minidist.comm import MpiError, mpi_world\n"
        "try: mpi_world()\n"
        "except MpiError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'minidist[mpi]'" in done.stdout
