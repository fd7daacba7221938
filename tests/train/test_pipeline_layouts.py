"""Every mesh with a pipeline on up to 8 ranks, every schedule: the bits of the mesh without."""

from itertools import product

import pytest
from support.pipeline_runs import train

from minidist.errors import UserError
from minidist.parallel.pipeline.schedules import NAMES, make

LAYERS, MOST = 4, 8


def fits(pp, schedule, chunks, m):
    try:
        return make(schedule, pp, m, chunks).stages <= LAYERS
    except UserError:
        return False


MESHES = [
    (pp, dp, tp) for pp, dp, tp in product(range(2, 5), range(1, 5), range(1, 5))
    if pp * dp * tp <= MOST
]  # fmt: skip
SCHEDULES = [*((name, None) for name in NAMES), ("zb-h1", 2)]


@pytest.mark.proof
@pytest.mark.parametrize("dp, tp", sorted({mesh[1:] for mesh in MESHES}))
def test_every_mesh_and_schedule(dp, tp, tmp_path):
    """A ring's order of summation depends on the place in a bucket, and so on the stages."""
    around = {
        "dp": dp,
        "tp": tp,
        "allreduce": "ordered",
        "steps": 2,
        "eval_every": 2,
        "batch": 4 * dp + 1,
    }
    runs = 0
    for m in (2, 4):
        wanted = train(tmp_path / f"{m}", **around, microbatches=m)
        for pp in (mesh[0] for mesh in MESHES if mesh[1:] == (dp, tp)):
            for schedule, chunks in SCHEDULES:
                if fits(pp, schedule, chunks, m):
                    layout = {"pp": pp, "schedule": schedule, "chunks": chunks}
                    name = f"{m}-{pp}-{schedule}-{chunks}"
                    assert train(tmp_path / name, **layout, **around, microbatches=m) == wanted, (
                        layout
                    )
                    runs += 1
    assert runs >= 8, "few schedules fit: has something been left out?"
