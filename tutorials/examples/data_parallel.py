"""Data parallelism three ways: gradients summed one by one, in buckets, and during backward.

On real ranks: mpirun -n 4 python data_parallel.py. Without MPI: python data_parallel.py.
"""

import numpy as np

from minidist import random
from minidist.comm import Communicator, Ledger, launch, print_in_order, shard_range
from minidist.comm.comm_self import CommSelf
from minidist.models.gpt import GPT, GPTConfig
from minidist.optim import SGD
from minidist.parallel.data import Bucketed, Naive, Overlapped
from minidist.tensor.tensor import Tensor

CONFIG = GPTConfig(layers=2, hidden=32, heads=4, positions=16, vocab=64, dropout=0.1)
ROWS = np.random.default_rng(0).integers(0, 64, (7, 17))  # 7 rows: they do not divide by 4


def train(comm: Communicator, kind: type, steps: int = 3) -> tuple[dict, list, Ledger]:
    """Weights, global losses and the traffic of the last step."""
    model = GPT(CONFIG, seed=0)
    model.to("float64")
    model.reset_parameters(0)
    gradients = kind(model.parameters(), comm, algorithm="ordered")
    optimizer, losses = SGD(model.parameters(), lr=0.1, momentum=0.9), []
    first, last = shard_range(len(ROWS), comm.size, comm.rank)
    for step in range(steps):
        with random.at(0, step, first), Ledger(comm) as ledger:
            x, y = Tensor(ROWS[first:last, :-1].copy()), Tensor(ROWS[first:last, 1:].copy())
            # This rank's sum over the global count: the sum of gradients is the global mean's.
            loss = model.loss(x, y, reduction="sum") / (len(ROWS) * 16)
            loss.backward()
            gradients.sum_gradients()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    gradients.remove()
    return model.state_dict(), losses, ledger


def main(comm: Communicator) -> None:
    alone, whole_losses, _ = train(CommSelf(), Bucketed)
    found = {kind.__name__: train(comm, kind) for kind in (Naive, Bucketed, Overlapped)}
    first, last = shard_range(len(ROWS), comm.size, comm.rank)
    print_in_order(comm, f"rank {comm.rank} computes rows {first} to {last - 1}")
    for name, (state, _, ledger) in found.items():
        assert all(state[k].tobytes() == found["Naive"][0][k].tobytes() for k in state), name
        far = max(np.abs(state[k] - alone[k]).max() for k in state)
        assert far < 1e-12, f"{name} is not one process: {far}"
        sums = ledger.by("collective")[("all_reduce",)] if comm.size > 1 else (0, 0)
        if comm.rank == 0:
            print(f"{name:<11} rank 0 sent {sums[1]:,} bytes in {sums[0]:3} messages a step; "
                  f"{far:.0e} from one process")  # fmt: skip
    if comm.rank == 0:
        print(f"the three have the same bits; loss {whole_losses[0]:.4f} -> {whole_losses[-1]:.4f}")


if __name__ == "__main__":
    launch(main, ranks=4)
