"""Ping-pong: how long does a message take? n bytes take α + β·n seconds; a fit gives α and β.

On real ranks: mpirun -n 4 python ping_pong.py (ranks 0 and 1 play, the others watch).
Without MPI: python ping_pong.py. A virtual clock has a known α and β, and the fit must find them.
"""

import numpy as np

from minidist.comm import Clock, Communicator, barrier, launch

SIZES = [1 << k for k in range(3, 23)]  # bytes: 8 B to 4 MiB


def seconds(comm: Communicator, nbytes: int, rounds: int) -> float:
    """Seconds that a message takes in one direction, the mean of 2 · rounds."""
    ball = np.zeros(nbytes, np.uint8)
    start = comm.time()
    for _ in range(rounds):
        if comm.rank == 0:
            comm.send(ball, 1)
            comm.recv(ball, 1)
        elif comm.rank == 1:
            comm.recv(ball, 0)
            comm.send(ball, 0)
    return (comm.time() - start) / (2 * rounds)


def fit(times: list[float]) -> tuple[float, float]:
    """The best α and β. Each error is relative to its time, so small messages count as much."""
    t, n = np.array(times), np.array(SIZES)
    (alpha, beta), *_ = np.linalg.lstsq(np.stack([1 / t, n / t], axis=1), np.ones(len(t)))
    return float(alpha), float(beta)


def main(comm: Communicator) -> tuple[float, float] | None:
    barrier(comm)
    seconds(comm, SIZES[-1], 3)  # warm up: the first messages set up the connection
    times = [seconds(comm, n, max(5, min(300, (1 << 23) // n))) for n in SIZES]
    if comm.rank > 0:
        return None
    alpha, beta = fit(times)
    print(f"{'bytes':>10} {'measured µs':>12} {'α + β·n':>10} {'GB/s':>8}")
    for n, t in zip(SIZES, times):
        print(f"{n:10,} {1e6 * t:12.2f} {1e6 * (alpha + beta * n):10.2f} {n / t / 1e9:8.3f}")
    print(f"α = {1e6 * alpha:.2f} µs a message, β = {1e9 * beta:.3f} ns a byte")
    print(f"half of the {1 / beta / 1e9:.1f} GB/s are reached at α/β = {alpha / beta:,.0f} bytes")
    return alpha, beta


if __name__ == "__main__":
    launch(main, ranks=4, clock=Clock(alpha=5e-6, beta=1e-10))
