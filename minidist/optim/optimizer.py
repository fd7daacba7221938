"""Optimizer: parameter groups, per-parameter state, and their state_dict, as in PyTorch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from ..autograd.modes import enable_grad
from ..autograd.versions import mark_changed
from ..kernels import arrays as xp
from ..kernels.half_precision import BFLOAT16, as_dtype, sum_dtype, summable
from ..tensor.device import moved
from ..tensor.flat import Flat, flattened
from ..tensor.tensor import Tensor


class Optimizer:
    """Updates parameters from their gradients; a subclass defines update, the formula on arrays.

    `params` is an iterable of parameters, or of dicts {"params": [...], "lr": ...} whose options
    override the defaults for their group.
    """

    elementwise = True  # an element's update follows from this element's numbers alone

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]):
        if isinstance(params, Tensor):
            raise TypeError("optimizer: give a list of parameters, not a tensor")
        if not isinstance(params, Iterable):
            kind = type(params).__name__
            raise TypeError(f"optimizer got a {kind}: pass its parameters, model.parameters()")
        entries = list(params)
        if not entries:
            raise ValueError("optimizer got no parameters: pass model.parameters()")
        self.defaults, self.param_groups = defaults, list[dict[str, Any]]()
        self.state: dict[Tensor, dict[str, Any]] = defaultdict(dict)
        self._flats: list[tuple[dict[str, Any], FlatState]] = []  # each with its group
        for group in entries if isinstance(entries[0], dict) else [{"params": entries}]:
            self.add_param_group(group)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Train further parameters: {"params": [...], and any options of their own}."""
        if not isinstance(param_group, dict) or "params" not in param_group:
            raise TypeError(f'optimizer: want a dict {{"params": [...]}}, not {param_group!r}')
        params = param_group["params"]
        if isinstance(params, set):
            raise TypeError("optimizer: a set has another order in every run: give a list")
        params = [params] if isinstance(params, Tensor) else list(params)
        _check([*self._numbered(), *params])
        self.param_groups.append({**self.defaults, **param_group, "params": params})

    def flatten_parameters(self) -> None:
        """Lay the parameters of each group side by side in memory: a step is then one pass.

        The numbers stay the same, to the bit. Parameters on a GPU, of 16 bits, frozen, or with
        memory that is shared stay where they are; so do those of a group that is added later.
        tensor/flat.py says how it works. Call it before other objects keep arrays of the
        parameters (`p.data`): those would be copies from then on.

        Raises:
            TypeError: if the optimiser needs whole matrices (Muon).
        """
        if not self.elementwise:
            raise TypeError(f"{type(self).__name__} needs whole matrices: it cannot flatten them")
        for group in self.param_groups:
            self._flats += [(group, FlatState(flat)) for flat in flattened(group["params"])]

    def zero_grad(self, set_to_none: bool = True) -> None:
        for p in self._numbered():
            if set_to_none or p.grad is None:
                p.grad = None
            else:
                p.grad.data[...] = 0

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; a closure is called first, for its loss."""
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        name = f"{type(self).__name__}.step"
        for group in self.param_groups:
            done: set[Tensor] = set()
            for owner, flat in self._flats:
                if owner is group and flat.update(self, group):
                    mark_changed(flat.flat.data, name)
                    done.update(flat.flat.leaves)
            for p in group["params"]:
                grad = p.grad
                if grad is not None and p not in done:
                    self._update(p, grad.data, group)
                    mark_changed(p.data, name)
        return loss

    def _update(self, p: Tensor, g: xp.ndarray, group: dict[str, Any]) -> None:
        array = _dense(p.data)
        g = _dense(-g if group.get("maximize") else g)
        if xp.gpu() is None:
            self.update(array, g, self.state[p], group)
        else:
            with xp.beside(array):
                self.update(array, g, self.state[p], group)
        if array is not p.data:
            p.data[...] = array

    def update(
        self, p: xp.ndarray, g: xp.ndarray, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        """One step of one parameter, into p and its state; g is not to be written to."""
        raise NotImplementedError(f"{type(self).__name__} defines no update()")

    def _numbered(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    def state_dict(self) -> dict[str, Any]:
        """{"state": {number: state}, "param_groups": [...]}: parameters by their number."""
        number = {p: i for i, p in enumerate(self._numbered())}
        groups = [{**g, "params": [number[p] for p in g["params"]]} for g in self.param_groups]
        state = {number[p]: dict(s) for p, s in self.state.items() if s}
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a state_dict, ours or PyTorch's: parameters match by their order."""
        groups = state_dict["param_groups"]
        given, own = ([len(g["params"]) for g in gs] for gs in (groups, self.param_groups))
        if given != own:
            raise ValueError(f"load_state_dict: groups of other sizes: {given}, here {own}")
        params = dict(zip((n for g in groups for n in g["params"]), self._numbered()))
        state = {params[n]: _loaded(s, params[n]) for n, s in state_dict["state"].items()}
        for group, new in zip(self.param_groups, groups):
            group.update({k: v for k, v in new.items() if k != "params"})
        self.state = defaultdict(dict, state)


