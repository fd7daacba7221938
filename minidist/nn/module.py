"""Module and Parameter: a tree of named parameters and buffers, as in PyTorch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from ..autograd.hooks import RemovableHandle
from ..kernels import arrays as xp
from ..kernels.half_precision import BFLOAT16, as_dtype
from ..tensor.device import meant, moved
from ..tensor.dtypes import dtype_of, is_floating
from ..tensor.tensor import Tensor


class Parameter(Tensor):
    """A Tensor that a Module trains."""

    __slots__ = ()

    def __init__(self, data: Any, requires_grad: bool = True):
        super().__init__(data, requires_grad)
        self.data = xp.asarray(self.data, order="C")  # optimisers write to it as to one row

    def __setattr__(self, name: str, value: Any) -> None:
        is_data = name == "data" and isinstance(value, Tensor)
        super().__setattr__(name, value.data if is_data else value)

    def __deepcopy__(self, memo: dict) -> Parameter:
        memo[id(self)] = copy = Parameter(Tensor.of(self.data.copy()), self.requires_grad)
        return copy

    def __repr__(self) -> str:
        return "Parameter containing:\n" + super().__repr__()


class Mismatch(NamedTuple):
    """What load_state_dict returns: the names that only one of the two sides had."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        both = f"missing_keys={self.missing_keys}, unexpected_keys={self.unexpected_keys}"
        return f"Mismatch({both})" if any(self) else "<All keys matched successfully>"


