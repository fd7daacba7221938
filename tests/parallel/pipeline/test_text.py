"""The text of a schedule: read as written, PyTorch's and a spreadsheet's too, or refused."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minidist.errors import UserError
from minidist.parallel.pipeline.actions import KINDS, Action, Overlap, Schedule, parse
from minidist.parallel.pipeline.check.messages import without_messages
from minidist.parallel.pipeline.check.validate import validate
from minidist.parallel.pipeline.schedules import NAMES, make
from minidist.parallel.pipeline.study.costs import Costs
from minidist.parallel.pipeline.study.report import report
from minidist.parallel.pipeline.study.simulate import simulate
from minidist.parallel.pipeline.text import dumps, load, loads, save


@pytest.mark.parametrize(
    "cell, step",
    [
        ("0F3", Action(0, "F", 3)),
        ("12I0", Action(12, "I", 0)),
        ("2W10", Action(2, "W", 10)),
        ("2B999999", Action(2, "B", 999999)),
        ("1SEND_F0", Action(1, "SEND_F", 0)),
        ("2RECV_F5", Action(2, "RECV_F", 5)),
        ("1SEND_B0", Action(1, "SEND_B", 0)),
        ("2RECV_B5", Action(2, "RECV_B", 5)),
        (" \t0F3\n", Action(0, "F", 3)),
        ("(0F7;7B3)OVERLAP_F_B", Overlap(Action(0, "F", 7), Action(7, "B", 3))),
        (" ( 0F7 ; 7B3 ) OVERLAP_F_B ", Overlap(Action(0, "F", 7), Action(7, "B", 3))),
    ],
)
def test_parse(cell, step):
    assert parse(cell) == step


LIKE = "a cell looks like 0F3 (stage 0, F, micro-batch 3), 1SEND_F0 or (0F7;7B3)OVERLAP_F_B"


@pytest.mark.parametrize(
    "cell, remedy",
    [
        ("", LIKE),
        ("F3", LIKE),
        ("0f3", LIKE),
        ("-1F3", LIKE),
        ("0F-3", LIKE),
        ("0F3.0", LIKE),
        ("+0F3", LIKE),
        ("0F1_0", LIKE),
        ("\u0663F3", LIKE),  # Arabic-Indic 3: int() would take it
        ("0F\u00b2", LIKE),  # a superscript
        ("0\uff263", LIKE),  # a full-width F
        ("0F3\x00", LIKE),
        ("0F0;0F1", LIKE + "; cells are joined by commas"),
        ("0F0\t0F1", LIKE + "; cells are joined by commas"),
        ("0F0 0F1", LIKE + "; cells are joined by commas"),
        ("0F", "the micro-batch is missing: " + LIKE),
        ("00F3", "want 0 for 00, without leading zeros"),
        ("0F03", "want 3 for 03, without leading zeros"),
        ("0F1000000", "want a number of at most 6 digits"),
        ("9" * 5000 + "F0", "want a number of at most 6 digits"),
        ("0X3", f"X is unknown: use one of {', '.join(KINDS)}"),
        ("0FB3", f"FB is unknown: use one of {', '.join(KINDS)}"),
        ("0UNSHARD", f"UNSHARD is unknown: use one of {', '.join(KINDS)}"),
        ("1RESHARD", f"RESHARD is unknown: use one of {', '.join(KINDS)}"),
        ("1REDUCE_GRAD", f"REDUCE_GRAD is unknown: use one of {', '.join(KINDS)}"),
        ("(0F7;7B3)", LIKE + "; cells are joined by commas"),
        ("(0F7;7B3)TOGETHER", "TOGETHER is unknown: " + LIKE),
        ("(7B3;0F7)OVERLAP_F_B", "what overlaps is an F, then a B: " + LIKE),
        ("(0F7;7I3)OVERLAP_F_B", "what overlaps is an F, then a B: " + LIKE),
    ],
)
def test_parse_refuses(cell, remedy):
    with pytest.raises(UserError) as error:
        parse(cell)
    shown = cell if len(cell) <= 40 else cell[:40] + "…"
    assert str(error.value) == f"cell {shown!r}: {remedy}"


def test_errors_say_where():
    with pytest.raises(UserError, match=r"^line 3, column 2: cell '0X0': X is unknown"):
        loads("# ranks\n0F0\n,0X0")
    with pytest.raises(UserError, match=r"^mine, line 1, column 3: cell '1F': the micro-batch"):
        loads("(0F1;0B0)OVERLAP_F_B,,1F", "mine")
    with pytest.raises(UserError, match=r"^line 1, column 1: cell '0Fx': a cell looks like"):
        loads("(0Fx;0B0)OVERLAP_F_B")


# Round trips

number = st.integers(0, 999_999)
actions = st.builds(Action, number, st.sampled_from(KINDS), number)
overlaps = st.builds(
    lambda s, f, t, b: Overlap(Action(s, "F", f), Action(t, "B", b)), number, number, number, number
)
orders = st.lists(actions | overlaps, max_size=6).map(tuple)


def unambiguous(order):
    """Without a B beside a W of its own, which is PyTorch's I."""
    weights = {(s.stage, s.microbatch) for s in order if isinstance(s, Action) and s.kind == "W"}
    return tuple(s for s in order if s[1] != "B" or (s.stage, s.microbatch) not in weights)


