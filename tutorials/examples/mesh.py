"""A mesh: tensor parallelism inside, data parallelism outside, ZeRO over the replicas.

On real ranks: mpirun -n 4 python mesh.py. Without MPI: python mesh.py.
"""

import numpy as np

from minidist.comm import Communicator, Ledger, all_reduce, launch, print_in_order, shard_range
from minidist.comm.comm_self import CommSelf
from minidist.models.gpt import GPT, GPTConfig
from minidist.optim import SGD
from minidist.parallel.layout import full_state_dict
from minidist.parallel.mesh import Mesh
from minidist.parallel.zero import Zero
from minidist.tensor.tensor import Tensor

CONFIG = GPTConfig(layers=2, hidden=32, heads=4, positions=16, vocab=64)
ROWS = np.random.default_rng(0).integers(0, 64, (6, 17))


def train(tp: Communicator, dp: Communicator, steps: int = 3) -> tuple[dict, list, dict]:
    """Whole weights, global losses, and the bytes this rank held."""
    model = GPT(CONFIG, seed=0, tp=tp)
    model.to("float64")
    model.reset_parameters(0)
    zero = Zero(model, dp, SGD, stage=2, lr=0.1, momentum=0.9)
    first, last = shard_range(len(ROWS), dp.size, dp.rank)
    losses, held = [], {}
    for _ in range(steps):
        x, y = Tensor(ROWS[first:last, :-1].copy()), Tensor(ROWS[first:last, 1:].copy())
        loss = model.loss(x, y, reduction="sum") / (len(ROWS) * 16)
        loss.backward()
        zero.sum_gradients()
        zero.step()
        held = zero.nbytes()
        zero.zero_grad()
        losses.append(float(all_reduce(dp, loss.data)))
    return full_state_dict(model), losses, held


def main(comm: Communicator) -> None:
    tp_size = 2 if comm.size % 2 == 0 else 1
    mesh = Mesh(dp=comm.size // tp_size, tp=tp_size)
    place = mesh.coordinates(comm.rank)
    tp, dp = mesh.group(comm, "tp"), mesh.group(comm, "dp")
    alone, losses, whole = train(CommSelf(), CommSelf())
    with Ledger(comm) as ledger:
        state, ours, held = train(tp, dp)
    far = max(np.abs(state[k] - alone[k]).max() for k in alone)
    assert far < 1e-12 and np.allclose(ours, losses, rtol=0, atol=1e-12)
    sent = {name: nbytes for (name,), (_, nbytes) in ledger.by("collective").items()}
    share = ", ".join(f"{kind} {held[kind] / whole[kind]:.2f}" for kind in held)
    print_in_order(comm, f"rank {comm.rank} at dp {place['dp']}, tp {place['tp']} holds of one "
                         f"process's bytes: {share}; sent {sum(sent.values()):,}")  # fmt: skip
    if comm.rank == 0:
        print(f"losses {losses[0]:.4f} -> {losses[-1]:.4f}, weights {far:.0e} from one process")


if __name__ == "__main__":
    launch(main, ranks=4)
