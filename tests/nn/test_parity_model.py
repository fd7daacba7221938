"""A whole model of all kinds of layers: PyTorch's file loads here, ours there, and they agree."""

import numpy as np
import pytest
from support.cases import numbers
from support.parity import assert_close, to_torch, torch

import minidist as md
from minidist import Tensor, nn

WORDS = np.array([[1, 4, 0, 2, 2], [3, 3, 5, 1, 0]])


def model_of(lib, m):
    """Images (n, 3, 8, 8) and words (n, s) -> logits (n, s, 6) and attention weights."""

    class Captioner(lib.Module):
        def __init__(self):
            super().__init__()
            self.see = lib.Sequential(
                lib.Conv2d(3, 8, 3, padding=1, bias=False), lib.BatchNorm2d(8), lib.ReLU(),
                lib.MaxPool2d(2), lib.ConvTranspose2d(8, 4, 2, stride=2), lib.GroupNorm(2, 4),
                lib.AdaptiveAvgPool2d(2), lib.Flatten(),
            )  # fmt: skip
            self.words = lib.Embedding(6, 12, padding_idx=0)
            self.read = lib.LSTM(12, 8, num_layers=2, bidirectional=True, batch_first=True)
            self.gates = lib.ModuleDict({"gru": lib.GRU(16, 8, batch_first=True)})
            self.look = lib.MultiheadAttention(8, 2, kdim=16, vdim=16, batch_first=True)
            self.blocks = lib.ModuleList(
                [lib.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True) for _ in range(2)]
            )
            self.norm = lib.LayerNorm(8)
            self.out = lib.Linear(8, 6)
            self.scale = lib.Parameter(m.ones(1))
            self.register_buffer("seen", m.zeros(3))

        def forward(self, images, words):
            seen = self.see(images).unsqueeze(1)
            read, _ = self.read(self.words(words))
            y, _ = self.gates["gru"](read)
            look, weights = self.look(y, seen, seen)
            y = y + look
            for block in self.blocks:
                y = block(y)
            return self.out(self.norm(y) * self.scale), weights

    return Captioner()


@pytest.fixture
def models():
    torch.manual_seed(0)
    theirs = model_of(torch.nn, torch).double()
    for seed in range(3):  # running statistics that are not their first values
        theirs(to_torch(numbers((2, 3, 8, 8), seed)), to_torch(WORDS))
    return model_of(nn, md).double(), theirs


def assert_alike(ours, theirs):
    """Outputs and every gradient, while training and in evaluation."""
    for mode in (True, False):
        x, t = numbers((2, 3, 8, 8), 9), to_torch(numbers((2, 3, 8, 8), 9))
        ours.train(mode).zero_grad(), theirs.train(mode).zero_grad()
        y, z = ours(Tensor(x), Tensor(WORDS)), theirs(t, to_torch(WORDS))
        for a, b in zip(y, z, strict=True):
            assert_close("output", a.data, b, 1e-11)
        (y[0] ** 2).sum().backward()
        (z[0] ** 2).sum().backward()
        for (name, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            assert_close(name, p.grad.data, q.grad, 1e-10)


def test_pytorchs_file_loads_here_and_ours_there(models, tmp_path):
    ours, theirs = models
    from safetensors.numpy import load_file, save_file

    torch_io = pytest.importorskip("safetensors.torch")
    torch_io.save_file(theirs.state_dict(), tmp_path / "theirs.safetensors")
    state = load_file(tmp_path / "theirs.safetensors")
    assert list(ours.state_dict()) == list(theirs.state_dict()) and len(state) > 60
    assert repr(ours.load_state_dict(state)) == "<All keys matched successfully>"
    assert_alike(ours, theirs)
    for p in ours.parameters():
        p.data *= 1.25
    save_file(ours.state_dict(), tmp_path / "ours.safetensors")
    theirs.load_state_dict(torch_io.load_file(tmp_path / "ours.safetensors"))
    assert_alike(ours, theirs)


def test_it_prints_as_pytorchs(models):
    ours, theirs = map(str, models)
    assert ours == theirs.replace("NonDynamicallyQuantizable", "")


def test_one_number_that_is_off_is_seen(models):
    ours, theirs = models
    ours.load_state_dict(theirs.state_dict())
    ours.read.bias_hh_l1_reverse.data[3] += 1e-3
    with pytest.raises(AssertionError, match="output: off by"):
        assert_alike(ours, theirs)
