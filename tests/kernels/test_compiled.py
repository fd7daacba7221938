"""Every Triton kernel compiled for two GPUs that need not be here: registers, spills, instructions.

tests/kernels/compiled/ holds, a file a family, CASES: what is compiled, as it would be launched.
`python tests/kernels/test_compiled.py --write` writes what was found into compiled/table.json.
All of them take minutes: they are proofs, and one of each family is compiled in every test run.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).with_name("compiled")
TABLE = FOLDER / "table.json"
RENEW = "python tests/kernels/test_compiled.py --write"
GPUS = (80, 90)
FUSED = {"TRITON_DEFAULT_FP_FUSION": "1"}  # a · b + c in one instruction, as on a real launch


@cache
def cases() -> dict[str, dict[str, Any]]:
    """The cases of every family; each name at most once."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(FOLDER.glob("*.py")):
        spec = importlib.util.spec_from_file_location(f"compiled_{path.stem}", path)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        twice = found.keys() & module.CASES.keys()
        assert not twice, f"{path.name}: {twice} are another file's cases too"
        found |= {name: {**case, "family": path.stem} for name, case in module.CASES.items()}
    return found


@cache
def few() -> dict[str, dict[str, Any]]:
    """One case of each family, for one GPU."""
    firsts = {case["family"]: name for name, case in reversed(cases().items())}
    return {name: {**cases()[name], "gpus": GPUS[-1:]} for name in firsts.values()}


def compiled(job: tuple[str, int]) -> dict[str, Any]:
    """What compile_kernel tells of a case, or the error: {"error": …}."""
    from minidist.kernels.compiling import compile_kernel

    name, gpu = job
    case = cases()[name]
    options = case.get("options", {})
    try:
        return compile_kernel(case["kernel"], gpu, case["signature"], case["constants"], **options)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


def measure(chosen: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """These cases for all their GPUs, in as many processes as there are cores."""
    import triton

    jobs = [(name, gpu) for name, case in chosen.items() for gpu in case.get("gpus", GPUS)]
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), get_context("spawn")) as pool:
        found = dict(zip(jobs, pool.map(compiled, jobs)))
    return {
        "triton": triton.__version__,
        "kernels": {
            name: {f"sm_{g}": found[name, g] for g in case.get("gpus", GPUS)}
            for name, case in chosen.items()
        },
    }


def in_a_process_of_its_own(*args: str) -> str:
    """This file as a program, without the interpreter that tests ask for."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | FUSED
    job = subprocess.run(
        [sys.executable, __file__, *args],
        capture_output=True, text=True, env=environment, check=False, timeout=900,
    )  # fmt: skip
    assert job.returncode == 0, job.stderr
    return job.stdout


def run(*args: str) -> dict[str, Any]:
    pytest.importorskip("triton", reason="triton is not installed: it runs on Linux alone")
    return json.loads(in_a_process_of_its_own(*args))


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return run()


@pytest.fixture(scope="module")
def found_few() -> dict[str, Any]:
    return run("--few")


def troubles(case: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """What is wrong with a case whatever the table says: errors, spills, missing instructions."""
    wrong = []
    for gpu in case.get("gpus", GPUS):
        it, wanted = found[f"sm_{gpu}"], case.get("expect", {}).get(gpu)
        if "error" in it:
            wrong.append(f"sm_{gpu}: {it['error']}")
        elif it["spilled"]:
            wrong.append(f"sm_{gpu}: {it['spilled']} bytes spilled at {it['registers']} registers")
        elif wanted and wanted not in it["matrix"]:
            wrong.append(f"sm_{gpu}: {wanted} is not among its instructions, {it['matrix']}")
    return wrong


def changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Where the table and what was found just now differ."""
    return [
        f"{name}: was {before.get(name, 'not there')}, is {now.get(name, 'not there')}"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]


def table(found: dict[str, Any]) -> str:
    """As JSON, a line a case and GPU, so that a difference reads well."""
    rows = (
        f"  {json.dumps(name)}: {{\n   "
        + ",\n   ".join(f"{json.dumps(gpu)}: {json.dumps(it)}" for gpu, it in gpus.items())
        + "\n  }"
        for name, gpus in found["kernels"].items()
    )
    opening = f'{{\n "triton": {json.dumps(found["triton"])},\n "kernels": {{\n'
    return opening + ",\n".join(rows) + "\n }\n}\n"


def test_every_family_has_cases():
    assert cases()


@pytest.mark.parametrize("name", few())
def test_one_of_each_family_compiles(name, found_few):
    wrong = troubles(few()[name], found_few["kernels"][name])
    assert not wrong, f"{name}: {'; '.join(wrong)}"


@pytest.mark.proof
@pytest.mark.parametrize("name", cases())
def test_compiles_without_spills(name, found):
    wrong = troubles(cases()[name], found["kernels"][name])
    assert not wrong, f"{name}: {'; '.join(wrong)}"


@pytest.mark.proof
def test_what_kernels_need_is_what_it_was(found):
    stored = json.loads(TABLE.read_text("utf-8"))
    if stored["triton"] != found["triton"]:
        pytest.skip(f"the table is of Triton {stored['triton']}, here is {found['triton']}")
    differ = changes(stored["kernels"], found["kernels"])
    assert not differ, "\n".join([*differ, f"If that is meant: {RENEW}"])


def test_the_table_is_json():
    found = {"triton": "3", "kernels": {"a b": {"sm_80": FINE, "sm_90": FINE}, "c": {}}}
    assert json.loads(table(found)) == found


# The controls: what the assertions above must refuse

FINE = {"registers": 32, "spilled": 0, "shared": 0, "matrix": ["mma.sync"]}


@pytest.mark.parametrize(
    "change, words",
    [
        ({"spilled": 8}, "sm_90: 8 bytes spilled at 32 registers"),
        ({"matrix": []}, "sm_90: mma.sync is not among"),
        ({"error": "CompilationError: no"}, "sm_90: CompilationError"),
    ],
)
def test_troubles_are_seen(change, words):
    case = {"expect": {90: "mma.sync"}}
    assert not troubles(case, {"sm_80": FINE, "sm_90": FINE})
    (wrong,) = troubles(case, {"sm_80": FINE, "sm_90": {**FINE, **change}})
    assert wrong.startswith(words)


def test_changes_are_seen():
    before = {"a": {"sm_80": FINE}, "b": {"sm_80": FINE}}
    assert changes(before, before) == []
    now = {"a": {"sm_80": {**FINE, "registers": 33}}, "c": {"sm_80": FINE}}
    assert [line.split(":")[0] for line in changes(before, now)] == ["a", "b", "c"]


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        TABLE.write_text(table(json.loads(in_a_process_of_its_own())), "utf-8")
    else:
        print(json.dumps(measure(few() if sys.argv[1:] == ["--few"] else cases())))
