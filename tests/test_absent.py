"""Names that PyTorch has and minidist not: the list is complete, and the substitutes exist.

For hasattr, copy, pickle and inspect nothing changes.
"""

import builtins
import copy
import importlib
import inspect
import pickle
import pydoc
import re
import sys

import numpy as np
import pytest
from support.names_of_pytorch import PLACES, at, public

import minidist as md
from minidist import Tensor, nn, optim
from minidist.absent import AbsentNames, explain
from minidist.absent.names import NAMES
from minidist.absent.substitutes import TABLE
from minidist.nn import functional as F


def unknown(place: str, names) -> list[str]:
    """The public names of PyTorch that neither minidist nor the list has."""
    listed = NAMES[place].split()
    return [n for n in names if n not in listed and not hasattr(at(place), n)]


@pytest.mark.parametrize("place", PLACES)
def test_every_public_name_of_pytorch_is_here_or_listed(place):
    torch = pytest.importorskip("torch")
    if not torch.__version__.startswith("2.13"):
        pytest.skip(f"the list is of PyTorch 2.13, installed is {torch.__version__}")
    names = public(place)
    assert not unknown(place, names), "add it to minidist/absent/names.py"
    assert not set(NAMES[place].split()) - set(names), "PyTorch has no such name"
    assert unknown(place, ["frobnicate"]) == ["frobnicate"]


# Substitutes


def missing_in(text: str) -> list[str]:
    """The names in a substitute that are nowhere to be found."""
    spaces = {"md": md, "x": Tensor, "y": Tensor, "nn": nn, "optim": optim, "F": F, "np": np}
    found = re.findall(r"(?<![\w.])(md|x|y|nn|optim|F|np|minidist|safetensors)((?:\.\w+)+)", text)
    return [first + rest for first, rest in found if not resolves(spaces, first, rest[1:])]


def resolves(spaces: dict, first: str, rest: str) -> bool:
    space, parts = spaces.get(first), rest.split(".")
    if space is None:
        for k in range(len(parts), -1, -1):
            try:
                space = importlib.import_module(".".join([first, *parts[:k]]))
            except ImportError:
                continue
            parts = parts[k:]
            break
    for part in parts:
        if isinstance(inspect.getattr_static(space, part, None), property):
            return part == parts[-1] or part == "dtype"
        if space is Tensor and part in Tensor.__slots__:
            return True
        if not hasattr(space, part):
            return False
        space = getattr(space, part)
    return True


@pytest.mark.parametrize("place", TABLE)
def test_every_substitute_exists(place):
    for line in TABLE[place].strip().splitlines():
        names, colon, substitute = line.strip().partition(": ")
        assert colon and substitute, f"a line is `names: substitute`, not {line!r}"
        assert not set(missing_in(substitute)), line
        for name in names.split():
            assert name in NAMES[place].split() or hasattr(at(place), name), f"{name}: not listed"


def test_a_substitute_that_is_not_there_is_seen():
    text = "md.einsum, md.nowhere, x.shape, x.nowhere(1), minidist.data, minidist.nowhere.at"
    assert missing_in(text) == ["md.nowhere", "x.nowhere", "minidist.nowhere.at"]


# What the error says


SAID = {
    "md.kron": "module 'minidist' has no attribute 'kron': PyTorch has torch.kron, minidist does "
    "not: use md.einsum",
    "md.fft": "PyTorch has torch.fft, minidist does not: there is nothing in its place",
    "md.conv1d": "use F.conv1d",
    "md.ravel": "use x.ravel",
    "md.acosh_": "use x.copy_(x.acosh(…))",
    "md.zeroes": "module 'minidist' has no attribute 'zeroes': did you mean 'zeros'?",
    "md.nonsense_": "module 'minidist' has no attribute 'nonsense_'",
    "md.__wrapped__": "module 'minidist' has no attribute '__wrapped__'",
    "x.kron": "'Tensor' object has no attribute 'kron': PyTorch has torch.Tensor.kron, minidist",
    "Tensor.kron": "type object 'Tensor' has no attribute 'kron': PyTorch has torch.Tensor.kron",
    "x.acosh_": "use x.copy_(x.acosh(…))",
    "x.prelu": "use F.prelu",
    "x.sume": "'Tensor' object has no attribute 'sume'",
    "nn.Bilinear": "PyTorch has torch.nn.Bilinear, minidist does not: use md.einsum",
    "nn.Lineer": "did you mean 'Linear'?",
    "F.softmin": "PyTorch has torch.nn.functional.softmin, minidist does not: use F.softmax of -x",
    "F.relu_": "use x.relu_",
    "optim.LBFGS": "PyTorch has torch.optim.LBFGS, minidist does not: there is nothing in its",
    "cuda.manual_seed_all": "PyTorch has torch.cuda.manual_seed_all, minidist does not: use md.",
    "autograd.Function": "use minidist.ops.op.differentiable",
    "utils.weight_norm": "PyTorch has torch.nn.utils.weight_norm, minidist does not: there",
    "lr_scheduler.CyclicLR": "use optim.lr_scheduler.LambdaLR",
    "optim.Adaam": "did you mean 'Adam'?",
}  # fmt: skip


