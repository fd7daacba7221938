"""Pooling's gradient where windows leave gaps: what no window sees gets 0, not old memory."""

import numpy as np
from minidist.kernels import pool
from minidist.kernels.windows import pool_windows
from support.tritons import poisoned


def slope(kernel, stride, length, ceil_mode):
    win = pool_windows("max_pool2d", 2, kernel, stride, 0)
    x = np.arange(float(length * kernel[1])).reshape(1, 1, length, kernel[1])
    with poisoned():
        y, which = pool.max_forward(x, win, win.grid(x.shape[2:], ceil_mode))
        return pool.max_backward(np.ones_like(y), which, x.shape, win)[0, 0, :, -1].tolist()


def test_a_row_between_two_windows_gets_nothing():
    assert slope((2, 1), (3, 1), 4, True) == [0, 1, 0, 1], "the last window leaves the input"
    assert slope((2, 1), (3, 1), 5, False) == [0, 1, 0, 0, 1]
    assert slope((2, 1), (2, 1), 4, False) == [0, 1, 0, 1], "no gaps: nothing is filled first"
