"""ZeRO stage 3: the bits of data parallelism, while no rank holds more weights than it uses."""

import functools
import gc
import weakref
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.double import gpu
from support.proofs import proofs
from support.zero_cases import (  # fmt: skip
    OPTIMIZERS,
    Block,
    Model,
    assert_same,
    batch,
    differs,
    make,
    of_units,
    optimizer_of,
    run,
    same_state,
    steps,
)

from minidist import Tensor, manual_seed, nn, no_grad, optim
from minidist.autograd.checkpoint import checkpoint
from minidist.autograd.saved import Packed, map_saved, saved_arrays
from minidist.comm import Clock, Ledger, shard_range, simulate
from minidist.models.gpt import GPT, GPTConfig
from minidist.nn import functional as F
from minidist.parallel.zero.stage3 import FreedWeight, Unit, Zero3, is_view
from minidist.parallel.zero.units import blocks
from minidist.plan.collectives import Traffic, traffic

few, fewer = settings(max_examples=12), settings(max_examples=5)
sizes, seeds = st.integers(1, 5), st.none() | st.integers(0, 9)
frozen = st.sampled_from([(), ("h.1",), ("wte", "ln"), ("bias",), ("wte", "h.0")])


@few
@given(sizes, seeds, frozen, st.sampled_from([*OPTIMIZERS]), st.booleans(),
       st.sampled_from([None, 0.01, 1e9]))  # fmt: skip
def test_bits_are_those_of_data_parallelism(size, seed, frozen, kind, groups, clip):
    told = {"frozen": frozen, "options": {"kind": kind, "groups": groups}, "clip": clip}
    assert_same(run(size, 3, seed, **told), run(size, "plain", **told))


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_every_elementwise_optimiser(kind):
    told = {"options": {"kind": kind, "groups": True}, "clip": 0.5}
    assert_same(run(3, 3, **told), run(3, "plain", **told))


@fewer
@given(sizes, seeds)
def test_three_microbatches_are_added_up_locally(size, seed):
    assert_same(run(size, 3, seed, micro=3), run(size, "plain", micro=3))


def test_or_each_is_summed_over_the_ranks_as_stage_2_does():
    assert_same(run(3, 3, micro=3, sync_each=True), run(3, 2, micro=3, sync_each=True))


# What is held


def watched(comm, model, train=None):
    """The units that are whole at every hook of a layer, forward and backward, and at rest."""
    zero = optimizer_of(comm, 3, model)
    seen, back, at_rest = [], [], [zero.gathered_units()]

    def notes(name):
        def note(module, args, output):
            seen.append((name, zero.gathered_units()))
            output.register_hook(lambda g: back.append((name, zero.gathered_units())))

        return note

    for name, module in model.named_modules():
        if isinstance(module, nn.LayerNorm | nn.Embedding | nn.Linear):
            module.register_forward_hook(notes(name))
    loss = model.loss(*batch(0, comm.rank, comm.size)) / 10
    at_rest.append(zero.gathered_units())
    loss.backward()
    at_rest.append(zero.gathered_units())
    zero.sum_gradients()
    return seen, back, at_rest


def unit_of(name):
    return name[:3] if name.startswith("h.") else "root"


@few
@given(sizes, seeds)
def test_only_the_unit_in_use_the_root_and_the_next_are_whole(size, seed):
    check_units(size, seed)


def check_units(size, seed=None):
    for seen, back, at_rest in simulate(lambda comm: watched(comm, make()), size, seed=seed):
        assert at_rest == [[], [], []]
        assert [n for n, _ in seen if n.startswith("h.")] and len(back) == len(seen)
        for name, whole in seen:
            after = {"root": ["h.0"], "h.0": ["h.1"], "h.1": ["h.2"], "h.2": []}[unit_of(name)]
            assert {"root", unit_of(name)} <= {*whole} <= {"root", unit_of(name), *after}, name
        for name, whole in back:
            after = {"root": ["h.2"], "h.2": ["h.1"], "h.1": ["h.0"], "h.0": []}[unit_of(name)]
            assert {*whole} <= {"root", unit_of(name), *after, *_before(name)}, name
    inside = [whole for name, whole in seen if name == "h.1.up"]
    assert inside == [["root", "h.1", "h.2"]], "the next is on its way"
    assert dict(back)["h.1.up"] == ["root", "h.0", "h.1"], "in backward too"


