"""The activations of our GPT: formula and count agree to the byte, in every layout."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidist import random
from minidist.comm import simulate
from minidist.models.gpt import GPT, GPTConfig
from minidist.plan import gpt
from minidist.plan.gpt import activation_bytes
from minidist.plan.tape import saved_bytes
from minidist.tensor.tensor import Tensor


def both(comm, config, b, sp, dtype):
    model = GPT(config, tp=comm, sequence_parallel=sp).to(dtype)
    tokens = Tensor(np.zeros((b, config.positions), np.int64))
    with random.at(0, 0, 0):
        loss = model.loss(tokens, tokens.clone(), reduction="sum")
    e = np.dtype(dtype).itemsize
    formula = activation_bytes(config, b, config.positions, e, model.shares(config.positions))
    return formula, sum(saved_bytes(loss).values())


@settings(max_examples=25)
@given(
    ranks=st.integers(1, 4), sp=st.booleans(), layers=st.integers(1, 3), b=st.integers(1, 3),
    width=st.integers(1, 3), s=st.integers(4, 9), vocab=st.integers(4, 9),
    dropout=st.sampled_from([0.0, 0.3]), dtype=st.sampled_from(["float32", "float64"]),
)  # fmt: skip
def test_formula_and_count_agree(ranks, sp, layers, b, width, s, vocab, dropout, dtype):
    config = GPTConfig(layers, 4 * width, 4, s, vocab, dropout)
    for formula, count in simulate(lambda comm: both(comm, config, b, sp, dtype), ranks):
        assert formula == count


@pytest.mark.parametrize("s", [256, 257])
def test_a_long_sequence_keeps_no_probabilities(s):
    config = GPTConfig(1, 8, 2, s, 5)
    formula, count = simulate(lambda comm: both(comm, config, 1, False, "float32"), 1)[0]
    assert formula == count


def test_a_wrong_formula_is_seen(monkeypatch):
    monkeypatch.setattr(gpt, "_mask", lambda *args: 0)
    with pytest.raises(AssertionError):
        test_formula_and_count_agree()
