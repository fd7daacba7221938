"""Trains, but rank 2 raises at its third step."""

import sys

from minidist import cli
from minidist.train import loop

step = loop.Trainer.step


def breaks(self, number):
    if self.comm.rank == 2 and number == 3:
        raise ZeroDivisionError("planted on rank 2 at step 3")
    return step(self, number)


loop.Trainer.step = breaks
sys.argv = ["minidist", "train", "--model", "gpt-nano", "--steps", "9", "--out", sys.argv[1]]
cli.main()
