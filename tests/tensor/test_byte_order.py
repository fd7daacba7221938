"""Arrays in another byte order: they are refused where a tensor is made of them."""

import numpy as np
import pytest

import minidist as md


@pytest.mark.parametrize("dtype", [">f4", ">i8", ">f8", ">c8"])
def test_an_array_in_another_byte_order_is_refused_when_a_tensor_is_made(dtype):
    """As PyTorch does: it was taken, and operations on it failed, or gave other numbers, later."""
    array = np.arange(3).astype(dtype)
    for make in (md.from_numpy, md.tensor, md.as_tensor, md.Tensor):
        with pytest.raises(ValueError, match=r"big-endian byte order.*newbyteorder"):
            make(array)
    with pytest.raises(ValueError, match="byte order"):
        md.tensor(array, dtype="float32")
    if dtype != ">c8":
        assert md.from_numpy(array.astype(array.dtype.newbyteorder("="))).tolist() == [0, 1, 2]
