"""Mixed precision in every layout: losses and gradient norms are those of one process.

A loss that is computed in 16 bits hands on a cotangent of 1/240 rounded to 16 bits, which is 0.34 %
off in bfloat16: the vocabulary-parallel loss once did.
"""

import functools
import math
from dataclasses import replace

import numpy as np
import pytest
from parallel.test_tensor_conv import IMAGES, Net
from parallel.test_tensor_conv import LABELS as IMAGE_LABELS
from parallel.test_tensor_recurrent import LABELS as SEQUENCE_LABELS
from parallel.test_tensor_recurrent import SEQUENCES, Classifier
from support.proofs import keeping
from support.tensor_cases import train as step

import minidist as md
from minidist import data, nn
from minidist.amp.autocast import Precision
from minidist.comm import simulate
from minidist.parallel.tensor import cross_entropy
from minidist.tensor.tensor import Tensor
from minidist.train.config import PRESETS, TrainConfig, check
from minidist.train.loop import Trainer

CONFIG = TrainConfig(
    model="gpt-nano", steps=2, batch=16, seq=15, warmup=2, dropout=0.1, dtype="float32", seed=3
)
CORPUS = data.load("docs", CONFIG.seq)
EPS = {"bfloat16": 2.0**-8, "float16": 2.0**-11}
LAYOUTS = {
    "dp": {"dp": 2},
    "tp": {"tp": 2},
    "sp": {"tp": 2, "sequence_parallel": True},
    "pp": {"pp": 2},
    "zero 1": {"dp": 2, "zero": 1},
    "zero 2": {"dp": 2, "zero": 2},
    "zero 3": {"dp": 2, "zero": 3},
    "dp, tp": {"dp": 2, "tp": 2},
    "tp, pp": {"tp": 2, "pp": 2},
    "dp, pp": {"dp": 2, "pp": 2},
    "sp, pp": {"tp": 2, "pp": 2, "sequence_parallel": True},
    "dp, tp, pp": {"dp": 2, "tp": 2, "pp": 2},
    "zero 1, pp": {"dp": 2, "pp": 2, "zero": 1},
    **{f"zero {stage}, tp": {"dp": 2, "tp": 2, "zero": stage} for stage in (1, 2, 3)},
    "zero 3, sp": {"dp": 2, "tp": 2, "zero": 3, "sequence_parallel": True},
    "overlapped": {"dp": 2, "sync": "overlapped"},
    "one by one": {"dp": 2, "sync": "naive"},
    "accumulated": {"microbatches": 4},
    **{name: {"pp": 2, "schedule": name} for name in ("gpipe", "zb-h1", "zb-h2")},
    **{name: {"pp": 2, "schedule": name} for name in ("interleaved", "zbv", "dualpipev")},
    "zbv, tp": {"tp": 2, "pp": 2, "schedule": "zbv"},
}
KEPT = [*list(LAYOUTS)[:9], "dp, tp, pp", "overlapped", "zbv, tp"]


def layers(layout):
    """Two stages a rank need four layers."""
    return 4 if layout.get("schedule") in ("interleaved", "zbv", "dualpipev") else 2


def trained(precision, layers=2, **layout):
    """The loss and the gradient norm of every step."""
    config = replace(CONFIG, precision=precision, **layout)

    def rank(comm):
        return [(r["loss"], r["grad_norm"]) for r in Trainer(config, comm, CORPUS).run(0, 0)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "gpt-nano", PRESETS["gpt-nano"] | {"layers": layers})
        ranks = math.prod(layout.get(axis, 1) for axis in ("dp", "tp", "pp"))
        check(config, ranks)
        return np.array(simulate(rank, ranks)[0])


alone = functools.cache(trained)


def excess(found, wanted, precision):
    """The largest relative difference, as a multiple of its bound.

    The bound is eps/16 for the first loss and 0.4 eps for the norm of its gradient; then eps/4 and
    2 eps, because Adam's first step moves each weight by the sign of its gradient, however small.
    """
    return (np.abs(found / wanted - 1) / EPS[precision] / [[1 / 16, 0.4], [1 / 4, 2]]).max()


@pytest.mark.parametrize("precision", EPS)
@pytest.mark.parametrize("layout", keeping(KEPT, LAYOUTS))
def test_a_layout_trains_as_one_process_does(layout, precision):
    n = layers(LAYOUTS[layout])
    assert excess(trained(precision, n, **LAYOUTS[layout]), alone(precision, n), precision) < 1


@pytest.mark.parametrize(
    "layout, precision",
    [("tp", "bfloat16"), ("tp", "float16"), ("dp, tp", "float16"), ("sp", "bfloat16")],
)
def test_a_loss_in_16_bits_fails_that_bound(layout, precision):
    """The negative control: the vocabulary-parallel loss declares "promote".

    Sequence parallelism alone is 0.3 eps off in float16, and with this loss 0.35: too near.
    """
    operation = cross_entropy._losses
    cells = dict(zip(operation.__code__.co_freevars, operation.__closure__))
    right = cells["precision"].cell_contents
    cells["precision"].cell_contents = Precision("promote")
    try:
        wrong = trained(precision, **LAYOUTS[layout])
    finally:
        cells["precision"].cell_contents = right
    assert excess(wrong, alone(precision, 2), precision) > 1


# Layers cut over ranks, outside a GPT

NETS = {
    "conv": (Net, IMAGES, IMAGE_LABELS),
    "LSTM": (functools.partial(Classifier, nn.LSTM, 7), SEQUENCES, SEQUENCE_LABELS),
    "GRU": (functools.partial(Classifier, nn.GRU, 7), SEQUENCES, SEQUENCE_LABELS),
}


@pytest.mark.parametrize("precision", EPS)
@pytest.mark.parametrize("net", NETS)
def test_a_layer_cut_over_ranks_trains_as_the_whole_does(net, precision):
    """The dtypes of its outputs, and the first loss: later ones depend on maxima that are close."""
    make, inputs, labels = NETS[net]

    def run(comm):
        dtypes = {}
        with md.autocast("cpu", precision):
            model = make(comm)
            for name, layer in model.named_children():
                note = lambda m, x, y, name=name: dtypes.update({name: first_of(y).dtype.name})
                layer.register_forward_hook(note)
            model(Tensor(inputs.astype("float32")))
            return dtypes, step(make, comm, inputs, labels, "float32", 1)[0][0]

    whole, cut = run(None), simulate(run, 2)[0]
    assert cut[0] == whole[0] and set(whole[0].values()) <= {precision, "float32"}
    assert abs(cut[1] / whole[1] - 1) < EPS[precision] / 4


def first_of(y):
    return y[0] if isinstance(y, tuple) else y
