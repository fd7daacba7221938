"""How large the code is: lines by folder, the longest functions and files, the share of comments.

    python benchmarks/sizes.py

It prints figures for whoever wants them. Nothing depends on them: no test has a limit on size.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("minidist", "kernels", "tests", "benchmarks", "tutorials")
PRODUCT = ("minidist", "kernels")  # the functions of these are measured
SHOWN = 10  # of the longest


class File(NamedTuple):
    path: Path
    text: str
    tree: ast.Module

    @property
    def name(self) -> str:
        return str(self.path.relative_to(ROOT))


def files(folders: tuple[str, ...]) -> Iterator[File]:
    """Every Python file of these folders, each once though a folder may be linked into another."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            text = path.read_text("utf-8")
            yield File(path, text, ast.parse(text))


def docstring_lines(tree: ast.AST) -> set[int]:
    """The numbers of the lines that docstrings take."""
    taken: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                taken |= set(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    return taken


def kinds_of_lines(file: File) -> Counter[str]:
    """How many lines of a file are code, docstring, comment on a line of its own, or blank."""
    counted: Counter[str] = Counter()
    docstrings = docstring_lines(file.tree)
    for number, line in enumerate(file.text.splitlines(), 1):
        line = line.strip()
        if number in docstrings:
            counted["docstring"] += 1
        elif not line:
            counted["blank"] += 1
        else:
            counted["comment" if line.startswith("#") else "code"] += 1
    return counted


def functions(file: File) -> Iterator[tuple[int, str]]:
    """The length in lines and the place of each function."""
    for node in ast.walk(file.tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            yield length, f"{file.name}:{node.lineno} {node.name}"


def folder_of(file: File) -> str:
    """`minidist/comm/mpi/world.py` counts for minidist/comm."""
    return "/".join(file.path.relative_to(ROOT).parts[:-1][:2])


def print_folders(found: list[File]) -> None:
    by_folder: dict[str, Counter[str]] = {}
    for file in found:
        by_folder.setdefault(folder_of(file), Counter()).update(kinds_of_lines(file))
    by_folder["all"] = sum(by_folder.values(), Counter())
    print(f"{'folder':28} {'code':>7} {'docstrings':>10} {'comments':>8} {'share of comments':>18}")
    for folder, lines in by_folder.items():
        code, docstrings, comments = (lines[kind] for kind in ("code", "docstring", "comment"))
        share = comments / max(1, comments + code)
        print(f"{folder:28} {code:7,} {docstrings:10,} {comments:8,} {share:18.1%}")


def print_functions(found: list[File]) -> None:
    lengths = sorted(function for file in found for function in functions(file))
    median, ninth = lengths[len(lengths) // 2][0], lengths[len(lengths) * 9 // 10][0]
    print(f"\n{len(lengths):,} functions: median {median} lines, 90th percentile {ninth}")
    for length, place in reversed(lengths[-SHOWN:]):
        print(f"{length:6} {place}")


def print_files(found: list[File]) -> None:
    print("\nThe longest files, in lines")
    lengths = sorted((len(file.text.splitlines()), file.name) for file in found)
    for length, name in reversed(lengths[-SHOWN:]):
        print(f"{length:6} {name}")


def main() -> None:
    print_folders(list(files(FOLDERS)))
    product = list(files(PRODUCT))
    print_functions(product)
    print_files(product)


if __name__ == "__main__":
    main()
