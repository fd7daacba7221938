"""Text that is not ours, on the screen and in plots: escaped, and in a font that has it."""

import warnings
import xml.etree.ElementTree as ET

import matplotlib.font_manager as fonts
import pytest

from minidist.errors import visible
from minidist.parallel.pipeline.actions import Schedule
from minidist.parallel.pipeline.check.validate import validate
from minidist.parallel.pipeline.study.costs import Costs
from minidist.parallel.pipeline.study.draw import draw
from minidist.parallel.pipeline.study.report import report
from minidist.parallel.pipeline.study.simulate import simulate
from minidist.plots import plain
from minidist.train.report import loss_curve

NAMES = ["price$_^{$.txt", "红楼梦.txt", "a[/b] :smile: & <i>.txt", "l\nx\x1b[31m\udcff\x00.txt"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [("红楼 é [/b] $x$", None), ("a\n\x1b[2J\u2028\x00", r"a\n\x1b[2J\u2028\x00"),
     ("a\udcff", r"a\udcff")],
)  # fmt: skip
def test_visible(text, shown):
    assert visible(text) == (shown or text)
    assert visible("abcdefghij", 7) == "abc…hij" and visible("abc", 7) == "abc"
    assert visible("a\n\tb", keep="\n\t") == "a\n\tb"


def test_a_font_is_found_that_has_the_characters_or_they_are_escaped():
    """STIX comes with Matplotlib, and has a letter that its usual font lacks."""
    text, how = plain("$x$ 𝒜")
    assert (text, how["parse_math"]) == ("$x$ 𝒜", False)
    assert how["fontfamily"][-1].startswith("STIX")
    assert plain("\U0010ff00")[0] == r"\U0010ff00"  # private use: only fonts of boxes have it


@pytest.fixture
def only_dejavu(monkeypatch):
    """A machine without Chinese fonts; Matplotlib's warning that it draws a box is an error."""
    usual = [f for f in fonts.fontManager.ttflist if f.name.startswith("DejaVu")]
    monkeypatch.setattr(fonts.fontManager, "ttflist", usual)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize("name", NAMES)
def test_any_name_may_stand_in_a_plot(only_dejavu, tmp_path, name):
    records = [{"step": 1, "loss": 2.0, "val_loss": 3.0}]
    loss_curve(records, tmp_path / "loss.png", f"gpt on {name}", uniform=5.5)
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    simulated = simulate(validate(Schedule.of([["0F0", "0B0"]], name)), Costs())
    draw(simulated, tmp_path / "a.svg")
    texts = [t.text for t in ET.parse(tmp_path / "a.svg").iter("{http://www.w3.org/2000/svg}text")]
    assert any(plain(name)[0] in str(text) for text in texts)
    assert report(simulated, 80).splitlines()[0].startswith(f"{visible(name)}: --pp 1")


def test_the_legend_of_the_loss_lies_beside_the_curves(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    kept = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path: kept.append(figure))
    loss_curve([{"step": 1, "loss": 2.0, "val_loss": 3.0}], tmp_path / "a.png", "t", 5.5)
    (figure,), (axes,) = kept, kept[0].axes
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert axes.get_legend() is None
    assert not legend.get_window_extent().overlaps(axes.get_window_extent())
