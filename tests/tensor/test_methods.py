"""The class Tensor names every operator and method, and methods.py binds each of them."""

import ast
import inspect
from pathlib import Path

import pytest

from minidist import Tensor
from minidist.tensor import methods, tensor


def body_of_tensor():
    tree = ast.parse(Path(tensor.__file__).read_text("utf-8"))
    found = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "Tensor")
    return [n for n in found.body if isinstance(n, ast.FunctionDef)]


def is_declaration(function: ast.FunctionDef) -> bool:
    return isinstance(function.body[0], ast.Expr) and ast.unparse(function.body[0]) == "..."


DECLARED = {f.name: f for f in body_of_tensor() if is_declaration(f)}


def bindings(source: str) -> list[str]:
    """The names that a file binds, `Tensor.<name> = …`, each on a line of its own."""
    return [
        n.targets[0].attr
        for n in ast.parse(source).body
        if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]).startswith("Tensor.")
    ]


BOUND = bindings(Path(methods.__file__).read_text("utf-8"))


def test_each_declaration_is_bound_once_and_nothing_else_is():
    declared = {*DECLARED, "T", "mT", "__array_ufunc__", "nelement"}
    assert not set(BOUND) - declared, "bound in methods.py, not declared in class Tensor"
    assert not declared - set(BOUND), "declared in class Tensor, not bound in methods.py"
    assert len(BOUND) == len(set(BOUND)), "bound twice"


def test_every_operator_of_python_is_declared():
    pairs = "add sub mul truediv floordiv mod pow matmul and or xor".split()  # noqa: SIM905
    both = {f"__{r}{n}__" for n in pairs for r in ("", "r")}
    assert both | {"__neg__", "__abs__", "__invert__", "__getitem__", "__setitem__"} <= set(
        DECLARED
    )


@pytest.mark.parametrize("name", DECLARED)
def test_a_declaration_has_the_signature_of_what_is_bound(name):
    function = vars(Tensor)[name]
    assert function.__code__.co_filename != tensor.__file__, f"{name} is declared, but not bound"
    bound = list(inspect.signature(function).parameters.values())
    if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in bound):
        return  # it takes whatever its operation takes
    arguments = DECLARED[name].args
    if arguments.kwarg is not None:  # new_zeros and its like take the options of zeros
        return
    declared = [a.arg for a in (*arguments.args[1:], *arguments.kwonlyargs)]
    names = [p.name for p in bound[1:] if p.name != "name"]
    if name.startswith("__"):  # an operator passes no options, such as add's alpha
        assert len(declared) <= len(names)
    else:
        assert len(declared) == len(names)
        assert len(declared) == 1 or declared == names


def test_a_line_that_binds_is_seen():
    assert bindings("Tensor.add = ops.add\nfor n in X:\n    setattr(Tensor, n, 1)") == ["add"]


def test_only_methods_py_adds_to_the_class():
    for path in Path(tensor.__file__).parents[1].rglob("*.py"):
        if path.name != "methods.py":
            text = path.read_text("utf-8")
            assert "setattr(Tensor" not in text and not bindings(text), path


def test_conversions_have_their_own_names():
    with pytest.raises(TypeError, match=r"Tensor\.float\(\) takes 1 positional argument"):
        Tensor([1.0]).float(2)


def test_cuda_of_none_is_the_gpu_in_use():
    """Not `to(device=None)`, which moves nothing."""
    with pytest.raises(RuntimeError, match="device 'cuda'"):
        Tensor([1.0]).cuda(None)
