"""From text to batches: corpora, cleaning, encoding, windows that any rank can cut."""

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
    text = collect("docs")
    assert 300_000 < len(text) < 1_000_000
    assert "while" in text


def test_stdlib_is_the_source_of_the_standard_library():
    text = collect("stdlib")
    assert 8_000_000 < len(text) < 30_000_000
    assert "class OrderedDict" in text


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_encoding_is_undone_by_decoding(text):
    tokens = data.encode(text)
    assert data.decode(tokens) == text
    assert len(tokens) == len(text.encode())


def test_clean_drops_long_paragraphs_that_come_again():
    long, short = "a paragraph " * 10, "short"
    text = f"{long}\n\n{short}\r\n\r\n  {long}\n\n{short}"
    assert clean(text) == f"{long}\n\n{short}\n\n{short}"


def test_held_out_docs_share_no_long_paragraph_with_training_docs():
    corpus = data.load("docs", 64)
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


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is no file: give the path of a text file, or one of docs, stdlib"),
        ("", "is empty"),
        (" \n", "is empty"),
        ("too short", "too short for seq 16"),
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
