"""The executor: it carries out the list of one rank, on simulated ranks and on MPI alike.

How it works, in five lines:
1. Before a step, the executor waits for the message that the step needs. An earlier action of the
   list has posted its receive.
2. F runs the stage and keeps the tape's node of the output. In the last stage it computes the loss.
3. B walks the tape back from that node. I walks only the way to the stage's input, and W the rest;
   each frees what it has walked.
4. An array that is made or received, and not yet used or sent, lies in `buffers` under the receive
   of its message. A next stage on the same rank takes it from there.
5. A send runs in the background. receipts.py knows when it has arrived and its array is free.

The executor knows nothing of GPipe or 1F1B: the schedule alone says what comes when.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

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
from ..needs import receive_for
from ..schedules.forward_only import forward_only
from .receipts import Receipts, Sending
from .shapes import Shapes
from .tied import Tied

if TYPE_CHECKING:
    from ..study.costs import Costs

Stage = Callable[[Tensor], Tensor]
Around = Callable[[int], Any]  # micro-batch number -> context manager for its forward
Place = tuple[int, int]  # (stage, micro-batch)


class Pipeline:
    """This rank's stages of a model, and the schedule by which all ranks of `comm` run them.

    `stages` are the stages of this rank by number; each is a function from a Tensor to a Tensor.
    `module` holds their parameters, under the names of the whole model; a parameter that several
    ranks have is tied (tied.py). criterion(y, target) is the loss of the last stage's output y. It
    is a sum over the micro-batch, and not a mean: the losses of the micro-batches are added.

    All ranks of `comm` create the pipeline together and call the same methods in the same order.
    Raises ScheduleError if the schedule is not valid, ValueError if it has other ranks or stages.
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
        # Sums gradients over replicas; no_sync() is around all backwards but a stage's last one.
        self.gradients: Any = None
        self.executed: list[tuple[Step, float, float]] = []  # the last run: (step, start, end)
        self.watch: Callable[[Run, Action], None] | None = None  # called after each action
        # For a simulated clock: the number of operations of each step (study/costs.py).
        self.costs: Costs | None = None
        self._evaluations: dict[int, tuple[Schedule, Receipts]] = {}  # by number of micro-batches
        self._receipts = Receipts(self.schedule, comm.rank)

    def step(
        self, inputs: Sequence[Tensor], targets: Sequence[Tensor], around: Around = nullcontext,
        scale: float = 1.0,
    ) -> float:  # fmt: skip
        """Forward, loss and backward of all micro-batches. Returns the loss, on every rank.

        Adds the gradients of loss · scale to each parameter's `grad`. inputs and targets: one
        Tensor for each micro-batch, the same on all ranks of `comm`. Only the first stage reads the
        inputs and only the last one the targets; the other ranks need their shapes.
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
        """The loss of any number of micro-batches, on every rank, without gradients."""
        return self._loss(self._run(*self._evaluation(len(inputs)), inputs, targets, around))

    @no_grad()
    def forward(
        self, inputs: Sequence[Tensor], around: Around = nullcontext
    ) -> list[Tensor] | None:
        """The last stage's output for each micro-batch, on its rank; None on the others."""
        run = self._run(*self._evaluation(len(inputs)), inputs, None, around)
        return [run.outputs[i] for i in range(len(inputs))] if self.has_last else None

    @property
    def last(self) -> int:
        """The rank that has the last stage."""
        return self.schedule.rank_of[self.schedule.stages - 1]

    @property
    def has_last(self) -> bool:
        return self.comm.rank == self.last

    def _evaluation(self, m: int) -> tuple[Schedule, Receipts]:
        """The schedule of m micro-batches' forwards, with the stages where training has them."""
        if m not in self._evaluations:
            placement = tuple(self.schedule.rank_of.values())
            schedule = validate(forward_only(placement, m))
            self._evaluations[m] = schedule, Receipts(schedule, self.comm.rank)
        return self._evaluations[m]

    def _run(self, schedule: Schedule, receipts: Receipts, *data: Any) -> Run:
        run = Run(self, schedule, receipts, *data)
        self.shapes.agree(run.inputs, run.around)
        self.executed = run.execute(schedule.orders[self.comm.rank])
        return run

    def _loss(self, run: Run) -> float:
        """Add the micro-batches' losses in ascending order, and broadcast the sum to all ranks."""
        total = xp.array([sum(run.losses[i] for i in sorted(run.losses))], xp.float64)
        return float(broadcast(self.comm, total, root=self.last, label="loss")[0])


