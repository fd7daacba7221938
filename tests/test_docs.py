"""The documentation is true: files and names that it points to exist, at most two hops away."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PATH = re.compile(r"`((?:minidist|kernels|tests|benchmarks|tutorials)/[\w/.-]*)`")
PLACE = re.compile(r"`([\w/]+\.py)`(?::| \|) `([\w.]+)`")  # a file, and a name in it


def missing_paths(text: str) -> list[str]:
    """Paths in backquotes that do not exist."""
    return [path for path in PATH.findall(text) if not (ROOT / path).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_paths_exist(page):
    assert not missing_paths(page.read_text("utf-8"))


def test_a_missing_path_is_seen():
    assert missing_paths("see `minidist/nowhere.py` and `docs`") == ["minidist/nowhere.py"]


def names_in(source: str) -> set[str]:
    """Functions and classes, their methods (`Class.method`), and what is assigned at the top."""
    found: set[str] = set()

    def add(nodes, prefix=""):
        for node in nodes:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found.add(prefix + node.name)
                if isinstance(node, ast.ClassDef):
                    add(node.body, f"{node.name}.")
            elif isinstance(node, ast.Assign):
                for target in node.targets:
                    found.update(map(ast.unparse, getattr(target, "elts", [target])))
            elif isinstance(node, ast.AnnAssign):
                found.add(prefix + ast.unparse(node.target))

    add(ast.parse(source).body)
    return found


def missing_names(text: str) -> list[str]:
    """`file.py`: `name` (or the two in cells side by side) where the file has no such name."""
    places = PLACE.findall(text)
    return [
        f"{file}: {name}"
        for file, name in places
        if not (ROOT / file).is_file() or name not in names_in((ROOT / file).read_text("utf-8"))
    ]


WHERE = (ROOT / "docs" / "where.md").read_text("utf-8")


def test_names_exist():
    assert len(PLACE.findall(WHERE)) >= 15
    assert not missing_names(WHERE)


READING = (ROOT / "docs" / "reading.md").read_text("utf-8")


def test_the_reading_path_is_true():
    """Its places exist, its stops are in order, and its files have as many lines as it says."""
    stops = re.findall(r"^(\d+)\. \*\*.*?(?=^\d+\. |^## |^From)", READING, re.M | re.S)
    assert stops == [str(i) for i in range(1, 17)] and not missing_names(READING)
    files = {*re.findall(r"`([\w/]+\.py)`", READING)}
    lines = sum(len((ROOT / file).read_text("utf-8").splitlines()) for file in files)
    said = int(re.search(r"about\s+([\d,]+) lines", READING)[1].replace(",", ""))
    assert abs(lines - said) < 0.05 * said, f"the files of the path have {lines} lines"


def test_a_missing_name_is_seen():
    assert missing_names("`minidist/ops/op.py`: `nothing`") == ["minidist/ops/op.py: nothing"]
    assert missing_names("| `minidist/ops/op.py` | `differentiable` |") == []


def test_each_question_takes_at_most_two_files():
    rows = [line for line in WHERE.splitlines() if line.startswith("| ") and "?" in line]
    assert len(rows) >= 15
    for row in rows:
        assert 1 <= len(set(re.findall(r"`([\w/]+\.py)`", row))) <= 2, row


# Code that pages show is the source's own

SHOWN = re.compile(r"```python\n# ((?:kernels|minidist)/[\w/]+\.py)\n(.*?)```", re.DOTALL)


def unlike_the_source(text: str) -> list[str]:
    """Files whose excerpt, a block that begins with the file's name, is no part of the file."""
    return [
        file for file, code in SHOWN.findall(text) if code not in (ROOT / file).read_text("utf-8")
    ]


KERNELS = (ROOT / "docs" / "kernels.md").read_text("utf-8")


def test_excerpts_are_the_source():
    assert len(SHOWN.findall(KERNELS)) >= 8
    assert not unlike_the_source(KERNELS)


def test_the_example_runs():
    (example,) = re.findall(r"```python\n(import .*?)```", KERNELS, re.DOTALL)
    exec(compile(example, "kernels.md", "exec"), {})


def test_an_excerpt_that_was_changed_is_seen():
    changed = KERNELS.replace("top = row_max(x[i])", "top = x[i].max()")
    assert unlike_the_source(changed) == ["kernels/softmax.py"]


def test_the_bounds_shown_are_those_that_are_tested():
    rows = dict(re.findall(r"^\| `?(\w+)`?[^|]* \| ([\d.]+) \|", KERNELS, re.MULTILINE))
    source = (ROOT / "tests" / "kernels" / "test_elementary.py").read_text("utf-8")
    bounds = ast.literal_eval(re.search(r"^ULPS = (\{.*\})$", source, re.MULTILINE)[1])
    assert {name: float(rows[name]) for name in bounds} == bounds
