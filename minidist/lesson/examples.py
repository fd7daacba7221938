"""List, run and copy the programs of tutorials/examples, which the wheel contains."""

from __future__ import annotations

import ast
import os
import runpy
import shutil
import sys
from pathlib import Path

from ..errors import UserError, did_you_mean

PACKAGE = Path(__file__).resolve().parents[1]
NEEDS = "*_digits read handwritten digits that come with scikit-learn: pip install scikit-learn"


def folder() -> Path:
    """The folder of the programs: in the installed package, or in the source tree."""
    inside = PACKAGE / "examples"
    return inside if inside.is_dir() else PACKAGE.parent / "tutorials" / "examples"


def programs() -> dict[str, Path]:
    """Every program by its name."""
    return {path.stem: path for path in sorted(folder().glob("[!_]*.py"))}


def find(name: str) -> Path:
    """The program of that name; UserError if there is none."""
    known, name = programs(), name.removesuffix(".py")
    if name not in known:
        hint = did_you_mean(name, known, "'minidist examples' lists them")
        raise UserError(f"no example '{name}': {hint}")
    return known[name]


def listing() -> str:
    """A line for each program: its name, and the first sentence of its docstring."""
    each = programs()
    width = max(map(len, each), default=0)
    lines = (f"{name:<{width}}  {_first_line(path)}" for name, path in each.items())
    return "\n".join([*lines, "", NEEDS])


def _first_line(path: Path) -> str:
    return (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").split("\n")[0]


def run(name: str, arguments: tuple[str, ...]) -> None:
    """Run a program as `python name.py` would, here or on all ranks that mpirun started."""
    path = find(name)
    sys.argv = [str(path), *arguments]
    runpy.run_path(str(path), run_name="__main__")


def copied(name: str | None, into: Path) -> str:
    """Copy one program, or all, into a folder that has no such files yet; return the names."""
    wanted = list(programs().values()) if name is None else [find(name)]
    copies = [into / path.name for path in wanted]
    there = [str(path) for path in copies if os.path.exists(path)]
    if there:
        raise UserError(f"copy: {', '.join(there[:3])} is there already: choose another folder")
    try:
        into.mkdir(parents=True, exist_ok=True)
        for path, target in zip(wanted, copies):
            shutil.copyfile(path, target)
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"copy '{into}' cannot be written: {reason}") from None
    return " ".join(path.name for path in copies)
