"""A picture of a simulated pipeline: one lane a rank, one box a step, as SVG or PNG."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ....errors import UserError, visible
from ....plots import plain
from ..actions import BACKWARD, FORWARD, INPUT, WEIGHT, Overlap
from .simulate import Simulated

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".svg", ".png")
COLOURS = {FORWARD: "#2f6db5", BACKWARD: "#d9702b", INPUT: "#8d4fa8", WEIGHT: "#3f8f5a"}
NAMES = {
    FORWARD: "F  forward", BACKWARD: "B  backward", INPUT: "I  input gradient",
    WEIGHT: "W  weight gradients",
}  # fmt: skip
IDLE, INK = "#e9e9ec", "#26262b"
PALEST = 0.55  # how much white is in the last chunk's colour

# Inches: of a lane, of the shortest step, around all lanes; and how wide they may be
LANE, CELL, RIGHT, TOP, BOTTOM, WIDTHS = 0.34, 0.17, 0.25, 0.72, 0.72, (8.0, 30.0)
FONT, SMALLEST = 8.0, 3.5  # points; a number in a box is as large as fits between the two


class Box(NamedTuple):
    """A part of a step as it is drawn; heights are shares of the lane."""

    rank: int
    start: float
    end: float
    kind: str
    chunk: int  # of the rank's stages, by number
    microbatch: int
    bottom: float
    height: float

    @property
    def corners(self) -> list[tuple[float, float]]:
        low, high = self.rank + self.bottom, self.rank + self.bottom + self.height
        return [(self.start, low), (self.end, low), (self.end, high), (self.start, high)]


def boxes(simulated: Simulated) -> Iterator[Box]:
    """The boxes of the picture. An Overlap is two boxes, its forward above its backward."""
    for rank, times in enumerate(simulated.times):
        chunk = {stage: n for n, stage in enumerate(simulated.schedule.stages_of(rank))}
        for step, start, end in times:
            # (bottom, height) of each part, as shares of the lane
            bands = ((0.1, 0.4), (0.5, 0.4)) if isinstance(step, Overlap) else ((0.1, 0.8),)
            for (stage, kind, microbatch), band in zip(step.parts, bands):
                yield Box(rank, start, end, kind, chunk[stage], microbatch, *band)


def draw(simulated: Simulated, path: str | PathLike[str]) -> None:
    """Write the picture to a file that ends in .svg or .png; the same picture, the same bytes.

    Raises UserError for another suffix, and where the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(
            f"picture {path}: the suffix is '{path.suffix}', want {' or '.join(SUFFIXES)}"
        )
    import matplotlib

    # Without a salt the names inside an SVG are drawn anew each time.
    with matplotlib.rc_context({"svg.hashsalt": "minidist", "svg.fonttype": "none"}):
        figure = _figure(simulated)
        metadata = {"Date": None} if path.suffix.lower() == ".svg" else {"Software": None}
        try:
            figure.savefig(path, metadata=metadata)
        except OSError as error:
            raise UserError(f"picture {path} cannot be written: {error.strerror}") from None


def _figure(simulated: Simulated) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    every = list(boxes(simulated))
    width = _width(simulated, every)
    height = LANE * len(simulated.times)
    left = _left(simulated)
    size = (left + width + RIGHT, TOP + height + BOTTOM)
    figure = Figure(figsize=size, dpi=130)
    FigureCanvasAgg(figure)
    place = (left / size[0], BOTTOM / size[1], width / size[0], height / size[1])
    axes = figure.add_axes(place)
    _frame(axes, simulated)
    _fill(axes, simulated, every)
    _number(axes, every, 72 * width / (simulated.makespan or 1))
    _title(figure, simulated, place[0])
    _legend(figure, every, place[0])
    return figure


def _width(simulated: Simulated, every: Iterable[Box]) -> float:
    """Inches of the lanes: enough that the shortest step has room for its number."""
    shortest = min((b.end - b.start for b in every if b.end > b.start), default=1)
    least, most = WIDTHS
    return min(most, max(least, CELL * simulated.makespan / shortest))


def _left(simulated: Simulated) -> float:
    """Inches left of the lanes, for their names."""
    longest = max(len(_name(simulated, rank)) for rank in range(len(simulated.times)))
    return 0.3 + longest * FONT * 0.62 / 72


def _frame(axes: Axes, simulated: Simulated) -> None:
    ranks = range(len(simulated.times))
    axes.set(xlim=(0, simulated.makespan or 1), ylim=(len(ranks), 0))
    axes.set_yticks([rank + 0.5 for rank in ranks], [_name(simulated, rank) for rank in ranks])
    axes.tick_params(length=0, labelsize=FONT, labelcolor=INK)
    axes.tick_params(axis="x", length=3, color="#9a9aa2")
    axes.set_xlabel("time", fontsize=FONT, color=INK, loc="right", labelpad=0)
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)


