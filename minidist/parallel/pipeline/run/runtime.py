"""The executor of schedules: it does what its rank's list says, on simulated ranks and on MPI.

It knows nothing of GPipe or 1F1B. A receive is posted where the list says so and waited for where
its message is needed; a send goes on beside what follows; what a micro-batch keeps for backward is
held from its F, and freed by its B (in part by its I, the rest by its W).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from ....autograd.modes import no_grad
from ....autograd.split import WeightBackward, backward_input
from ....autograd.tape import Node, source, walk_back
from ....comm import Communicator, Request, broadcast
from ....kernels import arrays as xp
from ....nn import Module
from ....tensor.tensor import Tensor
from ..actions import (
    BACKWARD,
    FORWARD,
    INPUT,
    MESSAGES,
    RECEIVES,
    RECV_B,
    RECV_F,
    SENDS,
    WEIGHT,
    Action,
    Schedule,
    Step,
)
from ..check.validate import validate
from ..schedules.forward import forward_only
from .receipts import Receipts, Sending
from .shapes import Shapes
from .tied import Tied

Stage = Callable[[Tensor], Tensor]
Around = Callable[[int], Any]  # of a micro-batch's number: a context for its forward
Place = tuple[int, int]  # (stage, micro-batch)


class Pipeline:
    """This rank's stages of a model, and the schedule by which all ranks of `comm` run it.

    `stages` are this rank's, by number: each makes a Tensor of a Tensor. `module` holds their
    parameters, whose names are those of the whole model; one that several ranks have is tied.
    criterion(y, target) is the loss of what the last stage makes: a sum, divided by the global
    count. All ranks of `comm` make it together and call its methods alike. Raises ScheduleError if
    the schedule is not valid, ValueError if it is for other ranks or stages.
    """

    def __init__(
        self, module: Module, stages: Mapping[int, Stage],
        criterion: Callable[[Tensor, Tensor], Tensor], comm: Communicator, schedule: Schedule,
    ):  # fmt: skip
        self.schedule = validate(schedule)
        self.module, self.stages, self.criterion, self.comm = module, dict(stages), criterion, comm
        _check(self.schedule, self.stages, comm)
        self.shapes = Shapes(module, self.stages, comm, self.schedule.rank_of)
        self.tied = Tied(module, comm)
        self.gradients: Any = None  # its no_sync() is around all backwards but a stage's last
        self.executed: list[tuple[Step, float, float]] = []  # the last run's, by comm.time()
        self.watch: Callable[[Run, Action], None] | None = None  # told of each action done
        self._forward: dict[int, tuple[Schedule, Receipts]] = {}
        self._receipts = Receipts(self.schedule, comm.rank)

    def step(
        self, inputs: Sequence[Tensor], targets: Sequence[Tensor], around: Around = nullcontext,
        scale: float = 1.0,
    ) -> float:  # fmt: skip
        """Forward and backward of all micro-batches: the loss, on every rank; `grad` is added to.

        inputs and targets: one Tensor a micro-batch, the same on all ranks of `comm` (only the
        first stage reads the inputs, only the last the targets; the others their shapes).
        Gradients are those of loss · scale.
        """
        m = self.schedule.microbatches
        if not len(inputs) == len(targets) == m:
            raise ValueError(
                f"{len(inputs)} micro-batches and {len(targets)} targets for a schedule of {m}: "
                "want one Tensor each"
            )
        run = self._run(self.schedule, self._receipts, inputs, targets, around, scale)
        self.tied.sum_gradients()
        return self._loss(run)

    @no_grad()
    def evaluate(
        self, inputs: Sequence[Tensor], targets: Sequence[Tensor], around: Around = nullcontext
    ) -> float:
        """The loss of any number of micro-batches, on every rank; nothing is kept."""
        return self._loss(self._run(*self._only_forward(len(inputs)), inputs, targets, around))

    @no_grad()
    def forward(
        self, inputs: Sequence[Tensor], around: Around = nullcontext
    ) -> list[Tensor] | None:
        """What the last stage makes of each micro-batch, on its rank; None on the others."""
        run = self._run(*self._only_forward(len(inputs)), inputs, None, around)
        return [run.outputs[i] for i in range(len(inputs))] if self.has_last else None

    @property
    def last(self) -> int:
        """The rank that has the last stage."""
        return self.schedule.rank_of[self.schedule.stages - 1]

    @property
    def has_last(self) -> bool:
        return self.comm.rank == self.last

    def _only_forward(self, m: int) -> tuple[Schedule, Receipts]:
        if m not in self._forward:
            placement = tuple(self.schedule.rank_of.values())
            schedule = validate(forward_only(placement, m))
            self._forward[m] = schedule, Receipts(schedule, self.comm.rank)
        return self._forward[m]

    def _run(self, schedule: Schedule, receipts: Receipts, *given: Any) -> Run:
        run = Run(self, schedule, receipts, *given)
        self.shapes.agree(run.inputs, run.around)
        self.executed = run.execute(schedule.orders[self.comm.rank])
        return run

    def _loss(self, run: Run) -> float:
        """The micro-batches' losses added in their order, from the rank that has them."""
        total = xp.array([sum(run.losses[i] for i in sorted(run.losses))], xp.float64)
        return float(broadcast(self.comm, total, root=self.last, label="loss")[0])


