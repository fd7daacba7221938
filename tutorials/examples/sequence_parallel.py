"""Sequence parallelism: between a GPT's tensor-parallel pairs each rank has some tokens only.

A reduce-scatter and an all-gather take the place of every all-reduce; backward gathers once more,
so that a rank need keep nothing but its own tokens.

python tutorials/examples/sequence_parallel.py               # four simulated ranks
mpirun -n 4 python tutorials/examples/sequence_parallel.py   # four real ones
"""

import numpy as np

from minidist import Tensor, optim, random
from minidist.comm import Communicator, Ledger, launch, print_in_order
from minidist.models.gpt import GPT, GPTConfig
from minidist.parallel.layout import full_state_dict, shards_of
from minidist.parallel.sequence import partial_parameters, sum_partial

CONFIG = GPTConfig(layers=2, hidden=20, heads=5, positions=18, vocab=31, dropout=0.1)
TOKENS = np.random.default_rng(0).integers(0, CONFIG.vocab, (3, 19))  # 18 on 4 ranks: 5, 5, 4, 4


def train(comm: Communicator | None, sequence_parallel: bool):
    """The model; its loss, and whole gradients and weights of one step; who sent what."""
    model = GPT(CONFIG, seed=0, tp=comm, sequence_parallel=sequence_parallel).double()
    model.reset_parameters(0)  # again, in all digits of float64
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    with Ledger(model.tp) as ledger, random.at(0, 0, 0):  # the same masks for all
        loss = model.loss(Tensor(TOKENS[:, :-1]), Tensor(TOKENS[:, 1:]))
        loss.backward()
        if sequence_parallel:  # what is whole everywhere has seen this rank's tokens only
            sum_partial(partial_parameters(model), model.tp)
    parts, found = shards_of(model), {"loss": loss.data}
    for name, p in model.named_parameters():
        grad = p.grad.data.copy()
        found[f"{name}'s gradient"] = parts[name].gather(grad) if name in parts else grad
    optimizer.step()
    return model, found | full_state_dict(model), ledger


def main(comm: Communicator) -> None:
    alone, wanted, _ = train(None, False)
    for sequence_parallel in (False, True):
        model, found, ledger = train(comm, sequence_parallel)
        for name, whole in wanted.items():
            np.testing.assert_allclose(found[name], whole, rtol=0, atol=1e-12, err_msg=name)
        numbers = sum(p.numel() for p in model.parameters())
        nbytes = sum(p.nbytes for p in model.parameters())
        heads = [block.heads for block in model.h]
        sent = ", ".join(f"{count:,} bytes by {name}"
                         for (name,), (_, count) in ledger.by("collective").items())  # fmt: skip
        rows = len(model.wte.weight)
        tokens = model.tokens.counts[comm.rank] if sequence_parallel else CONFIG.positions
        title = "with sequence parallelism" if sequence_parallel else "tensor parallelism alone"
        print_in_order(comm, (f"{title}\n" if comm.rank == 0 else "") +
                       f"  rank {comm.rank} holds {numbers:,} parameters, {nbytes:,} bytes "
                       f"({heads} heads, {rows} of {CONFIG.vocab} words), between the pairs "
                       f"{tokens} of {CONFIG.positions} tokens; sent {sent}")  # fmt: skip
    whole = sum(p.numel() for p in alone.parameters())
    print_in_order(comm, f"rank {comm.rank}: loss {found['loss']:.6f}, gradients and weights after "
                   f"a step are those of one process, {whole:,} parameters, to 1e-12")  # fmt: skip


if __name__ == "__main__":
    launch(main, ranks=4)
