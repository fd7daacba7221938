"""The graph as text and DOT: deterministic, and exactly this."""

import pytest

import minidist as md
from minidist import Tensor, ops


def graph():
    w = md.ones(2, 3, requires_grad=True)
    b = md.ones(2, requires_grad=True)
    h = ops.linear(md.ones(4, 3), w, b).tanh()
    return (h * h).sum(), {"w": w, "b": b}


TEXT = """\
%0 = w  (2, 3)
%1 = b  (2,)
%2 = linear(·, %0, %1)  (4, 2)
%3 = tanh(%2)  (4, 2)
%4 = mul(%3, %3)  (4, 2)
%5 = sum(%4)  ()
"""

DOT = r"""digraph {
  n0 [label="w\n(2, 3)", shape=box];
  n1 [label="b\n(2,)", shape=box];
  n2 [label="linear\n(4, 2)", shape=ellipse];
  n3 [label="tanh\n(4, 2)", shape=ellipse];
  n4 [label="mul\n(4, 2)", shape=ellipse];
  n5 [label="sum\n()", shape=ellipse];
  n0 -> n2;
  n1 -> n2;
  n2 -> n3;
  n3 -> n4;
  n3 -> n4;
  n4 -> n5;
}
"""


def test_a_known_graph():
    y, names = graph()
    assert md.graph.to_text(y, names) == TEXT == md.graph.to_text(y, names)
    assert md.graph.to_dot(y, names) == DOT
    y, names = graph()
    assert md.graph.to_text(y, names) == TEXT, "numbers of one run do not show in the next"
    assert "%0 = leaf  (2, 3)" in md.graph.to_text(y)


def test_names_are_quoted():
    y, names = graph()
    assert r'label="a \"b\" \\ c\n(2, 3)"' in md.graph.to_dot(y, {'a "b" \\ c': names["w"]})


def test_a_leaf_alone_a_deep_graph_and_none():
    x = y = Tensor([1.0], requires_grad=True)
    assert md.graph.to_text(x) == "%0 = leaf  (1,)\n"
    for _ in range(5000):
        y = y + 1
    assert md.graph.to_text(y).count("\n") == 5001
    with pytest.raises(RuntimeError, match="no graph behind"):
        md.graph.to_dot(md.ones(1))


def test_changes_in_place_show():
    x = md.ones(2, 2, requires_grad=True)
    h = x * 2
    h[0] += 1
    expected = [
        "leaf",
        "mul(%0)",
        "getitem(%1)",
        "add_(%2)",
        "copy_slices(%1, %3)",
        "setitem(%4, %3)",
    ]
    lines = md.graph.to_text(h).splitlines()
    assert [line.split(" = ")[1].split("  ")[0] for line in lines] == expected
