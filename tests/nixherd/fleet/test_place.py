"""Where a fleet is when nobody names it, and what group data in its directory may say."""

import re
from pathlib import Path
from typing import Any

import pytest

from nixherd.base.errors import Refused, Usage
from nixherd.fleet.groups import said_for_all
from nixherd.fleet.place import OF_THE_TREE, fleet_around, operators_data, tree_data, write_tree_data

ROOT = Path(__file__).parents[3]


def put(directory: Path, *names: str) -> None:
    for name in names:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text("")


@pytest.mark.parametrize(
    ("files", "start", "expected"),
    [
        (["hosts.nix", "flake.nix"], ".", "."),
        (["hosts.nix", "hosts/web/x"], "hosts/web", "."),
        (["nixherd.nix", "x/y"], "x", "."),
        (["flake.nix", "x/y"], "x", "."),
        (["a/flake.nix", "a/b/flake.nix", "a/b/x/y"], "a/b/x", "a/b"),
        (["fleet/hosts.nix", "flake.nix"], ".", "fleet"),
        (["inventory.py", "fleet/hosts.nix", "flake.nix", "docs/x"], "docs", "fleet"),
        (["fleet/hosts.nix", "flake.nix", "docs/x"], "docs", "."),
        (["fleet/hosts.nix", "elsewhere/x"], "elsewhere", "elsewhere/fleet"),
        (["x"], ".", "fleet"),
        (["hosts.nix/x", "flake.nix"], ".", "."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_the_fleet_is_the_nearest(tmp_path: Path, files: list[str], start: str, expected: str) -> None:
    put(tmp_path, *files)
    assert fleet_around(tmp_path / start) == tmp_path / expected


def test_in_the_checkout_it_is_the_reference_fleet() -> None:
    assert [fleet_around(ROOT / place) for place in (".", "docs", "fleet/hosts")] == [ROOT / "fleet"] * 3


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    put(tmp_path, "fleet/hosts.nix", "fleet/group_data/x")
    return tmp_path / "fleet"


def say(fleet: Path, text: str, name: str = "all") -> None:
    (fleet / "group_data" / f"{name}.py").write_text(text)


def test_what_the_tree_says_is_read_by_group(fleet: Path, tmp_path: Path) -> None:
    say(fleet, '"""Ours."""\n\nsoak = 5\nmax_fail = "10%"\nmine = {"a": [1]}\n')
    say(fleet, "boot_deadline = 900\n", "slow")
    data = tree_data(fleet)
    assert data == {"all": {"soak": 5, "max_fail": "10%"}, "slow": {"boot_deadline": 900}}
    place = write_tree_data(data, tmp_path / "run")
    assert place == tmp_path / "run" / OF_THE_TREE
    assert [*said_for_all("max_fail", [place])] == ["10%"]
    assert write_tree_data({}, tmp_path / "run") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import os\n", "all.py:1: write NAME = VALUE with a plain value"),
        ("soak = 1\nsoak = int('5')\n", "all.py:2: write NAME = VALUE"),
        ("a = b = 1\n", "all.py:1: write NAME = VALUE"),
        ("if True:\n    soak = 1\n", "all.py:1: write NAME = VALUE"),
        ("soak = (\n", "all.py: cannot be read"),
        ("sok = 1\nmax_fial = 2\n", "nobody asks for it"),
        ("proxmox_token_file = '/x'\n", "proxmox_token_file is not the fleet's to say; say it in"),
        ("require_signed = False\n", "require_signed is not the fleet's to say; say it in hosts.nix, nixherd.nix or"),
        ("allowed_signers = '/x'\n", "allowed_signers is not the fleet's to say"),
        ("allow_dirty = True\n", "allow_dirty is not the fleet's to say"),
        ("age_identity = '/x'\n", "age_identity is not the fleet's to say"),
        ("ssh_user = 'root'\n", "ssh_user is not the fleet's to say"),
        ("_sudo = True\n", "_sudo is not the fleet's to say"),
    ],
)
def test_what_it_may_not_say_is_refused_and_nothing_is_run(fleet: Path, text: str, message: str) -> None:
    say(fleet, text)
    with pytest.raises(Usage, match=re.escape(message)):
        tree_data(fleet)


def test_the_operators_are_the_installed_ones_and_their_own(fleet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    personal = fleet.parent / "home/.config/nixherd/group_data"
    monkeypatch.chdir(fleet)
    installed, theirs = operators_data(fleet)
    assert {path.name for path in installed.glob("*.py")} == {"all.py", "nodes.py"}
    assert theirs == personal
    monkeypatch.chdir(ROOT / "docs")
    assert operators_data(fleet) == [installed, personal], "those of the checkout are the installed ones"


@pytest.fixture
def project(fleet: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project around the fleet, in which we are, with code in its group data."""
    put(fleet.parent, "inventory.py", "group_data/all.py")
    (fleet.parent / "group_data/all.py").write_text("import os\n")
    monkeypatch.chdir(fleet)
    return fleet.parent


def test_a_project_is_the_operators(project: Path, fleet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert project / "group_data" in operators_data(fleet)
    assert tree_data(fleet) == {}
    monkeypatch.chdir(ROOT)
    assert project / "group_data" not in operators_data(fleet), "we are not in it"
    monkeypatch.chdir(fleet)
    (project / "group_data/all.py").chmod(0o666)
    with pytest.raises(Refused, match=r"group_data/all.py: can be written by everybody, and would be run"):
        operators_data(fleet)
    monkeypatch.setenv("NIXHERD_SAFE_DIRECTORY", str(project))
    assert project / "group_data" in operators_data(fleet)


def test_a_project_in_the_fleets_repository_is_the_fleets(
    project: Path, fleet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who may push a commit there has no code run here."""
    (project / ".git").mkdir()
    assert project / "group_data" not in operators_data(fleet)
    with pytest.raises(Usage, match="write NAME = VALUE with a plain value"):
        tree_data(fleet)
    (project / "group_data/all.py").write_text("soak = 1\nboot_deadline = 9\n")
    say(fleet, "soak = 2\n")
    assert tree_data(fleet) == {"all": {"soak": 2, "boot_deadline": 9}}, "the fleet's own count more"
    monkeypatch.setenv("NIXHERD_SAFE_DIRECTORY", str(project))
    assert project / "group_data" in operators_data(fleet)
    assert tree_data(fleet) == {"all": {"soak": 2}}


def test_a_project_that_is_the_fleets_directory_is_read(fleet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(fleet, "inventory.py")
    say(fleet, "import os\n")
    monkeypatch.chdir(fleet)
    with pytest.raises(Usage, match="write NAME = VALUE"):
        tree_data(fleet)
    assert fleet / "group_data" not in operators_data(fleet)


def test_values_are_written_as_they_were_read(fleet: Path, tmp_path: Path) -> None:
    values: dict[str, Any] = {"soak": 1, "role": 'a"\n\\', "max_fail": 0.5}
    place = write_tree_data({"all": values}, tmp_path)
    assert place
    assert {name: [*said_for_all(name, [place])] for name in values} == {name: [each] for name, each in values.items()}
