"""A captured training step, replayed on new batches, is the step itself (on the GPU's double)."""

import copy
import functools

import numpy as np
import pytest
from minidist.kernels import arrays
from support.double import gpu
from support.proofs import proofs

import minidist as md
from minidist import Tensor, cuda, nn, optim
from minidist.models.gpt import GPT, GPTConfig
from minidist.nn import functional as F
from minidist.optim import adam
from minidist.train import checkpoint

SIZES = GPTConfig(layers=1, hidden=8, heads=2, positions=4, vocab=7)
WARM, STEPS = 1, 3  # before the capture, where optimisers make their state; and in all


@pytest.fixture(autouse=True)
def on_a_gpu():
    with gpu():
        yield


def batches(count, seed=0):
    rng = np.random.default_rng(seed)
    return [Tensor(rng.integers(0, 7, (2, 1, 4))).to("cuda") for _ in range(count)]


class Training:
    """A GPT whose step reads its batch from the same memory each time."""

    def __init__(self, precision=None, **options):
        self.model = GPT(SIZES, seed=1).to("cuda")
        options = {"lr": 1e-2, "weight_decay": 0.1, "capturable": True, **options}
        self.optimizer = optim.AdamW(self.model.parameters(), **options)
        self.x, self.y = (md.zeros(1, 4, dtype="int64", device="cuda") for _ in range(2))
        self.lowered = md.autocast("cuda", precision, enabled=precision is not None)
        self.loss = None

    def put(self, batch):
        self.x.copy_(batch[0])
        self.y.copy_(batch[1])

    def step(self, set_to_none=True):
        self.optimizer.zero_grad(set_to_none)
        with self.lowered:
            self.loss = self.model.loss(self.x, self.y)
        self.loss.backward()
        optim.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()

    def eager(self, batches):
        for batch in batches:
            self.put(batch)
            self.step()
        return self

    def captured(self, set_to_none=True):
        self.optimizer.zero_grad(set_to_none)
        graph = cuda.CUDAGraph()
        with cuda.graph(graph):
            self.step(set_to_none)
        return graph

    def replayed(self, batches, **how):
        """The same by a graph; the losses that it leaves."""
        self.eager(batches[:WARM])
        graph = self.captured(**how)
        for batch in batches[WARM:]:
            self.put(batch)
            graph.replay()
        return self

    def numbers(self):
        """Parameters, moments, and the last loss."""
        moments = (s[k] for s in self.optimizer.state.values() for k in ("exp_avg", "exp_avg_sq"))
        there = [p.data for p in self.model.parameters()] + [*moments, self.loss.data]
        return [a.get() for a in there]


@functools.cache
def wanted(precision=None, capturable=True):
    """Numbers after eager steps on STEPS batches; in a test `without_sorting`."""
    return Training(precision, capturable=capturable).eager(batches(STEPS)).numbers()


def same(training, numbers):
    return all(map(np.array_equal, training.numbers(), numbers))


@pytest.fixture
def without_sorting(monkeypatch):
    """Eager steps sum an embedding's gradient as captured ones do: in another order, to the bit."""
    from minidist.kernels import embedding

    monkeypatch.setattr(embedding, "capturing", lambda: True)


# What is captured


@pytest.mark.parametrize(
    "precision, set_to_none", [("bfloat16", True), *proofs((None, True), (None, False))]
)
def test_a_replayed_step_is_the_step_itself(precision, set_to_none, without_sorting):
    found = Training(precision).replayed(batches(STEPS), set_to_none=set_to_none)
    assert same(found, wanted(precision))
    assert all(int(s["step"]) == STEPS for s in found.optimizer.state.values())


def test_it_is_the_ordinary_adamw_to_rounding(without_sorting):
    for x, y in zip(wanted(), wanted(capturable=False)):
        np.testing.assert_allclose(x, y, rtol=2e-5, atol=1e-6)


def test_sorted_or_not_gradients_of_embeddings_are_near():
    steps = batches(WARM + 1)
    sorting, found = Training().eager(steps), Training().replayed(steps)
    for x, y in zip(found.numbers(), sorting.numbers()):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5)


