"""Devices: their names, moving there and back, and what is said where there is none."""

import copy
import pickle
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from support.double import copies, gpu

import minidist as md
from minidist import cuda, nn
from minidist.tensor.device import device, device_of, moved


def test_names():
    assert device("cuda") == "cuda" and device("cuda").index is None
    assert device("cuda:1").index == 1 and device("cuda", 2) == "cuda:2"
    assert device(1) == "cuda:1"
    assert device("cpu:0") == "cpu" == device(None) and device("cpu").type == "cpu"
    assert repr(device("cuda:1")) == "device(type='cuda', index=1)"
    for name in ("nowhere", "cuda:", "cuda:x", "cpu:1", "mps"):
        if name != "cuda:":
            with pytest.raises(RuntimeError, match="'cpu', 'cuda' or 'cuda:N'"):
                device(name)


def test_without_cupy_it_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert not cuda.is_available() and cuda.device_count() == 0
    for move in (
        lambda: md.ones(2).to("cuda"), lambda: md.ones(2, device="cuda"),
        lambda: nn.Linear(2, 2).to("cuda"), lambda: md.ones(2).cuda(), cuda.synchronize,
    ):  # fmt: skip
        with pytest.raises(RuntimeError, match=r"device 'cuda': CuPy cannot be imported.*pip ins"):
            move()


def test_without_a_device_it_says_so(monkeypatch):
    with gpu():
        monkeypatch.setattr(sys.modules["cupy"].cuda.runtime, "getDeviceCount", lambda: 0)
        assert "finds no CUDA device" in cuda.missing()

        def no_driver():
            raise OSError("CUDA driver version is insufficient")

        monkeypatch.setattr(sys.modules["cupy"].cuda.runtime, "getDeviceCount", no_driver)
        assert "insufficient" in cuda.missing() and "driver" in cuda.missing()


def test_there_and_back():
    with gpu():
        x = md.tensor([1.0, 2.0], requires_grad=True)
        y = x.to("cuda")
        assert y.is_cuda and y.device == "cuda:0" and not x.is_cuda and x.to("cpu") is x
        assert (
            y.to("cuda") is y
            and y.to("cuda:0") is y
            and y.to(y.device) is y
            and y.cuda() is y is y.to(0)
        )
        assert x.cuda(0).device == "cuda:0" and y.cpu().device == "cpu"
        assert x.to(y).is_cuda and x.to("cuda", md.float64).dtype == "float64"
        (y * 3).sum().backward()
        assert not x.grad.is_cuda and x.grad.tolist() == [3, 3]
        with pytest.raises(RuntimeError, match="'cuda:1': there are 1"):
            x.to("cuda:1")


def test_what_is_made_there_is_there():
    with gpu():
        x = md.ones(2, 3, device="cuda")
        made = (md.zeros_like(x), md.randn_like(x), x.new_zeros(2), md.arange(3, device="cuda"),
                md.tensor(x), x.clone(), x.detach(), x[0], x.long())  # fmt: skip
        assert all(t.is_cuda for t in made)
        assert not md.zeros_like(x, device="cpu").is_cuda


def test_numbers_come_out_by_name_alone():
    with gpu():
        x = md.ones(2, device="cuda")
        with pytest.raises(TypeError, match=r"on cuda:0: use t\.cpu\(\)\.numpy\(\)"):
            x.numpy()
        with pytest.raises(TypeError):
            np.asarray(x)
        assert x.tolist() == [1, 1] and x.sum().item() == 2.0
        assert "device='cuda:0'" in repr(x)
        assert pickle.loads(pickle.dumps(x)).tolist() == [1, 1]
        assert copy.deepcopy(x).is_cuda


def test_a_module_moves_whole():
    with gpu():
        layer = nn.BatchNorm1d(3)
        layer(md.randn(4, 3)).sum().backward()
        assert layer.cuda() is layer
        tensors = [*layer.parameters(), *layer.buffers(), *(p.grad for p in layer.parameters())]
        assert len(tensors) == 7 and all(t.is_cuda for t in tensors)
        state = layer.cpu().state_dict()
        assert all(isinstance(v, np.ndarray) for v in state.values())
        layer.cuda().load_state_dict(state)
        assert layer.weight.is_cuda


def test_the_gpu_is_asked_for():
    with gpu():
        assert cuda.is_available() and cuda.device_count() == 1 and cuda.current_device() == 0
        cuda.set_device(0)
        cuda.synchronize()
        assert copies["synchronize"] == 1


def test_an_array_of_another_gpu_is_copied_to_the_one_asked_for(monkeypatch):
    with gpu():
        x = md.ones(3, device="cuda")
        there = type(x.data)(x.data._a.copy())
        monkeypatch.setattr(type(there), "device", property(
            lambda self: SimpleNamespace(id=1 if self is there else 0)))  # fmt: skip
        assert device_of(there) == "cuda:1" and moved(there, "cuda") is there
        here = moved(there, "cuda:0")
        assert here is not there and device_of(here) == "cuda:0"
        assert moved(x.data, "cuda:0") is x.data
