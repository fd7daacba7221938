"""The collectives of a training step, by strategy: which, how often, of how many bytes.

The bytes of a call are those of the whole buffer S: what every rank has before an all-reduce or a
reduce-scatter, what every rank has after an all-gather.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import NamedTuple

from ..comm.ledger import BUS
from .collectives import Traffic, traffic


class Call(NamedTuple):
    """So many calls of one collective, of so many bytes each."""

    collective: str
    times: int
    bytes: int


class StepCalls(NamedTuple):
    """What one rank calls in forward, in backward, and between backward and the next forward."""

    forward: list[Call]
    backward: list[Call]
    step: list[Call]

    @property
    def all(self) -> list[Call]:
        return list(chain(*self))


def sent_by_rank(calls: Iterable[Call], n: int) -> float:
    """Bytes that one of n ranks sends, on a ring: 2(n - 1)/n·S, or (n - 1)/n·S. Exact if n | S."""
    return sum(c.times * c.bytes * BUS[c.collective](n) for c in calls)


def sent_by_all(calls: Iterable[Call], n: int) -> Traffic:
    """Messages and bytes that n ranks send together, on rings; exact for any S and n."""
    total = Traffic(0, 0)
    for c in calls:
        once = traffic(c.collective, "ring", [c.bytes, *[0] * (n - 1)])
        total += Traffic(c.times * once.messages, c.times * once.bytes)
    return total


def data_parallel(buckets: Sequence[int], itemsize: int = 4) -> StepCalls:
    """Gradients are all-reduced once a step, `buckets` of so many elements."""
    return StepCalls([], _each("all_reduce", buckets, itemsize), [])


def zero_1(buckets: Sequence[int], gradient: int = 4, parameter: int = 4) -> StepCalls:
    """Gradients (bytes an element) are reduce-scattered once a step, parameters gathered after it.

    The parameters go in one call.
    """
    gather = [Call("all_gather", 1, sum(buckets) * parameter)]
    return StepCalls([], _each("reduce_scatter", buckets, gradient), gather)


def zero_2(
    buckets: Sequence[int], gradient: int = 4, parameter: int = 4, microbatches: int = 1
) -> StepCalls:
    """As ZeRO-1, but no rank has room for whole gradients: each micro-batch's are scattered."""
    calls = zero_1(buckets, gradient, parameter)
    return calls._replace(backward=_repeated(calls.backward, microbatches))


def zero_3(
    units: Sequence[int], gradient: int = 4, parameter: int = 4, microbatches: int = 1,
    keep_last: bool = False,
) -> StepCalls:  # fmt: skip
    """Units of so many parameters are gathered for forward, and again for backward.

    With `keep_last` the last unit of forward, the first of backward, is not let go in between.
    """
    forward = _each("all_gather", units, parameter)
    again = forward[:-1] if keep_last else forward
    backward = again + _each("reduce_scatter", units, gradient)
    return StepCalls(_repeated(forward, microbatches), _repeated(backward, microbatches), [])


def tensor_parallel(layers: int, activation: int, row: int, microbatches: int = 1) -> StepCalls:
    """A GPT's layers, embedding, head and loss, the vocabulary shared out as well.

    `activation` is the bytes of b·s·h, `row` of b·s: of the loss, whose maximum, target's logit and
    sum of exponentials are each reduced. Two all-reduces a layer and direction, one for the
    embedding, one in backward for the head. (Narayanan et al. 2021, arXiv 2104.04473, 2.3.)
    """
    whole = Call("all_reduce", 2 * layers + 1, activation)
    forward = [whole, Call("all_reduce", 3, row)]
    return StepCalls(_repeated(forward, microbatches), _repeated([whole], microbatches), [])


def sequence_parallel(
    layers: int, activation: int, row: int, replicated: int, microbatches: int = 1,
    regather: bool = True,
) -> StepCalls:  # fmt: skip
    """The same with activations in shards between the products: each all-reduce comes in halves.

    With `regather` backward gathers inputs of products anew, of which a rank kept its shard: two a
    layer and the head's. `replicated` is the bytes of gradients that are sums over the sequence,
    see `replicated_parameters`. (Korthikanti et al. 2022, arXiv 2205.05198, 4.2.2.)
    """
    halves = 2 * layers + 1  # every gather's gradient is a scatter, and the other way round
    scatter = Call("reduce_scatter", halves, activation)
    forward = [Call("all_gather", halves, activation), scatter, Call("all_reduce", 3, row)]
    backward = [Call("all_gather", (1 + regather) * halves, activation), scatter]
    return StepCalls(
        _repeated(forward, microbatches), _repeated(backward, microbatches),
        [Call("all_reduce", 1, replicated)],
    )  # fmt: skip


def replicated_parameters(layers: int, hidden: int) -> int:
    """Parameters that sequence-parallel ranks all hold, for their part of the tokens: 6Lh + 2h.

    A layer's two norms have 4h, the biases of attention's projection and of the MLP's second
    product 2h; the final norm has 2h. Learned positions, s·h, come on top where a rank adds only
    those of its own tokens.
    """
    return 6 * layers * hidden + 2 * hidden


def _each(collective: str, sizes: Sequence[int], itemsize: int) -> list[Call]:
    return [Call(collective, 1, size * itemsize) for size in sizes]


def _repeated(calls: Iterable[Call], times: int) -> list[Call]:
    return [c._replace(times=c.times * times) for c in calls]
