"""ZeRO, stages 0 to 3 side by side: the same training, ever less memory, a little more traffic.

python tutorials/examples/zero.py                 # four simulated ranks
mpirun -n 4 python tutorials/examples/zero.py     # four real ones
"""

import numpy as np

from minidist import Tensor, nn, optim
from minidist.comm import Communicator, Ledger, all_reduce, launch, print_in_order, shard_range
from minidist.models.gpt import GPT, GPTConfig
from minidist.parallel.data import Bucketed
from minidist.parallel.zero import Zero, Zero3

CONFIG = GPTConfig(layers=3, hidden=35, heads=5, positions=16, vocab=97)
BATCH, STEPS = 10, 3  # four ranks get 3, 3, 2 and 2 rows
OPTIONS = {"lr": 1e-3, "weight_decay": 0.1}


def make(comm: Communicator, stage: int):
    """A model of seed 0, and who sums its gradients and updates it."""
    model = GPT(CONFIG, seed=0).double()
    model.reset_parameters(0)
    if stage == 0:  # plain data parallelism
        return model, optim.AdamW(model.parameters(), **OPTIONS)
    if stage == 3:
        return model, Zero3(model, comm, optim.AdamW, **OPTIONS)
    return model, Zero(model, comm, optim.AdamW, stage=stage, bucket_bytes=2**16, **OPTIONS)


def train(comm: Communicator, stage: int) -> tuple[list[float], dict[str, int], int]:
    """The global losses; bytes that this rank holds before zero_grad(); bytes sent a step."""
    model, zero = make(comm, stage)
    sums = Bucketed(model, comm) if stage == 0 else zero
    first, last = shard_range(BATCH, comm.size, comm.rank)
    losses, sent = [], 0
    for step in range(STEPS):
        tokens = np.random.default_rng(step).integers(0, CONFIG.vocab, (BATCH, 17))[first:last]
        with Ledger(comm) as ledger:
            loss = model.loss(Tensor(tokens[:, :-1]), Tensor(tokens[:, 1:]), reduction="sum")
            (loss / (BATCH * 16)).backward()
            sums.sum_gradients()
            zero.step()
        losses.append(loss.item() / (BATCH * 16))
        sent += ledger.bytes
        held = zero.nbytes() if stage else of_one_process(model, zero)
        zero.zero_grad()
    return losses, held, sent // STEPS


def of_one_process(model: nn.Module, optimizer: optim.Optimizer) -> dict[str, int]:
    states = [a for state in optimizer.state.values() for a in state.values()]
    grads = [p.grad.nbytes for p in model.parameters()]
    moments = sum(a.nbytes for a in states if isinstance(a, np.ndarray))
    whole = sum(p.nbytes for p in model.parameters())
    return {"parameters": whole, "gradients": sum(grads), "optimizer": moments}


def main(comm: Communicator) -> None:
    psi, n, e = sum(p.numel() for p in GPT(CONFIG).parameters()), comm.size, 8
    alone, _, _ = train(comm.split(comm.rank), 0)  # a world of one rank
    for stage in range(4):
        losses, held, sent = train(comm, stage)
        np.testing.assert_allclose(all_reduce(comm, np.array(losses)), alone, rtol=0, atol=1e-12)
        parameters, gradients, states = (psi / n if stage >= k else psi for k in (3, 2, 1))
        formula = e * (parameters + gradients + 2 * states)  # Adam's two moments
        assert abs(sum(held.values()) - formula) < 1000, "shards differ by an element a buffer"
        told = " + ".join(f"{nbytes:,} {kind}" for kind, nbytes in held.items())
        volume = (3 if stage == 3 else 2) * (n - 1) * psi * e  # of all ranks
        assert all_reduce(comm, np.array(sent)) == volume
        print_in_order(comm, f"stage {stage} rank {comm.rank}: holds {told} = "
                       f"{sum(held.values()):,} bytes (formula {formula:,.0f}); sent {sent:,} "
                       f"a step (formula {volume / n:,.0f})")  # fmt: skip
    print_in_order(comm, f"rank {comm.rank}: the losses of one process, to 1e-12")


if __name__ == "__main__":
    launch(main, ranks=4)
