"""The hosts of a flake, from what its outputs are, without Nix."""

from pathlib import Path
from typing import Any

import pytest

from nixherd.base.errors import Finding
from nixherd.fleet.beside import Beside
from nixherd.fleet.from_flake import UNREAD, entries_of, listed
from nixherd.fleet.groups import groups_of
from nixherd.fleet.models import Fleet
from nixherd.fleet.outputs import Outputs
from nixherd.fleet.parse import fleet_of, with_machines
from nixherd.fleet.validate import find

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBLttgCC207xe2/VdjJgUJmLQMgJ3lvL9AeIfsob+Gyo"
FLAKE = Outputs(systems=("db", "web01"), homes=("al", "al@web01", "bob@pc", "db", "eve@pc"), macs=("mac",), hosts={})


def findings(outputs: Outputs, beside: Any = None) -> list[str]:
    found: list[Finding] = []
    said = entries_of(outputs, Beside.parse(beside, found), listed(outputs), found)
    return list(map(str, find(said, None, found, is_whole=False)))


def fleet(outputs: Outputs, beside: Any = None) -> Fleet:
    found: list[Finding] = []
    hosts = listed(outputs)
    parsed = Beside.parse(beside, found)
    entries = entries_of(outputs, parsed, hosts, found)
    assert found == []
    values = {name: {**parsed.defaults, **entry.values} for name, entry in entries.items()}
    made = fleet_of(Path("/f"), values, {}, [], hosts.configurations, UNREAD)
    return Fleet(made.path, made.id, with_machines(made.hosts))


def test_systems_and_homes_are_hosts_by_their_names() -> None:
    hosts = fleet(FLAKE).hosts
    assert {name: str(host.attribute) for name, host in hosts.items()} == {
        "db": "nixosConfigurations.db",
        "web01": "nixosConfigurations.web01",
        "al": "homeConfigurations.al",
        "al@web01": "homeConfigurations.al@web01",
        "bob@pc": "homeConfigurations.bob@pc",
        "db-home": "homeConfigurations.db",
        "eve@pc": "homeConfigurations.eve@pc",
    }
    assert [host.id for host in hosts.values() if host.is_nixos] == ["db", "web01"]
    home = hosts["al@web01"]
    assert (home.user, home.hostname, hosts["db-home"].hostname, hosts["al"].hostname) == ("al", "web01", "db", "al")
    assert {host.unread for host in hosts.values()} == {UNREAD}
    assert fleet(FLAKE).attributes == {"db-home": "db"}


def test_a_group_of_a_machine_has_its_homes_where_the_machine_is_not_a_host() -> None:
    groups = groups_of(fleet(FLAKE))
    assert (groups["pc"], groups["web01"], groups["home_manager"]) == (
        ["bob@pc", "eve@pc"],
        ["web01"],
        ["al", "al@web01", "bob@pc", "db-home", "eve@pc"],
    )


@pytest.mark.parametrize(
    ("outputs", "name", "why"),
    [
        (Outputs(macs=("mac",)), "darwinConfigurations.mac", "nix-darwin's configurations are for Macs"),
        (Outputs(("a b",)), "nixosConfigurations.a b", "its name is not one for a host"),
        (Outputs(("a\nb",)), "nixosConfigurations.'a\\nb'", "its name is not one for a host"),
        (Outputs(("-a",)), "nixosConfigurations.-a", "its name is not one for a host"),
        (Outputs(("a@b",)), "nixosConfigurations.a@b", "its name is not one for a host"),
        (Outputs((), ("a@b@c",)), "homeConfigurations.a@b@c", "its name is not one for a host"),
        (Outputs(("_a",)), "nixosConfigurations._a", "its name begins with '_'"),
        (Outputs(("lxc",)), "nixosConfigurations.lxc", "'lxc' is the name of a group"),
        (
            Outputs(("Web", "web")),
            "nixosConfigurations.web",
            "web is nixosConfigurations.Web but for case",
        ),
        (Outputs(("a", "a-home"), ("a",)), "homeConfigurations.a", "a-home is nixosConfigurations.a-home; rename"),
    ],
)
def test_what_is_not_a_host_is_left_out_with_why(outputs: Outputs, name: str, why: str) -> None:
    skipped = listed(outputs).skipped
    assert list(skipped) == [name]
    assert skipped[name].startswith(why)