class Module:
    """A function with parameters: subclasses set attributes in __init__ and define forward."""

    training = True
    shown: tuple[str, ...] = ()  # the attributes that repr() tells
    _buffers: dict[str, bool] = {}  # name -> persistent
    _pre_hooks: dict[int, Callable] = {}  # shared by all modules until one has hooks of its own
    _hooks: dict[int, Callable] = {}

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} defines no forward()")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        for hook in tuple(self._pre_hooks.values()):
            new = hook(self, args)
            args = args if new is None else new if isinstance(new, tuple) else (new,)
        output = self.forward(*args, **kwargs)
        for hook in tuple(self._hooks.values()):
            new = hook(self, args, output)
            output = output if new is None else new
        return output

    def register_forward_pre_hook(self, hook: Callable) -> RemovableHandle:
        """Call hook(module, args) before forward; what it returns, if not None, are the args."""
        return RemovableHandle(self._own_hooks("_pre_hooks"), hook)

    def register_forward_hook(self, hook: Callable) -> RemovableHandle:
        """Call hook(module, args, output) after forward; what it returns replaces the output."""
        return RemovableHandle(self._own_hooks("_hooks"), hook)

    def _own_hooks(self, kind: str) -> dict[int, Callable]:
        if kind not in vars(self):
            object.__setattr__(self, kind, {})
        return vars(self)[kind]

    # The tree

    def __setattr__(self, name: str, value: Any) -> None:
        here = vars(self).get(name)
        if isinstance(here, Parameter) and not isinstance(value, Parameter | None):
            raise TypeError(
                f"{name} is a parameter, and {type(value).__name__} is none: assign a Parameter, "
                f"or change the numbers with {name}.data[...] = …"
            )
        super().__setattr__(name, value)

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        setattr(self, name, param)

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """A tensor that is state but is not trained; if persistent, state_dict has it."""
        if name in vars(self) and name not in self._buffers:
            raise KeyError(f"attribute '{name}' already exists")
        self._buffers = {**self._buffers, name: persistent}
        setattr(self, name, tensor)

    def add_module(self, name: str, module: Module | None) -> None:
        """Set a module under a name that is no other attribute's."""
        if name in vars(self) and not isinstance(vars(self)[name], Module | None):
            raise KeyError(f"attribute '{name}' already exists")
        setattr(self, name, module)

    def get_submodule(self, target: str) -> Module:
        """The module of a dotted name; this one itself has none."""
        return functools.reduce(getattr, filter(None, target.split(".")), self)

    def get_parameter(self, target: str) -> Parameter:
        path, _, name = target.rpartition(".")
        return getattr(self.get_submodule(path), name)

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules set on this one; one that has two names comes once."""
        found = {id(v): (k, v) for k, v in reversed(vars(self).items()) if isinstance(v, Module)}
        return reversed(found.values())

    def children(self) -> Iterator[Module]:
        return (m for _, m in self.named_children())

    def named_modules(
        self, memo: set[Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Module]]:
        """This module and all below, with dotted names; one that is shared comes once."""
        memo = set() if memo is None else memo
        if remove_duplicate and self in memo:
            return
        memo.add(self)
        yield prefix, self
        for name, child in list(vars(self).items()):
            if isinstance(child, Module):
                below = f"{prefix}.{name}" if prefix else name
                yield from child.named_modules(memo, below, remove_duplicate)

    def modules(self) -> Iterator[Module]:
        return (m for _, m in self.named_modules())

    def _named(self, kind: str, prefix: str, recurse: bool, once: bool) -> Iterator:
        """(name, tensor) of parameters or buffers, each module's own before its children's."""
        seen: set[int] = set()
        for path, m in self.named_modules(None, prefix, once) if recurse else [(prefix, self)]:
            for name, value in list(vars(m).items()):
                is_one = name in m._buffers if kind == "buffer" else isinstance(value, Parameter)
                if is_one and value is not None and not (once and id(value) in seen):
                    seen.add(id(value))
                    yield f"{path}.{name}" if path else name, value

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """Every parameter with its dotted name; one that is shared comes once, by its first."""
        return self._named("parameter", prefix, recurse, remove_duplicate)

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        return self._named("buffer", prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        return (p for _, p in self.named_parameters(recurse=recurse))

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        return (b for _, b in self.named_buffers(recurse=recurse))

    def apply(self, fn: Callable[[Module], Any]) -> Module:
        """Call fn on every module below, then on this one."""
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    # State

    def _state(self) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for path, m in self.named_modules(remove_duplicate=False):
            for tensors in m.named_parameters("", False, False), m.named_buffers("", False, False):
                kept = (item for item in tensors if m._buffers.get(item[0], True))
                found |= {f"{path}.{k}" if path else k: v for k, v in kept}
        return found

    def state_dict(self) -> dict[str, xp.ndarray]:
        """Arrays of parameters and persistent buffers by name, in PyTorch's order, without copying.

        An array that is not contiguous is returned as a read-only copy, because safetensors
        writes raw memory, and a transposed weight would come back scrambled.
        """
        return {name: _as_it_reads(tensor.data) for name, tensor in self._state().items()}

    def load_state_dict(self, state_dict: dict[str, Any], strict: bool = True) -> Mismatch:
        """Copy arrays in by name; with strict, names must match exactly. Shapes always must."""
        own = self._state()
        arrays = {
            k: xp.asarray(v.data if isinstance(v, Tensor) else v) for k, v in state_dict.items()
        }
        missing = [k for k in own if k not in arrays]
        unexpected = [k for k in arrays if k not in own]
        wrong = [f"missing {missing}, unexpected {unexpected}"]
        wrong *= strict and bool(missing or unexpected)
        wrong += [
            f"{k} is {v.shape}, got {arrays[k].shape}"
            for k, v in own.items()
            if k in arrays and arrays[k].shape != v.shape
        ]
        if wrong:
            raise RuntimeError(f"load_state_dict of {type(self).__name__}: " + "; ".join(wrong))
        for name in own.keys() & arrays.keys():
            array, p = arrays[name], own[name]
            if p.dtype == BFLOAT16 and array.dtype == xp.uint16:
                array = array.view(BFLOAT16)  # its bits, as minidist wrote them before ml_dtypes
            p.data[...] = as_dtype(moved(array, p.device), p.dtype)
        return Mismatch(missing, unexpected)

    def zero_grad(self, set_to_none: bool = True) -> None:
        for p in self.parameters():
            if set_to_none:
                p.grad = None
            elif p.grad is not None:
                p.grad.data[...] = 0

    def train(self, mode: bool = True) -> Module:
        for m in self.modules():
            m.training = mode
        return self

    def eval(self) -> Module:
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Module:
        for p in self.parameters():
            p.requires_grad_(requires_grad)
        return self

    def to(self, *args: Any, dtype: Any = None, device: Any = None) -> Module:
        """Convert every floating parameter, gradient and buffer, and move all, in place."""
        dtype, where = meant(args, dtype, device)
        if dtype is not None and dtype_of(dtype).kind in "biu":
            raise TypeError(f"to({dtype_of(dtype).name}): parameters are of a floating-point dtype")
        for t in (*self.parameters(), *self.buffers()):
            for tensor in (t, t.grad):
                if tensor is None:
                    continue
                if dtype is not None and is_floating(tensor.data):
                    tensor.data = as_dtype(tensor.data, dtype_of(dtype))
                if where is not None:
                    tensor.data = moved(tensor.data, where)
        return self

    def float(self) -> Module:
        return self.to("float32")

    def double(self) -> Module:
        return self.to("float64")

    def half(self) -> Module:
        return self.to("float16")

    def bfloat16(self) -> Module:
        return self.to("bfloat16")

    def cpu(self) -> Module:
        return self.to("cpu")

    def cuda(self, device: Any = None) -> Module:
        """Onto the GPU in use, or that of a number or name."""
        return self.to(device="cuda" if device is None else device)

    def __repr__(self) -> str:
        inside = [self.extra_repr()] if self.extra_repr() else []
        rows = [f"({name}): {text}".replace("\n", "\n  ") for name, text in self._told()]
        if not rows:
            return f"{type(self).__name__}({''.join(inside)})"
        return f"{type(self).__name__}(\n  " + "\n  ".join(inside + rows) + "\n)"

    def _told(self) -> Iterator[tuple[str, str]]:
        """The names of the modules inside, and what they say of themselves."""
        return ((k, repr(v)) for k, v in vars(self).items() if isinstance(v, Module))

    def extra_repr(self) -> str:
        """What `shown` names: *values alone, and of bias? whether it is there."""
        values = {name: getattr(self, name.strip("*?")) for name in self.shown}
        values |= {k: v is not None for k, v in values.items() if k.endswith("?")}
        said = (f"{v!r}" if k[0] == "*" else f"{k.strip('?')}={v!r}" for k, v in values.items())
        return ", ".join(said)


def _as_it_reads(array: xp.ndarray) -> xp.ndarray:
    if array.flags.c_contiguous:
        return array
    copy = array.copy("C")
    if not xp.on_gpu(copy):  # CuPy's arrays have no such flag
        copy.flags.writeable = False
    return copy
