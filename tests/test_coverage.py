"""Nothing public goes unchecked: every operation by finite differences and beside PyTorch."""

import inspect
import types
from types import SimpleNamespace

import numpy as np
import pytest
from cases import numbers, shapes
from catalogue import CASES, OURS, PLAIN
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from parity import compare, to_torch, torch

from minidist import Tensor, derived, ops, spelling
from minidist.nn import functional
from minidist.testing import gradcheck

THEIRS = SimpleNamespace(**vars(torch) | {"F": torch.nn.functional})
EVERY = CASES | PLAIN
few = settings(max_examples=5, suppress_health_check=list(HealthCheck))


def public(module) -> dict:
    """The functions that a module offers: its own, or all that a package gathers."""
    own = lambda f: hasattr(module, "__path__") or inspect.unwrap(f).__module__ == module.__name__
    return {
        name: f
        for name, f in vars(module).items()
        if name[0] != "_" and isinstance(f, types.FunctionType) and own(f)
    }


def uncovered(offered: dict, known: dict) -> list[str]:
    return sorted(set(offered) - set(known))


def outputs(result) -> tuple:
    return tuple(result) if isinstance(result, tuple | list) else (result,)


# Completeness


def test_every_operation_has_a_case():
    assert not uncovered(public(ops), EVERY)
    assert not uncovered(public(derived), EVERY)
    assert not set(EVERY) - set(public(ops)) - set(public(derived)), "a case for what is not there"
    assert not CASES.keys() & PLAIN.keys()


def test_an_operation_without_a_case_is_seen(monkeypatch):
    monkeypatch.setattr(ops, "novel", ops.clone, raising=False)
    assert uncovered(public(ops), EVERY) == ["novel"]


def test_functional_and_methods_are_these_operations():
    covered = {inspect.unwrap(f) for f in [*public(ops).values(), *public(derived).values()]}
    assert not [n for n, f in public(functional).items() if inspect.unwrap(f) not in covered]
    named = {n: f for n, f in spelling.SPELLED.items() if n not in OWN}
    assert not [n for n, f in named.items() if inspect.unwrap(f) not in covered]
    methods = {n: f for n, f in vars(Tensor).items() if n[0] != "_" and n not in OWN}
    in_place = {n for n in methods if n.endswith("_") and n[:-1] in EVERY}
    rest = [n for n, f in methods.items() if inspect.unwrap(f) not in covered]
    assert not set(rest) - in_place, "a method that is no operation: test it, and name it in OWN"


OWN = """
    T bool byte char clip_ copy_ cpu data device dim double dtype element_size expand_as fill_ float
    half int is_contiguous is_floating_point is_tensor item long mT masked_fill_ nbytes ndim
    nelement new_empty new_full new_ones new_zeros normal_ numel numpy ravel reshape_as shape short
    size tolist to type type_as uniform_ view_as where zero_
""".split()  # noqa: SIM905


# A case calls what it is for


def calls(name, case) -> bool:
    target, seen = {**public(derived), **public(ops)}[name], []

    def noted(*args, **kwargs):
        seen.append(name)
        return target(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        for space in (OURS, functional, Tensor, ops):
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


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides:UserWarning")  # PyTorch's kl_div
@pytest.mark.parametrize("name", EVERY)
@given(data=st.data(), dtype=st.sampled_from(["float64", "float32"]))
@settings(few, max_examples=7)
def test_parity(name, data, dtype):
    case = EVERY[name]
    arrays, options = data.draw(case.draw)
    theirs = case.theirs or case.call
    count = len(outputs(case.call(OURS, *map(Tensor, arrays), **options)))
    assert count == len(outputs(theirs(THEIRS, *map(to_torch, arrays), **options)))
    for k in range(count):
        compare(
            lambda *x, k=k: outputs(case.call(OURS, *x, **options))[k],
            lambda *x, k=k: outputs(theirs(THEIRS, *x, **options))[k],
            arrays, dtype,
        )  # fmt: skip


def test_what_is_not_pytorchs_is_killed():
    """The controls: another value, another gradient, another dtype."""
    x = numbers((2, 3), 0)
    for wrong, words in (
        (lambda x: x * 1.000001, "value: off by"),
        (lambda x: x + (x - x.detach()), "gradient 0: off by"),
        (lambda x: x.float(), "value: float32, PyTorch's float64"),
        (lambda x: x[None], "shape"),
    ):
        with pytest.raises(AssertionError, match=words):
            compare(wrong, lambda x: x * 1, [x])


@pytest.mark.parametrize("name", PLAIN)
@given(data=st.data())
@few
def test_what_is_called_plain_has_no_gradient(name, data):
    arrays, options = data.draw(PLAIN[name].draw)
    tensors = [Tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
    result = outputs(PLAIN[name].call(OURS, *tensors, **options))
    assert not any(t.requires_grad for t in result)


# Errors: another shape for one of the arguments

REASONS = {
    "swiglu packed_attention rotary_embedding": "PyTorch has no such function: composed there",
    "norm": "PyTorch wants two dimensions for a matrix norm, here there are none",
    "gather scatter scatter_add": "PyTorch lets an empty index have any shape",
    "cross_entropy nll_loss ctc_loss index_add index_select": "PyTorch has a class for each misfit",
    "batch_norm group_norm rms_norm scaled_dot_product_attention": "so it has if dimensions lack",
    "adaptive_avg_pool2d avg_pool2d": "PyTorch takes a plane without channels for one with them",
    "linear": "PyTorch broadcasts a bias of one number",
    "meshgrid diag": "their own words",
}
SHAPED = [n for n in EVERY if n not in " ".join(REASONS).split()]


def outcome(call, arrays, options):
    """The shapes that come out, or the class of the error."""
    try:
        with np.errstate(all="ignore"):
            return [tuple(t.shape) for t in outputs(call(*arrays, **options))]
    except Exception as error:
        return type(error)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", SHAPED)
@given(data=st.data())
@settings(few, max_examples=5)
def test_what_does_not_fit_is_pytorchs_error(name, data):
    case = EVERY[name]
    arrays, options = data.draw(case.draw)
    k = data.draw(st.integers(0, len(arrays) - 1))
    shape = data.draw(shapes(min_dims=2, max_dims=4, min_side=1))
    arrays[k] = (
        np.resize(arrays[k], shape)
        if arrays[k].size
        else np.full(shape, 0.5).astype(arrays[k].dtype)
    )
    ours = outcome(case.call, [OURS, *map(Tensor, arrays)], options)
    theirs = outcome(case.theirs or case.call, [THEIRS, *map(to_torch, arrays)], options)
    assert ours == theirs, f"{[a.shape for a in arrays]} {options}"


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
            getattr(ops, name)(*arguments) if name != "mv" else derived.mv(*arguments)
        for word in (SPELLED_DIFFERENTLY.get(name, name), *map(str, MISFITS[names])):
            assert word in str(error.value), f"{name}: {error.value}"
