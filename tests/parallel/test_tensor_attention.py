"""Attention by heads, grouped ones too: one process's values and gradients on any ranks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minidist as md
from minidist.comm import Ledger, simulate
from minidist.comm.comm_self import CommSelf
from minidist.nn import functional as F
from minidist.parallel.layout import full_state_dict, shard_indices, shards_of
from minidist.parallel.sequence import Tokens, partial_parameters, sum_partial
from minidist.parallel.tensor import attention
from minidist.parallel.tensor.attention import ParallelAttention
from minidist.tensor.tensor import Tensor

RNG = np.random.default_rng(0)
X, G = RNG.normal(size=(2, 2, 5, 12))


def run(comm, heads, kv_heads, causal, sp):
    """Weights, this rank's tokens, its output and input gradient, and all gradients whole."""
    tokens = Tokens(comm) if sp else None
    mine = slice(None)
    if tokens is not None:
        tokens.length = 5
        mine = tokens.local
    md.manual_seed(1)
    layer = ParallelAttention(
        12, heads, kv_heads, is_causal=causal, comm=comm, tokens=tokens, dtype="float64"
    )
    x = Tensor(X[:, mine].copy()).requires_grad_()
    y = layer(x)
    y.backward(Tensor(G[:, mine].copy()))
    if sp:
        sum_partial(partial_parameters(layer), comm)
    parts = shards_of(layer)
    grads = {n: parts[n].gather(p.grad.data) if n in parts else p.grad.data
             for n, p in layer.named_parameters()}  # fmt: skip
    return full_state_dict(layer), mine, y.data, x.grad.data, grads


@settings(max_examples=40)
@given(
    ranks=st.integers(1, 3), heads=st.sampled_from([(6, 3), (6, 6), (12, 4), (3, 3)]),
    causal=st.booleans(), sp=st.booleans(), seed=st.integers(0, 9),
)  # fmt: skip
def test_it_is_one_process(ranks, heads, causal, sp, seed):
    state, _, y, dx, grads = run(CommSelf(), *heads, causal, False)
    for found, mine, my, mdx, mgrads in simulate(
        lambda comm: run(comm, *heads, causal, sp), ranks, seed=seed
    ):
        assert all((found[k] == state[k]).all() for k in state), "the same first weights"
        np.testing.assert_allclose(my, y[:, mine], rtol=0, atol=1e-13)
        np.testing.assert_allclose(mdx, dx[:, mine], rtol=0, atol=1e-13)
        for name, wanted in grads.items():
            np.testing.assert_allclose(mgrads[name], wanted, rtol=0, atol=1e-12)


def test_alone_it_is_attention_written_out():
    md.manual_seed(1)
    layer = ParallelAttention(12, 6, 3, dtype="float64")
    rows = F.linear(Tensor(X), layer.qkv.weight, layer.qkv.bias)
    q, k, v = (rows[..., a:b].reshape(2, 5, -1, 2) for a, b in ((0, 12), (12, 18), (18, 24)))
    heads = []
    for h in range(6):
        one = (t[:, :, i] for t, i in ((q, h), (k, h // 2), (v, h // 2)))
        heads.append(F.scaled_dot_product_attention(*one, is_causal=True))
    expected = F.linear(md.cat(heads, -1), layer.out_proj.weight, layer.out_proj.bias)
    np.testing.assert_allclose(layer(Tensor(X)).data, expected.data, rtol=0, atol=1e-14)


def test_it_sends_one_sum_forward_and_one_backward():
    def main(comm):
        layer = ParallelAttention(12, 6, 3, comm=comm, dtype="float64")
        with Ledger(comm) as ledger:
            layer(Tensor(X).requires_grad_()).backward(Tensor(G))
        return ledger.by("collective")

    assert simulate(main, 2) == [{("all_reduce",): (2, 2 * X.nbytes)}] * 2


class Next:
    """The rank after this one, for the rule of shares."""

    def __init__(self, comm):
        self.rank, self.size = (comm.rank + 1) % comm.size, comm.size


def test_keys_of_another_group_are_seen(monkeypatch):
    ours = lambda: simulate(lambda comm: run(comm, 6, 3, True, False), 3)[0][2]
    expected = run(CommSelf(), 6, 3, True, False)[2]
    np.testing.assert_allclose(ours(), expected, rtol=0, atol=1e-13)
    monkeypatch.setattr(attention, "shard_indices", lambda n, comm, unit: shard_indices(
        n, comm if n == 12 else Next(comm), unit))  # fmt: skip
    assert np.abs(ours() - expected).max() > 1e-3


def test_impossible_heads_are_refused():
    with pytest.raises(ValueError, match="want multiples"):
        ParallelAttention(12, 6, 4)
    with pytest.raises(ValueError, match="3 units of 4 on 4 tensor-parallel ranks"):
        simulate(lambda comm: ParallelAttention(12, 6, 3, comm=comm), 4)
