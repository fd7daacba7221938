"""Pictures and timelines of pipelines: every step is there, where and as long as it happens."""

import re
from collections import Counter
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from minidist.errors import UserError
from minidist.parallel.pipeline.actions import Action, Schedule
from minidist.parallel.pipeline.schedules import make
from minidist.parallel.pipeline.study.costs import Costs
from minidist.parallel.pipeline.study.draw import boxes, draw
from minidist.parallel.pipeline.study.simulate import simulate
from minidist.parallel.pipeline.study.timeline import timeline, timeline_width

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def dualpipev():
    return simulate(make("dualpipev", 4, 10))


def texts(path):
    """What is written in an SVG, in order."""
    return ["".join(e.itertext()).strip() for e in ElementTree.parse(path).iter(f"{SVG}text")]


def colours(path):
    return set(re.findall(r"fill: (#[0-9a-f]{6})", path.read_text("utf-8")))


# Pictures


def test_every_step_is_a_box(dualpipev):
    found = list(boxes(dualpipev))
    for rank, order in enumerate(dualpipev.schedule.orders):
        here = [(b.kind, b.microbatch) for b in found if b.rank == rank]
        parts = [p for s in order for p in s.parts if p.kind in "FIWB"]
        assert here == [(p.kind, p.microbatch) for p in parts]
    assert {(b.start, b.end) for b in found} == {t[1:] for ts in dualpipev.times for t in ts}


def area(box):
    return (box.end - box.start) * box.height


def test_boxes_of_a_rank_do_not_overlap(dualpipev):
    """The area of all is 0.8 of a lane's height times what a rank works."""
    for rank, work in enumerate(dualpipev.work):
        here = [box for box in boxes(dualpipev) if box.rank == rank]
        assert sum(map(area, here)) == pytest.approx(0.8 * work)
        ends = sorted((b.start, b.end) for b in here)
        assert all(b == a or b[0] >= a[1] for a, b in pairwise(ends))


def test_a_picture_tells_its_measures_and_numbers(tmp_path):
    path = tmp_path / "a.svg"
    draw(simulate(make("zb-h1", 4, 8)), path)
    found = texts(path)
    assert found.count("zb-h1: 4 ranks, 4 stages, 8 micro-batches") == 1
    assert (
        "makespan 27, ideal 24; idle 11.11% of all time; bubble 12.50% of the ideal time" in found
    )
    assert [t for t in found if t.startswith("rank")] == [f"rank {r}" for r in range(4)]
    assert {"F  forward", "I  input gradient", "W  weight gradients", "idle"} < set(found)
    assert "B  backward" not in found
    assert Counter(found)["7"] == 4 * 3  # F7, I7 and W7 of each rank


def test_chunks_have_shades(tmp_path):
    one, two = tmp_path / "1.svg", tmp_path / "2.svg"
    draw(simulate(make("1f1b", 2, 4)), one)
    draw(simulate(make("interleaved", 2, 4, 2)), two)
    assert "#2f6db5" in colours(one) < colours(two)
    assert len(colours(two) - colours(one)) == 2  # a paler F, a paler B
    assert "rank 1: 1, 3" in texts(two)


def test_numbers_that_do_not_fit_are_left_out(tmp_path):
    path = tmp_path / "a.svg"
    short = Costs(forward=0.01, input=9, weight=9)
    draw(simulate(make("gpipe", 2, 64), short), path)
    assert Counter(texts(path))["63"] == 2  # those of B


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_the_same_picture_is_the_same_file(tmp_path, suffix, dualpipev):
    paths = [tmp_path / f"{name}.{suffix}" for name in ("a", "b", "other")]
    for path in paths[:2]:
        draw(dualpipev, path)
    draw(simulate(make("dualpipev", 4, 10), Costs(overlap=2.5)), paths[2])
    first, second, other = (path.read_bytes() for path in paths)
    assert first == second != other
    assert b"<dc:date>" not in first


def test_a_large_one_is_drawn(tmp_path):
    path = tmp_path / "a.PNG"
    draw(simulate(make("1f1b", 16, 32), Costs(), 0.1), path)
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize(
    "name, said",
    [
        ("a.jpg", "suffix is '.jpg', want .svg or .png"),
        ("a", "suffix is '', want .svg or .png"),
        ("no/a.svg", "a.svg cannot be written: No such file"),
    ],
)
def test_what_cannot_be_drawn(tmp_path, name, said):
    with pytest.raises(UserError, match=said):
        draw(simulate(make("gpipe", 1, 1)), tmp_path / name)


# Timelines


def test_a_timeline_by_hand():
    order = [["0F0", "0F1", "0B0", "0B1"], ["1F0", "1B0", "1F1", "1B1"]]
    assert timeline(simulate(Schedule.of(order)).times, 26) == (
        "rank 0 F0F1····B0──··B1──\nrank 1 ··F0B0──F1B1──····"
    )


@pytest.mark.parametrize("name", ["gpipe", "1f1b", "zb-h2", "zbv", "dualpipev", "interleaved"])
@pytest.mark.parametrize("extra", [0, 1, 30, 100])
def test_a_timeline_tells_every_step_in_its_column(name, extra):
    simulated = simulate(make(name, 4, 8), Costs(input=1.5))
    width = timeline_width(simulated.times) + extra
    lines = timeline(simulated.times, width).splitlines()
    assert max(map(len, lines)) <= width
    for rank, (line, times) in enumerate(zip(lines, simulated.times)):
        cells = re.findall(r"((?:\d+)?[FIWB]\d+)", line.removeprefix(f"rank {rank} "))
        parts = [part for step, *_ in times for part in step.parts]
        assert [re.sub(r"^\d+", "", c) for c in cells] == [f"{p.kind}{p.microbatch}" for p in parts]


def test_stages_are_told_where_there_are_several_and_room():
    several, one = (simulate(make(name, 2, 2)).times for name in ("interleaved", "1f1b"))
    assert timeline(several, 7 + 15 * 3).startswith("rank 0 F0─F1─F0─F1─·")
    assert timeline(several, 7 + 15 * 4).startswith("rank 0 0F0─0F1─2F0─2F1─·")
    assert timeline(one, 200).startswith("rank 0 F0──")


def test_one_column_less_does_not_tell_every_step():
    times = simulate(make("1f1b", 4, 8)).times
    width = timeline_width(times)
    assert "B7──" in timeline(times, width)
    assert "B7──" not in timeline(times, width - 1)


def test_idle_is_as_long_as_it_is():
    simulated = simulate(make("1f1b", 4, 8))
    for line, idle in zip(timeline(simulated.times, 7 + 33 * 2).splitlines(), simulated.idle):
        assert line.count("·") == 2 * idle


def test_executed_times_need_not_fit_a_grid():
    times = [[(Action(0, "F", 0), 0.013, 1.07), (Action(0, "B", 0), 1.0701, 3.2)], []]
    assert timeline(times, 40) == "rank 0 F0────────B0──────────────────\nrank 1 " + "·" * 30


@pytest.mark.parametrize("width", [0, 5, 9, 20])
def test_any_width_will_do(width):
    times = simulate(make("zbv", 4, 8)).times
    assert max(map(len, timeline(times, width).splitlines())) <= max(width, len("rank 0 "))


def test_nothing_is_a_timeline_too():
    assert timeline([[], []], 30) == "rank 0 \nrank 1 "
    assert timeline_width([[], []]) == len("rank 0 ")
