"""Tensor parallelism: an MLP of two blocks whose weights four ranks share out, columns, then rows.

python tutorials/examples/tensor_parallel.py               # four simulated ranks
mpirun -n 4 python tutorials/examples/tensor_parallel.py   # four real ones
"""

import numpy as np

import minidist as md
from minidist import Tensor, nn, optim
from minidist.comm import Communicator, Ledger, launch, print_in_order
from minidist.nn import functional as F
from minidist.parallel.layout import full_state_dict, shards_of
from minidist.parallel.tensor.linear import ColumnParallelLinear, RowParallelLinear

HIDDEN, WIDE, BATCH = 16, 66, 10  # 66 units: four ranks get 17, 17, 16 and 16
RNG = np.random.default_rng(0)
INPUTS, TARGETS = RNG.normal(size=(BATCH, HIDDEN)), RNG.normal(size=(BATCH, HIDDEN))


class MLP(nn.Module):
    """Two blocks x + W₂ gelu(W₁ x): each pair of weights costs one all-reduce each way."""

    def __init__(self, comm: Communicator):
        self.fc_1 = ColumnParallelLinear(HIDDEN, WIDE, comm=comm)  # rows of W₁: some units
        self.proj_1 = RowParallelLinear(WIDE, HIDDEN, comm=comm)  # columns of W₂: the same units
        self.fc_2 = ColumnParallelLinear(HIDDEN, WIDE, comm=comm)
        self.proj_2 = RowParallelLinear(WIDE, HIDDEN, comm=comm)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.proj_1(F.gelu(self.fc_1(x)))
        return x + self.proj_2(F.gelu(self.fc_2(x)))


def train(comm: Communicator):
    """The model; its loss, and whole gradients and weights of one step; what this rank sent."""
    md.manual_seed(0)  # every rank draws the whole weights and takes its part
    model = MLP(comm).double()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    with Ledger(comm) as ledger:
        loss = F.mse_loss(model(Tensor(INPUTS)), Tensor(TARGETS))
        loss.backward()
        optimizer.step()
    parts = shards_of(model)
    found = {"loss": loss.data}
    for name, p in model.named_parameters():
        grad = p.grad.data
        found[f"{name}'s gradient"] = parts[name].gather(grad) if name in parts else grad
    return model, found | full_state_dict(model), ledger.by("collective")


def main(comm: Communicator) -> None:
    alone, wanted, _ = train(comm.split(comm.rank))  # a world of one rank
    model, found, sent = train(comm)
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-13, err_msg=name)
    shapes = {name: p.shape for name, p in model.named_parameters() if name.startswith("fc_1")}
    held, whole = (f"{sum(p.numel() for p in m.parameters()):,} parameters in "
                   f"{sum(p.nbytes for p in m.parameters()):,} bytes"
                   for m in (model, alone))  # fmt: skip
    told = ", ".join(f"{messages} messages, {nbytes:,} bytes by {name}"
                     for (name,), (messages, nbytes) in sent.items())  # fmt: skip
    print_in_order(comm, f"rank {comm.rank} holds {held} (of {whole}); fc_1: {shapes}; "
                   f"sent {told or 'nothing'}")  # fmt: skip
    # Forward a sum a block, backward a sum for the second: of the input nobody wants a gradient.
    reduced = BATCH * HIDDEN * 8
    if comm.size == 4:  # recursive doubling: log2(4) messages of the whole, each time
        assert sent == {("all_reduce",): (2 * 3, 2 * 3 * reduced)}
    print_in_order(comm, f"rank {comm.rank}: loss {found['loss']:.6f}, gradients and weights after "
                   f"a step are those of one process, to 1e-13")  # fmt: skip


if __name__ == "__main__":
    launch(main, ranks=4)
