"""`facts` and `operations` in the checkout are `nixherd.facts` and `nixherd.operations`, whichever comes first."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

pytestmark = pytest.mark.process


@pytest.mark.parametrize("order", ["facts nixherd.facts", "nixherd.facts facts"], ids=["short first", "long first"])
def test_a_fact_is_one_class(order: str) -> None:
    """pyinfra asks each class of a fact by itself, and two of them are two facts."""
    script = f"""
import importlib
from importlib.util import find_spec
from pyinfra.api import FactBase
for package in {order!r}.split():
    importlib.import_module(package + ".nixos")
import facts, nixherd.facts, operations.proxmox_host.checking, nixherd.operations.proxmox_host.checking
assert facts is nixherd.facts
assert facts.nixos.CurrentSystem is nixherd.facts.nixos.CurrentSystem
assert operations.proxmox_host.checking is nixherd.operations.proxmox_host.checking
assert facts.nixos.__name__ == "nixherd.facts.nixos"
assert facts.nixos.CurrentSystem.name == "nixherd.facts.nixos.CurrentSystem"
assert find_spec("facts.nosuch") is None and find_spec("facts.age").name == "facts.age"
def below(cls): return [cls, *(each for sub in cls.__subclasses__() for each in below(sub))]
names = [each.__qualname__ for each in below(FactBase) if each.__module__.endswith("facts.nixos")]
assert len(names) == len(set(names)) > 5, names
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_packages_of_the_same_name_elsewhere_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "facts").mkdir()
    (tmp_path / "facts/__init__.py").write_text("")
    (tmp_path / "facts/mine.py").write_text("WORD = 1\n")
    script = "import nixherd.facts.nixos, facts.mine; assert facts.mine.WORD == 1; assert facts is not nixherd.facts"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