def test_a_capture_computes_nothing():
    it = Training().eager(batches(WARM))
    before = it.numbers()[:-1]
    graph = it.captured()
    assert all(map(np.array_equal, it.numbers()[:-1], before))
    assert np.isnan(it.loss.item()), "unknown until it is replayed"
    graph.replay()
    assert it.loss.item() > 0 and not all(map(np.array_equal, it.numbers()[:-1], before))


def test_a_rate_in_a_tensor_is_followed(without_sorting):
    rates, steps = [1e-2] * WARM + [1e-3, 2e-2], batches(STEPS)
    ends = []
    for whole in (False, True):
        lr = md.tensor(1e-2, device="cuda")
        it, graph = Training(lr=lr), None
        for i, (rate, batch) in enumerate(zip(rates, steps)):
            lr.fill_(rate)
            if whole and i == WARM:
                graph = it.captured()
            it.put(batch)
            graph.replay() if graph else it.step()
        ends.append(it)
    assert same(ends[1], ends[0].numbers())
    assert not same(ends[0], wanted())


def test_a_plain_rate_is_as_it_was_captured(without_sorting):
    steps = batches(STEPS)
    it = Training().eager(steps[:WARM])
    graph = it.captured()
    it.optimizer.param_groups[0]["lr"] = 1.0
    for batch in steps[WARM:]:
        it.put(batch)
        graph.replay()
    assert same(it, wanted())


def test_operations_of_all_kinds_are_done_again():
    x, index = md.ones(4, device="cuda"), md.tensor([2, 0], device="cuda")
    x[index]
    graph = cuda.CUDAGraph()
    with cuda.graph(graph):
        y = x * 0
        y[1:] = x[1:] * 2
        y += x[index].sum()
        arrays.add.at(y.data, index.data, x.data[:2])
        z = (y * x.exp() / x.exp()).view(2, 2).T
    for numbers in ([1.0, 2, 3, 4], [5.0, 6, 7, 8]):
        x.copy_(md.tensor(numbers, device="cuda"))
        graph.replay()
        a = np.array(numbers, "f")
        wanted = np.array([0, *a[1:] * 2], "f") + a[[2, 0]].sum()
        wanted[[2, 0]] += a[:2]
        np.testing.assert_allclose(z.T.reshape(4).tolist(), wanted, rtol=1e-6)


# What is refused, and why


def refusal(action, error, match):
    """It raises; and afterwards nothing is captured any more."""
    graph = cuda.CUDAGraph()
    with pytest.raises(error, match=match), cuda.graph(graph):
        assert cuda.is_current_stream_capturing()
        action()
    assert not cuda.is_current_stream_capturing()
    assert arrays.gpu().cuda.get_current_stream().ptr == 0
    with pytest.raises(RuntimeError, match="nothing was captured"):
        graph.replay()
    assert md.ones(2, device="cuda").sum().item() == 2


@pytest.mark.parametrize(
    "action, match",
    [
        (lambda x: x.sum().item(), "capturing"), (lambda x: x.tolist(), "capturing"),
        (lambda x: x.cpu(), "capturing"), (lambda x: x[x > 0], "capturing"),
        (lambda x: md.ones(3).to("cuda"), "capturing"), (lambda x: cuda.synchronize(), "capturing"),
        (lambda x: F.dropout(x), "dropout cannot be captured.*at every replay"),
        (lambda x: md.randn(3, device="cuda"), "capturing"),
        (lambda x: arrays.gpu().argsort(x.data), "capturing"),
        (lambda x: md.cat([x, x]), "capturing"),
    ],
)  # fmt: skip
def test_what_cannot_be_captured_is_refused(action, match):
    x = md.ones(3, device="cuda")
    action(x)
    refusal(lambda: action(x), RuntimeError, match)


def test_cublas_is_refused():
    x = md.ones(3, 3, dtype="float64", device="cuda")
    refusal(lambda: x @ x, NotImplementedError, "cuBLAS")


def test_dropout_with_p_0_is_captured():
    x = md.ones(3, device="cuda")
    with cuda.graph(cuda.CUDAGraph()):
        nn.Dropout(0.0)(x)
        nn.Dropout(0.5).eval()(x)


def test_an_adamw_that_counts_in_python_is_refused():
    it = Training(capturable=False).eager(batches(WARM))
    refusal(it.step, RuntimeError, "capturable=True")


