"""`make gpu` without a GPU: all of it but the clock runs dry, in Triton's interpreter."""

import importlib
import json
import os
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from support import double
from support.proofs import keeping

pytest.importorskip("triton", reason="triton is not installed: it runs on Linux alone")

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "benchmarks" / "gpu"
COMMAND_LINE = """tyro rich tomli_w matplotlib mpi4py safetensors tqdm greenlet threadpoolctl
setuptools sklearn pytest hypothesis cupy torch""".split()  # noqa: SIM905


@pytest.fixture
def gpu(monkeypatch, ask_for_kernels):
    """The harness's modules by name, and that the interpreter's kernels are asked for."""
    ask_for_kernels("triton")
    monkeypatch.syspath_prepend(str(FOLDER.parent))
    return lambda name: importlib.import_module(f"gpu.{name}")


@pytest.fixture
def machine(gpu):
    return gpu("machine").Machine("cpu")


def command(*args, path="", **options):
    env = {k: v for k, v in os.environ.items() if k not in ("TRITON_INTERPRET", "MINIDIST_KERNELS")}
    return subprocess.run(
        [sys.executable, str(FOLDER), *map(str, args)],
        env=env | {"PYTHONPATH": str(path)}, capture_output=True, text=True, timeout=120,
        check=False, **options,
    )  # fmt: skip


# All of it, dry

PARTS = ["products", "attention", "rows", "pointwise", "operations", "training"]
TIMED = ["speed_products", "speed_attention", "speed_rows", "speed_pointwise", "speed_step"]
TIMED += ["speed_graph"]


@pytest.mark.parametrize("module", keeping([*PARTS, "speed_rows", "speed_graph"], PARTS + TIMED))
def test_every_check_holds_and_nothing_is_timed(module, gpu, machine):
    if module in TIMED:
        pytest.importorskip("torch", reason="PyTorch is not installed: speed is a ratio to its")
    entries = list(gpu(module).run(machine))
    assert {e["kind"] for e in entries} == {"check"}
    assert not [e for e in entries if not e["ok"]]


def test_every_module_is_a_part_of_it(gpu):
    assert sorted(p.module for p in gpu("parts").PARTS.values()) == sorted(PARTS + TIMED)


def test_a_captured_step_is_compared(gpu, monkeypatch):
    graph, machine = gpu("speed_graph"), types.SimpleNamespace(device="cuda")
    monkeypatch.setattr(graph, "REPLAYS", 2)
    monkeypatch.setattr(graph, "WARM", 1)
    with double.gpu():
        one, other = (graph.Training(machine, gpu("speed_step").TINY) for _ in range(2))
        wanted = [one.eager(i) for i in range(3)]
        other.eager(0)
        replay = graph.captured(other)
        assert graph.apart(other, replay, wanted[1:]) <= graph.BOUND
        assert graph.apart(other, lambda: None, wanted[1:]) > 0


