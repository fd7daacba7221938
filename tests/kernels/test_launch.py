"""What a launch is given: arrays as pointers, NumPy's scalars as plain numbers."""

import numpy as np
import pytest
from minidist.kernels.half_precision import BFLOAT16
from minidist.kernels.launch import Pointer, interpreted, pointer, triton_kernel


def test_scalars_become_numbers_that_a_gpu_launch_takes():
    for scalar, kind in ((np.float32(2.5), float), (np.int64(3), int), (np.bool_(True), bool)):
        assert type(pointer(scalar)) is kind and pointer(scalar) == scalar
    assert pointer(7) == 7 and pointer(None) is None


def test_arrays_become_addresses_and_keep_their_dtype():
    x = np.zeros(3, np.float32)
    p = pointer(x)
    assert isinstance(p, Pointer) and p.dtype == "float32"
    assert p.data_ptr() == x.__array_interface__["data"][0]
    assert pointer(np.zeros(2, BFLOAT16)).dtype == "bfloat16"


def test_a_kernel_is_launched_on_a_grid():
    assert interpreted(), "tests run in the interpreter"
    with pytest.raises(TypeError, match=r"launch it on a grid, kernel\[grid\]"):
        triton_kernel(lambda x: None)(1)
