"""Validation and parsing agree: whatever passes the one is understood by the other."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nixherd.deploy.options import Options
from nixherd.fleet.field_types import is_address, parse_fingerprint
from nixherd.fleet.groups import groups_of
from nixherd.fleet.health_checks import Check
from nixherd.fleet.models import Access
from nixherd.fleet.nix_values import NixPath
from nixherd.proxmox.guard.policy import Policy
from nixherd.trust.enrol import render_overview
from tests.judged import find, parsed
from tests.properties import examples

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAHr0XQJzPKAyGJHXvWcsDGeSw3aLPLCHdTQbnrBHtmY operator"

HOSTS: dict[str, Any] = {
    "dev": {
        "hostname": "dev",
        "sshAlias": "d",
        "user": "u",
        "homeDirectory": "/home/u",
        "publicKey": KEY,
        "authorizedKeys": [KEY],
        "configurationFile": NixPath("/f/c.nix"),
        "homeFile": NixPath("/f/h.nix"),
        "sudoPasswordless": False,
        "addresses": ["10.0.0.5", "dev.lan"],
        "jump": ["doc", "al@[fe80::1]:2222"],
        "tags": ["rack-1"],
        "access": "push-closure",
        "healthChecks": {"web": {"http": "http://localhost/", "timeout": 5}, "db": {"tcp": 5432}},
        "wave": 2,
        "canary": False,
        "role": "dns",
        "max_fail": "10%",
        "soak": 5,
        "build_on": "doc",
        "engine": "guarded",
    },
    "doc": {"hostname": "doc1", "user": "u", "homeFile": NixPath("/f/h.nix"), "sshKeyName": "k"},
}
DEFINITIONS: dict[str, Any] = {
    "fleet": "homelab",
    "proxmox": {"host": "p", "node": "n", "defaultStorage": "st", "port": 8006, "fingerprint": "ab" * 32,
                "neighbours": "doc", "discover": ["10.0.0.0/24"]},
    "imported": {"doc": {"vmid": 104, "hostname": "doc1", "readonly": True, "tags": ["x"], "node": "n", "type": "lxc",
                         "discover": "10.0.4.0/22"}},
    "managed": {
        "dev": {
            "vmid": 110, "cores": 1, "memory": 512, "disk": "8G", "nixosConfig": "dev", "storage": "st",
            "type": "qemu", "tags": ["a"], "readonly": False, "node": "n",
            "neighbours": ["doc"],
        }
    },
    "template": {"vmid": 9000, "name": "t"},
    "vmidRanges": {"production": {"start": 100, "end": 199}, "templates": {"start": 9000, "end": 9999}},
}  # fmt: skip

_scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(0, 300)
    | st.floats(allow_nan=False)
    | st.text(max_size=12)
    | st.sampled_from(
        ["", "qemu", "lxc", "dev", "doc", "64G", "9" * 400 + "T", "1.5T", "a\nb", KEY, "placeholder", "<function>"]
    )
    | st.builds(NixPath, st.just("/f/x"), exists=st.booleans())
)
_values = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def _paths(value: Any) -> list[tuple[str, ...]]:
    if not isinstance(value, dict):
        return [()]
    return [()] + [(name, *rest) for name, inner in value.items() for rest in _paths(inner)]


_PATHS = [path for path in _paths({"hosts": HOSTS, "definitions": DEFINITIONS}) if path]


def test_the_example_is_sound() -> None:
    assert find(HOSTS, DEFINITIONS) == []
    fleet = parsed(HOSTS, DEFINITIONS)
    dev, doc = fleet.vms["dev"], fleet.vms["doc"]
    assert dev.vmid == 110
    assert ([host.id for host in fleet.neighbours_of(dev)], fleet.networks_of(dev)) == (["doc"], ("10.0.0.0/24",))
    assert (fleet.neighbours_of(doc), fleet.networks_of(doc)) == ((), ("10.0.4.0/22",)), "nobody is asked of itself"


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ({"neighbours": "dok"}, "proxmox.neighbours: hosts.nix has no host 'dok'; did you mean doc?"),
        ({"neighbours": ["doc", "dev"]}, "proxmox.neighbours: dev takes forced commands alone; name a host"),
        ({"neighbours": "doc", "host": "doc1"}, "doc is the hypervisor, which is never logged in to; name another"),
        ({"neighbours": "doc", "node": "DOC1"}, "doc is the hypervisor, which is never logged in to; name another"),
        ({"neighbours": []}, "proxmox.neighbours: is an empty list; write the id of a host"),
        ({"neighbours": 5}, "proxmox.neighbours: is an integer, not a string"),
        (
            {"discover": "10.0.0.0/16"},
            "10.0.0.0/16 has 65536 addresses, which is too many to try them; name networks of",
        ),
        ({"discover": "10.0.0.5/24"}, "'10.0.0.5/24' is an address in 10.0.0.0/24; write \"10.0.0.0/24\""),
        ({"discover": ["10.0.0.0/24", "1.1.1.0/24"]}, "discover[1]: 1.1.1.0/24 is not a private network; name one in"),
        ({"discover": "127.0.0.0/24"}, "127.0.0.0/24 is not a private network"),
        ({"discover": "fd00::/120"}, "'fd00::/120' is not an IPv4 network; write networks such as"),
        ({"discover": "10.0.0.0"}, "'10.0.0.0' is not an IPv4 network"),
        ({"discover": "10.0.0.0/255.255.255.0"}, "is not an IPv4 network"),
    ],
)
def test_what_does_not_say_where_guests_are(said: dict[str, Any], complaint: str) -> None:
    definitions = {**DEFINITIONS, "proxmox": {**DEFINITIONS["proxmox"], **said}}
    assert complaint in "\n".join(map(str, find(HOSTS, definitions)))


def test_where_it_says_nothing_it_is_a_warning() -> None:
    for place in ("hosts", "definitions"):
        hosts, definitions = copy.deepcopy((HOSTS, DEFINITIONS))
        (hosts["doc"] if place == "hosts" else definitions)["discover"] = "10.0.0.0/24"
        [finding] = find(hosts, definitions)
        assert finding.is_warning
        assert "is obeyed by nobody here: discover is obeyed in `proxmox` or the guest's entry" in str(finding)


@examples(300)
@given(st.lists(st.tuples(st.sampled_from(_PATHS), _values), min_size=1, max_size=3))
def test_every_fleet_is_refused_in_lines_or_understood(changes: list[tuple[tuple[str, ...], Any]]) -> None:
    files = copy.deepcopy({"hosts": HOSTS, "definitions": DEFINITIONS})
    for path, value in changes:
        target: Any = files
        for name in path[:-1]:
            target = target.get(name) if isinstance(target, dict) else None
        if isinstance(target, dict):
            target[path[-1]] = value
    findings = find(files["hosts"], files["definitions"])
    for finding in findings:
        assert finding.isprintable()
        assert finding.removeprefix("warning: ").startswith(("hosts.nix: ", "vms/definitions.nix: "))
        assert "; " in finding
    if not all(finding.is_warning for finding in findings):
        return
    fleet = parsed(files["hosts"], files["definitions"])
    for host in fleet.hosts.values():
        assert isinstance(host.access, Access)
        assert all(is_address(address) for address in host.addresses or ())
        assert all(isinstance(check, Check) for check in host.health_checks)
        Options.of(host.id, host.deployment.get)
    assert set(groups_of(fleet)["all"]) == set(fleet.hosts)
    assert Policy.from_fleet(fleet)
    assert render_overview(fleet)
    for vm in fleet.vms.values():
        assert type(vm.vmid) is int
        assert type(vm.readonly) is bool
        if vm.is_managed:
            assert fleet.hosts[vm.host_id or ""]
            assert all(type(value) is int and value > 0 for value in (vm.cores, vm.memory, vm.disk))
            assert fleet.node_of(vm)
            assert fleet.storage_of(vm)
    assert len({vm.vmid for vm in fleet.vms.values()}) == len(fleet.vms)


@given(st.binary(min_size=32, max_size=32), st.sampled_from([str.lower, str.upper]), st.sampled_from(["", ":"]))
def test_fingerprints(digest: bytes, case: Any, separator: str) -> None:
    assert parse_fingerprint(case(digest.hex(separator) if separator else digest.hex())) == digest.hex()


@pytest.mark.parametrize("text", ["", "ab" * 20, "ab" * 33, ":".join(["ab"] * 31), "g" * 64, "ab:" * 31 + "a"])
def test_what_is_no_fingerprint(text: str) -> None:
    with pytest.raises(ValueError):
        parse_fingerprint(text)


@pytest.mark.parametrize(
    ("jumps", "line"),
    [
        ({"dev": ["doc"], "doc": "dev"}, "dev.jump: dev is reached through itself; take it out of the way there"),
        ({"doc": "doc"}, "doc.jump: doc is reached through itself; "),
        ({"doc": "d"}, "doc.jump: dev takes forced commands alone; name a host that lets one pass"),
        ({"doc": "root@p:22"}, "doc.jump: p is the hypervisor, which is never logged in to; name another machine, or"),
        (
            {"doc": ["a", "-oProxyCommand=x"]},
            "doc.jump[1]: '-oProxyCommand=x' is not a host's id or [USER@]",
        ),
        ({"doc": {"host": "x"}}, "doc.jump: is an attribute set, not a string; write the id of a host, or"),
        ({"doc": []}, "doc.jump: is an empty list; "),
    ],
)
def test_a_way_through_hosts_ends_and_each_lets_one_pass(jumps: dict[str, Any], line: str) -> None:
    hosts = copy.deepcopy(HOSTS)
    del hosts["dev"]["jump"]
    for name, jump in jumps.items():
        hosts[name]["jump"] = jump
    found = [str(finding) for finding in find(hosts, DEFINITIONS)]
    assert any(each.startswith(f"hosts.nix: {line}") for each in found), found
