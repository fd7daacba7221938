"""BLAS has one thread from the first product on, however that is asked for; and the way out."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from minidist.kernels import arrays, blas

PROGRAM = """
import os, sys
import numpy as np, threadpoolctl
import minidist as md
from minidist import nn, optim
from minidist.comm import simulate
from minidist.kernels import newton_schulz
from minidist.nn import functional as F

x = md.tensor(np.ones((64, 64), "f4"), requires_grad=True)
firsts = {
    "none": lambda: x + x,
    "matmul": lambda: x @ x,
    "linear": lambda: F.linear(x, x),
    "few rows": lambda: F.linear(md.ones(2, 2048), md.ones(1024, 2048)),
    "einsum": lambda: md.einsum("ij,jk->ik", x, x),
    "attention": lambda: F.scaled_dot_product_attention(x, x, x),
    "convolution": lambda: F.conv2d(md.ones(1, 2, 8, 8), md.ones(2, 2, 3, 3)),
    "orthogonal": lambda: nn.init.orthogonal_(nn.Linear(8, 8).weight),
    "Muon": lambda: newton_schulz.orthogonalized(x.data, (1.0, 1.0, 1.0), 1, 1e-7),
    "simulate": lambda: simulate(lambda comm: None, 2),
    "a change afterwards": lambda: (x @ x, threadpoolctl.threadpool_limits(2), x @ x),
}
for name, first in firsts.items():
    sys.stdout.flush()
    if os.fork() == 0:  # each is the first of its process
        threadpoolctl.threadpool_limits(2, "blas")
        first()
        print(name, *{lib["num_threads"] for lib in threadpoolctl.threadpool_info()
                      if lib["user_api"] == "blas"}, sep=": ", flush=True)
        os._exit(0)
    os.wait()
"""


def threads_after(**env: str) -> dict[str, str]:
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60,
                          env={**os.environ, **env})  # fmt: skip
    return dict(line.split(": ") for line in done.stdout.splitlines() if ": " in line)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_the_first_product_decides_and_nothing_else():
    found = threads_after()
    assert len(found) == 11 and found.pop("none") == found.pop("a change afterwards") == "2"
    assert set(found.values()) == {"1"}, found
    assert set(threads_after(MINIDIST_BLAS_THREADS="all").values()) == {"2"}


def test_later_products_are_numpys_own():
    for name in arrays.PRODUCTS:
        arrays.__dict__[name] = arrays._first(name)
    assert arrays.matmul is not np.matmul
    assert arrays.matmul(np.eye(2), np.eye(2)).tolist() == [[1, 0], [0, 1]]
    assert arrays.dot(np.ones(2), np.ones(2)) == 2 and arrays.einsum("i->", np.ones(2)) == 2
    assert arrays.tensordot(np.ones(2), np.ones(2), 1) == 2
    assert all(arrays.__dict__[name] is getattr(np, name) for name in arrays.PRODUCTS)


def test_no_kernel_multiplies_past_them():
    """`@` on arrays decides nothing, and stands in the naive versions alone, which are read."""
    blas_calls, found = {"matmul", "dot", "vdot", "inner", "einsum", "tensordot"}, []
    for file in sorted(Path(arrays.__file__).parent.glob("*.py")):
        for top in ast.parse(file.read_text("utf-8")).body:
            naive = "naive" in getattr(top, "name", "")
            for node in ast.walk(top):
                if isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult) and not naive:
                    found.append(f"{file.name}:{node.lineno}: @")
                attribute = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
                if attribute in {f"xp.{name}" for name in blas_calls - set(arrays.PRODUCTS)}:
                    found.append(f"{file.name}:{node.lineno}: {attribute}")
    assert not found, found


def test_the_number_is_read_from_the_environment(monkeypatch):
    for text, wanted in {"": 1, "1": 1, "12": 12, "all": None}.items():
        monkeypatch.setenv("MINIDIST_BLAS_THREADS", text)
        assert blas.threads() == wanted
    for text in ("0", "-1", "two", "1.5", "²"):
        monkeypatch.setenv("MINIDIST_BLAS_THREADS", text)
        with pytest.raises(ValueError, match=r"BLAS_THREADS='.+': want a number of at least 1, or"):
            blas.threads()
