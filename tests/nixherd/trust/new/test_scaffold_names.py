"""What a new host cannot be called, whom it would collide with, and what it takes over from the others."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from nixherd.base.errors import Usage
from nixherd.fleet.load import load_fleet
from nixherd.fleet.models import GuestType
from nixherd.fleet.validate import GROUPS
from nixherd.proxmox.guest import identity
from nixherd.trust.new import request
from nixherd.trust.new.host import Machine, name_problem, names_taken, require_names
from tests.nixherd.trust.new.hosts import LABELS
from tests.properties import examples


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("web_1", "not a DNS name"),
        ("-web", "not a DNS name"),
        ("web.lan", "not a DNS name"),
        ("a" * 64, "not a DNS name"),
        ("", "not a DNS name"),
        ("web\n", "not a DNS name"),
        ("Web", "write web"),
        ("110", "VMID"),
        ("local", "meaning of its own"),
        ("all", "is the name of the group all"),
        ("nixos", "is the name of the group nixos"),
        ("home-manager", "is close to the name of the group home_manager"),
        ("inventry", "close to the name of the group inventory"),
        ("read-only", "close to the name of the group readonly"),
    ],
)
def test_no_name_for_a_host(name: str, words: str) -> None:
    assert words in (name_problem(name) or "")


@pytest.mark.parametrize("name", ["web", "web-1", "nixos2", "lxc1", "al", "3d", "in", "x" * 63])
def test_a_name_for_a_host(name: str) -> None:
    assert name_problem(name) is None


@examples(100)
@given(LABELS)
def test_any_label_is_one_or_said_why_not_in_a_line(name: str) -> None:
    why = name_problem(name)
    assert why is None or ("\n" not in why and why.startswith(f"{name}: "))
    assert why is not None or name not in GROUPS


def test_who_has_it_already(make_fleet: Any) -> None:
    fleet = load_fleet(make_fleet(('sshAlias = "cad";', 'sshAlias = "cad"; tags = [ "edge" ];')))
    assert list(names_taken(fleet, "web", "web", 111)) == []
    for name, words in {
        "dev": "the id of dev",
        "doc1": "the sshAlias of proxmox-vm",
        "CAD": "the sshAlias of caddy",
        "edge": "a tag of caddy",
    }.items():
        [line] = names_taken(fleet, name, name, None)
        assert words in line
    both = list(names_taken(fleet, "dev", "doc1", 104))
    assert [line.split(":")[0] for line in both] == ["dev", "--ssh-alias doc1", "--vmid 104"]
    assert "template.vmid" in next(names_taken(fleet, "web", "web", 9002))
    assert "group" in next(names_taken(fleet, "web", "lxc", None))
    assert "is not an alias" in next(names_taken(fleet, "web", "a b", None))


def test_vmids_of_the_definitions_alone(make_fleet: Any) -> None:
    fleet = load_fleet(make_fleet())
    assert identity.usual_range(fleet, GuestType.QEMU) == "production"
    assert identity.usual_range(fleet, GuestType.LXC) == "containers"
    assert identity.next_free(fleet, None, "production") == (100, None)
    assert identity.next_free(fleet, None, "110-112") == (111, None)
    assert identity.require_free(None, 150) is None
    with pytest.raises(Usage, match=r"no VMID of 104-104 .* undeclared"):
        identity.next_free(fleet, None, "104-104")
    named = load_fleet(make_fleet(("production = {", "homelab = {"), ("    templates = {", "    # {"), name="other"))
    assert identity.usual_range(named, GuestType.QEMU) == "homelab"
    assert identity.usual_range(replace(named, ranges=()), GuestType.QEMU) is None


TOLD = "vms/definitions.nix: template"


@pytest.mark.parametrize(
    ("template", "wanted"),
    [
        ("specs = { }", Machine()),
        ('specs = { bios = "seabios"; disk = "virtio0"; }', Machine("seabios", "/dev/vda", TOLD)),
        ('bios = "seabios"; specs = { bios = "ovmf"; disk = "a big one"; }', Machine("seabios", "/dev/sda", TOLD)),
        ("specs = { bios = [ ]; disk = 5; }", Machine()),
    ],
)
def test_what_the_definitions_say_of_the_template(make_fleet: Any, template: str, wanted: Machine) -> None:
    assert request.machine_of(load_fleet(make_fleet(("specs = { }", template))), None) == wanted


def test_habits(make_fleet: Any) -> None:
    directory: Path = make_fleet(("vmid = 110;", 'vmid = 110; pool = "ours";'))
    for host in ("dev", "proxmox-vm", "caddy"):
        text = '{ imports = [../common/home.nix]; home.stateVersion = "24.05"; }'
        (directory / "hosts" / host / "home.nix").write_text(text)
    (directory / "hosts" / "dev" / "configuration.nix").write_text('{ system.stateVersion = "25.11"; }')
    fleet = load_fleet(directory)

    def read(path: str) -> bytes | None:
        return (directory / path).read_bytes()

    assert request.usual_user(fleet) == "abl030"
    assert request.usual_home(fleet, "abl030") == "/home/abl030"
    assert (request.usual_home(fleet, "root"), request.usual_home(fleet, "me")) == ("/root", "/home/me")
    assert request.usual_directory(fleet) == "hosts"
    assert request.newest_state_version(fleet, read) == "25.11"
    assert request.shared_imports(fleet, read, "hosts") == ("../common/home.nix",)
    assert request.shared_imports(fleet, read, "machines/here") == ()
    assert request.usual_pool(fleet) == "ours"
    assert not request.sudo_asks_nobody(fleet)
    assert request.most_have_homes(fleet)
    nobody = replace(fleet, hosts={}, vms={})
    assert (request.usual_user(nobody), request.usual_keys(nobody, b"{ }"), request.usual_pool(nobody)) == (
        None,
        None,
        None,
    )
    assert (request.usual_directory(nobody), request.most_have_homes(nobody)) == ("hosts", True)


@pytest.mark.parametrize(
    "given_", [["a b"], ["sops"], ["sops/x"], ["a", "a"], ["a", "a/b"], ["/a"], ["a/"], ["-a"], [""]]
)
def test_no_names_for_secrets(given_: list[str]) -> None:
    with pytest.raises(Usage, match="--secret"):
        require_names(given_)
