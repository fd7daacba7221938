"""Counter-based randomness: numbers by name and place, whatever the layout."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minidist as md
from minidist import random
from minidist.ops.dropout import keep_mask


def draws(*key):
    return random.generator(*key).random(8).tolist()


def test_a_key_gives_its_numbers_and_another_key_others():
    keys = [(0, "a"), (1, "a"), (0, "b"), ("a", 0), (0, "a", 0), ("0a",), ("0", "a"), (-1, "a")]
    assert all(draws(*k) == draws(*k) for k in keys)
    assert len({tuple(draws(*k)) for k in keys}) == len(keys)


def test_the_numbers_of_a_key_are_pinned():
    """A changed stream changes every run: this fails when NumPy's or ours does."""
    first = random.generator(0, "wte.weight").integers(0, 2**63, 2).tolist()
    assert first == [4503707851007175890, 3618188403770945604]


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8])
def test_integers_of_numpy_are_the_same_key(kind):
    assert draws(kind(3), "a") == draws(3, "a")


@pytest.mark.parametrize("key", [(0.5,), (None,), ((1, 2),)])
def test_other_keys_are_refused(key):
    with pytest.raises(TypeError):
        random.generator(*key)


def test_the_default_stream_restarts_and_moves_on():
    md.manual_seed(5)
    first, second = md.randn(4).tolist(), md.randn(4).tolist()
    assert first != second
    md.manual_seed(5)
    assert md.randn(4).tolist() == first
    md.manual_seed(6)
    assert md.randn(4).tolist() != first


def test_a_place_ends_with_its_block():
    with random.at(0, 0, 0):
        inside = keep_mask("d", (2, 50), 0.5)
        with random.at(0, 1, 0):
            assert (keep_mask("d", (2, 50), 0.5) != inside).any()
        assert (keep_mask("d", (2, 50), 0.5) == inside).all()
    assert (keep_mask("d", (2, 50), 0.5) != inside).any(), "the default stream again"


def mask(first: int, rows: int, name: str = "d", seed: int = 1, step: int = 2) -> np.ndarray:
    with random.at(seed, step, first):
        return keep_mask(name, (rows, 3, 5), 0.6)


@given(n=st.integers(1, 12), cuts=st.lists(st.integers(0, 12), max_size=4),
       offset=st.integers(0, 10**9))  # fmt: skip
@settings(max_examples=50)
def test_masks_do_not_depend_on_how_a_batch_is_cut(n, cuts, offset):
    edges = [0, *sorted(min(c, n) for c in cuts), n]
    parts = [mask(offset + i, j - i) for i, j in pairwise(edges)]
    assert np.concatenate(parts).tobytes() == mask(offset, n).tobytes()


def test_masks_that_start_at_0_on_every_rank_are_seen():
    """The control: forgetting first_sample repeats the first rank's masks."""
    whole = mask(0, 8)
    assert np.concatenate([mask(0, 4), mask(0, 4)]).tobytes() != whole.tobytes()


def test_masks_differ_by_name_seed_step_and_sample():
    masks = [mask(0, 2), mask(0, 2, name="e"), mask(0, 2, seed=3), mask(0, 2, step=3), mask(2, 2)]
    assert len({m.tobytes() for m in masks}) == len(masks)
    assert (masks[0][0] != masks[0][1]).any()
