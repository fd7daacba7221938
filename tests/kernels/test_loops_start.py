"""What a process pays before its first loop: no import of Numba, no compiler for a cached loop."""

import subprocess
import sys

CODE = """
import sys, numpy as np
from minidist.kernels import layer_norm, softmax
print("numba" in sys.modules)
x = np.ones((2, 3), np.float32)
softmax.forward(x, 1), layer_norm.forward(x, None, None)
print("numba" in sys.modules, "numba.np.arraymath" in sys.modules)
"""


def started():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_numba_is_loaded_by_the_first_loop_and_its_compiler_by_a_new_one():
    started()  # leaves the loops on disk
    assert started() == ["False", "True", "False"]