def test_make_gpu_copies_the_package_and_needs_no_environment(tmp_path):
    args = f"--device cpu --only pointwise --out {tmp_path / 'results'}"
    make = ["make", "-s", "gpu", f"GPU={tmp_path / 'copy'}", f"PYTHON={sys.executable}"]
    env = {k: v for k, v in os.environ.items() if k != "MINIDIST_KERNELS"}
    job = subprocess.run(
        [*make, f"ARGS={args}"], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert job.returncode == 0, job.stdout + job.stderr
    assert (tmp_path / "copy/minidist/kernels/gelu.py").exists()
    (file,) = (tmp_path / "results").iterdir()
    found = json.loads(file.read_text("utf-8"))
    assert list(found["parts"]) == ["pointwise"] and found["device"] == "cpu"
    assert {"python", "numpy", "triton"} <= set(found["versions"])
    assert all(e["ok"] for part in found["parts"].values() for e in part["entries"])


def test_no_command_line_library_is_imported():
    modules = [f"gpu.{p.stem}" for p in FOLDER.glob("*.py") if p.stem != "__init__"]
    code = f"""
import sys
sys.path.insert(0, {str(FOLDER.parent)!r})
sys.modules.update(dict.fromkeys({COMMAND_LINE!r}))
import importlib
for name in {modules!r} + ["minidist.models.gpt", "minidist.optim", "minidist.plan.gpt"]:
    importlib.import_module(name)
try:
    import tqdm
except ImportError:
    print("blocked")
"""
    job = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (job.returncode, job.stdout) == (0, "blocked\n"), job.stderr


# What lacks


def test_without_cupy_it_ends_with_a_line(tmp_path):
    (tmp_path / "cupy.py").write_text("raise ImportError('no CuPy')")
    job = command(path=tmp_path)
    assert (job.returncode, job.stdout, len(job.stderr.splitlines())) == (2, "", 1)
    assert "cupy cannot be imported (no CuPy)" in job.stderr


@pytest.mark.parametrize("count, said", [("return 0", ""), ("raise OSError('no\\ndriver')", "no")])
def test_without_a_gpu_it_ends_with_a_line(tmp_path, count, said):
    (tmp_path / "cupy.py").write_text(
        "__version__ = '14'\nclass cuda:\n class runtime:\n"
        f"  @staticmethod\n  def getDeviceCount():\n   {count}\n"
    )
    job = command(path=tmp_path)
    assert (job.returncode, job.stdout, len(job.stderr.splitlines())) == (2, "", 1)
    assert f"CuPy 14 finds no CUDA device{': no' * bool(said)}" in job.stderr


def test_without_triton_it_says_so(gpu, monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    assert "triton cannot be imported" in gpu("machine").missing("cpu")


# What is wrong must show


def softmax_checks(gpu, machine):
    cases = gpu("rows")._softmax(5, 7)
    return {e["name"]: e for e in gpu("cases").checks(machine, cases)}


@pytest.mark.parametrize("how", ["wrong", "unwritten", "raises", "elsewhere"])
def test_a_wrong_kernel_is_seen(how, gpu, machine, monkeypatch):
    from minidist.kernels import arrays, softmax

    right = softmax.forward.versions["triton"]
    planted = {
        "wrong": lambda x, axis: right(x, axis) * x.dtype.type(1.1),
        "unwritten": lambda x, axis: arrays.empty_like(x),
        "raises": lambda x, axis: 1 / 0,
        "elsewhere": lambda x, axis: memoryview(right(x, axis)),
    }
    monkeypatch.setitem(softmax.forward.versions, "triton", planted[how])
    entry = softmax_checks(gpu, machine)["softmax 5x7 float32"]
    assert not entry["ok"]
    if how == "raises":
        assert entry["message"] == "ZeroDivisionError: division by zero" and entry["where"]


@pytest.mark.parametrize("dtype, bound", [("float32", "float64"), ("float16", "float32"),
                                          ("bfloat16", "float16")])  # fmt: skip
def test_fewer_digits_fail_the_bound_of_more(dtype, bound, gpu, machine):
    cases, bounds = gpu("cases"), gpu("checks").BOUNDS
    (case,) = (c for c in gpu("rows")._softmax(300, 40) if c.name.startswith("softmax"))
    assert bounds[bound] < cases.error(machine, case, dtype) <= bounds[dtype]


def test_a_family_that_cannot_be_made_is_a_failure(gpu, machine):
    def nothing(tiny):
        raise ImportError("no such kernel")
        yield

    (entry,) = gpu("cases").families(machine, nothing)
    assert not entry["ok"] and entry["message"] == "ImportError: no such kernel"


def test_nan_and_infinities_are_differences(gpu):
    difference = gpu("checks").difference
    one, nan, inf = (np.array([x]) for x in (1.0, np.nan, np.inf))
    assert difference([one, inf], [one, inf]) == 0
    assert np.isnan(difference([nan], [one])) and difference([one], [inf]) == np.inf
    with pytest.raises(ValueError, match="shapes"):
        difference([one], [one[None]])


# Time


def test_a_part_is_stopped_in_time_and_the_rest_goes_on(gpu):
    found = {}
    gpu("parts").run(["products", "rows"], "cpu", 0.0, found.__setitem__)
    assert list(found) == ["products", "rows"]
    for result in found.values():
        assert "its time was over" in result["entries"][-1]["message"]


def test_a_part_that_breaks_is_told(gpu, monkeypatch):
    monkeypatch.delenv("MINIDIST_KERNELS")
    found = {}
    gpu("parts").run(["products"], "no such device", 60, found.__setitem__)
    (entry,) = found["products"]["entries"]
    assert "exit code 2" in entry["message"] and "no such device" in entry["log"][-1]


class Clock:
    """A machine whose events cost 1 ms, plus what a contestant adds to `now`."""

    tiny, device = False, "cuda"
    now = 0.0

    def event(self, _contestant):
        mark = types.SimpleNamespace()
        mark.record = lambda: setattr(mark, "at", self.now)
        mark.elapsed_time = lambda end: end.at - mark.at
        return mark

    def run(self, ms):
        self.now += ms

    def synchronize(self):
        pass


def test_a_race_in_turns_and_what_is_made_of_it(gpu):
    bench, clock = gpu("bench"), Clock()
    it = bench.Bench.__new__(bench.Bench)
    it.machine, it.event, it.junk = clock, clock.event, np.zeros(1)
    ms = it.race({"minidist": lambda: clock.run(2), "PyTorch": lambda: clock.run(1)}, 5)
    assert ms == {"minidist": 2, "PyTorch": 1}
    speed = bench.Speed("copy", dict, "GB/s", 4e6, 0.1, 0.9)
    entry = bench.told_as(speed, ms)
    assert entry["figures"] == {"minidist": 2, "PyTorch": 4}
    assert (entry["ratio"], entry["met"]) == (0.5, False)
    assert bench.told_as(speed._replace(goal=0.5), ms)["met"]


def test_the_interpreter_is_not_timed(gpu, machine):
    bench = gpu("bench")
    it = bench.Bench.__new__(bench.Bench)
    it.machine = machine
    with pytest.raises(AssertionError, match="not timed"):
        it.race({"minidist": lambda: None}, 5)


# The record


def test_the_record_is_written_after_each_part(gpu, machine, tmp_path):
    record = gpu("record").Record(machine, tmp_path)
    speed = gpu("bench").told_as(
        gpu("bench").Speed("copy 9", dict, "GB/s", 4e6, 0.1, 0.9), {"minidist": 2, "PyTorch": 1}
    )
    step = {
        "kind": "training", "ms": 100.0, "tokens/s": 1e5, "MFU": 0.4, "peak bytes": 2**31,
        "held bytes": 2**32, "formula": "6N", "peak FLOP/s": 989e12, "sizes": {"layers": 12},
    }  # fmt: skip
    wrong = {"kind": "check", "name": "y", "ok": False, "error": 1.0, "bound": 0.1}
    record.add("one", {"seconds": 1.0, "entries": [{**wrong, "ok": True}, speed]})
    assert len(json.loads(record.path.read_text("utf-8"))["parts"]["one"]["entries"]) == 2
    steps = [{**step, "name": "minidist"}, {**step, "name": "PyTorch eager", "tokens/s": 2e5}]
    record.add("two", {"seconds": 1.0, "entries": [wrong, *steps]})
    assert list(json.loads(record.path.read_text("utf-8"))["parts"]) == ["one", "two"]
    text = gpu("record").text(record)
    assert "two: y: off by 1, bound 0.1" in text and "0.9 NOT met" in text
    assert "MFU 40.0%, 0.50 of PyTorch eager, 2.0 GiB" in text and "989 TFLOP/s" in text
    assert "1 of 2 checks hold; 0 of 1 goals met" in text
    assert record.failures() == [wrong]