def test_nixherd_nix_comes_before_the_output_and_defaults_last() -> None:
    beside = {"hosts": {"db": {"port": 23, "role": None}}, "defaults": {"role": "r", "port": 1, "canary": True}}
    said = {"db": {"port": 24, "role": "x", "tags": ["t"], "note": 5}}
    db = fleet(Outputs(("db",), hosts=said), beside).hosts["db"]
    assert (db.port, db.tags, db.deployment, db.extra) == (23, ("t",), {"role": "x", "canary": True}, {"note": 5})


def test_a_home_is_reached_as_its_machine_is() -> None:
    web = {"publicKey": KEY, "addresses": ["10.0.0.5"], "port": 23}
    hosts = fleet(FLAKE, {"hosts": {"web01": web, "db": web, "db-home": {"port": 24}}}).hosts
    for name, port in (("al@web01", 23), ("db-home", 24)):
        assert (hosts[name].public_key, hosts[name].addresses, hosts[name].port) == (KEY, ("10.0.0.5",), port)
    assert hosts["bob@pc"].public_key is None


@pytest.mark.parametrize(
    ("outputs", "beside", "line"),
    [
        (
            FLAKE,
            {"hosts": {"web1": {}}},
            "nixherd.nix: hosts.web1: the flake has no nixosConfigurations or homeConfigurations of this name; did you "
            "mean web01?",
        ),
        (
            Outputs(("db", "a b")),
            {"hosts": {"a b": {}}},
            "nixherd.nix: hosts.a b: nixosConfigurations.a b is not a host: its name is not one for a host: letters, "
            "digits, '-', '_' and '.'; rename it; take it out of nixherd.nix until then",
        ),
        (FLAKE, {"hosts": []}, "nixherd.nix: hosts: is a list; it must be an attribute set"),
        (FLAKE, [], "nixherd.nix: is a list; it must be an attribute set"),
        (FLAKE, {"host": {}}, "warning: nixherd.nix: host: is obeyed by nobody, and is close to hosts; write hosts, "
         "or another name of your own"),
        (FLAKE, {"defaults": {"wave": 0}}, "nixherd.nix: defaults.wave: 0 is less than 1; write a whole number from 1; "
         "canary = true goes first"),
        (FLAKE, {"hosts": {"db": {"port": "22"}}}, "nixherd.nix: hosts.db.port: is a string, not an integer; write a "
         "port, usually 22"),
        (FLAKE, {"hosts": {"db": {"hostname": "web01"}}}, "nixherd.nix: hosts.db.hostname: 'web01' is also the id of "
         "host web01; a name belongs to one host alone"),
        (FLAKE, {"fields": {"adresses": "ip"}}, "nixherd.nix: fields.adresses: is not an attribute of a host; "
         "docs/fields.md has their names"),
        (FLAKE, {"fields": {"addresses": 5}}, "nixherd.nix: fields.addresses: is an integer, not a name; write what "
         'hosts.nix calls it, such as "ip", or null'),
        (FLAKE, {"fields": {"addresses": "a..b"}}, "nixherd.nix: fields.addresses: 'a..b', not a name; write what "
         'hosts.nix calls it, such as "ip", or null'),
        (Outputs(("db",), hosts=[]), None, "flake.nix: nixherd.hosts: is a list; it must be an attribute set"),
        (Outputs(("db",), hosts={"db": {"publicKey": "x"}}), None, "flake.nix: nixherd.hosts.db.publicKey: no SSH "
         "public key: "),
        (Outputs(("db",), hosts={"db": {"acess": "trigger"}}), None, "flake.nix: nixherd.hosts.db.acess: protects "
         "nothing, and is close to access; write access, or another name of your own"),
        (Outputs(("db",), hosts={"x": {}}), None, "flake.nix: nixherd.hosts.x: the flake has no nixosConfigurations or "
         "homeConfigurations of this name; add the configuration, or correct the name"),
        (Outputs(("db",), hosts={"db": {"soak": 600}}), None, "flake.nix: nixherd.hosts.db.soak: 600 leaves no time to "
         "confirm; write fewer seconds than confirm_deadline, which is 120"),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_wrong_is_one_line(outputs: Outputs, beside: Any, line: str) -> None:
    [found] = findings(outputs, beside)
    assert found.startswith(line)
