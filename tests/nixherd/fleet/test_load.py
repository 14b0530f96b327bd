import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nixherd.base.errors import FleetInvalid, ProcessFailed
from nixherd.fleet.load import load_fleet
from nixherd.fleet.models import Endpoint, GuestType, Origin, Template, VmidRange
from tests.properties import examples

MakeFleet = Callable[..., Path]
MASTER_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAHr0XQJzPKAyGJHXvWcsDGeSw3aLPLCHdTQbnrBHtmY operator"


def test_hosts_are_what_the_file_says(make_fleet: MakeFleet) -> None:
    directory = make_fleet()
    fleet = load_fleet(directory)
    dev, doc1, caddy = (fleet.hosts[name] for name in ("dev", "proxmox-vm", "caddy"))
    assert (fleet.path, fleet.id, list(fleet.hosts)) == (str(directory), "fleet", ["caddy", "dev", "proxmox-vm"])
    assert (dev.id, dev.hostname, dev.ssh_alias, dev.user) == ("dev", "dev", "dev", "abl030")
    assert dev.home_directory == "/home/abl030"
    assert dev.configuration_file == f"{directory}/hosts/dev/configuration.nix"
    assert dev.home_file == f"{directory}/hosts/dev/home.nix"
    assert dev.authorized_keys == (MASTER_KEY,)
    assert (dev.public_key, caddy.public_key) == (None, None)
    assert doc1.public_key
    assert doc1.public_key.endswith("root@doc1")
    assert (dev.is_nixos, caddy.is_nixos) == (True, False)
    assert (dev.sudo_passwordless, doc1.sudo_passwordless) == (None, True)


def test_guests_are_what_the_file_says(make_fleet: MakeFleet) -> None:
    fleet = load_fleet(make_fleet())
    dev, doc1 = fleet.vms["dev"], fleet.vms["doc1"]
    assert (dev.vmid, dev.origin, dev.readonly, dev.type) == (110, Origin.MANAGED, False, GuestType.QEMU)
    assert (dev.cores, dev.memory, dev.disk, dev.storage, dev.host_id) == (4, 8192, 64 << 30, "nvmeprom", "dev")
    assert (doc1.vmid, doc1.origin, doc1.readonly, doc1.host_id) == (104, Origin.IMPORTED, True, "proxmox-vm")
    assert fleet.endpoint == Endpoint("127.0.0.1", "prom", "nvmeprom")
    assert fleet.template == Template(9002, "base")
    assert VmidRange("production", 100, 199) in fleet.ranges
    assert len(fleet.ranges) == 3
    assert fleet.vm_of("dev") is dev


def test_what_people_write_down_is_kept(make_fleet: MakeFleet) -> None:
    fleet = load_fleet(make_fleet(("sudoPasswordless = true;", "sudoPasswordless = true; owner = { room = 3; };")))
    assert fleet.hosts["proxmox-vm"].extra == {"owner": {"room": 3}}
    assert fleet.vms["dev"].extra == {"purpose": "development", "services": []}
    assert fleet.vms["doc1"].specs == {"cores": 8, "disk": "passthrough"}
    assert fleet.template
    assert fleet.template.extra["description"] == "what new machines are cloned from"


def test_no_definitions_are_a_fleet(make_fleet: MakeFleet) -> None:
    fleet = load_fleet(make_fleet(definitions=None))
    assert (len(fleet.hosts), dict(fleet.vms), fleet.endpoint, fleet.template, fleet.ranges) == (3, {}, None, None, ())


@pytest.mark.parametrize("definitions", ["{ }", "{ imported = { }; managed = null; helper = x: x; }"])
def test_empty_definitions_are_a_fleet(make_fleet: MakeFleet, definitions: str) -> None:
    assert not load_fleet(make_fleet(definitions=definitions)).vms


def test_the_endpoint_may_say_how_it_is_known(make_fleet: MakeFleet) -> None:
    colons = ":".join(["AB"] * 32)
    more = f'node = "prom"; port = 443; fingerprint = "{colons}"; caFile = ../hosts.nix;'
    directory = make_fleet(('node = "prom";', more))
    assert load_fleet(directory).endpoint == Endpoint(
        "127.0.0.1", "prom", "nvmeprom", port=443, fingerprint="ab" * 32, ca_file=f"{directory}/hosts.nix"
    )


