"""No public operation goes unchecked: each has a case, which calls it, and passes gradcheck."""

import inspect
import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.catalogue import CASES, EVERY, OURS, PLAIN, few, outputs

from minidist import Tensor, ops
from minidist.nn import functional
from minidist.tensor import sampling
from minidist.testing import gradcheck


def public(module) -> dict:
    """The functions that a module offers: its own, or all that a package gathers."""
    own = lambda f: hasattr(module, "__path__") or inspect.unwrap(f).__module__ == module.__name__
    return {
        name: f
        for name, f in vars(module).items()
        if name[0] != "_" and isinstance(f, types.FunctionType) and own(f)
    }


def offered() -> dict:
    """Every function that has a case, or should."""
    return {**public(ops), **public(sampling)}


def uncovered(functions: dict, known: dict) -> list[str]:
    """The names of functions that have no case under any of their names."""
    covered = {inspect.unwrap(f) for name, f in functions.items() if name in known}
    return sorted(name for name, f in functions.items() if inspect.unwrap(f) not in covered)


# Completeness


def test_every_operation_has_a_case():
    assert not uncovered(offered(), EVERY)
    assert not set(EVERY) - set(offered()), "a case for what is not there"
    assert not CASES.keys() & PLAIN.keys()


def test_an_operation_without_a_case_is_seen(monkeypatch):
    monkeypatch.setattr(ops, "novel", lambda x: x, raising=False)
    assert uncovered(offered(), EVERY) == ["novel"]


def test_functional_and_methods_are_these_operations():
    covered = {inspect.unwrap(f) for f in offered().values()}
    assert not [n for n, f in public(functional).items() if inspect.unwrap(f) not in covered]
    functions = {n: f for n, f in vars(OURS).items() if isinstance(f, types.FunctionType)}
    ours = {n: f for n, f in functions.items() if not n.startswith("_")}
    rest = {n: f for n, f in ours.items() if inspect.unwrap(f) not in covered}
    others = [n for n, f in rest.items() if f.__module__ not in NO_OPERATIONS]
    assert not others, "a public function that is no operation"
    methods = {n: f for n, f in vars(Tensor).items() if n[0] != "_" and n not in OWN}
    in_place = {n for n in methods if n.endswith("_") and n[:-1] in EVERY}
    rest = [n for n, f in methods.items() if inspect.unwrap(f) not in covered]
    assert not set(rest) - in_place, "a method that is no operation: test it, and name it in OWN"


NO_OPERATIONS = {  # files whose public functions are checked elsewhere
    "minidist.absent",
    "minidist.amp.autocast",
    "minidist.autograd.checkpoint",
    "minidist.autograd.modes",
    "minidist.tensor.creation",
    "minidist.tensor.dtypes",
    "minidist.tensor.random",
    "minidist.tensor.tensor",
}
OWN = """
    T bfloat16 bool byte char clip_ copy_ cpu cuda data device dim double dtype element_size
    expand_as fill_ float half int is_contiguous is_cuda is_floating_point is_inference is_tensor
    item long mT masked_fill_ nbytes ndim nelement new_empty new_full new_ones new_tensor new_zeros
    normal_ numel numpy of ravel reshape_as shape short size stride tolist to type type_as uniform_
    view_as where zero_
    accumulate_grad alias backward detach detach_ grad grad_fn history is_leaf node register_hook
    register_post_accumulate_grad_hook requires_grad requires_grad_ retain_grad retains_grad root
    wants_grad
""".split()  # noqa: SIM905


# A case calls what it is for


def calls(name, case) -> bool:
    target, seen = offered()[name], []

    def noted(*args, **kwargs):
        seen.append(name)
        return target(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        for space in (OURS, functional, Tensor, ops, ops.transfer):
            for key, f in list(vars(space).items()):
                if callable(f) and inspect.unwrap(f) is inspect.unwrap(target):
                    patch.setattr(space, key, noted)
        run_once(case)
    return bool(seen)


def run_once(case) -> None:
    @given(case.draw)
    @settings(few, max_examples=1)
    def once(drawn):
        case.call(OURS, *map(Tensor, drawn[0]), **drawn[1])

    once()


def test_every_case_calls_its_operation():
    assert not [name for name, case in EVERY.items() if not calls(name, case)]
    assert not calls("sinh", CASES["cosh"]), "the control"


# The cases themselves


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.smooth])
@given(data=st.data())
@few
def test_gradients(name, data):
    arrays, options = data.draw(CASES[name].draw)

    def floats(*x):
        results = outputs(CASES[name].call(OURS, *x, **options))
        return tuple(y for y in results if y.is_floating_point())

    gradcheck(floats, arrays)


@pytest.mark.parametrize("name", PLAIN)
@given(data=st.data())
@few
def test_what_is_called_plain_has_no_gradient(name, data):
    arrays, options = data.draw(PLAIN[name].draw)
    tensors = [Tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
    result = outputs(PLAIN[name].call(OURS, *tensors, **options))
    assert not any(t.requires_grad for t in result)


# Words for what does not fit

MISFITS = {
    "add sub mul div pow maximum minimum remainder floor_divide atan2 eq lt": [(2, 3), (4,)],
    "matmul mm": [(2, 3), (2, 3)],
    "bmm": [(2, 2, 3), (2, 2, 3)],
    "linear": [(2, 3), (4, 2)],
    "dot": [(3,), (2,)],
    "cat": [(2, 3), (2, 4)],
    "stack": [(2, 3), (2, 4)],
    "conv1d": [(1, 2, 5), (3, 4, 2)],
    "conv2d": [(1, 2, 5, 5), (3, 4, 2, 2)],
    "layer_norm": [(2, 3), (2,)],
    "cross_entropy nll_loss": [(2, 3), (3,)],
    "binary_cross_entropy": [(2, 3), (3,)],
    "mv": [(2, 3), (2,)],
}
SPELLED_DIFFERENTLY = {
    "mm": "matmul",
    "bmm": "matmul",
    "dot": "matmul",
    "mv": "matmul",
    "eq": "equal",
    "lt": "less",
}


@pytest.mark.parametrize("names", MISFITS)
def test_a_misfit_names_the_operation_and_both_shapes(names):
    for name in names.split():
        tensors = [Tensor(np.ones(s)) for s in MISFITS[names]]
        if name in ("cross_entropy", "nll_loss"):
            tensors[1] = tensors[1].long()
        arguments = [tensors] if name in ("cat", "stack") else tensors
        arguments = [tensors[0], MISFITS[names][1]] if name == "layer_norm" else arguments
        with pytest.raises((RuntimeError, ValueError)) as error:
            getattr(ops, name)(*arguments)
        for word in (SPELLED_DIFFERENTLY.get(name, name), *map(str, MISFITS[names])):
            assert word in str(error.value), f"{name}: {error.value}"