schedules = st.lists(orders.map(unambiguous), min_size=1, max_size=4).map(Schedule.of)


@given(actions | overlaps)
def test_parse_reads_what_str_writes(step):
    assert parse(str(step)) == step


@given(schedules)
@example(Schedule.of([["0F1", "0B0"]]))
def test_loads_reads_what_dumps_writes(schedule):
    read = loads(dumps(schedule))
    if read.notes:  # forwards numbered from 1, as PyTorch's 1F1B does by mistake: read as from 0
        assert str(read.notes).count("numbered from 1") == 1
        assert loads(dumps(read)) == read and not loads(dumps(read)).notes
        assert read.orders[:-1] == schedule.orders[:-1]
        schedule = Schedule.of([*read.orders[:-1], renumbered(schedule.orders[-1])])
    assert read == schedule


def renumbered(order):
    """Every forward one micro-batch lower."""
    return [s._replace(microbatch=s.microbatch - (s.kind == "F")) for s in order]


@given(st.sampled_from(NAMES), st.integers(1, 4), st.booleans())
def test_every_schedule_is_read_back(name, p, pytorch):
    schedule = make(name, p, 2 * p)
    assert loads(dumps(schedule, pytorch), name) == schedule


@given(st.text(max_size=40) | st.text("0123FIWB,;()#\"'\n\r_ ", max_size=40))
def test_any_text_is_read_or_refused(text):
    try:
        schedule = loads(text)
    except UserError:
        return
    assert loads(dumps(schedule)) == schedule


def test_the_canonical_text():
    steps = ["0F0", "0SEND_F0"], [Overlap(Action(1, "F", 1), Action(1, "B", 0))], []
    assert dumps(Schedule.of(steps)) == "0F0,0SEND_F0\n(1F1;1B0)OVERLAP_F_B\n,"


# PyTorch's letters


def texts(schedule):
    return [" ".join(map(str, order)) for order in schedule.orders]


def test_a_b_beside_its_w_is_an_i():
    assert texts(loads("0F0,0B0,0W0,0B1\n1W0,1B0")) == ["0F0 0I0 0W0 0B1", "1W0 1I0"]


def test_a_b_beside_the_w_of_another_is_whole():
    assert texts(loads("0B0,0W1,1W0\n0W0")) == ["0B0 0W1 1W0", "0W0"]


def test_a_b_that_overlaps_is_whole():
    assert texts(loads("(0F1;0B0)OVERLAP_F_B,0W0")) == ["(0F1;0B0)OVERLAP_F_B 0W0"]