def test_for_its_bias_correction_would_stay(monkeypatch, without_sorting):
    monkeypatch.setattr(adam, "capturing", lambda: False)
    found = Training(capturable=False).replayed(batches(STEPS)).numbers()
    differ = [np.abs(x - y).max() for x, y in zip(found, wanted(capturable=False))]
    assert max(differ) > 1e-3


def test_a_first_step_is_refused():
    refusal(Training().step, RuntimeError, "take a step or more before")


def test_a_graph_holds_one_step():
    graph, x = cuda.CUDAGraph(), md.ones(3, device="cuda")
    with cuda.graph(graph):
        x + 1
    with pytest.raises(RuntimeError, match="has a step already"), cuda.graph(graph):
        pass
    graph.reset()
    refusal(cuda.graph(graph).__enter__, RuntimeError, "one block")
    with cuda.graph(graph):
        x + 1
    graph.replay()


# AdamW's count where the parameters are


def trained(device, steps=4, dtype="float32", load=None, **options):
    """A vector, its optimiser, and the optimiser's state after half of the steps."""
    rng = np.random.default_rng(0)
    p = nn.Parameter(Tensor(rng.standard_normal(9), dtype=dtype)).to(device)
    p = nn.Parameter(p.detach())
    optimizer, half = optim.AdamW([p], lr=0.1, weight_decay=0.1, **options), None
    for step in range(steps):
        p.grad = Tensor(rng.standard_normal(9), dtype=dtype).to(device)
        optimizer.step()
        if step + 1 == steps // 2:
            half = copy.deepcopy(optimizer.state_dict())
            if load is not None:
                optimizer.load_state_dict(load)
    return p.detach().cpu().double().numpy(), half


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("amsgrad", [False, True])
def test_counted_there_it_is_the_same(device, dtype, amsgrad):
    ordinary, _ = trained(device, dtype=dtype, amsgrad=amsgrad)
    found, state = trained(device, dtype=dtype, amsgrad=amsgrad, capturable=True)
    assert state["state"][0]["step"].shape == ()
    np.testing.assert_allclose(found, ordinary, rtol={"float64": 1e-13}.get(dtype, 2e-6))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("to", [False, True])
def test_its_state_is_loaded_by_either_kind(device, to):
    whole, state = trained(device)
    for capturable in (False, True):
        _, half = trained(device, capturable=capturable)
        found, _ = trained(device, load=half, capturable=to)
        np.testing.assert_allclose(found, whole, rtol=2e-6)
    state["state"][0]["step"] = 0
    other, _ = trained(device, load=state, capturable=to)
    assert np.abs(other - whole).max() > 1e-3


def test_a_rate_elsewhere_is_refused():
    with pytest.raises(RuntimeError, match=r"want a number, or a tensor.*where the param"):
        p = nn.Parameter(md.ones(3))
        p.grad = md.ones(3)
        optim.AdamW([p], lr=md.tensor(0.1, device="cuda"), capturable=True).step()


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_its_count_comes_back_from_a_checkpoint(device, tmp_path):
    def made():
        model = nn.Linear(3, 2).to(device)
        return model, optim.AdamW(model.parameters(), capturable=True)

    def step(model, optimizer):
        optimizer.zero_grad()
        model(md.ones(4, 3).to(device)).square().sum().backward()
        optimizer.step()
        return [p.detach().cpu().numpy() for p in model.parameters()]

    one, other = made(), made()
    step(*one)
    checkpoint.load(checkpoint.save(tmp_path, 1, *one, tokens=1), *other)
    assert all(map(np.array_equal, step(*one), step(*other)))
    assert [int(s["step"]) for s in other[1].state.values()] == [2, 2]


def test_a_scheduler_changes_the_tensor_that_a_graph_reads():
    p = nn.Parameter(md.ones(3, device="cuda"))
    rate = md.tensor(0.5, device="cuda")
    optimizer = optim.AdamW([p], lr=rate, capturable=True)
    schedule = optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.1)
    p.grad = md.ones(3, device="cuda")
    optimizer.step()
    schedule.step()
    group = optimizer.param_groups[0]
    assert group["lr"] is rate and abs(rate.item() - 0.05) < 1e-6
    assert group["initial_lr"] == 0.5 and schedule.base_lrs == [0.5]
