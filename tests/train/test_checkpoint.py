"""Checkpoints come back to the bit, are written whole, and damage is noticed and named."""

import numpy as np
import pytest

from minidist import nn
from minidist.errors import UserError
from minidist.optim import AdamW
from minidist.tensor.tensor import Tensor
from minidist.train import checkpoint


def trained_layer(seed: int) -> tuple[nn.Module, AdamW]:
    rng = np.random.default_rng(seed)
    layer = nn.Linear(3, 2)
    optimizer = AdamW(layer.parameters(), lr=0.1)
    for _ in range(2):
        for p in layer.parameters():
            p.grad = Tensor(rng.normal(size=p.shape).astype(np.float32))
        optimizer.step()
    return layer, optimizer


def test_everything_comes_back(tmp_path):
    layer, optimizer = trained_layer(0)
    path = checkpoint.save(tmp_path, 2, layer, optimizer, tokens=64)
    other, its_optimizer = trained_layer(1)
    assert checkpoint.load(path, other, its_optimizer)["tokens"] == 64
    for name, array in layer.state_dict().items():
        assert other.state_dict()[name].tobytes() == array.tobytes()
    for p, q in zip(layer.parameters(), other.parameters()):
        assert its_optimizer.state[q]["step"] == optimizer.state[p]["step"] == 2
        for key in ("exp_avg", "exp_avg_sq"):
            assert its_optimizer.state[q][key].tobytes() == optimizer.state[p][key].tobytes()


def test_a_number_comes_back_as_a_number(tmp_path):
    layers = [nn.Linear(1, 1), nn.Linear(1, 1)]
    for value, layer in enumerate(layers):
        layer.scale = nn.Parameter(Tensor(float(value)))
    optimizers = [AdamW(layer.parameters()) for layer in layers]
    path = checkpoint.save(tmp_path, 0, layers[1], optimizers[1], tokens=0)
    checkpoint.load(path, layers[0], optimizers[0])
    assert layers[0].scale.shape == () and layers[0].scale.item() == 1


def test_the_last_one_is_the_highest_step(tmp_path):
    layer, optimizer = trained_layer(0)
    for step in (9, 100, 20):
        checkpoint.save(tmp_path, step, layer, optimizer, tokens=0)
    assert checkpoint.last(tmp_path).name == "step-000100"
    for step in (999_999, 1_000_000):  # the later one is the first by its name
        checkpoint.save(tmp_path, step, layer, optimizer, tokens=0)
    assert checkpoint.last(tmp_path).name == "step-1000000"


def test_no_checkpoint(tmp_path):
    with pytest.raises(UserError, match="no checkpoint in"):
        checkpoint.last(tmp_path)


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:-7])


def remove(path):
    path.unlink()


@pytest.mark.parametrize("damage", [flip, cut, remove])
@pytest.mark.parametrize("name", [*checkpoint.FILES, "state.json"])
def test_damage_is_noticed(tmp_path, damage, name):
    layer, optimizer = trained_layer(0)
    path = checkpoint.save(tmp_path, 2, layer, optimizer, tokens=64)
    damage(path / name)
    with pytest.raises(UserError, match=r"is corrupt .*delete that folder"):
        checkpoint.load(path, layer, optimizer)


def test_another_model_is_named(tmp_path):
    path = checkpoint.save(tmp_path, 2, *trained_layer(0), tokens=0)
    with pytest.raises(UserError, match=r"of another model: .*weight is"):
        checkpoint.load(path, nn.Linear(2, 2))


def test_a_half_written_draft_is_no_checkpoint(tmp_path):
    checkpoint.save(tmp_path, 1, *trained_layer(0), tokens=0)
    (tmp_path / ".step-000002.part").mkdir()
    assert checkpoint.last(tmp_path).name == "step-000001"
    checkpoint.save(tmp_path, 2, *trained_layer(0), tokens=0)
    assert checkpoint.last(tmp_path).name == "step-000002"
