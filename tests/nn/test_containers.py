"""Lists and dicts of parameters: what they hold, its names, its order, and PyTorch's errors."""

import copy
import pickle
from collections import OrderedDict

import numpy as np
import pytest

import minidist as md
from minidist import Tensor, nn


class Mixture(nn.Module):
    def __init__(self):
        self.weights = nn.ParameterList(md.full((2,), float(i)) for i in range(3))
        self.named = nn.ParameterDict({"b": md.ones(2), "a": nn.Parameter(md.zeros(1))})

    def forward(self, x):
        for w in self.weights:
            x = x + w
        return x * self.named["b"] + self.named["a"]


def test_what_they_hold_is_trained_named_and_saved():
    model = Mixture()
    names = ["weights.0", "weights.1", "weights.2", "named.a", "named.b"]
    assert [k for k, _ in model.named_parameters()] == list(model.state_dict()) == names
    model(md.ones(2)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert twin(md.ones(2)).tolist() == model(md.ones(2)).tolist() == [4, 4]
        assert twin.weights[0] is not model.weights[0] and len(twin.weights) == 3
    model.half()
    assert model.weights[1].dtype == model.named["b"].dtype == "float16"
    assert "(1): Parameter containing: [float16 of size 2]" in repr(model)


def test_a_list():
    tensor = md.ones(2, 3)
    params = nn.ParameterList([tensor])
    params.append(md.zeros(1)).extend([nn.Parameter(md.zeros(2))])
    params += (md.zeros(4),)
    assert [p.numel() for p in params] == [6, 1, 2, 4] and len(params) == 4
    assert all(isinstance(p, nn.Parameter) for p in params)
    tensor[0, 0] = 7  # the same memory
    assert params[0][0, 0].item() == 7 and params[-1] is params[3]
    part = params[1:3]
    assert isinstance(part, nn.ParameterList) and [p.numel() for p in part] == [1, 2]
    assert part[0] is params[1] and [k for k, _ in part.named_parameters()] == ["0", "1"]
    params[-2] = md.zeros(9)
    assert list(params.state_dict()) == ["0", "1", "2", "3"] and params[2].numel() == 9
    with_more = nn.ParameterList([md.ones(1), "a word"])
    assert with_more[1] == "a word" and "(1): Object of type: str" in repr(with_more)
    for error, words, call in (
        (IndexError, "index 4 of a ParameterList of 4", lambda: params[4]),
        (IndexError, "index -5", lambda: params[-5]),
        (TypeError, "integer", lambda: params["0"]),
        (TypeError, "an iterable of parameters, not a Tensor", lambda: params.extend(md.ones(2))),
        (TypeError, "not a int", lambda: nn.ParameterList(3)),
        (TypeError, "assign a Parameter", lambda: params.__setitem__(0, "no parameter")),
        (RuntimeError, "cannot be called: use what it holds", lambda: params(md.ones(1))),
    ):
        with pytest.raises(error, match=words):
            call()


def test_a_dict():
    params = nn.ParameterDict(OrderedDict(z=md.ones(1), a=md.ones(2)))
    assert list(params) == ["z", "a"] and list(nn.ParameterDict({"z": 1, "a": 2})) == ["a", "z"]
    params["m"] = Tensor(np.ones(3, "f4"))
    params.update([("q", md.ones(4))])
    params |= {"r": md.ones(5)}
    assert {k: p.numel() for k, p in params.items()} == {"z": 1, "a": 2, "m": 3, "q": 4, "r": 5}
    assert next(reversed(params)) == "r" and "m" in params and len(params) == 5
    both = params | {"s": md.ones(6)}
    assert "s" in both and "s" not in params and both["z"] is params["z"]
    assert params.get("s") is None and params.get("z").numel() == 1
    assert params.setdefault("s", md.ones(6)) is params["s"] and isinstance(
        params["s"], nn.Parameter
    )
    assert params.popitem()[0] == "s" and params.pop("q").numel() == 4
    del params["m"]
    assert list(params.keys()) == ["z", "a", "r"] and len(list(params.values())) == 3
    assert list(params.fromkeys("ab", 1.5).values()) == [1.5, 1.5]
    for error, words, call in (
        (
            KeyError,
            r"'x' is not in the ParameterDict: it has \['z', 'a', 'r'\]",
            lambda: params["x"],
        ),
        (TypeError, "name 1: want a str", lambda: nn.ParameterDict({1: md.ones(1)})),
        (KeyError, "cannot be named 'keys'", lambda: params.update({"keys": md.ones(1)})),
        (KeyError, "cannot be named 'a.b'", lambda: params.update({"a.b": md.ones(1)})),
        (TypeError, "takes a mapping or pairs, not a int", lambda: params.update(3)),
        (RuntimeError, "cannot be called", lambda: params()),
    ):
        with pytest.raises(error, match=words):
            call()
    params.clear()
    assert len(params) == 0 and not list(params.parameters())


def test_a_module_dicts_name_is_a_str_too():
    with pytest.raises(TypeError, match="ModuleDict: name 1: want a str"):
        nn.ModuleDict({1: nn.Identity()})
