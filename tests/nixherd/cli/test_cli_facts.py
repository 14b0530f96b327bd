"""Which facts there are, and what is said of one that does not exist."""

import inspect
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from nixherd.cli.fact_names import described
from nixherd.cli.main import run
from nixherd.deploy.numbers import runs
from nixherd.facts.base import Fact
from tests.nixherd.cli.test_cli_deploying import FakePyinfra, pyinfra  # noqa: F401  (fixture)

MODULES = ("age", "home_manager", "machine", "nix", "nixos", "proxmox", "sops")


def test_they_are_the_classes_of_our_modules() -> None:
    found = {
        f"facts.{name}.{each.__name__}"
        for name in MODULES
        for each in vars(import_module(f"nixherd.facts.{name}")).values()
        if inspect.isclass(each) and issubclass(each, Fact) and each.__module__.endswith(f"facts.{name}")
        if not each.__name__.startswith("_")
    }
    assert found == described().keys()
    assert all(described().values())


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("facts.nixos.Runing", "facts.nixos.Running"),
        ("facts.nosuch.Running", "facts.nixos.Running"),
        ("nixherd.facts.nixos.Genrations", "facts.nixos.Generations"),
    ],
)
def test_what_cannot_be_a_fact_starts_nothing(
    name: str,
    near: str,
    pyinfra: Callable[..., FakePyinfra],  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    fake = pyinfra()
    assert run(["fact", "dev", "--fact", name]) == 2
    assert (fake.argv, runs()) == ([], [])
    err = capsys.readouterr().err
    assert err.startswith(f"--fact {name}: does not exist; the nearest are ")
    assert near in err
    assert err.endswith("; `nixherd help facts` lists ours\n")


@pytest.mark.parametrize(
    ("name", "output", "near"),
    [
        ("nixos.Nothing", "--> pyinfra error: No such module: nixos", "`nixherd help facts` lists ours"),
        ("nixos.Running", "--> pyinfra error: No such module: nixos", "the nearest are facts.nixos.Running"),
        ("server.Hostnam", "--> pyinfra error: No such attribute in module server: Hostnam", "server.Hostname"),
    ],
)
def test_what_pyinfra_does_not_know(
    name: str,
    output: str,
    near: str,
    pyinfra: Callable[..., FakePyinfra],  # noqa: F811
    fleet: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pyinfra(status=1, stderr=f"{output}\n")
    monkeypatch.setenv("FLEET", str(fleet))
    assert run(["fact", "dev", "--fact", "server.Hostname", "--fact", name]) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("--fact")]
    assert line.startswith(f"--fact {name}: does not exist")
    assert near in line


def test_a_page_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["help", "facts"]) == 0
    assert "  facts.nixos.Running " in capsys.readouterr().out
