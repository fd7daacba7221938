"""The laws of the house, enforced: which way imports point, how files open, what loads."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted([*(ROOT / "minidist").rglob("*.py"), *(ROOT / "kernels").rglob("*.py")])
each_file = pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))

# A room may import those listed with it, and itself. What is not listed (cli, trace, lesson)
# looks at the others from above; nothing listed may look back at it.
TAPE = {
    "anomaly",
    "autograd",
    "deferred",
    "gradients",
    "graph",
    "hooks",
    "modes",
    "recompute",
    "saved",
    "views",
}
BASE = TAPE | {
    "array",
    "creation",
    "cuda",
    "derived",
    "device",
    "draws",
    "errors",
    "inplace",
    "printing",
    "random",
}
BASE |= {"kernels", "precision", "spelling", "tensor", "transfer"}
ENGINE = BASE | {"ops", "nn", "optim", "kernels"}
LAYERS = ENGINE | {"comm", "parallel", "models"}
MAY_IMPORT = {
    "kernels": set(),
    "errors": set(),
    "comm": {"errors", "kernels"},  # arrays, NumPy's or CuPy's
    "array": {"errors", "kernels"},
    "cuda": {"errors", "kernels"},
    "precision": {"array", "autograd", "kernels", "modes"},
    "device": {"cuda", "errors", "kernels"},
    "printing": {"errors"},
    "random": {"errors"},
    **dict.fromkeys(TAPE, TAPE | {"array", "errors", "kernels", "tensor"}),
    "recompute": TAPE | {"precision", "random", "tensor"},
    "inplace": TAPE
    | {"array", "kernels", "ops", "random", "tensor"},  # a result, written over an argument
    "tensor": BASE | {"ops"},
    "transfer": BASE | {"ops"},
    "creation": BASE,
    "derived": BASE | {"ops"},  # made of operations
    "draws": BASE,
    "spelling": BASE | {"ops"},
    "testing": BASE,
    "ops": BASE | {"kernels", "comm"},
    "nn": BASE | {"ops", "kernels", "comm"},
    "optim": BASE | {"ops", "nn", "kernels", "comm"},
    "parallel": ENGINE | {"comm"},
    "models": LAYERS,
    "data": BASE | {"comm"},
    "plan": LAYERS,
    "amp": ENGINE | {"comm"},
    "train": LAYERS | {"amp", "data", "plan"},  # a run is measured by the plan's formulas
}
HEAVY = ("mpi4py", "matplotlib", "rich", "tyro", "torch", "cupy", "triton", "hypothesis")


def room_of(module: str) -> str:
    """ "minidist.ops.shape" -> "ops"; the package itself is "minidist"."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else parts[0]


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = ("minidist", *parts) if parts[0] == "kernels" else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_rooms(source: str, module: str, is_package: bool, rooms: set[str]) -> set[str]:
    """The rooms that a module imports, anywhere in it, `if TYPE_CHECKING` aside."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".")[: -node.level + is_package or None] if node.level else []
            whence = ".".join([*base, *filter(None, [node.module])])
            names = [(whence, alias.name) for alias in node.names]
        else:
            continue
        for whence, name in names:
            if whence == "minidist" and name in rooms:
                found.add(name)
            elif whence.split(".")[0] == "minidist":
                found.add(room_of(whence))
    return found


def rooms() -> set[str]:
    return {room_of(module_of(p)) for p in FILES} - {"minidist"}


def breaches(source: str, module: str, is_package: bool = False) -> set[str]:
    room = room_of(module)
    if room not in MAY_IMPORT:
        return set()
    return imported_rooms(source, module, is_package, rooms()) - MAY_IMPORT[room] - {room}


@each_file
def test_imports_point_one_way(path):
    found = breaches(path.read_text("utf-8"), module_of(path), path.name == "__init__.py")
    assert not found, f"{module_of(path)} may not import {', '.join(sorted(found))}"


@pytest.mark.parametrize(
    "module, source, found",
    [
        ("minidist.comm.mpi.world", "from ..autograd import record", {"autograd"}),
        ("minidist.comm.mpi.world", "from minidist import autograd", {"autograd"}),
        ("minidist.comm.mpi.world", "import minidist.tensor.tensor", {"tensor"}),
        ("minidist.comm.mpi.world", "from minidist import Tensor", {"minidist"}),
        ("minidist.comm.mpi.world", "def f():\n    from .. import ops", {"ops"}),
        ("minidist.comm.mpi.world", "from .hub import Hub", set()),
        ("minidist.comm.collectives.ring", "from ... import nn", {"nn"}),
        ("minidist.comm.collectives.ring", "from ..communicator import C", set()),
        ("minidist.kernels.gelu", "from minidist.ops import add", {"ops"}),
        ("minidist.kernels.gelu", "from .tiles import flat_tiles\nimport numpy", set()),
        ("minidist.nn.layers", "from ..models.gpt import GPT", {"models"}),
        ("minidist.models.gpt", "from ..train import loop", {"train"}),
        ("minidist.ops.shape", "from ..comm import all_reduce", set()),
        ("minidist.tensor.tensor", "if TYPE_CHECKING:\n    from .train import x", set()),
    ],
)
def test_a_wrong_import_is_seen(module, source, found):
    assert breaches(source, module) == found


def test_a_package_counts_its_own_dots():
    assert breaches("from .. import train", "minidist.comm.collectives", True) == set()
    assert breaches("from ... import train", "minidist.comm.collectives", True) == {"train"}


# What each file says of itself


@each_file
def test_a_file_opens_with_a_sentence_on_what_it_is_for(path):
    text = path.read_text("utf-8")
    if text:
        docstring = ast.get_docstring(ast.parse(text))
        assert docstring and docstring[0] != " ", "a file opens with a sentence on what it is for"


# What `import minidist` costs


def fresh(code: str) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    job = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True, text=True, env=environment, check=False, timeout=120,
    )  # fmt: skip
    assert job.returncode == 0, job.stderr
    return job.stdout


def loaded_by(imports: str) -> set[str]:
    code = f"{imports}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    return {m.split(".")[0] for m in json.loads(fresh(code))}


def test_import_minidist_loads_nothing_heavy():
    loaded = loaded_by("import minidist, minidist.nn, minidist.optim, minidist.models.gpt")
    assert not loaded & set(HEAVY)
    assert "minidist" in loaded


def test_a_heavy_import_is_seen():
    assert "hypothesis" in loaded_by("import minidist, hypothesis")


def test_import_changes_no_state():
    code = """
import numpy, random, os
before = numpy.geterr(), random.getstate(), dict(os.environ)
import minidist, minidist.nn, minidist.optim, minidist.models.gpt
assert before == (numpy.geterr(), random.getstate(), dict(os.environ))
"""
    fresh(code)


def test_the_time_of_the_import_is_told():
    code = """
import numpy, time
start = time.perf_counter()
import minidist
print(time.perf_counter() - start)
"""
    seconds = min(float(fresh(code)) for _ in range(3))
    print(f"import minidist: {seconds * 1000:.0f} ms over numpy")
    assert seconds < 5, "an import that is slow on any machine"