def test_the_fleet_may_have_a_name(make_fleet: MakeFleet) -> None:
    assert load_fleet(make_fleet(("proxmox = {", 'fleet = "homelab"; proxmox = {'))).id == "homelab"


def test_an_imported_guest_without_a_flag_is_readonly(make_fleet: MakeFleet) -> None:
    assert load_fleet(make_fleet(("readonly = true;", ""))).vms["doc1"].readonly
    assert not load_fleet(make_fleet(("readonly = true;", "readonly = false;"), name="other")).vms["doc1"].readonly


def test_a_guest_may_be_managed_and_readonly(make_fleet: MakeFleet) -> None:
    dev = load_fleet(make_fleet(("vmid = 110;", "vmid = 110; readonly = true;"))).vms["dev"]
    assert (dev.is_managed, dev.readonly, dev.may_change) == (True, True, False)


def test_a_container_is_managed_with_a_type(make_fleet: MakeFleet) -> None:
    dev = load_fleet(make_fleet(("vmid = 110;", 'vmid = 210; type = "lxc"; tags = [ "ci" ]; node = "other";'))).vms[
        "dev"
    ]
    assert (dev.type, dev.vmid, dev.tags, dev.node) == (GuestType.LXC, 210, ("ci",), "other")


@pytest.mark.parametrize(
    "documented",
    [
        "vmid = 5000;",  # where people's machines are is not for us to say
        "vmid = 250;",
        'vmid = 104; type = "openvz"; cores = "many"; memory = "8 GiB"; disk = 0;',
        'vmid = 104; storage = [ ]; node = 3; tags = "a;b";',
        'vmid = 104; nixosConfig = "nothing"; notes = x: x; monitoring = { inherit (builtins) map; p = ./nowhere; };',
        "vmid = 104; hostname = 12;",
        "vmid = 104; specs = null; hardware = [ { } ]; services = 1.5;",
    ],
)
def test_documentation_of_an_imported_guest_is_never_a_reason_to_refuse(make_fleet: MakeFleet, documented: str) -> None:
    ranges = "vmidRanges.production = { start = 100; end = 199; };"
    definitions = f"{{ imported = {{ doc1 = {{ {documented} }}; }}; {ranges} }}"
    doc1 = load_fleet(make_fleet(definitions=definitions)).vms["doc1"]
    assert doc1.readonly
    assert (doc1.cores, doc1.memory, doc1.disk) == (None, None, None)


def test_documentation_of_a_managed_guest_is_never_looked_at(make_fleet: MakeFleet) -> None:
    fleet = load_fleet(
        make_fleet(('purpose = "development";', "purpose = x: x; specs = { disk = 1; }; hardware = ./no;"))
    )
    assert fleet.vms["dev"].extra["purpose"] == "<function>"


@pytest.mark.parametrize("key", ['""', '"  "', "null", '"PLACEHOLDER"', '"ssh-ed25519 AAAA... placeholder"'])
def test_placeholders(make_fleet: MakeFleet, key: str) -> None:
    assert load_fleet(make_fleet(('publicKey = "placeholder";', f"publicKey = {key};"))).hosts["dev"].public_key is None


def test_a_public_key_may_be_left_out(make_fleet: MakeFleet) -> None:
    assert load_fleet(make_fleet(('publicKey = "placeholder";', ""))).hosts["dev"].public_key is None


def test_nothing_is_copied_to_the_store(make_fleet: MakeFleet, tmp_path: Path) -> None:
    directory = make_fleet()
    marker = "something that no other file of any store holds: 7d1f"
    (directory / "hosts" / "dev" / "configuration.nix").write_text(f"{{ }} # {marker}")
    load_fleet(directory)
    store = Path("/nix/store")
    found = [path for path in store.glob("*-configuration.nix") if marker in path.read_text()] if store.is_dir() else []
    assert found == []