def _before(name):
    """Before its own first node is pulled, the unit that backward comes from may still be here."""
    return {"h.1.down": ["h.2"], "h.0.down": ["h.1"], "h.2.down": []}.get(name, [])


@pytest.mark.parametrize("with_backward", [False, True])
def test_freed_memory_is_free(with_backward):
    """The arrays that were gathered are gone, though the graph is still there."""
    gathered, most, honest = [], [], Unit.gather

    def watch(comm, layer, args, output):
        most.append(count(comm))
        output.register_hook(lambda g: most.append(count(comm)))

    def noted(self):
        honest(self)
        gathered.extend(weakref.ref(flat.full) for flat in self.flats)

    def main(comm):
        zero = optimizer_of(comm, 3, make())
        for layer in (m for m in zero.model.modules() if isinstance(m, nn.Linear)):
            layer.register_forward_hook(lambda *args: watch(comm, *args))
        loss = zero.model.loss(*batch(0, comm.rank, comm.size))
        alive = [count(comm)]
        if with_backward:
            loss.backward()
            alive.append(count(comm))
        return alive, [p.data.size for p in zero.model.parameters()]

    def count(comm):
        # The simulation keeps the results of the collectives that it ran beside the rank.
        del comm.scheduler.tasks[1:]
        gc.collect()
        return sum(r() is not None for r in gathered)

    with mock.patch.object(Unit, "gather", noted):
        ((alive, left),) = simulate(main, 1)
    assert gathered and set(alive) == {0} and set(left) == {0}
    assert max(most) == 2, "the root and one block, at every layer of forward and backward"


@few
@given(sizes, st.sampled_from([(), ("wte",)]))
def test_bytes_held_are_the_formulas(size, frozen):
    def main(comm):
        zero = optimizer_of(comm, 3, make(frozen))
        fresh = zero.nbytes()["parameters"]
        zero.model.loss(*batch(0)).backward()
        zero.sum_gradients()
        zero.step()
        return fresh, zero.nbytes()

    model = make(frozen)
    for rank, (fresh, held) in enumerate(simulate(main, size)):
        share = lambda n, rank=rank: (lambda r: r[1] - r[0])(shard_range(n, size, rank))
        shard = sum(share(sum(p.numel() for p in flat)) for flat in of_units(model))
        rest = share(model.wte.weight.numel()) if frozen else 0
        assert fresh == held["parameters"] == 4 * (shard + rest)
        assert held["gradients"] == 4 * shard and held["optimizer"] == 8 * shard


@few
@given(sizes, st.integers(1, 3))
def test_bytes_and_messages_of_a_step_are_the_formulas(size, micro):
    def main(comm):
        zero = optimizer_of(comm, 3, make(), algorithm="ring")
        with Ledger(comm) as ledger:
            steps(zero, comm, 0, 1, micro=micro, sync_each=True)
        return ledger.messages, ledger.bytes

    messages, sent = map(sum, zip(*simulate(main, size)))
    expected = Traffic(0, 0)
    for flat in of_units(make()):
        n = sum(p.numel() for p in flat)
        parts = [4 * (b - a) for a, b in (shard_range(n, size, k) for k in range(size))]
        for collective in ("all_gather", "all_gather", "reduce_scatter") * micro:
            expected += traffic(collective, "ring", parts)
    assert Traffic(messages, sent) == expected
    assert sent == micro * 3 * (size - 1) * 4 * sum(p.numel() for p in make().parameters())


def test_the_next_unit_comes_while_this_one_computes():
    """On the virtual clock a step with prefetching is shorter."""

    def main(comm):
        zero = optimizer_of(comm, 3, make())
        for block in zero.model.h:
            block.ln.register_forward_hook(lambda *_: comm.compute(2e6))
        zero.model.loss(*batch(0)).backward()
        zero.sum_gradients()

    def makespan():
        clock = Clock(alpha=1e-4, beta=1e-7, gamma=1e-9)
        simulate(main, 4, clock=clock)
        return clock.makespan

    with mock.patch.object(Zero3, "_prefetch", lambda *_: None):
        alone = makespan()
    assert makespan() < alone


