"""Every kernel has a naive version, and it is the other one; whole models run on naive kernels.

Each of kernel_cases' CASES runs the kernels of a family and yields what must be equal. Those that
it ran naively are recorded, so a dispatched kernel without a case, or a naive version, fails.
"""

import contextlib
import importlib
import inspect
import pkgutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minidist.kernels.dispatch import Kernel, using
from support.cases import SEEDS, numbers, tiny_tiles
from support.kernel_cases import CASES, Draw

import minidist as md
from minidist import kernels as package
from minidist import nn, optim
from minidist.models.gpt import GPT, GPTConfig

# Kernels (module, or module.function) that have one text, and why
ONE_TEXT = {
    "batch_norm.backward": "backward_affine, then backward_input or forward",
    "contract": "a choice of axes around linear.multiply",
    "cross_entropy.soft_backward_target": "whole arrays: targets seldom have a gradient",
    "flash_backward": "a part of attention's Triton version",
    "flash_triton": "a part of attention's Triton version",
    "gelu.backward": "one product",
    "linear.multiply": "one product",
    "newton_schulz": "the iteration itself, whole arrays; its naive function is what it comes near",
    "norm_triton": "a part of the norms' Triton versions",
    "product": "NumPy's product in pieces, a part of other kernels",
    "recurrent": "its steps' products and lstm_cell or gru_cell",
    "winograd": "a part of conv's loop",
}
# What is no kernel
TOOLS = {
    "arrays", "blas", "capture", "compiling", "dispatch", "each", "each_triton", "elementary",
    "flash_plan", "half_precision", "launch", "loops", "matmul_plan", "matmul_tiles", "matmul_tma",
    "windows",
}  # fmt: skip


# Kernels without a loop or without a tile program, and why
WITHOUT = {
    "conv.backward_bias": "triton: one sum",
    "cross_entropy.part_backward": "triton: a GPU's ranks run the formula",
    "cross_entropy.part_forward": "triton: a GPU's ranks run the formula",
    "cross_entropy.soft_backward": "triton: targets seldom are probabilities",
    "cross_entropy.soft_forward": "triton: targets seldom are probabilities",
    "embedding.forward": "triton: one function of CuPy's",
    "gelu.backward": "numba: one product",
    "linear.multiply": "numba: BLAS",
    "vector_norm.largest": "triton: _norm has it",
    "vector_norm.square_sum": "triton: _norm has it",
}


def run(name, version, seed):
    with using(version):
        return [np.copy(y) for y in CASES[name](Draw(seed))]


def apart(name, seed):
    """How far the naive results are from the others, in units of the largest or of 1."""
    ours, naive = run(name, "numba", seed), run(name, "naive", seed)
    for a, b in zip(ours, naive, strict=True):
        assert a.shape == b.shape and (a.dtype == b.dtype or "i" in a.dtype.kind + b.dtype.kind)
        assert np.array_equal(np.isneginf(a), np.isneginf(b))
        a, b = (np.where(np.isneginf(x), 0, x).astype(float) for x in (a, b))
        yield np.abs(a - b).max(initial=0) / max(1, np.abs(b).max(initial=0))


@pytest.mark.parametrize("name", CASES)
@given(seed=SEEDS, tile=st.integers(1, 30))
@settings(max_examples=15)
def test_naive_is_numpy(name, seed, tile):
    with tiny_tiles(tile, queries=2, rows=3):
        assert max(apart(name, seed)) < 1e-12


# Nothing is left out


def modules():
    for found in pkgutil.iter_modules(package.__path__):
        if found.name not in TOOLS:
            yield found.name, importlib.import_module(f"{package.__name__}.{found.name}")


def dispatched():
    """The dispatched kernels by name."""
    return {
        f"{name}.{kernel}": value
        for name, module in modules()
        for kernel, value in vars(module).items()
        if isinstance(value, Kernel) and value.__module__ == module.__name__
    }


def two_texts(kernel):
    """Whether it has a formula and a version for speed on the CPU."""
    return kernel.versions.get("numba", kernel.formula) is not kernel.formula


@contextlib.contextmanager
def recorded(kernels):
    """The names of kernels whose naive version runs inside."""
    seen = set()

    def noting(name, function):
        def call(*args, **options):
            seen.add(name)
            return function(*args, **options)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name, kernel in kernels.items():
            if two_texts(kernel):
                naive = noting(name, kernel.versions["naive"])
                patch.setitem(kernel.versions, "naive", naive)
        yield seen


def covered(kernels, name):
    """Which of them a case runs naively."""
    with recorded(kernels) as seen:
        for seed in range(5):
            run(name, "naive", seed)
    return seen


def left_out(kernels):
    return set(kernels).difference(ONE_TEXT, *(covered(kernels, name) for name in CASES))


def test_every_dispatched_kernel_has_a_naive_version_and_a_case():
    assert not left_out(dispatched()), "add a naive version, or a case that runs it"


