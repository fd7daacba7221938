"""A data set is scattered, all ranks work on their part, and the results are gathered.

On real ranks: mpirun -n 4 python scatter_gather.py. Without MPI: python scatter_gather.py.
"""

import numpy as np

from minidist.comm import Communicator, Ledger, all_reduce, gather, launch, print_in_order, scatter


def dataset() -> np.ndarray:
    """Ten samples of three features: (10, 3)."""
    return np.random.default_rng(0).normal([1.0, 20.0, 300.0], [0.1, 2.0, 30.0], (10, 3))


def standardised(comm: Communicator, rows: np.ndarray) -> np.ndarray:
    """Each feature with mean 0 and variance 1 over the samples of *all* ranks.

    The ranks have different numbers of rows, so a mean of their means would be wrong. Sums and
    counts are added over the ranks, and the division comes last.
    """
    sums = np.concatenate([rows.sum(0), (rows**2).sum(0), [len(rows)]])  # (3 + 3 + 1,)
    total = all_reduce(comm, sums)
    mean, count = total[:3] / total[6], total[6]
    return (rows - mean) / np.sqrt(total[3:6] / count - mean**2)


def main(comm: Communicator) -> None:
    with Ledger(comm) as ledger:
        mine = scatter(comm, dataset() if comm.rank == 0 else None)  # (3 or 2, 3)
        print_in_order(comm, f"rank {comm.rank} works on {len(mine)} of 10 samples")
        result = gather(comm, standardised(comm, mine))  # (10, 3) on rank 0, None elsewhere
        table = ledger.of_all_ranks().table()
    if comm.rank == 0:
        data = dataset()
        alone = (data - data.mean(0)) / data.std(0)
        assert result is not None and np.allclose(result, alone, rtol=0, atol=1e-12)
        print(f"features have mean {result.mean(0).round(12) + 0.0} and deviation {result.std(0)}")
        print(f"as on one process, to {np.abs(result - alone).max():.1e}; what was sent:\n{table}")


if __name__ == "__main__":
    launch(main, ranks=4)
