"""Training by data parallelism: every rank writes SHA-256s of all gradients, losses, parameters."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from support.replicas import WAYS, bits, trained

from minidist.comm import mpi_world

COUNTS = {1: [5], 2: [3, 2], 3: [0, 3, 2], 4: [2, 0, 1, 2]}


def results(comm):
    """Digests by model, way and algorithm."""
    found = {}
    for name in ("gpt", "cnn", "lstm"):
        for way in WAYS:
            for algorithm in ("ordered", "ring"):
                arrays = trained(
                    comm, name, COUNTS[comm.size], WAYS[way], 300, "float32", algorithm
                )
                digest = hashlib.sha256(b"".join(bits(arrays).values())).hexdigest()
                found[f"{name} {way} {algorithm}"] = digest
    return found


if __name__ == "__main__":
    comm = mpi_world()
    Path(sys.argv[1], f"{comm.rank}.json").write_text(json.dumps(results(comm)))