def _name(simulated: Simulated, rank: int) -> str:
    stages = simulated.schedule.stages_of(rank)
    return f"rank {rank}" if stages == [rank] else f"rank {rank}: {', '.join(map(str, stages))}"


def _fill(axes: Axes, simulated: Simulated, every: Iterable[Box]) -> None:
    from matplotlib.collections import PolyCollection

    lanes = [Box(r, 0, simulated.makespan, "", 0, 0, 0.1, 0.8) for r in range(len(simulated.times))]
    axes.add_collection(PolyCollection([lane.corners for lane in lanes], facecolors=IDLE))
    alike: dict[tuple[str, int], list[Box]] = defaultdict(list)
    for box in every:
        alike[box.kind, box.chunk].append(box)
    for (kind, chunk), some in sorted(alike.items()):
        shade = _shade(kind, chunk, _chunks(every))
        corners = [box.corners for box in some]
        axes.add_collection(
            PolyCollection(corners, facecolors=[shade], edgecolors="white", linewidths=0.7)
        )


def _number(axes: Axes, every: Iterable[Box], points: float) -> None:
    """Write each micro-batch's number into its box, as large as fits, or not at all."""
    chunks, digits = _chunks(every), len(str(max((b.microbatch for b in every), default=0)))
    for box in every:
        tall = LANE * 72 * box.height * 0.8
        size = min(FONT, tall, (box.end - box.start) * points / (0.64 * digits + 0.25))
        if size >= SMALLEST:
            dark = sum(_shade(box.kind, box.chunk, chunks)) > 1.9
            middle = (box.start + box.end) / 2, box.rank + box.bottom + box.height / 2
            axes.text(*middle, str(box.microbatch), size=size, ha="center", va="center_baseline",
                      color=INK if dark else "white")  # fmt: skip


def _chunks(every: Iterable[Box]) -> int:
    return 1 + max((box.chunk for box in every), default=0)


def _shade(kind: str, chunk: int, chunks: int) -> tuple[float, float, float]:
    """Red, green and blue of 0 to 1: a later chunk is paler."""
    from matplotlib.colors import to_rgb

    white = PALEST * chunk / max(1, chunks - 1)
    red, green, blue = (value + (1 - value) * white for value in to_rgb(COLOURS[kind]))
    return red, green, blue


def _title(figure: Figure, simulated: Simulated, left: float) -> None:
    schedule, inches = simulated.schedule, figure.get_figheight()
    sizes = {
        "rank": schedule.ranks, "stage": schedule.stages, "micro-batch": schedule.microbatches
    }  # fmt: skip
    shape = ", ".join(f"{n} {_plural(thing, n)}" for thing, n in sizes.items())
    said = (
        f"makespan {simulated.makespan:g}, ideal {simulated.ideal:g}; "
        f"idle {simulated.idle_fraction:.2%} of all time; "
        f"bubble {simulated.bubble_ratio:.2%} of the ideal time"
    )
    name, how = plain(f"{visible(schedule.name or 'schedule', 60)}: {shape}")
    figure.text(left, 1 - 0.27 / inches, name, size=11, weight="bold", color=INK, **how)
    figure.text(left, 1 - 0.52 / inches, said, size=9, color=INK)


def _plural(thing: str, count: int) -> str:
    return thing if count == 1 else thing + "es" if thing.endswith("ch") else thing + "s"


def _legend(figure: Figure, every: Iterable[Box], left: float) -> None:
    from matplotlib.legend_handler import HandlerTuple
    from matplotlib.patches import Patch

    chunks, kinds = _chunks(every), {box.kind for box in every}
    shades: dict[str, Any] = {
        NAMES[kind]: tuple(Patch(facecolor=_shade(kind, n, chunks)) for n in range(chunks))
        for kind in COLOURS if kind in kinds
    }  # fmt: skip
    shades["idle"] = (Patch(facecolor=IDLE),)
    if chunks > 1:
        shades["paler: a rank's later chunks"] = (Patch(alpha=0),)
    figure.legend(
        list(shades.values()), list(shades), handler_map={tuple: HandlerTuple(None, pad=0)},
        loc="lower left", bbox_to_anchor=(left, 0.1 / figure.get_figheight()), ncols=len(shades),
        fontsize=FONT, frameon=False, borderpad=0, borderaxespad=0, handlelength=max(1, chunks),
        handleheight=1, handletextpad=0.5, columnspacing=1.6, labelcolor=INK,
    )  # fmt: skip