# Graphs of other shapes


def compare(change, size=3, loss=Model.loss, **options):
    """Stage 3 against data parallelism of a model after `change(model)`."""

    def main(comm, layout):
        model = make()
        change(model)
        zero = optimizer_of(comm, layout, model, **(options if layout == 3 else {}))
        losses = []
        for step in range(3):
            value = loss(model, *batch(step, comm.rank, comm.size)) / 10
            value.backward()
            zero.sum_gradients()
            zero.step()
            zero.zero_grad()
            losses.append(value.item())
        return losses, zero.full_state_dict()

    plain = simulate(lambda comm: main(comm, "plain"), size)
    assert_same(simulate(lambda comm: main(comm, 3), size), plain)


def recomputed(model):
    model.h[1].forward = lambda x, f=model.h[1].forward: checkpoint(f, x)
    for block in (model.h[0], model.h[2]):
        block.register_forward_hook(lambda *_: None)


def test_recomputation_inside_a_unit():
    compare(recomputed)


def test_recomputation_around_units():
    class Around(Model):
        def forward(self, index):
            x = self.wte(index) * self.scale
            for block in self.h:
                x = checkpoint(block, x)
            return F.linear(self.back(F.gelu(self.odd(self.wide(x)))), self.wte.weight)

    def change(model):
        model.__class__ = Around

    compare(change)


def test_weights_that_two_units_share_are_the_roots():
    def tie(model):
        model.h[2].up = model.h[0].up

    compare(tie)


def test_a_unit_that_runs_twice():
    def twice(model):
        model.h.append(model.h[0])

    compare(twice)


def test_a_unit_with_two_outputs_one_of_them_unused():
    class Two(Block):
        def forward(self, x):
            return super().forward(x), self.up(x)

    class Taking(Model):
        def forward(self, index):
            x = self.wte(index) * self.scale
            for block in self.h:
                x, self.kept = block(x)
            return F.linear(self.back(F.gelu(self.odd(self.wide(x)))), self.wte.weight)

    def change(model):
        model.__class__ = Taking
        for block in model.h:
            block.__class__ = Two

    compare(change)


def test_other_units():
    compare(lambda model: None)

    def main(comm):
        model = make()
        zero = Zero3(model, comm, optim.SGD, units=[model.wte, model.odd])
        return [(unit.name, len(unit.flats)) for unit in zero.units]

    assert simulate(main, 1)[0] == [("root", 1), ("wte", 1), ("odd", 1)]


def test_weights_inside_containers_are_freed_too():
    """An LSTM's VJPs keep lists of weights."""

    def train(comm, layout):
        manual_seed(0)
        model = nn.Sequential(nn.LSTM(3, 5, num_layers=2))
        zero = optimizer_of(comm, layout, model, "SGD")
        output, _ = model(Tensor(np.ones((4, 2, 3), np.float32)))
        (output * output).sum().backward()
        zero.sum_gradients()
        zero.step()
        return [0.0], zero.full_state_dict()

    plain = simulate(lambda comm: train(comm, "plain"), 2)
    assert_same(simulate(lambda comm: train(comm, 3), 2), plain)


def test_it_trains_the_gpt():
    config = GPTConfig(2, 12, 3, 6, 17)

    def main(comm, layout):
        zero, losses = optimizer_of(comm, layout, GPT(config)), []
        for step in range(3):
            tokens = np.random.default_rng([step, comm.rank]).integers(0, 17, (2, 7))
            x, y = Tensor(tokens[:, :-1]), Tensor(tokens[:, 1:])
            loss = zero.model.loss(x, y, reduction="sum") / 24
            loss.backward()
            zero.sum_gradients()
            losses.append((loss.item(), float(zero.clip_grad_norm_(0.5))))
            zero.step()
            zero.zero_grad()
        return losses, zero.full_state_dict()

    plain = simulate(lambda comm: main(comm, "plain"), 2)
    assert_same(simulate(lambda comm: main(comm, 3), 2), plain)


