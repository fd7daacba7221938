"""Flat storage changes no bit: whatever a program does to parameters between the steps.

Two models take the same turns, one with flattened parameters; after each they are compared.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minidist.kernels import arrays as xp

import minidist as md
from minidist import nn, optim
from minidist.comm import simulate
from minidist.nn import functional as F
from minidist.parallel import Bucketed, Naive, Overlapped
from minidist.tensor import flat as module
from minidist.tensor.flat import flats_of, stretch, whole

OPTIMISERS = {
    "SGD": lambda g: optim.SGD(g, lr=0.1),
    "SGD with momentum": lambda g: optim.SGD(g, lr=0.1, momentum=0.9, nesterov=True),
    "Adagrad": lambda g: optim.Adagrad(g, lr=0.1),
    "RMSprop": lambda g: optim.RMSprop(g, lr=0.1, momentum=0.5, centered=True),
    "Adam": lambda g: optim.Adam(g, lr=0.1, amsgrad=True, maximize=True),
    "AdamW": lambda g: optim.AdamW(g, lr=0.1),
    "Lion": lambda g: optim.Lion(g, lr=0.1),
}


class Net(nn.Module):
    """Its last layer shares the weight of the first."""

    def __init__(self):
        self.wte, self.mid, self.norm = nn.Embedding(11, 6), nn.Linear(6, 6), nn.LayerNorm(6)
        self.extra = nn.Linear(6, 6)

    def forward(self, x, with_extra=True):
        h = F.gelu(self.norm(self.mid(self.wte(x))))
        h = self.extra(h) if with_extra else h
        return F.linear(h, self.wte.weight)


class Twin:
    """A model and its optimiser, and what a program may do to them."""

    def __init__(self, name, flat, dtype=np.float32):
        md.manual_seed(0)
        self.model = Net().to(dtype=dtype)
        params = list(self.model.parameters())
        groups = [
            {"params": [p for p in params if p.ndim > 1]},
            {"params": [p for p in params if p.ndim < 2], "lr": 0.05},
        ]
        self.make = lambda: OPTIMISERS[name](groups)
        self.optimizer = self.make()
        if flat:
            self.optimizer.flatten_parameters()
        self.turns = 0

    def backward(self, with_extra=True):
        self.turns += 1
        x = md.tensor(np.arange(8) * self.turns % 11)
        out = self.model(x, with_extra)
        F.cross_entropy(out, md.tensor(np.arange(8) % 11)).backward()

    def step(self):
        self.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 0.1)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def accumulate(self):
        self.backward()
        self.backward(False)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=False)

    def without_one(self):
        self.optimizer.zero_grad()
        self.backward(False)  # `extra` has no gradient
        self.optimizer.step()

    def assign_data(self):
        p = self.model.mid.weight
        p.data = np.full_like(p.data, 0.25)

    def change_data(self):
        self.model.norm.bias.data += 0.5

    def assign_grad(self):
        self.backward()
        self.model.mid.bias.grad = md.tensor(np.ones_like(self.model.mid.bias.data))
        self.optimizer.step()

    def freeze(self):
        self.model.extra.requires_grad_(False)
        self.step()
        self.model.extra.requires_grad_()

    def add_group(self):
        if len(self.optimizer.param_groups) < 3:
            self.model.late = nn.Linear(2, 3)
            nn.init.constant_(self.model.late.weight, 0.5)
            nn.init.constant_(self.model.late.bias, 0.25)
            for p in self.model.late.parameters():
                p.grad = md.tensor(np.ones_like(p.data))
            self.optimizer.add_param_group({"params": list(self.model.late.parameters())})
        self.optimizer.step()

    def reload(self):
        state = self.optimizer.state_dict()
        self.optimizer.load_state_dict(state)

    def forget(self):
        self.optimizer.state.clear()

    def load_model(self):
        self.model.load_state_dict({k: v * 1.5 for k, v in self.model.state_dict().items()})

    def numbers(self):
        yield from (p.data for p in self.model.parameters())
        for p in self.model.parameters():
            if p.grad is not None:
                yield p.grad.data
            for key, value in sorted(self.optimizer.state[p].items()):
                yield np.asarray(value, dtype=None if key != "step" else np.int64)


TURNS = sorted(n for n in vars(Twin) if n[0] != "_" and n not in ("backward", "numbers"))


def same(one, other):
    pairs = list(zip(one.numbers(), other.numbers(), strict=True))
    return all(a.shape == b.shape and np.array_equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("name", OPTIMISERS)
@given(turns=st.lists(st.sampled_from(TURNS), max_size=8), double=st.booleans())
@settings(max_examples=10)
def test_it_changes_no_bit(name, turns, double):
    dtype = np.float64 if double else np.float32
    flat, apart = Twin(name, True, dtype), Twin(name, False, dtype)
    assert len(flat.optimizer._flats) == 2
    for turn in ["step", *turns, "step"]:
        getattr(flat, turn)(), getattr(apart, turn)()
        assert same(flat, apart), turn


@pytest.mark.parametrize("amiss", ["data", "gradients", "state"])
def test_what_is_left_out_is_seen(amiss, monkeypatch):
    """The controls: data, gradients or states are assigned, and not copied into their places."""
    if amiss == "gradients":
        monkeypatch.setattr(module, "_take", lambda t, place: None)
    flat, apart = Twin("AdamW", True), Twin("AdamW", False)
    if amiss == "data":
        flat.optimizer._flats[0][1].flat.settle = lambda: True
    if amiss == "state":
        for _, state in flat.optimizer._flats:
            state._hand_out = lambda states: None
    with pytest.raises((AssertionError, ValueError)):
        for turn in ["step", "assign_data", "reload", "step", "without_one", "step"]:
            getattr(flat, turn)(), getattr(apart, turn)()
            assert same(flat, apart)


def test_a_step_is_one_call_for_each_group_and_arrays_start_on_cache_lines(monkeypatch):
    twin, calls = Twin("AdamW", True), []
    update = optim.AdamW.update
    monkeypatch.setattr(
        optim.AdamW, "update", lambda self, p, *rest: (calls.append(p), update(self, p, *rest))
    )
    twin.step()
    assert [p.size for p in calls] == [11 * 6 + 36 + 36, 6 + 6 + 6 + 6]
    flats = flats_of(twin.model.parameters())
    for _, state in twin.optimizer._flats:
        for array in (*state.state.values(), state.flat.data, state.flat.grad):
            if isinstance(array, np.ndarray):
                assert array.ctypes.data % xp.LINE == 0 and array.base is not None
    assert {id(f) for f in flats} == {id(s.flat) for _, s in twin.optimizer._flats}
    twin.without_one()
    assert len(calls) == 2 + 5, "without all gradients the others are updated one by one"


def test_gradients_are_views_after_backward_and_the_norm_takes_them_whole():
    twin = Twin("AdamW", True)
    twin.backward()
    grads = [p.grad.data for p in twin.model.parameters()]
    assert sorted(g.size for g in whole(grads)) == [24, 138]
    assert len(whole(grads[1:])) == len(grads) - 1 - 3, "the matrices are not complete"
    (matrices, _) = (s.flat for _, s in twin.optimizer._flats)
    assert stretch(matrices.grads[1:]).size == 72
    assert stretch(matrices.grads[::-1]) is None and stretch([np.ones(3)]) is None


def test_what_cannot_be_flattened_stays_where_it_is():
    shared = np.zeros(6, np.float32)
    params = [nn.Parameter(md.Tensor.of(shared[:3])), nn.Parameter(md.zeros(3))]
    params += [nn.Parameter(md.zeros(2, dtype=md.float16)) for _ in range(2)]
    optimizer = optim.SGD(params, lr=0.1)
    optimizer.flatten_parameters()
    assert optimizer._flats == [] and params[0].data.base is shared
    with pytest.raises(TypeError, match="Muon needs whole matrices"):
        optim.Muon([nn.Parameter(md.zeros(2, 2))]).flatten_parameters()


def sums(comm, make, flat):
    md.manual_seed(0)
    model = Net()
    optimizer = optim.AdamW(model.parameters(), lr=0.1)
    if flat:
        optimizer.flatten_parameters()
    gradients, losses = make(model, comm), []
    for step in range(3):
        x = md.tensor((np.arange(4) * (comm.rank + 1) + step) % 11)
        # rank 1 never uses `extra`: its gradient counts as zeros
        loss = F.cross_entropy(model(x, comm.rank != 1), x) / comm.size
        loss.backward()
        gradients.sum_gradients()
        losses.append(nn.utils.clip_grad_norm_(model.parameters(), 1.0).item())
        optimizer.step()
        optimizer.zero_grad()
    return losses, [p.data.copy() for p in model.parameters()]


@pytest.mark.parametrize("kind", [Naive, Bucketed, Overlapped])
@pytest.mark.parametrize("bucket", [64, 1 << 20])
def test_sums_over_ranks(kind, bucket):
    def make(model, comm):
        size = () if kind is Naive else (bucket,)
        return kind(model, comm, *size, "ordered")

    flat, apart = (
        simulate(lambda comm, flat=flat: sums(comm, make, flat), 3) for flat in (True, False)
    )
    for (norms, params), (wanted, theirs) in zip(flat, apart):
        assert norms == wanted
        assert all(np.array_equal(a, b) for a, b in zip(params, theirs))


def test_a_bucket_of_flattened_parameters_copies_nothing(monkeypatch):
    from minidist.parallel.data import sum_gradients

    packed = []
    pack = sum_gradients.pack
    monkeypatch.setattr(sum_gradients, "pack", lambda g, f: (packed.append(len(g)), pack(g, f)))

    def rank(comm, flat):
        model = Net()
        optimizer = optim.AdamW(model.parameters())
        if flat:
            optimizer.flatten_parameters()
        gradients = Bucketed(model, comm)
        F.cross_entropy(model(md.tensor([1, 2])), md.tensor([3, 4])).backward()
        gradients.sum_gradients()

    simulate(lambda comm: rank(comm, True), 2)
    assert packed == []
    simulate(lambda comm: rank(comm, False), 2)
    assert packed == [7, 7]