def lacking(kernels):
    """By name, the version that a kernel lacks."""
    found = ((name, v) for name in kernels for v in ("numba", "triton"))
    return {name: v for name, v in found if v not in kernels[name].versions}


def test_every_kernel_has_a_loop_and_a_tile_program():
    assert lacking(dispatched()) == {name: why.split(":")[0] for name, why in WITHOUT.items()}
    assert lacking({"new.kernel": Kernel(lambda x: x)}) == {"new.kernel": "triton"}


def without_ladder(found):
    """Families whose header does not say what each version reads and writes."""
    own = {name.split(".")[0] for name in dispatched()}
    for name, module in found:
        text = module.__doc__ or ""
        figure = any(word in text for word in ("byte", "number", "read"))
        if name in own and not (figure and all(w in text for w in ("formula", "loop", "ladder"))):
            yield name


def test_every_header_walks_up_the_ladder():
    assert not list(without_ladder(modules()))
    assert list(without_ladder([("softmax", contextlib)])) == ["softmax"]


def test_one_without_is_seen():
    @Kernel
    def kernel(x):
        return x

    naive = {**dispatched(), "new.kernel": kernel}
    assert left_out(naive) == {"new.kernel"}


def undispatched(found, one_text=ONE_TEXT):
    """Modules without a dispatched kernel, and functions forward and backward that are not one."""
    kernels = dispatched()
    for name, module in found:
        if name in one_text:
            continue
        if not any(kernel.startswith(f"{name}.") for kernel in kernels):
            yield name
        for function, value in vars(module).items():
            own = inspect.isfunction(value) and value.__module__ == module.__name__
            way = "forward" in function or "backward" in function
            if own and way and function[0] != "_" and "naive" not in function:
                yield f"{name}.{function}"


def test_every_family_is_dispatched_or_has_one_text():
    assert set(undispatched(modules())) <= set(ONE_TEXT), "dispatch it, or say why not: ONE_TEXT"


def test_what_has_one_text_is_there_and_has_no_naive_version():
    one = {name for name, kernel in dispatched().items() if not two_texts(kernel)}
    assert set(ONE_TEXT) <= one.union(undispatched(modules(), {}))


def of_rounded(kernel):
    """The naive version of a kernel whose arrays are rounded to float32 before."""
    naive = kernel.versions["naive"]

    def call(*args, **options):
        for x in args:
            if isinstance(x, np.ndarray) and x.dtype == np.float64:
                x[...] = x.astype(np.float32)
        return naive(*args, **options)

    return call


@pytest.mark.parametrize("name", CASES)
def test_an_error_of_float32_is_seen_in_every_kernel(name, monkeypatch):
    kernels = dispatched()
    for kernel in covered(kernels, name):
        with monkeypatch.context() as patch:
            patch.setitem(kernels[kernel].versions, "naive", of_rounded(kernels[kernel]))
            worst = max(max(apart(name, seed)) for seed in range(20))
        assert worst > 1e-10, f"{kernel} may be off by {worst} in {name}"


# Whole models


def step(model, loss):
    """Parameters and gradients after a step of AdamW."""
    optimizer = optim.AdamW(model.parameters(), lr=0.1)
    value = loss(model)
    value.backward()
    grads = [p.grad.data.copy() for p in model.parameters()]
    optimizer.step()
    return [value.data, *grads, *(p.data for p in model.parameters())]


def gpt():
    config = GPTConfig(layers=2, hidden=8, heads=2, positions=6, vocab=11)
    tokens = md.tensor(np.arange(12).reshape(2, 6) % 11)
    model = GPT(config).double()
    return model, lambda m: nn.functional.cross_entropy(
        m(tokens).reshape(12, 11), tokens.reshape(12)
    )


def cnn():
    layers = [
        nn.Conv2d(2, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
    ]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(36, 5)).double()
    x, target = md.tensor(numbers((3, 2, 6, 6), 0)), md.tensor(np.array([0, 4, 2]))
    return model, lambda m: nn.functional.cross_entropy(m(x), target)


def rnn(kind):
    model, x = getattr(nn, kind)(3, 4, 2).double(), md.tensor(numbers((5, 2, 3), 0))
    return model, lambda m: (m(x)[0] ** 2).sum()


MODELS = {"GPT": gpt, "CNN": cnn, "LSTM": lambda: rnn("LSTM"), "GRU": lambda: rnn("GRU")}
PARTS = {"GPT": "attention.backward", "CNN": "conv.backward_weight", "LSTM": "lstm_cell.backward",
         "GRU": "gru_cell.backward"}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_a_whole_model_on_naive_kernels(name):
    results, kernels = [], dispatched()
    with recorded(kernels) as seen:
        for version in ("numba", "naive"):
            md.manual_seed(0)
            assert (PARTS[name] in seen) is False
            with using(version):
                results.append(step(*MODELS[name]()))
    assert PARTS[name] in seen
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)
