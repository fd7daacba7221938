"""The formulas of plan/ against models that exist."""

from hypothesis import given
from hypothesis import strategies as st

from minidist.models.gpt import GPT, GPTConfig
from minidist.optim import AdamW
from minidist.plan.gpt import gpt_parameters
from minidist.plan.zero import FLOAT32, zero_bytes
from minidist.tensor.tensor import Tensor

sizes = st.integers(1, 5)


@given(sizes, sizes, st.integers(1, 3), sizes, sizes)
def test_parameters_equal_the_formula(layers, width, heads, positions, vocab):
    config = GPTConfig(layers, width * heads, heads, positions, vocab)
    assert sum(p.numel() for p in GPT(config).parameters()) == gpt_parameters(config)


def test_training_bytes_equal_the_arrays_held():
    model = GPT(GPTConfig(2, 8, 2, 4, 16))
    optimizer = AdamW(model.parameters())
    tokens = Tensor([[1, 2, 3]])
    model.loss(tokens, tokens).backward()
    optimizer.step()
    params = list(model.parameters())
    moments = [s[k] for s in optimizer.state.values() for k in ("exp_avg", "exp_avg_sq")]
    arrays = [p.data for p in params] + [p.grad.data for p in params] + moments
    assert (
        sum(a.nbytes for a in arrays)
        == zero_bytes(0, gpt_parameters(model.config), 1, FLOAT32).total
    )