class Run:
    """One pass through a rank's list, and everything that it keeps meanwhile.

    In the shapes below, (b, …) is a stage's input and (b', …) its output for one micro-batch. For a
    GPT both are (b, s, h), except the first stage's input: (b, s), the tokens.
    """

    def __init__(
        self, pipeline: Pipeline, schedule: Schedule, receipts: Receipts, inputs: Sequence[Tensor],
        targets: Sequence[Tensor] | None, around: Around, scale: float = 1.0,
    ):  # fmt: skip
        self.pipeline, self.comm = pipeline, pipeline.comm
        self.rank_of, self.last = schedule.rank_of, schedule.stages - 1
        self.inputs, self.targets, self.scale, self.around = inputs, targets, scale, around
        self.trains = schedule.has_backward
        self.losses: dict[int, float] = {}
        self.outputs: dict[int, Tensor] = {}  # of the last stage, if there are no targets
        self.graphs: dict[Place, tuple[Node | None, Tensor]] = {}  # from F to B or I
        self.deferred: dict[Place, WeightBackward] = {}  # from I to W
        self.buffers: dict[Action, xp.ndarray] = {}  # made or received, and not yet used or sent
        self.receiving: dict[Action, Request] = {}
        self.sending = Sending(receipts)

    def execute(self, steps: Sequence[Step]) -> list[tuple[Step, float, float]]:
        """Do the steps in order; return the computing steps with their start and end times."""
        done = []
        for step in steps:
            for action in step.parts:
                self._wait_for_message(action)
            start = self.comm.time()
            for action in step.parts:
                HANDLERS[action.kind](self, action)
                if self.pipeline.watch is not None:
                    self.pipeline.watch(self, action)
            if step.kind not in MESSAGES:
                if self.pipeline.costs is not None:
                    self.comm.compute(self.pipeline.costs.of(step))
                done.append((step, start, self.comm.time()))
        self.sending.finish()
        return done

    # Computing: forward -> loss -> backward

    def _forward(self, action: Action) -> None:
        """F: run the stage; the last stage goes on to the loss."""
        stage, _, i = action
        x = self._input(stage, i)  # (b, …)
        with self.around(i):
            y = self.pipeline.stages[stage](x)  # (b', …)
            if stage == self.last and self.targets is not None:
                y = self.pipeline.criterion(y, self.targets[i])  # ()
                self.losses[i] = y.item()
        if self.trains:
            self.graphs[stage, i] = source(y), x
            if stage == self.last:  # the backward begins with d(loss · scale)/d(loss)
                self.buffers[Action(stage, RECV_B, i)] = xp.full_like(y.data, self.scale)  # ()
        if stage < self.last:
            self.buffers[Action(stage + 1, RECV_F, i)] = y.data
        elif self.targets is None:
            self.outputs[i] = y

    def _input(self, stage: int, i: int) -> Tensor:
        if stage == 0:
            return self.inputs[i]
        x = Tensor.of(self.buffers.pop(Action(stage, RECV_F, i)))
        return x.requires_grad_() if self.trains else x

    def _backward(self, action: Action) -> None:
        """B: the gradients of the input and of the weights."""
        stage, _, i = action
        node, x = self.graphs.pop((stage, i))
        g = self.buffers.pop(Action(stage, RECV_B, i))  # (b', …), or () at the last stage
        if node is not None:  # None: nothing in this stage needs a gradient
            with self._sync_if_last(i):
                walk_back([(node, g)])
        self._pass_gradient(stage, i, x)

    def _input_gradient(self, action: Action) -> None:
        """I: the gradient of the input; what W needs is deferred."""
        stage, _, i = action
        node, x = self.graphs.pop((stage, i))
        g = self.buffers.pop(Action(stage, RECV_B, i))  # (b', …), or () at the last stage
        if node is not None:
            self.deferred[stage, i] = backward_input(node, g, [x] if stage else [])
        self._pass_gradient(stage, i, x)

    def _weight_gradients(self, action: Action) -> None:
        """W: the gradients of the weights."""
        stage, _, i = action
        if (stage, i) in self.deferred:
            with self._sync_if_last(i):
                self.deferred.pop((stage, i)).backward()

    def _pass_gradient(self, stage: int, i: int, x: Tensor) -> None:
        """Leave the gradient of a stage's input for the stage before."""
        if stage > 0:
            g = xp.zeros_like(x.data) if x.grad is None else x.grad.data  # (b, …)
            self.buffers[Action(stage - 1, RECV_B, i)] = g

    def _sync_if_last(self, i: int) -> Any:
        """Sum gradients over replicas in the last backward only: then they are complete."""
        gradients = self.pipeline.gradients
        is_last = gradients is None or i == len(self.inputs) - 1
        return nullcontext() if is_last else gradients.no_sync()

    # Messages: the receives of a channel (boundary and direction) are in the order of its sends

    def _wait_for_message(self, action: Action) -> None:
        """Wait for the message that an action needs, if it comes from another rank."""
        message = receive_for(action)
        if message is not None and message in self.receiving:
            self.buffers[message] = self.receiving.pop(message).wait()
            self.sending.message_came(message, self.rank_of[message.source])

    def _send(self, action: Action) -> None:
        """SEND_F and SEND_B: start the send."""
        message = action.received
        # A non-contiguous buffer would send the wrong bytes.
        array, dest = xp.ascontiguousarray(self.buffers.pop(message)), self.rank_of[message.stage]
        self.sending.add(message, dest, self.comm.isend(array, dest, _tag(message)))

    def _receive(self, action: Action) -> None:
        """RECV_F and RECV_B: post the receive."""
        out = self.pipeline.shapes.empty(action.boundary, self.inputs[action.microbatch])
        source = self.rank_of[action.source]
        self.receiving[action] = self.comm.irecv(out, source, _tag(action))


HANDLERS: dict[str, Callable[[Run, Action], None]] = {
    FORWARD: Run._forward, BACKWARD: Run._backward,
    INPUT: Run._input_gradient, WEIGHT: Run._weight_gradients,
    **dict.fromkeys(SENDS, Run._send), **dict.fromkeys(RECEIVES, Run._receive),
}  # fmt: skip


def _tag(message: Action) -> int:
    """The tag of a channel: two for each boundary, one in each direction."""
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
