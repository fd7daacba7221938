"""The doctor: a line for each thing, the fix beside what fails, and an exit code to match."""

from pathlib import Path

import pytest
from minidist.kernels import loops

from minidist.lesson import doctor
from minidist.lesson.doctor import Finding


def test_this_machine_can_run_the_tests():
    found = {f.name: f for f in (doctor.python(), doctor.cores(), doctor.blas(), doctor.triton())}
    assert found["Python"].ok and found["cores"].ok and found["BLAS"].ok
    assert "NumPy" in found["BLAS"].what and "threads" in found["BLAS"].what


@pytest.mark.mpi
def test_mpi_and_its_ping(mpirun):
    assert doctor.mpi().ok, doctor.mpi().what
    ping = doctor.ping()
    assert ping.ok, ping.what
    assert ping.what.startswith("4 ranks, ")


def test_without_mpi_each_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(doctor.util, "find_spec", lambda name: None)
    monkeypatch.setattr(doctor, "find_mpirun", lambda: None)
    for finding in (doctor.mpi(), doctor.ping()):
        assert finding.ok is False
        assert "pip install 'minidist[mpi]'" in finding.fix
    for finding in (doctor.triton(), doctor.cupy()):
        assert finding.ok is None, "what is optional does not fail"


def test_it_says_which_kernels_run(ask_for_kernels):
    ask = ask_for_kernels

    assert doctor.kernels().what.startswith("loops (Numba) on the CPU")
    ask("naive")
    assert doctor.kernels().what.startswith("naive, everywhere")
    ask("fast")
    assert doctor.kernels().ok is False and "fast" in doctor.kernels().what
    assert "naive, numba or triton" in doctor.kernels().fix


def test_it_says_where_compiled_loops_are_kept(tmp_path, monkeypatch):
    found = doctor.numba()
    assert found.ok and Path(loops.__file__).parent.name in found.what
    monkeypatch.setattr(loops, "cache_folder", lambda: None)
    assert doctor.numba().ok is None and "NUMBA_CACHE_DIR" in doctor.numba().fix


def test_without_numba_it_says_that_the_formulas_run(ask_for_kernels, monkeypatch):
    monkeypatch.setattr(loops, "available", lambda: False)
    assert doctor.numba().ok is None and doctor.numba().fix == "pip install numba"
    assert doctor.kernels().what.startswith("formulas (NumPy) on the CPU")
    ask_for_kernels("numba")
    assert doctor.kernels().ok is False and "pip install numba" in doctor.kernels().what


def test_a_broken_mpirun_is_reported(monkeypatch, tmp_path):
    broken = tmp_path / "mpirun"
    broken.write_bytes(b"#!/bin/sh\necho no \xb5 libmpi.so >&2\nexit 127\n")
    broken.chmod(0o755)
    monkeypatch.setattr(doctor, "find_mpirun", lambda: str(broken))
    finding = doctor.ping()
    assert finding.ok is False
    assert finding.what == "no \ufffd libmpi.so"  # its bytes may be in any encoding
    assert "try by hand" in finding.fix


def test_the_report_shows_fixes_and_fails_only_for_what_is_needed(monkeypatch, capsys):
    bad = Finding("X", False, "broken [a]", "pip install 'minidist[mpi]'")
    absent = Finding("Y", None, "absent", "install y")
    monkeypatch.setattr(doctor, "CHECKS", (lambda: bad, lambda: absent))
    assert doctor.examine() == 1
    shown = capsys.readouterr().out
    assert "FAILS" in shown and "minidist[mpi]" in shown and "broken [a]" in shown
    monkeypatch.setattr(doctor, "CHECKS", (lambda: absent,))
    assert doctor.examine() == 0


@pytest.mark.mpi
def test_under_mpirun_it_finds_the_same_and_says_it_once(mpirun):
    code = (
        "from minidist.lesson import doctor; doctor.CHECKS = (doctor.python, doctor.mpi); "
        "import sys; sys.argv = ['minidist', 'doctor']; from minidist.cli import main; main()"
    )
    done = mpirun(2, "-c", code)
    assert done.returncode == 0 and "FAILS" not in done.stdout, done.stdout
    assert done.stdout.count("Python") == 1 and done.stdout.count("mpi4py") == 1
