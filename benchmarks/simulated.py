"""Simulated ranks: what a message costs, and how many ranks one process carries.

It has no competitor in this run: threads that hand each other a baton take some 14 µs a switch.
"""

import threading
import time

import numpy as np

from minidist.comm import Clock, all_reduce, broadcast, simulate


def seconds(run):
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def passing(rounds):
    def main(comm):
        x, out = np.zeros(1), np.zeros(1)
        for _ in range(rounds):
            comm.sendrecv(x, (comm.rank + 1) % comm.size, out, (comm.rank - 1) % comm.size)

    return main


def batons(rounds):
    """Two threads that hand a baton to and fro."""
    mine, other = threading.Semaphore(1), threading.Semaphore(0)

    def turn(take, give):
        for _ in range(rounds):
            take.acquire()
            give.release()

    threads = [threading.Thread(target=turn, args=pair) for pair in ((mine, other), (other, mine))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main():
    n = 20_000
    plain = seconds(lambda: simulate(passing(n), 4)) / (4 * n)
    clock = seconds(lambda: simulate(passing(n), 4, clock=Clock())) / (4 * n)
    seeded = seconds(lambda: simulate(passing(n), 4, seed=0)) / (4 * n)
    baton = seconds(lambda: batons(n)) / (2 * n)
    print(f"a message, 4 ranks: {1e6 * plain:.1f} µs; seeded {1e6 * seeded:.1f}, with a clock "
          f"{1e6 * clock:.1f}; two threads' baton {1e6 * baton:.1f} µs a switch")  # fmt: skip
    x, y = np.ones(1024), np.ones(4)
    ring = seconds(lambda: simulate(lambda comm: all_reduce(comm, x, algorithm="ring"), 1024))
    tree = seconds(lambda: simulate(lambda comm: broadcast(comm, y.copy(), 0, "tree"), 10_000))
    print(f"ring all-reduce, 1,024 ranks, {2 * 1024 * 1023:,} messages: {ring:.1f} s")
    print(f"binomial broadcast, 10,000 ranks: {tree:.2f} s")


if __name__ == "__main__":
    main()
