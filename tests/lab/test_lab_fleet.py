"""The lab's copy of the reference fleet: what differs, and that a reference fleet it does not know is refused."""

import difflib
import subprocess
import time
from pathlib import Path

import pytest

from lab import fleet
from lab.errors import LabError
from tests.fleet_copy import FINGERPRINT, OPERATOR, make
from tests.nix_cli import environment, nix_json

pytestmark = pytest.mark.nix


def changes(name: str, copy: Path) -> list[str]:
    """The lines that were taken out and put in."""
    before, after = ((root / name).read_text().splitlines() for root in (fleet.REFERENCE, copy))
    return [line for line in difflib.ndiff(before, after) if line[0] in "+-"]


def test_one_machine_differs_from_the_reference_in_these_lines(tmp_path: Path) -> None:
    copy = make(tmp_path / "fleet")
    hosts = changes("hosts.nix", copy)
    assert [line for line in hosts if line[0] == "+"] == [
        f'+     "{OPERATOR}"',
        f'+     publicKey = "{fleet.PLACEHOLDER}";',
    ]
    assert [line.rstrip('";').rsplit(" ")[-1] for line in hosts if line[0] == "-"] == [
        "abl030@epimetheus",
        "abl030@framework",
        "root@dev",
    ]
    definitions = changes("vms/definitions.nix", copy)
    assert "-       readonly = true;" in definitions
    assert [line for line in definitions if line[0] == "+"] == [
        '+     host = "10.77.0.1";',
        f'+     fingerprint = "{FINGERPRINT}";',
    ]
    same = [
        "flake.nix",
        "nix/lib.nix",
        "hosts/dev/configuration.nix",
        "hosts/dev/disko.nix",
        "modules/nixos/default.nix",
    ]
    assert [changes(name, copy) for name in same] == [[]] * len(same)


def test_further_machines_have_names_vmids_and_files_of_their_own(tmp_path: Path) -> None:
    copy = make(tmp_path / "fleet", machines=4)
    managed = nix_json("eval", "--json", "--file", copy / "vms" / "definitions.nix", "managed")
    assert {name: (vm["vmid"], vm["nixosConfig"], "readonly" in vm) for name, vm in managed.items()} == {
        "dev": (110, "dev", False),
        "dev2": (111, "dev2", False),
        "dev3": (112, "dev3", False),
        "dev4": (113, "dev4", False),
    }
    hosts = nix_json("eval", "--json", "--file", copy / "hosts.nix")
    for name in managed:
        host = hosts[name]
        assert (host["hostname"], host["sshAlias"], host["publicKey"]) == (name, name, fleet.PLACEHOLDER)
        assert host["configurationFile"] == str(copy / "hosts" / name / "configuration.nix")
        assert Path(host["homeFile"]).is_file()


def test_the_copy_is_a_clean_git_tree_that_is_made_the_same_again_but_for_its_secrets(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=copy, env=environment(), capture_output=True, text=True, check=True
        ).stdout

    def rest() -> str:
        return "".join(line for line in git("ls-tree", "-r", "HEAD").splitlines() if "\tsecrets/" not in line)

    copy = make(tmp_path / "fleet")
    assert git("status", "--porcelain") == ""
    assert "flake.lock" in git("ls-files")
    tree = rest()
    assert "hosts.nix" in tree
    (copy / "hosts.nix").write_text("broken")
    time.sleep(1.1)  # a lock file has times in whole seconds
    make(copy)
    assert rest() == tree


def test_a_package_of_any_name_evaluates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = tmp_path / "reference"
    subprocess.run(["cp", "-r", fleet.REFERENCE, reference], check=True)
    home = reference / "hosts" / "dev" / "home.nix"
    home.write_text('{pkgs, ...}: {home.packages = [pkgs.some-rare-program]; home.stateVersion = "25.11";}\n')
    monkeypatch.setattr(fleet, "REFERENCE", reference)
    copy = make(tmp_path / "fleet")
    names = nix_json(
        *("eval", "--json", f"{copy}#nixosConfigurations.dev.config.home-manager.users.abl030.home.packages"),
        *("--apply", "map (p: p.pname)"),
    )
    assert names == ["some-rare-program"]


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (
            "vms/definitions.nix",
            'host = "192.168.1.12"',
            'host = "192.168.1.13"',
            "definitions.nix of the reference fleet has 0",
        ),
        ("hosts.nix", "dev = {", "devel = {", "has no attribute that starts with 'dev = {'"),
        ("vms/definitions.nix", "vmid = 110;", "vmid = 120;", "has 0 places that match 'vmid = 110;'"),
        ("vms/definitions.nix", 'nixosConfig = "dev";', "", "has 0 places that match 'nixosConfig"),
    ],
)
def test_a_reference_fleet_that_changed_is_refused_with_the_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, old: str, new: str, message: str
) -> None:
    reference = tmp_path / "reference"
    subprocess.run(["cp", "-r", fleet.REFERENCE, reference], check=True)
    text = (reference / file).read_text()
    assert old in text
    (reference / file).write_text(text.replace(old, new))
    monkeypatch.setattr(fleet, "REFERENCE", reference)
    with pytest.raises(LabError) as raised:
        make(tmp_path / "fleet", machines=2)
    assert message in str(raised.value)
