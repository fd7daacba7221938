"""Imports: which way they point, that none go in circles, and what `import minidist` loads."""

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

# A folder may import those listed with it, and itself. A folder that is not listed (cli, trace,
# lesson) looks at the others from above; nothing listed may import it.
BASE = {"absent", "errors", "kernels", "autograd", "tensor"}
ENGINE = BASE | {"amp", "comm", "ops"}
LAYERS = ENGINE | {"nn", "optim", "parallel", "models", "plots"}
MAY_IMPORT = {
    "kernels": set(),
    "errors": set(),
    "plots": {"errors"},
    "absent": set(),
    "comm": {"errors", "kernels"},  # arrays, never Tensors
    "autograd": {"absent", "errors", "kernels"},
    "tensor": {"absent", "errors", "kernels", "autograd"},
    "testing": BASE,
    "amp": BASE | {"comm"},
    "ops": ENGINE,
    "nn": ENGINE,
    "optim": ENGINE | {"nn"},
    "parallel": ENGINE | {"nn", "optim", "plots"},
    "models": LAYERS,
    "data": BASE | {"comm"},
    "plan": LAYERS,
    "train": LAYERS | {"data", "plan"},  # a run is measured by the plan's formulas
}
# Files that stand above the rest of their folder, and what they may import besides.
ABOVE = {
    "autograd.checkpoint": {"tensor"},  # replays random numbers, and looks for Tensors
    "tensor.methods": {"ops"},  # binds the methods to the operations
    "tensor.inplace": {"ops"},  # writes the result of an operation over an argument
}
HEAVY = ("mpi4py", "matplotlib", "rich", "tyro", "torch", "cupy", "triton", "hypothesis")


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = ("minidist", *parts) if parts[0] == "kernels" else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = frozenset(map(module_of, FILES))
FOLDERS = {m.split(".")[1] for m in MODULES if "." in m}


def without_type_checking(source: str) -> ast.Module:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    return tree


def imported(source: str, module: str, is_package: bool, modules=MODULES) -> set[str]:
    """The modules that a module imports, anywhere in it, `if TYPE_CHECKING` aside.

    `from package import module` is an import of the module; the import of its parents, which
    Python adds, does not count. Strings count where importlib.import_module is used.
    """
    tree, found = without_type_checking(source), set()
    by_name = "import_module" in source
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".")[: -node.level + is_package or None] if node.level else []
            start = ".".join([*base, *filter(None, [node.module])])
            names = {f"{start}.{alias.name}" for alias in node.names}
            found |= names & modules
            if names - modules:
                found.add(start)
        elif by_name and isinstance(node, ast.Constant) and node.value in modules:
            found.add(node.value)
    return {m for m in found if m.split(".")[0] == "minidist"}


def graph() -> dict[str, set[str]]:
    """Each module of the program, and the modules that it imports."""
    return {
        module_of(p): imported(p.read_text("utf-8"), module_of(p), p.name == "__init__.py")
        for p in FILES
    }


# Which way imports point


def breaches(source: str, module: str, is_package: bool = False) -> set[str]:
    """The folders that a module imports and may not."""
    name = module.removeprefix("minidist.")
    folder = name.split(".")[0]
    if folder not in MAY_IMPORT:
        return set()
    allowed = MAY_IMPORT[folder] | ABOVE.get(name, set()) | {folder}
    used = {m.split(".")[1] if "." in m else m for m in imported(source, module, is_package)}
    return used - allowed


@each_file
def test_imports_point_one_way(path):
    found = breaches(path.read_text("utf-8"), module_of(path), path.name == "__init__.py")
    assert not found, f"{module_of(path)} may not import {', '.join(sorted(found))}"


@pytest.mark.parametrize(
    "module, source, found",
    [
        ("minidist.comm.ledger", "from ..autograd.tape import record", {"autograd"}),
        ("minidist.comm.ledger", "from minidist import autograd", {"autograd"}),
        ("minidist.comm.ledger", "import minidist.tensor.tensor", {"tensor"}),
        ("minidist.comm.ledger", "from minidist import Tensor", {"minidist"}),
        ("minidist.comm.ledger", "def f():\n    from .. import ops", {"ops"}),
        ("minidist.comm.ledger", "from .communicator import Communicator", set()),
        ("minidist.comm.collectives.ring", "from ... import nn", {"nn"}),
        ("minidist.comm.collectives.ring", "from ..communicator import C", set()),
        ("minidist.kernels.gelu", "from minidist.ops import add", {"ops"}),
        ("minidist.kernels.gelu", "from .launch import contiguous\nimport numpy", set()),
        ("minidist.nn.layers", "from ..models.gpt import GPT", {"models"}),
        ("minidist.models.gpt", "from ..train import loop", {"train"}),
        ("minidist.ops.shape", "from ..comm import all_reduce", set()),
        ("minidist.tensor.tensor", "if TYPE_CHECKING:\n    from ..train import x", set()),
        ("minidist.tensor.tensor", "from ..ops import add", {"ops"}),
        ("minidist.tensor.methods", "from ..ops import add", set()),
    ],
)
def test_a_wrong_import_is_seen(module, source, found):
    assert breaches(source, module) == found


def test_a_package_counts_its_own_dots():
    assert breaches("from .. import train", "minidist.comm.collectives", True) == set()
    assert breaches("from ... import train", "minidist.comm.collectives", True) == {"train"}


def test_what_is_listed_is_there():
    assert set(MAY_IMPORT) <= FOLDERS
    assert {f"minidist.{name}" for name in ABOVE} <= MODULES


# No cycles


def cycles(edges: dict[str, set[str]]) -> list[list[str]]:
    """The strongly connected components of more than one module (Tarjan 1972)."""
    number, low, stack, found = {}, {}, [], []

    def visit(m):
        number[m] = low[m] = len(number)
        stack.append(m)
        for other in sorted(edges.get(m, ())):
            if other not in number:
                visit(other)
                low[m] = min(low[m], low[other])
            elif other in stack:
                low[m] = min(low[m], number[other])
        if low[m] == number[m]:
            component = stack[stack.index(m) :]
            del stack[stack.index(m) :]
            if len(component) > 1 or m in edges.get(m, ()):
                found.append(sorted(component))

    for m in sorted(edges):
        if m not in number:
            visit(m)
    return found


def test_there_is_no_cycle_of_imports():
    assert cycles(graph()) == []


def test_a_planted_cycle_is_seen():
    edges = graph()
    assert "minidist.ops.op" in edges["minidist.ops.reduce"]
    edges["minidist.ops.op"] |= {"minidist.ops.reduce"}
    assert any("minidist.ops.op" in found for found in cycles(edges))


def test_imports_in_functions_and_by_name_are_seen():
    """Three modules in a ring: a plain import, one in a function, one of a constant string."""
    modules = frozenset({"minidist.a", "minidist.b", "minidist.c"})
    texts = {
        "minidist.a": "from . import b",
        "minidist.b": "def f():\n    from .c import x",
        "minidist.c": "from importlib import import_module\nimport_module('minidist.a')",
    }
    edges = {m: imported(text, m, False, modules) for m, text in texts.items()}
    assert cycles(edges) == [sorted(modules)]
    edges["minidist.c"] = imported("if TYPE_CHECKING:\n    from .a import x", "minidist.c", False)
    assert cycles(edges) == []


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
