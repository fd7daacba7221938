"""What the tests of ZeRO share: a model of odd shapes, and training it in any layout."""

import contextlib
import math

import numpy as np

from minidist import Tensor, manual_seed, nn, optim
from minidist.comm import shard_range, simulate
from minidist.nn import functional as F
from minidist.parallel.buckets import fill_buckets
from minidist.parallel.data.sum_gradients import Bucketed
from minidist.parallel.zero.optimizer import Zero
from minidist.parallel.zero.stage3 import Zero3
from minidist.train import checkpoint

ROWS, VOCAB = 10, 11
OPTIMIZERS = {
    "SGD": (optim.SGD, {"lr": 0.1}),
    "momentum": (optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    "Adam": (optim.Adam, {"lr": 0.1, "amsgrad": True}),
    "AdamW": (optim.AdamW, {"lr": 0.1, "weight_decay": 0.1}),
    "RMSprop": (optim.RMSprop, {"lr": 0.01, "centered": True, "momentum": 0.5}),
    "Adagrad": (optim.Adagrad, {"lr": 0.1, "initial_accumulator_value": 0.1}),
    "Lion": (optim.Lion, {"lr": 0.01, "weight_decay": 0.1}),
}


class Block(nn.Module):
    def __init__(self):
        self.ln = nn.LayerNorm(7)
        self.up, self.down = nn.Linear(7, 15), nn.Linear(15, 7)

    def forward(self, x):
        return x + self.down(F.gelu(self.up(self.ln(x))))


class Model(nn.Module):
    """Weights (11, 7) tied, (7, 15), (16, 17), …, and a scale that multiplies by itself."""

    def __init__(self, layers=3):
        self.wte = nn.Embedding(VOCAB, 7)
        self.scale = nn.Parameter(np.ones(7, np.float32))
        self.h = nn.ModuleList(Block() for _ in range(layers))
        self.wide, self.odd, self.back = nn.Linear(7, 16), nn.Linear(16, 17), nn.Linear(17, 7)

    def forward(self, index):
        x = self.wte(index) * self.scale
        for block in self.h:
            x = block(x)
        x = self.back(F.gelu(self.odd(self.wide(x))))
        return F.linear(x, self.wte.weight)

    def loss(self, index, target):
        return F.cross_entropy(self(index), target, reduction="sum")


def make(frozen=(), dtype="float32", layers=3):
    manual_seed(7)
    model = Model(layers).to(dtype)
    for name, p in model.named_parameters():
        p.requires_grad_(not any(part in name for part in frozen))
    return model


def trained(model):
    return [p for p in model.parameters() if p.requires_grad]


def decay_groups(model):
    return [
        {"params": [p for p in trained(model) if p.ndim >= 2], "lr": 0.05},
        {"params": [p for p in trained(model) if p.ndim < 2], "weight_decay": 0.0},
    ]


def batch(step, part=0, parts=1):
    """Some rows of a global batch."""
    rng = np.random.default_rng(step)
    x, y = rng.integers(0, VOCAB, ROWS), rng.integers(0, VOCAB, ROWS)
    first, last = shard_range(ROWS, parts, part)
    return Tensor(x[first:last]), Tensor(y[first:last])


class Plain:
    """Data parallel with Zero's methods: every rank holds and updates all."""

    def __init__(self, model, comm, optimizer_class, params=None, **defaults):
        self.model, self.comm = model, comm
        self.algorithm, size = defaults.pop("algorithm"), defaults.pop("bucket_bytes", 400)
        self.optimizer = optimizer_class(params or trained(model), **defaults)
        self.sum_gradients = Bucketed(trained(model), comm, size, self.algorithm).sum_gradients
        self.step, self.zero_grad = self.optimizer.step, self.optimizer.zero_grad
        self.no_sync = self.gathered = contextlib.nullcontext

    def clip_grad_norm_(self, max_norm):
        """The exact sum of all squares: it does not depend on how they are spread over ranks."""
        grads = [p.grad.data.astype(np.float64).reshape(-1) for p in trained(self.model)]
        total = math.fsum(g * g for grad in grads for g in grad.tolist())
        scale = max_norm / (math.sqrt(total) + 1e-6)
        for p in trained(self.model):
            p.grad.data[...] = p.grad.data * min(scale, 1.0)
        return math.sqrt(total)

    def full_state_dict(self):
        states = self.optimizer.state.values()
        arrays = checkpoint.optimizer_arrays(self.model, self.optimizer)
        return {
            "model": {k: v.copy() for k, v in self.model.state_dict().items()},
            "optimizer": {k: v.copy() for k, v in arrays.items()},
            "step": max((s.get("step", 0) for s in states), default=0),
        }

    def load_full_state_dict(self, state):
        self.model.load_state_dict(state["model"])
        arrays = {k: v.copy() for k, v in state["optimizer"].items()}
        self.optimizer.state.clear()
        checkpoint.restore_optimizer(self.model, self.optimizer, arrays, state["step"])


def of_buckets(model):
    return fill_buckets(trained(model)[::-1], 400)


def of_units(model):
    """What Zero3 shards one by one: the blocks from the last to the first, then the rest."""
    units = [[p for p in block.parameters() if p.requires_grad] for block in model.h]
    inside = {id(p) for unit in units for p in unit}
    rest = [p for p in trained(model) if id(p) not in inside]
    return [unit for unit in [*units[::-1], rest] if unit]


def optimizer_of(comm, layout, model, kind="AdamW", groups=False, algorithm="ordered", **more):
    """Layouts are "plain", 1, 2 and 3."""
    cls, options = OPTIMIZERS[kind]
    args = (model, comm, cls, decay_groups(model) if groups else None)
    options = {**options, "algorithm": algorithm, **more}
    if layout == 3:
        return Zero3(*args, **options)
    if layout in (1, 2):
        return Zero(*args, stage=layout, bucket_bytes=400, **options)
    return Plain(*args, **options)


def steps(zero, world, first, last, clip=None, micro=1, sync_each=False, device="cpu"):
    """Train; the loss of every step. `world` is all ranks that share a batch."""
    losses = []
    for step in range(first, last):
        total = 0.0
        for k in range(micro):
            x, y = (t.to(device) for t in batch(100 * step + k, world.rank, world.size))
            quiet = not sync_each and k < micro - 1
            with zero.no_sync() if quiet else contextlib.nullcontext():
                loss = zero.model.loss(x, y) / (ROWS * micro)
                loss.backward()
            total += loss.item()
        zero.sum_gradients()
        losses.append((total, float(zero.clip_grad_norm_(clip)) if clip else 0.0))
        zero.step()
        zero.zero_grad()
    return losses


def run(size, layout, seed=None, frozen=(), dtype="float32", options=None, clip=None, **told):
    """Five steps on simulated ranks: every rank's losses, norms, and whole state."""

    def main(comm):
        zero = optimizer_of(comm, layout, make(frozen, dtype), **(options or {}))
        return steps(zero, comm, 0, 5, clip, **told), zero.full_state_dict()

    return simulate(main, size, seed=seed)


def assert_same(one, other):
    """Losses, norms, parameters and optimiser states, bit for bit, on every rank."""
    assert len(one) == len(other)
    for (losses, state), (others, theirs) in zip(one, other):
        assert losses == others
        same_state(state, theirs)


def same_state(state, theirs):
    assert state["step"] == theirs["step"]
    for part in ("model", "optimizer"):
        assert state[part].keys() == theirs[part].keys()
        for name, array in state[part].items():
            other = theirs[part][name]
            assert array.dtype == other.dtype and array.shape == other.shape, name
            assert array.tobytes() == other.tobytes(), name


def differs(one, other):
    """Whether a planted fault is seen: an error, or other numbers."""
    try:
        assert_same(one(), other)
    except Exception:
        return True
    return False
