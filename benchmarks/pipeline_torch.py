"""A rank of PyTorch's torch.distributed.pipelining: the other side of benchmarks/pipeline.py.

The GPT, weights and stages of benchmarks/pipeline_ranks.py, over gloo. The tied embedding's two
copies are summed by an all-reduce after the last micro-batch, as users of pipelining do it.
"""

import pipeline_ranks as p
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import pipelining
from torch.nn import functional as F
from torch_block import Block


class Stage(nn.Module):
    """Some layers: with the first comes the embedding, with the last the norm and the tied head."""

    def __init__(self, layers, wte):
        super().__init__()
        self.first, self.last = layers[0] == 0, layers[-1] == p.LAYERS - 1
        if self.first or self.last:
            self.wte = wte
        if self.first:
            self.wpe = nn.Embedding(p.SEQ, p.HIDDEN)
        self.h = nn.ModuleDict({str(i): Block(p.HIDDEN, p.HEADS) for i in layers})
        if self.last:
            self.ln_f = nn.LayerNorm(p.HIDDEN)

    def forward(self, x):
        if self.first:
            x = self.wte(x) + self.wpe.weight
        for block in self.h.values():
            x = block(x)
        return F.linear(self.ln_f(x), self.wte.weight) if self.last else x


def loss_of(logits, target):
    rows = logits.reshape(-1, p.VOCAB)
    return F.cross_entropy(rows, target.reshape(-1), reduction="sum") / p.TOKENS


class Theirs:
    """A rank of PyTorch's job; what it is asked are its public methods."""

    def __init__(self):
        torch.set_num_threads(1)
        dist.init_process_group("gloo")
        self.rank, self.size, self.made = dist.get_rank(), dist.get_world_size(), {}
        self.ends = dist.new_group([0, self.size - 1])
        tokens, targets = (torch.from_numpy(part).flatten(0, 1) for part in p.batch())
        self.tokens, self.targets = tokens, targets

    def steps(self, case, count):
        """Each step's seconds, and this rank's loss and squared gradient norm."""
        if case not in self.made:
            self.made[case] = self._make(case)
            self._step(case)
        seconds = p.timed(lambda: self._step(case), dist.barrier, count)
        _, stages, copy = self.made[case]
        params = {id(w): w for stage in stages for w in stage.parameters()}  # tied ones once
        if copy is not None and self.rank:
            del params[id(copy)]
        norm2 = sum(float(w.grad.square().sum()) for w in params.values())
        return {"seconds": seconds, "loss": sum(x.item() for x in self.losses), "norm2": norm2}

    def _make(self, case):
        """The schedule, this rank's stages, and its copy of an embedding that another has too."""
        ours = p.schedule_of(case, self.size)
        layers, mine = p.ranges(p.LAYERS, ours.stages), ours.stages_of(self.rank)
        wte = nn.Embedding(p.VOCAB, p.HIDDEN)
        stages = [Stage(list(layers[k]), wte) for k in mine]
        for stage, k in zip(stages, mine):
            state = p.model_of(layers[k]).state_dict()
            stage.load_state_dict({name: torch.from_numpy(w) for name, w in state.items()})
        cpu = torch.device("cpu")
        parts = [
            pipelining.PipelineStage(stage, k, ours.stages, cpu) for stage, k in zip(stages, mine)
        ]
        kind = getattr(pipelining, p.CASES[case][2])
        given = parts[0] if len(parts) == 1 and ours.stages == self.size else parts
        schedule = kind(given, p.MICROBATCHES, loss_fn=loss_of, scale_grads=False)
        copy = wte.weight if stages[0].first != stages[-1].last else None
        return schedule, stages, copy

    def _step(self, case):
        schedule, stages, copy = self.made[case]
        for stage in stages:
            stage.zero_grad()
        self.losses = []
        given = [self.tokens] if stages[0].first else []
        target = {"target": self.targets} if stages[-1].last else {}
        schedule.step(*given, **target, losses=self.losses, return_outputs=False)
        if copy is not None:
            dist.all_reduce(copy.grad, group=self.ends)


if __name__ == "__main__":
    p.serve(Theirs)
    dist.destroy_process_group()
