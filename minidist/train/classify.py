"""Training a classifier on any number of ranks: the loop that the examples share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.progress import track

from ..autograd.modes import no_grad
from ..comm import AgreedExit, Communicator, all_reduce, launch, shard_range
from ..data.digits import load_digits
from ..errors import UserError
from ..nn import Module
from ..nn import functional as F
from ..optim import AdamW, warmup_cosine
from ..parallel.data import Bucketed
from ..plots import plain
from ..tensor import random
from ..tensor.tensor import Tensor
from .screen import console


@dataclass(frozen=True)
class Recipe:
    """How to fit: passes over the data, rows a step (over all ranks), peak learning rate."""

    epochs: int = 40
    batch: int = 32
    lr: float = 3e-3
    weight_decay: float = 0.05
    seed: int = 0


def fit(model: Module, x: np.ndarray, y: np.ndarray, comm: Communicator, recipe: Recipe) -> None:
    """Minimise the cross-entropy of model(x) (n, classes) against y (n,), data parallel.

    Every rank passes all of x and y and takes its rows of each batch: the number of ranks
    changes nothing but rounding.
    """
    optimizer = AdamW(model.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
    gradients = Bucketed(model, comm)
    batches = -(-len(x) // recipe.batch)
    steps = range(recipe.epochs * batches)
    shown = track(steps, "training", console=console()) if comm.rank == 0 else steps
    model.train()
    for step in shown:
        epoch, number = divmod(step, batches)
        order = random.generator(recipe.seed, "epoch", epoch).permutation(len(x))
        rows = order[number * recipe.batch : (number + 1) * recipe.batch]
        for group in optimizer.param_groups:
            group["lr"] = warmup_cosine(step, len(steps), batches, recipe.lr, 0.0)
        _backward(model, x[rows], y[rows], comm, (recipe.seed, step))
        gradients.sum_gradients()
        optimizer.step()
        optimizer.zero_grad()


def _backward(
    model: Module, x: np.ndarray, y: np.ndarray, comm: Communicator, place: tuple[int, int]
) -> None:
    """Gradients of this rank's share of the global mean loss."""
    first, last = shard_range(len(x), comm.size, comm.rank)
    if first == last:
        return
    with random.at(*place, first):
        logits = model(Tensor(x[first:last]))
    (F.cross_entropy(logits, Tensor(y[first:last]), reduction="sum") / len(x)).backward()


@no_grad()
def confusion(model: Module, x: np.ndarray, y: np.ndarray, comm: Communicator) -> np.ndarray:
    """How often class i (row) was taken for class j (column), over all ranks' shares of x."""
    first, last = shard_range(len(x), comm.size, comm.rank)
    classes = int(y.max()) + 1
    table = np.zeros((classes, classes), np.int64)
    model.eval()
    if first < last:
        predicted = model(Tensor(x[first:last])).data.argmax(1)
        np.add.at(table, (y[first:last], predicted), 1)
    return all_reduce(comm, table)


def accuracy(table: np.ndarray) -> float:
    """The share of a confusion matrix that lies on its diagonal."""
    return float(table.trace() / table.sum())


def draw_confusion(table: np.ndarray, path: Path, title: str) -> None:
    """A picture of a confusion matrix, with its counts."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.imshow(np.log1p(table), cmap="Blues")
    for (i, j), count in np.ndenumerate(table):
        if count:
            color = "white" if count > table.max() / 4 else "black"
            axes.text(j, i, str(count), ha="center", va="center", color=color, fontsize=8)
    ticks = range(len(table))
    axes.set(xlabel="predicted", ylabel="true", xticks=ticks, yticks=ticks)
    text, how = plain(title)
    axes.set_title(text, **how)
    figure.savefig(path)


def study(
    name: str,
    build: Callable[[], Module],
    data: Callable[[int], tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]],
    comm: Communicator,
    recipe: Recipe,
    seeds: int,
    out: Path,
) -> float:
    """Fit and test with several seeds: prints each accuracy, draws the summed confusion matrix.

    `data(seed)` gives x, y to train on and x, y held out. Returns the mean accuracy.
    """
    tables = []
    for seed in range(seeds):
        random.manual_seed(seed)
        model = build()
        x, y, test_x, test_y = data(seed)
        fit(model, x, y, comm, Recipe(**{**vars(recipe), "seed": seed}))
        tables.append(confusion(model, test_x, test_y, comm))
        if comm.rank == 0:
            console().print(f"{name}, seed {seed}: {accuracy(tables[-1]):.2%} of {len(test_y)}")
    mean = sum(map(accuracy, tables)) / seeds
    if comm.rank == 0:
        out.mkdir(parents=True, exist_ok=True)
        draw_confusion(sum(tables), out / f"{name}.png", f"{name} on held-out digits: {mean:.2%}")
        console().print(f"{name}: mean {mean:.2%} over {seeds} seeds; {out / name}.png")
    return mean


def digits_example(name: str, build: Callable[[], Module], goal: float, lr: float = 3e-3) -> None:
    """The command line of an example: train on all the ranks there are, say if the goal is met."""
    parser = argparse.ArgumentParser(description=f"{name} on scikit-learn's handwritten digits")
    parser.add_argument(
        "--seeds", type=int, default=5, help="runs, each with its own held-out fifth"
    )
    parser.add_argument("--epochs", type=int, default=40, help="passes over the images")
    parser.add_argument("--ranks", type=int, default=1, help="simulated ranks, without mpirun")
    parser.add_argument("--out", type=Path, default=Path("runs/digits"), help="for the picture")
    args = parser.parse_args()
    recipe = Recipe(epochs=args.epochs, lr=lr)

    def run(comm: Communicator) -> int:
        try:
            mean = study(name, build, load_digits, comm, recipe, args.seeds, args.out)
        except UserError as error:  # on every rank: scikit-learn is not installed
            if comm.rank == 0:
                print(f"{name}: {error}", file=sys.stderr, flush=True)
            raise AgreedExit(2) from None
        if mean < goal and comm.rank == 0:
            console().print(f"{name}: {mean:.2%} is below its goal of {goal:.1%}")
        return int(mean < goal)

    raise SystemExit(launch(run, args.ranks))