@pytest.mark.parametrize("layout", [3, *proofs(1, 2)])
def test_on_a_gpu(layout):
    """On CuPy's double: what data parallelism gives there."""

    def main(comm, layout):
        zero = optimizer_of(comm, layout, make().to("cuda"))
        losses = steps(zero, comm, 0, 2, device="cuda")
        with zero.gathered():
            return losses, [p.cpu().data.tobytes() for p in zero.model.parameters()]

    with gpu():
        plain = simulate(lambda comm: main(comm, "plain"), 2)
        assert simulate(lambda comm: main(comm, layout), 2) == plain


# Life


def alone(fn):
    return simulate(fn, 1)[0]


def test_without_gradients_units_come_and_go_and_nothing_is_kept():
    def main(comm):
        model = make()
        want = model(batch(0)[0]).data
        zero = optimizer_of(comm, 3, model)
        with no_grad():
            got = model(batch(0)[0]).data
        return np.array_equal(got, want), zero.gathered_units(), [len(u.nodes) for u in zero.units]

    assert simulate(main, 3) == [(True, [], [0] * 4)] * 3


def test_an_error_in_forward_leaves_no_unit_whole():
    def main(comm):
        zero = optimizer_of(comm, 3, make())
        with pytest.raises(IndexError):
            zero.model(Tensor(np.array([99])))
        first = zero.gathered_units()
        zero.model.loss(*batch(0)).backward()
        zero.sum_gradients()
        return first, zero.gathered_units()

    # What was prefetched for the unit that never ran may be on its way until then.
    assert simulate(main, 2) == [(["h.0"], [])] * 2


def test_retain_graph_allows_a_second_backward():
    def main(comm, layout):
        zero = optimizer_of(comm, layout, make(), "SGD")
        loss = zero.model.loss(*batch(0)) / 10
        loss.backward(retain_graph=True)
        loss.backward()
        zero.sum_gradients()
        zero.step()
        return zero.full_state_dict()

    same_state(alone(lambda c: main(c, 3)), alone(lambda c: main(c, "plain")))


def test_backward_after_a_step_is_refused():
    def main(comm):
        zero = optimizer_of(comm, 3, make())
        loss = zero.model.loss(*batch(0))
        loss.backward(retain_graph=True)
        zero.sum_gradients()
        zero.step()
        with pytest.raises(RuntimeError, match="changed its weights"):
            loss.backward()

    alone(main)


def test_gathered_shows_the_model_and_writes_it_back():
    def main(comm):
        zero = optimizer_of(comm, 3, make())
        with zero.gathered(write=True):
            zero.model.scale.data[...] = 5
        with zero.gathered():
            zero.model.odd.bias.data[...] = 7  # not to be kept
        state = zero.full_state_dict()["model"]
        return state["scale"].tolist(), (state["odd.bias"] == 7).any(), zero.gathered_units()

    assert simulate(main, 3) == [([5.0] * 7, False, [])] * 3


def test_closed_it_leaves_an_ordinary_model():
    def main(comm):
        model, twin = make(), make()
        optimizer_of(comm, 3, model).close()
        loss, other = model.loss(*batch(0)), twin.loss(*batch(0))
        loss.backward()
        other.backward()
        assert "forward" not in vars(model) and "forward" not in vars(model.h[0])
        pairs = zip(model.parameters(), twin.parameters())
        return all(np.array_equal(a.grad.data, b.grad.data) for a, b in pairs)

    assert all(simulate(main, 2))


def test_a_parameter_used_outside_is_an_error():
    def main(comm):
        zero = optimizer_of(comm, 3, make())
        return F.linear(Tensor(np.ones((1, 7), np.float32)), zero.model.h[0].up.weight)

    with pytest.raises(RuntimeError, match=r"weight \(0,\)"):
        alone(main)


def test_units_that_overlap_are_refused():
    model = make()
    for units, match in [
        ([model.h[0], model.h[0].up], "lie inside each other"),
        ([model.h[0].up, model.h[0]], "lie inside each other"),
        ([model.h[0], model.h[0]], "lie inside each other"),
        ([nn.Linear(2, 2)], "no module inside the model"),
        ([model], "no module inside the model"),
    ]:
        with pytest.raises(ValueError, match=match):
            alone(lambda comm, units=units: Zero3(model, comm, optim.SGD, units=units))
    assert blocks(model) == [*model.h]