class Run:
    """One pass through a rank's list, and all that is held meanwhile."""

    def __init__(
        self, pipeline: Pipeline, schedule: Schedule, receipts: Receipts, inputs: Sequence[Tensor],
        targets: Sequence[Tensor] | None, around: Around, scale: float = 1.0,
    ):  # fmt: skip
        self.pipeline, self.comm = pipeline, pipeline.comm
        self.rank_of, self.last = schedule.rank_of, schedule.stages - 1
        self.inputs, self.targets, self.scale, self.around = inputs, targets, scale, around
        self.keeps = schedule.has_backward
        self.losses: dict[int, float] = {}
        self.outputs: dict[int, Tensor] = {}  # of the last stage, if there are no targets
        self.graphs: dict[Place, tuple[Node | None, Tensor]] = {}  # from F to B or I
        self.deferred: dict[Place, WeightBackward] = {}  # from I to W
        self.here: dict[Action, xp.ndarray] = {}  # made or received, and not yet taken or sent
        self.receiving: dict[Action, Request] = {}
        self.sending = Sending(receipts)

    def execute(self, steps: Sequence[Step]) -> list[tuple[Step, float, float]]:
        """Do them in order; returns the computing ones with their times."""
        done = []
        for step in steps:
            for action in step.parts:
                self._arrive(action)
            start = self.comm.time()
            for action in step.parts:
                HANDLERS[action.kind](self, action)
                if self.pipeline.watch is not None:
                    self.pipeline.watch(self, action)
            if step.kind not in MESSAGES:
                done.append((step, start, self.comm.time()))
        self.sending.finish()
        return done

    def _arrive(self, action: Action) -> None:
        """Wait for the message that an action needs, if it comes from another rank."""
        need = action.need
        if need is not None and need in self.receiving:
            self.here[need] = self.receiving.pop(need).wait()
            self.sending.proved(need, self.rank_of[need.source])

    # Computing

    def _forward(self, action: Action) -> None:
        stage, _, i = action
        x = Tensor.of(self.here.pop(Action(stage, RECV_F, i))) if stage else self.inputs[i]
        if stage and self.keeps:
            x.requires_grad_()
        with self.around(i):
            y = self.pipeline.stages[stage](x)
            if stage == self.last and self.targets is not None:
                y = self.pipeline.criterion(y, self.targets[i])
                self.losses[i] = y.item()
        if self.keeps:
            self.graphs[stage, i] = source(y), x
            if stage == self.last:
                self.here[Action(stage, RECV_B, i)] = xp.full_like(y.data, self.scale)
        if stage < self.last:
            self.here[Action(stage + 1, RECV_F, i)] = y.data
        elif self.targets is None:
            self.outputs[i] = y

    def _backward(self, action: Action) -> None:
        stage, kind, i = action
        (node, x), g = self.graphs.pop((stage, i)), self.here.pop(Action(stage, RECV_B, i))
        if node is not None and kind == BACKWARD:
            with self._sync(i):
                walk_back([(node, g)])
        elif node is not None:
            self.deferred[stage, i] = backward_input(node, g, [x] if stage else [])
        self._hand_back(stage, i, x)

    def _weight(self, action: Action) -> None:
        stage, _, i = action
        if (stage, i) in self.deferred:
            with self._sync(i):
                self.deferred.pop((stage, i)).backward()

    def _hand_back(self, stage: int, i: int, x: Tensor) -> None:
        """The gradient by a stage's input, to the stage before."""
        if stage:
            g = xp.zeros_like(x.data) if x.grad is None else x.grad.data
            self.here[Action(stage - 1, RECV_B, i)] = g

    def _sync(self, i: int) -> Any:
        """Gradients are complete, and may be summed over replicas, in a stage's last backward."""
        gradients = self.pipeline.gradients
        is_last = gradients is None or i == len(self.inputs) - 1
        return nullcontext() if is_last else gradients.no_sync()

    # Messages: those of a channel (a boundary, one way) are taken in the order of their sends

    def _send(self, action: Action) -> None:
        message = action.received
        array, dest = xp.ascontiguousarray(self.here.pop(message)), self.rank_of[message.stage]
        self.sending.add(message, dest, self.comm.isend(array, dest, _tag(message)))

    def _receive(self, action: Action) -> None:
        out = self.pipeline.shapes.empty(action.boundary, self.inputs[action.microbatch])
        source = self.rank_of[action.source]
        self.receiving[action] = self.comm.irecv(out, source, _tag(action))


HANDLERS: dict[str, Callable[[Run, Action], None]] = {
    FORWARD: Run._forward, BACKWARD: Run._backward, INPUT: Run._backward, WEIGHT: Run._weight,
    **dict.fromkeys(SENDS, Run._send), **dict.fromkeys(RECEIVES, Run._receive),
}  # fmt: skip


def _tag(message: Action) -> int:
    return 2 * message.boundary + (message.kind == RECV_B)


def _check(schedule: Schedule, stages: Mapping[int, Stage], comm: Communicator) -> None:
    if schedule.ranks != comm.size:
        raise ValueError(
            f"a schedule of {schedule.ranks} ranks on {comm.size}: make it for as many"
        )
    wanted = schedule.stages_of(comm.rank)
    if sorted(stages) != wanted:
        raise ValueError(
            f"rank {comm.rank} was given stages {sorted(stages)}, but by its schedule it has "
            f"{wanted}: cut the model as schedule.stages_of(rank) says"
        )
