"""The examples in the docstrings are what the code gives: each schedule's picture, too."""

import doctest
import pkgutil
from importlib import import_module

import pytest

from minidist.parallel import pipeline
from minidist.parallel.pipeline import schedules

MODULES = [
    found.name for found in pkgutil.walk_packages(pipeline.__path__, pipeline.__name__ + ".")
]
DRAWN = [module for module in MODULES if ".schedules." in module and "order" not in module]


@pytest.mark.parametrize("module", MODULES)
def test_examples_are_true(module):
    found = doctest.testmod(import_module(module))
    assert found.failed == 0


@pytest.mark.parametrize("module", [name for name in DRAWN if "forward_only" not in name])
def test_every_schedule_has_a_picture(module):
    assert "\nrank 0 F" in import_module(module).__doc__


def test_a_wrong_picture_is_seen(monkeypatch):
    module = import_module(f"{schedules.__name__}.one_f_one_b")
    monkeypatch.setattr(module, "__doc__", module.__doc__.replace("F4B1──", "B1──F4"))
    assert doctest.testmod(module).failed == 1


def test_every_file_of_a_schedule_is_in_the_list():
    files = {name.rsplit(".", 1)[1] for name in DRAWN} - {"forward_only"}
    assert files == {each.__name__ for each in schedules.SCHEDULES}