# Weights that are freed


def test_the_walk_finds_arrays_wherever_a_vjp_may_keep_them():
    full = np.arange(24.0)
    views = [full[2:8].reshape(2, 3), full[2:8].reshape(2, 3).T, full[::-2], full[3:4]]
    other = np.ones(3)
    listed, default = [views[0], other], views[3]

    def vjp(g, d=default):
        return pair, table, listed, d, part()

    pair, table = (views[1], other), {"w": views[2], "n": 3}
    part = functools.partial(lambda a: a, views[0])
    unit, flat = SimpleNamespace(steps=0), SimpleNamespace(full=full)
    saved = lambda x: not isinstance(x, Packed) and is_view(x, full)
    pack = lambda x: FreedWeight(unit, flat, x) if saved(x) else x
    vjps = [vjp, None]
    assert {id(x) for x in saved_arrays(vjps)} == {id(x) for x in (*views, other)}
    map_saved(vjps, pack)
    assert [id(x) for x in saved_arrays(vjps)] == [id(other)]
    assert (
        isinstance(pair[0], FreedWeight)
        and isinstance(table["w"], FreedWeight)
        and pair[1] is other
    )
    assert isinstance(listed[0], FreedWeight) and isinstance(vjp.__defaults__[0], FreedWeight)
    with pytest.raises(RuntimeError, match="was freed"):
        np.asarray(listed[0])
    with pytest.raises(TypeError):
        _ = listed[0] * other
    new = full + 100
    map_saved(vjps, lambda x: x.view_of(new) if isinstance(x, FreedWeight) else x)
    for got, view in [(pair[0], views[1]), (table["w"], views[2]), (listed[0], views[0]),
                      (vjp.__defaults__[0], views[3]), (part(), views[0])]:  # fmt: skip
        np.testing.assert_array_equal(got, view + 100)
        assert got.strides == view.strides


# Planted faults


def test_a_gather_that_backward_skips_is_seen():
    honest = Zero3._gather_unit

    def empty(self, unit, step):
        if step > 0:
            honest(self, unit, step)
        elif not unit.is_gathered:
            for flat in unit.flats:
                flat.use(np.zeros(flat.edges[-1], np.float32))
            unit.is_gathered = True

    def forward_only(self, unit, step):
        if step > 0:
            honest(self, unit, step)

    plain = run(3, "plain")
    with mock.patch.object(Zero3, "_gather_unit", empty):
        assert differs(lambda: run(3, 3), plain), "stale weights"
    with mock.patch.object(Zero3, "_gather_unit", forward_only):
        assert differs(lambda: run(3, 3), plain), "no weights"
    with mock.patch.object(Zero3, "_gather_unit", honest):
        assert not differs(lambda: run(3, 3), plain)


def test_the_wrong_unit_prefetched_is_seen():
    """By what is held, and by the bytes: the numbers stay right."""

    def wrong(self, unit, step):
        self.units[-1 if step > 0 else 1].start_gather()

    with (
        mock.patch.object(Zero3, "_prefetch", wrong),
        pytest.raises(AssertionError),
    ):
        check_units(3)


def test_weights_kept_on_the_tape_are_seen():
    with (
        mock.patch.object(Zero3, "_pack", lambda self, x: x),
        pytest.raises(AssertionError),
    ):
        test_freed_memory_is_free(True)


def test_a_unit_that_gathers_another_ones_shard_is_seen():
    honest = Unit.start_gather

    def crossed(self):
        if self.name == "h.1":
            self.flats[0].shard = self.swapped
        honest(self)

    def main(comm):
        zero = optimizer_of(comm, 3, make(), "SGD")
        zero.units[2].swapped = zero.units[1].flats[0].shard
        return steps(zero, comm, 0, 5), zero.full_state_dict()

    plain = run(3, "plain", options={"kind": "SGD"})
    assert not differs(lambda: simulate(main, 3), plain)
    with mock.patch.object(Unit, "start_gather", crossed):
        assert differs(lambda: simulate(main, 3), plain)
