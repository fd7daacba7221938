"""Which names of PyTorch are public: those that a program may use, not those of its machinery.

Run as a program, it writes the list of those that minidist does not have.
"""

from __future__ import annotations

import importlib
import re
import textwrap
import types
from pathlib import Path

PLACES = {  # where a name stands here, and there
    "minidist": "torch",
    "minidist.Tensor": "torch.Tensor",
    "minidist.nn": "torch.nn",
    "minidist.nn.functional": "torch.nn.functional",
    "minidist.optim": "torch.optim",
    "minidist.optim.lr_scheduler": "torch.optim.lr_scheduler",
    "minidist.nn.init": "torch.nn.init",
    "minidist.nn.utils": "torch.nn.utils",
    "minidist.autograd": "torch.autograd",
    "minidist.tensor.cuda": "torch.cuda",
}
# Quantised kernels, those of one vendor's library, names of autocast's switches, and the like
MACHINERY = re.compile(
    r"(cudnn|miopen|mkldnn|fbgemm|sym|native|quantized?|fake_quantize|fused|q|autocast|batch_norm|"
    r"(set|get|is|clear)_autocast|parse|import_ir|merge_type|unify_type|has|boolean|assert|handle|"
    r"profiler|prepare|per_(tensor|channel)|legacy|choose|norm_except|compiled|int)_\w*"
    r"|(?!index)\w+_copy|u?int[1-7]|bits?(\d\w*)?|q(u?int\w+|scheme)|[hd]?s?s(add)?p?(add)?mm"
    r"|dsmm|hspmm"
)
SMALLER = list(PLACES)[5:]
CLASSES = re.compile(r"\w+Tensor|Generator|GradScaler|Storage|Stream|Event")  # of torch itself


def at(path: str) -> object:
    """A module, or a class in one."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name) if name == "Tensor" else (
        importlib.import_module(path)
    )  # fmt: skip


def public(place: str) -> list[str]:
    space = at(PLACES[place])
    return [n for n in dir(space) if n[0] != "_" and _is_public(place, n, getattr(space, n, None))]


def _is_public(place: str, name: str, value: object) -> bool:
    if isinstance(value, types.ModuleType) and not value.__name__.startswith("torch."):
        return False
    if place in SMALLER:  # what these files themselves define
        home = getattr(value, "__module__", None) or getattr(value, "__name__", "")
        return home.startswith(PLACES[place]) and not MACHINERY.fullmatch(name)
    if place.endswith("functional"):
        return callable(value) and name.islower() and not MACHINERY.fullmatch(name)
    if place == "minidist":
        proper = name[0].islower() or CLASSES.fullmatch(name)
        return bool(proper) and not MACHINERY.fullmatch(name)
    return True


EDGE = " " * 8
HEAD = '''"""Public names of PyTorch {} that minidist does not have, by module or class.

tests/support/names_of_pytorch.py writes this file, and defines which names are public.
tests/test_absent.py compares the list with the installed PyTorch.
"""

NAMES = {{'''


def main() -> None:
    """Write minidist/absent/names.py: what PyTorch has and minidist does not."""
    import torch

    from minidist.absent import names as written

    ours = {place: at(place) for place in PLACES}

    lines = [HEAD.format(".".join(torch.__version__.split(".")[:2]))]
    for place in PLACES:
        names = sorted(n for n in public(place) if not hasattr(ours[place], n))
        text = textwrap.fill(" ".join(names), 100, initial_indent=EDGE, subsequent_indent=EDGE)
        lines += [f'    "{place}": """', text, '    """,']
    Path(written.__file__).write_text("\n".join([*lines, "}", ""]), "utf-8")


if __name__ == "__main__":
    main()