def test_one_evaluation_and_quick(make_fleet: MakeFleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """300 hosts with VMs: one process, well under a second."""
    keys = f'[ "{MASTER_KEY}" ]'
    host = 'h{0} = {{ hostname = "h{0}"; user = "u"; authorizedKeys = {1}; homeFile = ./hosts/dev/home.nix; }};'
    guest = 'h{0} = {{ vmid = {1}; cores = 1; memory = 512; disk = "8G"; nixosConfig = "h{0}"; }};'
    hosts = "{" + "\n".join(host.format(n, keys) for n in range(300)) + "}"
    managed = "\n".join(guest.format(n, 1000 + n) for n in range(300))
    endpoint = 'proxmox = { host = "p"; node = "p"; defaultStorage = "local"; };'
    directory = make_fleet(hosts=hosts, definitions=f"{{ {endpoint} managed = {{ {managed} }}; }}")
    nix = subprocess.run(["which", "nix"], capture_output=True, text=True, check=True).stdout.strip()
    counting = tmp_path / "bin" / "nix"
    counting.parent.mkdir()
    counting.write_text(f'#!/bin/sh\necho run >> {tmp_path}/runs\nexec {nix} "$@"\n')
    counting.chmod(0o755)
    monkeypatch.setenv("PATH", str(counting.parent), prepend=":")
    began = time.monotonic()
    fleet = load_fleet(directory)
    assert time.monotonic() - began < 20
    assert (len(fleet.hosts), len(fleet.vms)) == (300, 300)
    assert (tmp_path / "runs").read_text() == "run\n"


def test_without_nix_the_line_says_so(make_fleet: MakeFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = make_fleet()
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ProcessFailed, match=r"^nix: no such program on PATH; install it, or put it on PATH$"):
        load_fleet(directory)


def test_relative_and_home_paths(make_fleet: MakeFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = make_fleet()
    monkeypatch.chdir(directory.parent)
    monkeypatch.setenv("HOME", str(directory.parent))
    assert load_fleet("fleet").path == load_fleet("~/fleet").path == str(directory)


def test_a_directory_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(FleetInvalid) as caught:
        load_fleet(tmp_path / "none")
    assert str(caught.value) == f"{tmp_path}/none: no such directory; FLEET names the directory of the fleet's flake"
    with pytest.raises(FleetInvalid) as caught:
        load_fleet(tmp_path)
    missing = f"{tmp_path}: it has neither flake.nix nor hosts.nix"
    assert str(caught.value) == f"{missing}; FLEET names the directory of the fleet's flake"
    (tmp_path / "hive.nix").touch()
    with pytest.raises(FleetInvalid, match=r"nor hosts.nix; hive.nix is a hive without a flake, which is not read; "):
        load_fleet(tmp_path)
    for below in (".direnv/x", "too/far/down", "nixos", "old/nixos"):
        (tmp_path / below).mkdir(parents=True)
        (tmp_path / below / "flake.nix").touch()
    with pytest.raises(FleetInvalid) as caught:
        load_fleet(tmp_path)
    below = f"there is one in nixos, old/nixos; name its directory: FLEET={tmp_path}/nixos"
    assert str(caught.value) == f"{missing}; {below}"


def test_a_hostname_that_is_not_said_is_the_id(make_fleet: MakeFleet) -> None:
    assert load_fleet(make_fleet(('hostname = "dev";', ""))).hosts["dev"].hostname == "dev"


@pytest.mark.nix
@examples(15)
@given(st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=30))
def test_any_directory_name_is_taken_literally(tmp_path: Path, name: str) -> None:
    """Quotes, `${…}` and newlines in the path are no Nix."""
    directory = tmp_path / f"f-{name}"
    directory.mkdir(exist_ok=True)
    (directory / "hosts.nix").write_text("{ }")
    assert load_fleet(directory).path == str(directory)


def test_it_works_under_gevent(make_fleet: MakeFleet) -> None:
    script = "from gevent import monkey; monkey.patch_all(); from nixherd.fleet.load import load_fleet; import sys;"
    subprocess.run([sys.executable, "-c", f"{script} load_fleet(sys.argv[1])", make_fleet()], check=True)