class FlatState:
    """The state of a Flat's leaves, side by side too. A leaf's own state has views of it."""

    def __init__(self, flat: Flat):
        self.flat = flat
        self.state: dict[str, Any] = {}
        self.places: dict[str, list[xp.ndarray]] = {}

    def update(self, optimizer: Optimizer, group: dict[str, Any]) -> bool:
        """Update all leaves at once; False if they must be updated one by one."""
        states = [optimizer.state[t] for t in self.flat.leaves]
        if not (self._settle(states) and self.flat.settle()):
            return False
        data, grad = self.flat.data, self.flat.grad
        optimizer.update(data, -grad if group.get("maximize") else grad, self.state, group)
        self._hand_out(states)
        return True

    def _settle(self, states: list[dict[str, Any]]) -> bool:
        """Bring the leaves' states into their places; False if they are of different kinds."""
        first = states[0]
        for state in states:
            if state.keys() != first.keys() or state.get("step") != first.get("step"):
                return False
        for name, value in first.items():
            if name == "step":
                if not isinstance(value, int):  # it is counted where the parameters are
                    return False
                self.state[name] = value
                continue
            if not all(isinstance(state[name], xp.ndarray) for state in states):
                return False
            if name not in self.places:
                self._make(name)
            for state, place in zip(states, self.places[name]):
                if state[name] is not place:
                    if state[name].dtype != place.dtype or state[name].shape != place.shape:
                        return False
                    place[...] = state[name]
                    state[name] = place
        for name in self.state.keys() - first.keys():  # a state that was cleared
            del self.state[name]
            self.places.pop(name, None)
        return True

    def _make(self, name: str) -> None:
        self.state[name] = xp.aligned(self.flat.data.size, self.flat.data.dtype)
        self.places[name] = xp.cut(self.state[name], [place.shape for place in self.flat.places])

    def _hand_out(self, states: list[dict[str, Any]]) -> None:
        """Give each leaf its views of what the step has made new, and the number of the step."""
        for name in [n for n in self.state if n != "step" and n not in self.places]:
            value = self.state[name]
            self._make(name)
            self.state[name][...] = value
            for state, place in zip(states, self.places[name]):
                state[name] = place
        if "step" in self.state:
            for state in states:
                state["step"] = self.state["step"]


def _dense(x: xp.ndarray) -> xp.ndarray:
    """x itself, or a copy that kernels take: numbers without gaps, of a dtype for long sums."""
    return x if x.flags.c_contiguous and x.dtype != BFLOAT16 else xp.asarray(summable(x), order="C")


def _check(params: list[Any]) -> None:
    for i, p in enumerate(params):
        if not isinstance(p, Tensor):
            raise TypeError(f"optimizer: parameter {i} is a {type(p).__name__}, not a tensor")
        if not p.is_leaf:
            raise ValueError(f"optimizer: parameter {i} was computed from other tensors: detach it")
    if len({id(p) for p in params}) < len(params):
        raise ValueError("optimizer: a parameter is given twice: it would be updated twice")


def _loaded(state: dict[str, Any], p: Tensor) -> dict[str, Any]:
    """A parameter's own copy of its state: "step" a number, all else arrays of p's shape."""
    copy: dict[str, Any] = {}
    for name, value in state.items():
        if name == "step":
            copy[name] = int(value)
        elif value is not None:
            array = value.data if isinstance(value, Tensor) else xp.asarray(value)
            copy[name] = xp.array(as_dtype(moved(array, p.device), sum_dtype(p.dtype)), order="C")
            if copy[name].shape != p.shape:
                raise ValueError(
                    f"load_state_dict: {name} of shape {copy[name].shape} for a parameter "
                    f"of {p.shape}"
                )
    return copy


def moments(state: dict[str, Any], p: xp.ndarray, *names: str) -> list[xp.ndarray]:
    """The named arrays of a state, zeros at first; of p's dtype, also when that has changed."""
    for name in names:
        if name not in state:
            state[name] = xp.zeros_like(p)
        elif state[name].dtype != p.dtype:  # model.double() after a step
            state[name] = as_dtype(state[name], p.dtype)
    return [state[name] for name in names]


def count_step(state: dict[str, Any]) -> int:
    """The number of this step, from 1."""
    state["step"] = state.get("step", 0) + 1
    return state["step"]


def require_nonnegative(**values: float) -> None:
    """Refuse a negative hyper-parameter, or nan, by name."""
    for name, value in values.items():
        if not value >= 0:
            raise ValueError(f"{name} = {value}: want a number >= 0")


def require_betas(betas: tuple[float, float]) -> None:
    if len(betas) != 2 or not all(0 <= b < 1 for b in betas):
        raise ValueError(f"betas = {betas}: want two numbers in [0, 1)")