@pytest.mark.parametrize("line", SAID)
def test_the_error_says_that_pytorch_has_it_and_what_to_use(line):
    names = {"md": md, "Tensor": Tensor, "x": md.ones(2), "nn": nn, "F": F, "optim": optim}
    names |= {"cuda": md.cuda, "autograd": md.autograd, "utils": nn.utils}
    names["lr_scheduler"] = optim.lr_scheduler
    with pytest.raises(AttributeError) as error:
        eval(line, names)
    text = str(error.value)
    assert SAID[line] in text and error.value.name == line.partition(".")[2]
    assert (":" in text) == (":" in SAID[line] or "use" in SAID[line] or "mean" in SAID[line])
    short, _, name = line.partition(".")
    assert not hasattr(names[short], name) and getattr(names[short], name, 5) == 5


def test_a_module_that_is_not_imported_is_named(monkeypatch):
    monkeypatch.delattr(md, "lesson", raising=False)
    with pytest.raises(AttributeError, match=r"a module of its own: import minidist\.lesson"):
        md.lesson  # noqa: B018


def test_python_itself_suggests_a_method():
    """It ends the traceback with "Did you mean: 'squeeze'?" if it is told the object."""
    x = md.ones(2)
    with pytest.raises(AttributeError) as error:
        x.squeze()
    assert (error.value.obj, error.value.name) == (x, "squeze") and "squeeze" in dir(x)


# What stays as it was


def test_tensors_are_copied_pickled_and_looked_at_as_before():
    x, absent = md.ones(2, 2, requires_grad=True), vars(AbsentNames)
    for twin in (copy.copy(x), copy.deepcopy(x), pickle.loads(pickle.dumps(x))):
        assert twin.tolist() == [[1, 1], [1, 1]] and twin.requires_grad
    assert "kron" in absent and "kron" not in dir(x) and {"sum", "data", "grad"} <= set(dir(x))
    assert all(name not in absent or hasattr(x, name) for name in dir(x))
    members = dict(inspect.getmembers(x))
    assert "kron" not in members and members["shape"] == (2, 2)
    assert "einsum" in pydoc.render_doc(md.einsum) and "matmul" in pydoc.render_doc(Tensor)
    with pytest.raises(AttributeError):
        x.kron = 1
    assert inspect.getmodule(md.einsum) is not None and inspect.getsource(md)


def test_a_subclass_may_have_an_absent_name():
    class Mine(Tensor):
        def kron(self):
            return "mine"

    class Free(Tensor):
        pass

    assert Mine([1.0]).kron() == "mine" and "kron" in dir(Mine([1.0]))
    free = Free([1.0])
    free.values = 3
    assert free.values == 3 and hasattr(free, "values") and not hasattr(Free([1.0]), "values")


def test_nothing_stands_in_the_way_of_attributes_that_are_there():
    """`__getattr__` or `__getattribute__` in the class would slow down each `x.data`."""
    assert not [c for c in Tensor.__mro__[:-1] if {"__getattr__", "__getattribute__"} & {*vars(c)}]
    assert type(Tensor) is type, "isinstance(x, Tensor) asks no metaclass"
    for module in (md, nn, F, optim):
        assert "__getattribute__" not in vars(module) and type(module) is type(builtins)


def test_a_name_that_is_given_later_is_found():
    from types import ModuleType

    place = sys.modules["minidist.optim"]
    try:
        sys.modules["minidist.optim"] = made = ModuleType("minidist.optim")
        explain("minidist.optim")
        with pytest.raises(AttributeError, match=r"PyTorch has torch\.optim\.NAdam"):
            made.NAdam  # noqa: B018
        made.NAdam = 7
        assert made.NAdam == 7
    finally:
        sys.modules["minidist.optim"] = place