def test_pytorchs_newer_letters():
    schedule = Schedule.of([["0F0", "0I0", "0W0", "0B1", "0I2"]])
    assert dumps(schedule, pytorch=True) == "0F0,0B0,0W0,0B1,0I2"
    assert dumps(schedule) == "0F0,0I0,0W0,0B1,0I2"


# By hand, and by a spreadsheet

PLAIN = Schedule.of([["0F0", "0B0"], ["1F0", "1B0"]])


@pytest.mark.parametrize(
    "text",
    [
        "0F0,0B0\n1F0,1B0",
        "0F0,0B0\n1F0,1B0\n",
        "0F0,,,0B0\n,1F0,1B0,\n",
        "0F0 , 0B0\n 1F0,  1B0  \n",
        "0F0,0B0\r\n1F0,1B0\r\n",
        "0F0,0B0\r1F0,1B0",
        "\ufeff0F0,0B0\n1F0,1B0\n",
        "\ufeff# rank 0, then rank 1\r\n0F0,0B0\r\n1F0,1B0\r\n\r\n",
        '"0F0","0B0"\n"1F0", "1B0"\n',
        '"0F0","",0B0\n1F0,"1B0 "',
        "\n\n# first\n\n0F0,0B0\n\n# second,,\n1F0,1B0\n  # end\n\n  \n\n",
        "0F0,0B0\n# between\n\n\n1F0,1B0",
        '"# a note, quoted"\n0F0,0B0\n1F0,1B0\n#0F1',
    ],
)
def test_hand_written(text):
    assert loads(text) == PLAIN


def test_a_rank_that_does_nothing():
    assert texts(loads("0F0\n,\n1F0")) == ["0F0", "", "1F0"]


@pytest.mark.parametrize("blank", ["\n", "  \n", "\n\n"])
def test_a_blank_line_between_two_ranks_is_refused(blank):
    line = 1 + blank.count("\n")
    with pytest.raises(UserError, match=f"^x, line {line} is blank, between two ranks: leave it"):
        loads(f"0F0,0B0\n{blank}1F0,1B0", "x")


def test_a_broken_quote_is_refused():
    with pytest.raises(UserError, match=r"^line 2, column 1: cell '0F0,0B0"):
        loads('"0F0,0B0\n1F0,1B0')


def test_a_cell_too_long_for_csv_is_refused():
    with pytest.raises(UserError, match=r"^line 1 is not CSV: field larger"):
        loads("0" * 200_000)


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "\ufeff", "  \r\n"])
def test_an_empty_text_is_refused(text):
    with pytest.raises(UserError, match=r"^no rank: want a line a rank, cells joined by commas"):
        loads(text)


# Files


@pytest.mark.parametrize("pytorch", [False, True])
def test_files(tmp_path, pytorch):
    schedule = make("zb-h1", 2, 3)
    save(schedule, tmp_path / "mine.csv", pytorch)
    assert load(str(tmp_path / "mine.csv")) == Schedule(schedule.orders, "mine.csv")
    data = (tmp_path / "mine.csv").read_bytes()
    assert data == (dumps(schedule, pytorch) + "\n").encode() and b"\r" not in data


def test_an_excel_file(tmp_path):
    (tmp_path / "excel.csv").write_bytes(b"\xef\xbb\xbf0F0,0B0,\r\n1F0,,1B0\r\n")
    assert load(tmp_path / "excel.csv").orders == PLAIN.orders


@pytest.mark.parametrize(
    "data, reason",
    [
        (b"", "x.csv, no rank: want a line a rank"),
        (b"\x89PNG\r\n\x1a\n", "x.csv is not text: want a CSV file in UTF-8"),
        ("0F0,0B0".encode("utf-16"), "x.csv is not text: want a CSV file in UTF-8"),
        (b"0F0,0REDUCE_GRAD1", "line 1, column 2: cell '0REDUCE_GRAD1': REDUCE_GRAD is unknown"),
        (b"PK\x03\x04", r"x.csv, line 1, column 1: cell 'PK\\x03\\x04': a cell looks like 0F3"),
    ],
)
def test_files_that_are_no_schedules(tmp_path, data, reason):
    (tmp_path / "x.csv").write_bytes(data)
    with pytest.raises(UserError) as error:
        load(tmp_path / "x.csv")
    assert reason.replace(r"\\", "\\") in str(error.value)


