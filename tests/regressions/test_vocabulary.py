"""Published bugs of a vocabulary that is shared out over ranks, each recreated and seen."""

import numpy as np
import pytest
from support.small import ALONE, BOUND, CONFIG, far, outcome

from minidist.comm import simulate
from minidist.models.gpt import GPT
from minidist.nn import functional as F
from minidist.ops import communication
from minidist.parallel.layout import Shard, shard_indices
from minidist.parallel.tensor import cross_entropy
from minidist.parallel.tensor import linear as tensor
from minidist.parallel.tensor.linear import column_linear
from minidist.tensor.tensor import Tensor

RNG = np.random.default_rng(1)
LOGITS, TARGET = RNG.normal(0, 3, (6, 12)), RNG.integers(0, 12, 6)


def entropy(logits, smoothing=0.0, classes=12):
    """Losses and gradient of one process."""
    x = Tensor(logits[:, :classes]).requires_grad_()
    losses = F.cross_entropy(x, Tensor(TARGET), reduction="none", label_smoothing=smoothing)
    losses.sum().backward()
    return losses.data, x.grad.data


def shared_entropy(comm, logits, smoothing=0.0, classes=None):
    """The same by ranks that have some columns each."""
    part = Shard((logits.shape[1], 1), 0, shard_indices(logits.shape[1], comm), comm)
    x = Tensor(np.ascontiguousarray(logits[:, part.index])).requires_grad_()
    losses = cross_entropy.vocab_parallel_cross_entropy(
        x, Tensor(TARGET), part, classes=classes, reduction="none", label_smoothing=smoothing
    )
    losses.sum().backward()
    return losses.data, x.grad.data


def near(a, b):
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-13)


# Label smoothing


def smoothing_is_over_all_classes(ranks, smoothing):
    values, grads = zip(*simulate(lambda comm: shared_entropy(comm, LOGITS, smoothing), ranks))
    losses, grad = entropy(LOGITS, smoothing)
    for mine in values:
        near(mine, losses)
    near(np.concatenate(grads, axis=1), grad)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_smoothing_is_over_all_classes(ranks, smoothing):
    """NVIDIA/Megatron-LM#737 and #7464: smoothed towards the mean of a rank's own columns."""
    smoothing_is_over_all_classes(ranks, smoothing)


LOSSES = cross_entropy._losses


def smoothed_over_own_columns(logits, target, comm, first, classes, smoothing, keep):
    whole = F.log_softmax(communication.gather(logits, comm, 1), 1)
    mine = whole[:, first : first + logits.shape[1]].mean(1)
    return (1 - smoothing) * LOSSES(logits, target, comm, first, classes, 0.0, keep) - (
        smoothing * mine
    )


def test_smoothing_over_own_columns_is_seen(monkeypatch):
    monkeypatch.setattr(cross_entropy, "_losses", smoothed_over_own_columns)
    smoothing_is_over_all_classes(2, 0.0)
    with pytest.raises(AssertionError):
        smoothing_is_over_all_classes(2, 0.1)


# Logits that were gathered before the loss


def loss_of_gathered(comm):
    part = Shard((12, 1), 0, shard_indices(12, comm), comm)
    return cross_entropy.vocab_parallel_cross_entropy(
        Tensor(LOGITS), Tensor(TARGET), part, reduction="none"
    ).data


def gathered_logits_are_refused_or_right(ranks):
    try:
        values = simulate(loss_of_gathered, ranks)
    except ValueError:
        return
    near(values[0], entropy(LOGITS)[0])


def test_gathered_logits_are_refused():
    """NVIDIA/Megatron-LM#7452, item 2: each rank adds up all of them, so t times too much."""
    gathered_logits_are_refused_or_right(1)
    gathered_logits_are_refused_or_right(2)
    with pytest.raises(ValueError, match="this rank's columns, not gathered ones"):
        simulate(loss_of_gathered, 2)


def each_rank_takes_them_for_its_own(logits, target, part, reduction):
    n, comm = logits.shape[1], part.comm
    keep = np.ones(len(target.data), bool)
    return LOSSES(logits, target.data, comm, comm.rank * n, n * comm.size, 0.0, keep)


def test_counting_them_once_a_rank_is_seen(monkeypatch):
    monkeypatch.setattr(
        cross_entropy, "vocab_parallel_cross_entropy", each_rank_takes_them_for_its_own
    )
    with pytest.raises(AssertionError):
        gathered_logits_are_refused_or_right(2)
    near(simulate(loss_of_gathered, 2)[0], entropy(LOGITS)[0] + np.log(2))


# A vocabulary that does not divide


def thirteen_words_are_thirteen_on_any_ranks(ranks):
    assert CONFIG.vocab == 13 and CONFIG.vocab % ranks
    for ours in simulate(outcome, ranks):
        assert far(ours, ALONE) < BOUND


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_thirteen_words_on_ranks_that_do_not_divide_them(ranks):
    """NVIDIA/Megatron-LM#1736 and #1754: another loss where t does not divide the vocabulary."""
    thirteen_words_are_thirteen_on_any_ranks(ranks)


def the_rest_is_nobodys(n, comm, unit=1, blocks=1):
    return shard_indices(n - n % comm.size if unit == blocks == 1 else n, comm, unit, blocks)


def test_words_that_no_rank_has_are_seen(monkeypatch):
    monkeypatch.setattr(tensor, "shard_indices", the_rest_is_nobodys)
    with pytest.raises(AssertionError):
        thirteen_words_are_thirteen_on_any_ranks(4)
    assert abs(simulate(outcome, 4)[0]["loss"] - ALONE["loss"]) > 1e-3, "not the shapes alone"


PADDED = np.concatenate([LOGITS, np.zeros((6, 4))], axis=1)  # 12 words, and 4 that mean nothing


def padding_is_no_class(ranks, classes=12):
    values, grads = zip(
        *simulate(lambda comm: shared_entropy(comm, PADDED, classes=classes), ranks)
    )
    losses, grad = entropy(PADDED)
    near(values[0], losses)
    near(np.concatenate(grads, axis=1), np.pad(grad, ((0, 0), (0, 4))))


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_a_vocabulary_padded_until_it_divides(ranks):
    """NVIDIA/Megatron-LM#1754: rows added so that t divides them must not take probability."""
    padding_is_no_class(ranks)


def test_padding_that_takes_probability_is_seen():
    with pytest.raises(AssertionError):
        padding_is_no_class(2, classes=16)


# The embedding that is also the last layer


TIED = "wte.weight"


def a_tied_embedding_gets_both_gradients(ranks, sp):
    for ours in simulate(lambda comm: outcome(comm, sp), ranks):
        assert far({TIED: ours[TIED]}, {TIED: ALONE[TIED]}) < BOUND


@pytest.mark.parametrize("sp", [False, True])
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_a_tied_embedding_gets_both_gradients(ranks, sp):
    """huggingface/nanotron checks it: what lookup and last layer give must both arrive."""
    a_tied_embedding_gets_both_gradients(ranks, sp and ranks > 1)


def untied_backward(self, states):
    weight = self.wte.weight.detach()
    return column_linear(states, weight, None, self.tp, self.tokens)


def test_half_of_a_tied_gradient_is_seen(monkeypatch):
    monkeypatch.setattr(GPT, "logits", untied_backward)
    with pytest.raises(AssertionError):
        a_tied_embedding_gets_both_gradients(2, False)
