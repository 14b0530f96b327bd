"""What facts make of a machine's words: a file per case, and each command run for real by sh.

The cases of `module.Fact` lie in the directory of that name, in the form of pyinfra's own: of `command` comes `output`,
which becomes `fact`. pyinfra-testing itself is not used: importing it patches everything for gevent, pytest included.
"""

import importlib
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from pyinfra.api.exceptions import FactProcessError

from facts.machine import Machine
from facts.nixos import CurrentSystem

pytestmark = pytest.mark.unit

HERE = Path(__file__).parent
CASES = [pytest.param(path, id=f"{path.parent.name}-{path.stem}") for path in sorted(HERE.glob("*.*/*.yaml"))]


@pytest.mark.parametrize("path", CASES)
def test_case(path: Path) -> None:
    module, _, name = path.parent.name.partition(".")
    fact = getattr(importlib.import_module(f"facts.{module}"), name)()
    case = yaml.safe_load(path.read_text())
    if "command" in case:
        assert fact.command() == case["command"]
    assert fact.process(case["output"].splitlines()) == case["fact"]


def said(fact: Any) -> Any:
    """What the fact says of this very machine."""
    command = fact.command()
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=20, check=True)
    lines = done.stdout.splitlines()
    return fact.process(lines) if lines else fact.default()


def test_this_machine_says_what_it_is() -> None:
    machine = said(Machine())
    assert machine["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert machine["hostname"] == Path("/proc/sys/kernel/hostname").read_text().strip()
    assert machine["jobs"] == {}
    assert all(len(mac) == 17 for mac in machine["macs"])


@pytest.mark.skipif(Path("/run/current-system").exists(), reason="this machine runs NixOS")
def test_a_machine_without_nixos_has_no_current_system() -> None:
    assert said(CurrentSystem()) is None


def test_a_machine_that_is_not_there_is_unknown() -> None:
    assert Machine().default() is None
    assert CurrentSystem().default() is None


@pytest.mark.parametrize(
    ("fact", "output", "complaint"),
    [
        (Machine(), [], "no macs, id, variant, .* in what the machine says of itself"),
        (Machine(), ["sh: 1: printf: Permission denied"], "no macs, id"),
        (CurrentSystem(), ["/nix/store/x", "/nix/store/x"], "expected path, booted path and hostname, got"),
    ],
)
def test_what_cannot_be_read_is_an_error(fact: Any, output: list[str], complaint: str) -> None:
    with pytest.raises(FactProcessError, match=complaint):
        fact.process(output)
