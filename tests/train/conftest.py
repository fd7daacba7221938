"""Runs of these tests end with a short sample: its length shows nothing."""

import pytest

from minidist.train import run


@pytest.fixture(autouse=True, scope="session")
def short_samples():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "SAMPLE_BYTES", 12)
        yield
