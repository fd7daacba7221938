"""From text to batches: corpora, cleaning, encoding, windows that any rank can cut."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidist import data
from minidist.comm import shard_range
from minidist.data.clean import clean
from minidist.data.collect import collect
from minidist.errors import UserError


def test_docs_is_the_language_reference():
    text = collect("docs").decode()
    assert 300_000 < len(text) < 1_000_000
    assert "while" in text


def test_stdlib_is_the_source_of_the_standard_library():
    text = collect("stdlib").decode()
    assert 8_000_000 < len(text) < 30_000_000
    assert "class OrderedDict" in text


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_encoding_is_undone_by_decoding(text):
    tokens = data.encode(text)
    assert data.decode(tokens) == text
    assert len(tokens) == len(text.encode())


def test_clean_drops_long_paragraphs_that_come_again():
    long, short = b"a paragraph \xff\xb5 " * 10, b"short\x00"
    text = b"\n\n".join([long, short]) + b"\r\n\r\n  " + long + b"\r\n\r\n" + short
    assert clean(text) == (b"\n\n".join([long, short]) + b"\r\n\r\n" + short, 1)


def test_held_out_docs_share_no_long_paragraph_with_training_docs():
    corpus = data.load("docs", 64)
    assert len(corpus.held_out) == -(-(len(corpus.train) + len(corpus.held_out)) // 10)  # a tenth
    train, held = (data.decode(part) for part in (corpus.train, corpus.held_out))
    known = {" ".join(p.split()) for p in train.split("\n\n")}
    inside = held.split("\n\n")[1:]  # the first may be cut in two
    assert not [
        p for p in inside if len(" ".join(p.split())) >= 80 and " ".join(p.split()) in known
    ]


def test_a_file_by_path(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("0123456789" * 100)
    corpus = data.load(str(path), 16)
    assert len(corpus.train) + len(corpus.held_out) == 1000


CHINESE = "话说天下大势，分久必合，合久必分。周末七国分争，并入于秦。\n" * 40
JAPANESE = "吾輩は猫である。名前はまだ無い。\n" * 60
FRENCH = "Le cœur a ses raisons que l'été ne connaît pas.\n" * 40
RUSSIAN = "Все счастливые семьи похожи друг на друга.\n" * 40
CLASSICAL = "及秦灭之后，楚、汉分争，又并入于汉。汉朝自高祖斩白蛇而起义，一统天下" * 20
HELLO, PARAGRAPH = b"hello world " * 60, b"the same paragraph again " * 40
AS_THEY_ARE = {  # bytes, the encoding taken for prompts and samples, what is said
    "UTF-8": (CHINESE.encode(), "utf-8", ""),
    "Chinese": (CHINESE.encode("gb18030"), "gb18030",
                r"not UTF-8 \(byte 0 is 0xBB\), looks like gb18030: its bytes are used unchanged"),
    "two bytes wrong": (b"\xff" + CHINESE.encode("gb18030") + b"\xff", "gb18030", "with errors:"),
    "classical": (CLASSICAL.encode("gb18030"), "gb18030", "looks like gb18030:"),
    "traditional": ("我們在這裡說的是中國人。\n".encode("big5") * 60, "big5", "looks like big5:"),
    "Shift JIS": (JAPANESE.encode("shift_jis"), "shift_jis", "looks like shift_jis"),
    "EUC-JP": (JAPANESE.encode("euc_jp"), "euc_jp", "looks like euc_jp"),
    "Korean": ("모든 국민은 인간의 존엄과 가치를.\n".encode("euc_kr") * 60, "euc_kr", "euc_kr"),
    "French": (FRENCH.encode("cp1252"), "cp1252", r"\(byte 4 is 0x9C\), looks like cp1252"),
    "Russian": (RUSSIAN.encode("cp1251"), "cp1251", "looks like cp1251"),
    "KOI8": (RUSSIAN.encode("koi8-r"), "koi8-r", "looks like koi8-r"),
    "UTF-16": (CHINESE.encode("utf-16"), "utf-16-le", "like utf-16-le; begins with a byte or"),
    "no mark": (CHINESE.encode("utf-16-le"), "utf-16-le", "looks like utf-16-le: its bytes are"),
    "English in UTF-16": (HELLO.decode().encode("utf-16-be"), "utf-16-be", "^looks like utf-16-be"),
    "UTF-32": (JAPANESE.encode("utf-32-le"), "utf-32-le", "looks like utf-32-le"),
    "small numbers": (np.arange(5000, dtype="<i2").tobytes(), "utf-8", "no known encoding"),
    "damaged": (CHINESE.encode() + b"\xff" + CHINESE.encode(), "utf-8", "like utf-8 with errors"),
    "noise": (bytes(range(256)) * 4, "utf-8", "looks like no known encoding"),
    "CRLF": (b"one\r\ntwo\rthree\n" * 50, "utf-8", "^50 CRLF line ends: its bytes are"),
    "BOM": (b"\xef\xbb\xbf" + HELLO, "utf-8", "^begins with a byte order mark:"),
    "NUL": (HELLO + b"\0\0", "utf-8", "^2 NUL bytes:"),
    "repeats": ((PARAGRAPH + b"\n\n") * 4, "utf-8", ""),
}  # fmt: skip


@pytest.mark.parametrize("case", AS_THEY_ARE)
def test_a_file_is_read_byte_for_byte_and_what_is_unusual_is_said(tmp_path, case):
    content, encoding, said = AS_THEY_ARE[case]
    (tmp_path / "a.txt").write_bytes(content)
    corpus = data.load(str(tmp_path / "a.txt"), 16)
    assert np.concatenate([corpus.train, corpus.held_out]).tobytes() == content
    assert corpus.encoding == encoding
    (note,) = corpus.notes or [""]
    assert re.search(said, note) and bool(note) == bool(said)


def test_repeats_are_left_out_of_a_file_on_request_and_counted(tmp_path):
    (tmp_path / "a.txt").write_bytes((PARAGRAPH + b"\r\n\r\n") * 4)
    corpus = data.load(str(tmp_path / "a.txt"), 16, drop_repeats=True)
    kept = np.concatenate([corpus.train, corpus.held_out]).tobytes()
    assert kept == PARAGRAPH + b"\r\n\r\n"
    assert corpus.notes[-1] == "3 repeated paragraphs (3,012 bytes) left out"
    assert data.load("docs", 16).notes[0].endswith("left out")


def test_an_encoding_that_is_given_is_taken_and_its_errors_are_said(tmp_path):
    (tmp_path / "a.txt").write_bytes(CHINESE.encode())
    corpus = data.load(str(tmp_path / "a.txt"), 16, encoding="ascii")
    assert corpus.encoding == "ascii"
    assert corpus.notes[0].startswith("not ascii (byte 0 is 0xE8)")
    assert data.encode("天", "gb18030").tobytes() == "天".encode("gb18030")
    with pytest.raises(UserError, match=r"'天' cannot be written in cp1252.*--encoding"):
        data.encode("a天", "cp1252")


@pytest.mark.parametrize(
    ("name", "message"),
    [("x" * 300, "cannot be read: File name too long"), ("a\0b", "cannot be read: embedded null"),
     (".", "is no file"), ("/dev/null", "is no file")],
)  # fmt: skip
def test_paths_that_cannot_be_read(name, message):
    with pytest.raises(UserError, match=message):
        collect(name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is no file: give the path of a text file, or one of docs, stdlib"),
        ("", "is empty"),
        (" \n", "is empty"),
        ("too short", "too short for seq 16"),
        ("x", r"\(1 bytes\) must hold 17; give at least 170 bytes"),
    ],
)
def test_bad_files_are_named_with_the_remedy(tmp_path, content, message):
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=message):
        data.load(str(path), 16)


def test_the_shortest_text_that_is_long_enough(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("x" * 20)
    assert data.held_out_starts(data.load(str(path), 1), 1, 256).tolist() == [0]


@given(st.integers(1, 9), st.integers(1, 12), st.integers(1, 6), st.integers(0, 9))
def test_ranks_cut_the_rows_of_one_global_batch(batch, seq, ranks, step):
    corpus = data.Corpus(np.arange(200, dtype=np.uint8), np.zeros(0, np.uint8))
    starts = data.training_starts(corpus, seq, batch, 0, step)
    x, y = data.windows(corpus.train, starts, seq)
    assert (x[:, 1:] == y[:, :-1]).all()
    assert (y == x + 1).all(), "a target is the next token"
    cuts = (slice(*shard_range(batch, ranks, rank)) for rank in range(ranks))
    parts = [data.windows(corpus.train, starts[cut], seq)[0] for cut in cuts]
    assert np.concatenate(parts).tolist() == x.tolist()


@given(st.integers(2, 300), st.integers(1, 40), st.integers(1, 20))
def test_evaluation_windows_fit_and_do_not_overlap(length, seq, most):
    corpus = data.Corpus(np.zeros(1, np.uint8), np.zeros(max(length, seq + 1), np.uint8))
    starts = data.held_out_starts(corpus, seq, most)
    assert 1 <= len(starts) <= most
    assert (np.diff(starts) >= seq).all()
    assert starts[-1] + seq < len(corpus.held_out)


def test_fingerprint_tells_texts_apart():
    one, other = np.arange(9, dtype=np.uint8), np.arange(9, dtype=np.uint8)[::-1].copy()
    assert data.Corpus(one, other).fingerprint != data.Corpus(other, one).fingerprint