@pytest.mark.parametrize(
    "name, reason",
    [
        ("missing.csv", "No such file or directory; want a CSV file, a line a rank"),
        ("", "Is a directory; want"),
        ("a\0b", "embedded null"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, name, reason):
    with pytest.raises(UserError, match=reason):
        load(tmp_path / name)


def test_a_file_that_cannot_be_written(tmp_path):
    with pytest.raises(UserError, match="cannot be written: No such file or directory"):
        save(PLAIN, tmp_path / "no" / "x.csv")


PYTORCH = {  # as PyTorch 2.13 writes them, what is read, what is said
    "gpipe": ("0F0,0F1,,,0B0,,0B1,0REDUCE_GRAD\n,1F0,1F1,1B0,1B1,1REDUCE_GRAD",
              "0F0,0F1,0B0,0B1\n1F0,1F1,1B0,1B1", ["left out: 2 REDUCE_GRAD;"]),
    "1f1b": ("0F0,,,0F1,0B0,,0B1,0REDUCE_GRAD\n,1F1,1B0,1F2,1B1,1REDUCE_GRAD",
             "0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1", ["left out", "numbered from 1, as PyTorch's"]),
    "with messages": ("0UNSHARD,0F0,0SEND_F0,0RECV_B0,0B0,0REDUCE_GRAD,0RESHARD\n"
                      "1UNSHARD,1RECV_F0,1F0,1B0,1SEND_B0,1REDUCE_GRAD,1RESHARD",
                      "0F0,0SEND_F0,0RECV_B0,0B0\n1RECV_F0,1F0,1B0,1SEND_B0",
                      ["left out: 2 REDUCE_GRAD, 2 RESHARD, 2 UNSHARD; --zero and --sync gather"]),
}  # fmt: skip


@pytest.mark.parametrize("case", PYTORCH)
def test_pytorchs_files_are_read_and_what_is_left_out_is_said(case):
    text, wanted, notes = PYTORCH[case]
    schedule = loads(text)
    assert dumps(schedule) == wanted
    assert len(schedule.notes) == len(notes)
    assert all(note in said for note, said in zip(notes, schedule.notes))
    assert without_messages(validate(schedule)).notes == schedule.notes
    assert all(note in report(simulate(validate(schedule), Costs()), 80) for note in notes)


def test_a_schedule_of_ours_has_nothing_to_say():
    assert loads("0F0,0B0").notes == ()
    assert dumps(loads("0F1,0B1")) == "0F1,0B1"  # a real mistake stays one, for validate to name


@pytest.mark.proof
@pytest.mark.parametrize("kind", ["GPipe", "1F1B", "Interleaved1F1B", "ZBVZeroBubble", "DualPipeV"])
def test_every_order_that_pytorch_makes_is_read(kind):
    schedules = pytest.importorskip("torch.distributed.pipelining.schedules")
    from unittest.mock import MagicMock

    ranks = 4
    several = kind not in ("GPipe", "1F1B")
    last = ranks if kind.startswith("Inter") else 2 * ranks - 1
    stages = [
        MagicMock(stage_index=i, num_stages=ranks * (1 + several), group_size=ranks, group_rank=0,
                  is_first=i == 0, is_last=i == last)
        for i in ([0, last] if several else [0])
    ]  # fmt: skip
    made = getattr(schedules, f"Schedule{kind}")(stages if several else stages[0], 8, MagicMock())
    every = [made.pipeline_order if several else made._get_pipeline_order()]
    every += [made.pipeline_order_with_comms] if several else []
    for orders in every:
        cells = (["" if a is None else str(a) for a in orders[rank]] for rank in range(ranks))
        read = validate(loads("\n".join(map(",".join, cells))))
        assert (read.ranks, read.microbatches) == (ranks, 8)
