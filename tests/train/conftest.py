"""Runs of these tests end with a short sample: its length shows nothing."""

import pytest

from minidist.train.loop import Trainer


@pytest.fixture(autouse=True, scope="session")
def short_samples():
    whole = Trainer.sample
    with pytest.MonkeyPatch.context() as patch:
        short = lambda self, prompt, count, *how: whole(self, prompt, min(count, 12), *how)
        patch.setattr(Trainer, "sample", short)
        yield
