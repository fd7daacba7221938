"""The mesh: rank ↔ coordinates is a bijection, tp is innermost, wrong sizes are explained."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidist.comm import all_gather, simulate
from minidist.errors import UserError
from minidist.parallel.mesh import Mesh

sizes = st.integers(1, 4)
meshes = st.builds(Mesh, pp=sizes, dp=sizes, cp=sizes, ep=sizes, tp=sizes)


@given(meshes)
def test_rank_and_coordinates_are_a_bijection(mesh):
    places = [mesh.coordinates(rank) for rank in range(mesh.size)]
    assert [mesh.rank(**place) for place in places] == list(range(mesh.size))
    assert len({tuple(place.values()) for place in places}) == mesh.size


def test_tp_is_innermost_and_pp_outermost():
    mesh = Mesh(pp=2, dp=3, tp=4)
    assert mesh.rank(tp=1) == 1
    assert mesh.rank(dp=1) == 4
    assert mesh.rank(pp=1) == 12


def test_sizes_below_one_are_refused():
    with pytest.raises(UserError, match="dp = 0"):
        Mesh(dp=0)


def test_a_mesh_that_does_not_fit_lists_what_does():
    with pytest.raises(UserError, match=r"dp 3 needs 3 ranks, but there are 4 ranks.*--dp 4"):
        Mesh(dp=3).require(4)
    with pytest.raises(UserError, match=r"--dp 1 --tp 4 or --dp 2 --tp 2 or --dp 4 --tp 1"):
        Mesh(dp=3, tp=2).require(4, ("dp", "tp"))


@given(st.builds(Mesh, pp=st.integers(1, 2), dp=st.integers(1, 3), cp=st.integers(1, 2),
                 tp=st.integers(1, 2)), st.integers(0, 9))  # fmt: skip
@settings(max_examples=15)
def test_groups_of_axes_and_of_pairs_share_all_other_coordinates(mesh, seed):
    def main(comm):
        found = {}
        for axes in (("tp",), ("dp",), ("pp",), ("cp",), ("dp", "cp"), ("dp", "tp")):
            group = mesh.group(comm, *axes)
            found[axes] = all_gather(group, np.array([comm.rank])).tolist()
        return found

    for rank, found in enumerate(simulate(main, mesh.size, seed=seed)):
        mine = mesh.coordinates(rank)
        for axes, members in found.items():
            alike = [r for r in range(mesh.size) if all(
                mesh.coordinates(r)[a] == mine[a] for a in mine if a not in axes)]  # fmt: skip
            assert members == alike


def test_a_group_of_an_unknown_axis_or_of_other_ranks_is_refused():
    with pytest.raises(ValueError, match=r"want axes of pp, dp, cp, ep, tp"):
        simulate(lambda comm: Mesh(dp=2).group(comm, "xp"), 2)
    with pytest.raises(ValueError, match="this mesh's 2 ranks"):
        simulate(lambda comm: Mesh(dp=2).group(comm, "dp"), 3)
