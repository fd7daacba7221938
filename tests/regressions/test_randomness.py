"""Published bugs of dropout on several ranks: equal where it must differ, or the other way."""

import numpy as np
import pytest

from minidist import random
from minidist.comm import simulate
from minidist.nn import functional as F
from minidist.parallel import sequence
from minidist.parallel.mesh import Mesh
from minidist.parallel.sequence import SequenceParallelDropout, Tokens
from minidist.tensor.tensor import Tensor

ROWS, LENGTH, WIDTH, P = 4, 6, 8, 0.4
MESHES = [Mesh(dp=2, tp=2), Mesh(dp=1, tp=4), Mesh(dp=4, tp=1), Mesh(dp=2, tp=3)]


def dropped(rows, first, tokens=None, name="h.0.drop_1"):
    """What a layer keeps of ones, of rows that start at number `first` of the global batch."""
    length = LENGTH
    if tokens is not None:
        tokens.length = LENGTH
        length = tokens.local.stop - tokens.local.start
    with random.at(7, 3, first):
        layer = SequenceParallelDropout(P, tokens, name=name)
        return layer(Tensor(np.ones((rows, length, WIDTH)))).data


def on_a_mesh(comm, mesh, sp):
    """This rank's place in the whole, and what it dropped there."""
    place, rows = mesh.coordinates(comm.rank), ROWS // mesh.dp
    first = rows * place["dp"]
    tokens = Tokens(mesh.group(comm, "tp")) if sp else None
    mine = dropped(rows, first, tokens)
    return slice(first, first + rows), tokens.local if sp else slice(None), mine


def masks_are_those_of_one_process(mesh, sp):
    whole = dropped(ROWS, 0)
    for rows, columns, mine in simulate(lambda comm: on_a_mesh(comm, mesh, sp), mesh.size):
        np.testing.assert_array_equal(mine, whole[rows, columns])


@pytest.mark.parametrize("sp", [False, True])
@pytest.mark.parametrize("mesh", MESHES, ids=lambda m: f"dp{m.dp}tp{m.tp}")
def test_masks_are_those_of_one_process(mesh, sp):
    """NVIDIA/Megatron-LM#1256, #4828, tenstorrent/tt-metal#55947, PaddlePaddle/PaddleFleetX#1005.

    Replicated activations drop the same on all tensor-parallel ranks; parts of tokens, and the rows
    of data-parallel ranks, drop what one process drops there.
    """
    masks_are_those_of_one_process(mesh, sp)


def test_the_masks_of_the_whole_differ_in_every_part():
    """Or else masks that are equal where they must differ would pass."""
    whole = dropped(ROWS, 0)
    for parts in (whole, whole.swapaxes(0, 1)):
        assert len({part.tobytes() for part in parts}) == len(parts)


def a_mask_for_each_part_from_the_start(self, input):
    return F.dropout(input, self.p, self.training, self.name)


def test_equal_masks_on_different_tokens_are_seen(monkeypatch):
    monkeypatch.setattr(SequenceParallelDropout, "forward", a_mask_for_each_part_from_the_start)
    masks_are_those_of_one_process(MESHES[1], False)
    with pytest.raises(AssertionError):
        masks_are_those_of_one_process(MESHES[1], True)


def of_each_rank(comm, mesh, sp):
    """Every rank seeds for itself, as replicated activations must not."""
    rows, columns, _ = ON_A_MESH(comm, mesh, sp)
    name = f"h.0.drop_1 of rank {comm.rank}"
    return rows, columns, dropped(ROWS // mesh.dp, rows.start, name=name)


def of_no_rank(comm, mesh, sp):
    """All ranks seed alike, as the rows of data-parallel ones must not."""
    rows, columns, _ = ON_A_MESH(comm, mesh, sp)
    return rows, columns, dropped(ROWS // mesh.dp, 0)


ON_A_MESH = on_a_mesh


@pytest.mark.parametrize("mutant", [of_each_rank, of_no_rank])
def test_a_seed_that_knows_no_axes_is_seen(mutant, monkeypatch):
    monkeypatch.setitem(globals(), "on_a_mesh", mutant)
    with pytest.raises(AssertionError):
        masks_are_those_of_one_process(Mesh(dp=2, tp=2), False)


def by_first_row(name, shape, keep):
    place, *_ = random.get_state()
    return KEEP(f"{name} of rows from {place.first_sample}", shape, keep)


KEEP = sequence.keep_mask


def test_masks_that_depend_on_how_rows_are_cut_are_seen(monkeypatch):
    monkeypatch.setattr(sequence, "keep_mask", by_first_row)
    with pytest.raises(AssertionError):
        masks_are_those_of_one_process(Mesh(dp=2, tp=2), True)
