"""The reference fleet says what the specification says, and evaluates and builds with the lab's stand-ins."""

import base64
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from nixherd.cli.main import run
from nixherd.fleet.load import load_fleet
from tests.fleet_copy import OPERATOR
from tests.integration.lab_driver import edit
from tests.nix_cli import build, environment, nix_json, try_nix
from tests.shared import Shared

FLEET = Path(__file__).parent.parent.parent / "fleet"


@pytest.fixture(scope="module")
def hosts() -> dict[str, Any]:
    found: dict[str, Any] = nix_json("eval", "--json", "--file", FLEET / "hosts.nix")
    return found


@pytest.fixture(scope="module")
def definitions() -> dict[str, Any]:
    found: dict[str, Any] = nix_json("eval", "--json", "--file", FLEET / "vms" / "definitions.nix")
    return found


@pytest.mark.nix
def test_every_host_of_the_specification_is_there(hosts: dict[str, Any]) -> None:
    assert {id: host["sshAlias"] for id, host in hosts.items()} == {
        "epimetheus": "epi",
        "framework": "fra",
        "caddy": "cad",
        "wsl": "wsl",
        "proxmox-vm": "doc1",
        "igpu": "igp",
        "dev": "dev",
    }
    assert [id for id, host in hosts.items() if "configurationFile" not in host] == ["caddy"]


@pytest.mark.nix
def test_every_host_is_complete(hosts: dict[str, Any]) -> None:
    for id, host in hosts.items():
        assert host["user"], id
        assert host["homeDirectory"] == f"/home/{host['user']}"
        assert len(host["authorizedKeys"]) == 2
        for file in ("configurationFile", "homeFile"):
            assert file not in host or Path(host[file]).is_file(), f"{id}.{file}"


@pytest.mark.nix
def test_every_key_is_a_public_ed25519_key_of_its_own(hosts: dict[str, Any]) -> None:
    keys = [host["publicKey"] for host in hosts.values()] + hosts["dev"]["authorizedKeys"]
    for key in keys:
        kind, blob, _comment = key.split(" ")
        assert kind == "ssh-ed25519"
        raw = base64.b64decode(blob, validate=True)
        assert raw[:19] == b"\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x20"
        assert len(raw) == 51
    assert len(set(keys)) == len(keys)


def test_no_private_key_is_in_the_fleet() -> None:
    texts = [file.read_text() for file in FLEET.rglob("*") if file.is_file()]
    assert len(texts) > 20
    # a program may print the lines around a key
    assert not [text for text in texts if re.search(r"PRIVATE KEY-----\n[A-Za-z0-9+/]{40}|AGE-SECRET-KEY-1", text)]


@pytest.mark.nix
def test_the_definitions_hold_the_values_of_the_specification(definitions: dict[str, Any]) -> None:
    assert definitions["fleet"] == "homelab"
    assert definitions["proxmox"] == {
        "host": "192.168.1.12",
        "node": "prom",
        "user": "root",
        "defaultStorage": "nvmeprom",
    }
    dev = definitions["managed"].pop("dev")
    assert definitions["managed"] == {}
    assert dev.items() >= {
        ("vmid", 110),
        ("cores", 4),
        ("memory", 8192),
        ("disk", "64G"),
        ("storage", "nvmeprom"),
        ("nixosConfig", "dev"),
        ("readonly", True),
    }
    assert {"purpose", "services"} <= dev.keys()
    assert definitions["template"]["vmid"] == 9002
    assert {"name", "description", "specs"} <= definitions["template"].keys()
    ranges = {name: (r["start"], r["end"]) for name, r in definitions["vmidRanges"].items()}
    assert ranges == {"production": (100, 199), "containers": (200, 299), "templates": (9000, 9999)}


@pytest.mark.nix
def test_imported_machines_are_protected_and_belong_to_a_host(
    definitions: dict[str, Any], hosts: dict[str, Any]
) -> None:
    imported = definitions["imported"]
    assert {name: (vm["vmid"], vm["readonly"]) for name, vm in imported.items()} == {
        "doc1": (104, True),
        "igp": (109, True),
    }
    for vm in imported.values():
        owner = [host for host in hosts.values() if host["hostname"] == vm["hostname"]]
        assert [host["sshAlias"] for host in owner] == [vm["sshAlias"]]
        assert {"status", "specs", "services"} <= vm.keys()
    assert imported["igp"]["specs"]["disk"] == "passthrough"


def test_the_specification_is_met_by_the_machines_themselves(flake: Path) -> None:
    read = """machines: {
      mtu = machines.proxmox-vm.config.networking.interfaces.ens18.mtu;
      gc = machines.proxmox-vm.config.nix.gc.dates;
      watches = machines.igpu.config.boot.kernel.sysctl."fs.inotify.max_user_watches";
      kernels = map (m: m.config.boot.kernelPackages.kernel.version) [machines.igpu machines.dev];
      zone = machines.dev.config.time.timeZone;
      locale = machines.dev.config.i18n.defaultLocale;
      names = builtins.mapAttrs (_: m: m.config.networking.hostName) machines;
    }"""
    seen = nix_json("eval", "--json", f"{flake}#nixosConfigurations", "--apply", read)
    kernels = seen.pop("kernels")
    assert kernels[0] != kernels[1]
    names = ("epimetheus", "framework", "wsl", "proxmox-vm", "igpu", "dev", "dev2", "dev3")
    assert seen == {
        "mtu": 1400,
        "gc": "03:30",
        "watches": 2097152,
        "zone": "Australia/Perth",
        "locale": "en_GB.UTF-8",
        "names": {name: name for name in names},
    }


EVERYTHING = """
let flake = builtins.getFlake "git+file://FLAKE"; in {
  source = flake.outPath;
  machines = builtins.mapAttrs (_: m: m.config.system.build.toplevel.drvPath) flake.nixosConfigurations;
  homes = builtins.mapAttrs (_: h: h.activationPackage.drvPath) flake.homeConfigurations;
  disks = flake.nixosConfigurations.dev.config.system.build.diskoScript.drvPath;
}"""


def test_a_commit_of_a_document_changes_no_machine_and_no_home(flake: Path) -> None:
    def everything() -> dict[str, Any]:
        found: dict[str, Any] = nix_json(
            "eval", "--json", "--impure", "--expr", EVERYTHING.replace("FLAKE", str(flake))
        )
        return found

    def git(*words: str) -> None:
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], cwd=flake, check=True)

    before = everything()
    (flake / "docs").mkdir()
    (flake / "docs/notes.md").write_text("What nobody runs.\n")
    git("add", ".")
    uncommitted = everything()
    git("commit", "-qm", "a document")
    after = everything()
    assert len({each.pop("source") for each in (before, uncommitted, after)}) > 1, "the flake's own path is another"
    assert before == uncommitted == after
    assert len(after["machines"]) > 6
    assert after["homes"]


PLANTED = {
    # of which host, what stands in it, and how that is told
    "dev": ('environment.etc.x.text = "${flake-root}/scripts";', "the fleet's own tree (/scripts)"),
    "igpu": ("environment.etc.x.text = toString ./home.nix;", "the fleet's own tree (/hosts/igpu/home.nix)"),
    "wsl": ('environment.etc.x.text = inputs.self.shortRev or "none";', "shortRev"),
    "epimetheus": ("environment.etc.x.source = ./home.nix;", None),
    "framework": ("system.configurationRevision = inputs.self.rev;", None),
}


def test_a_host_whose_closure_holds_the_fleets_tree_is_named_with_the_line(
    flake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    copy = tmp_path / "fleet"
    shutil.copytree(flake, copy)
    for host, (text, _) in PLANTED.items():
        file = copy / "hosts" / host / "configuration.nix"
        (file.parent / "planted.nix").write_text(f"{{inputs, flake-root, ...}}: {{\n  {text}\n}}\n")
        file.write_text(re.sub(r"(imports = \[)", r"\1./planted.nix ", file.read_text(), count=1))
    doc1 = copy / "hosts/proxmox-vm"
    no_key = "users.users.root.openssh.authorizedKeys.keys = lib.mkForce [];"
    asks = "security.sudo.wheelNeedsPassword = lib.mkForce true;"
    (doc1 / "locked.nix").write_text(f"{{lib, ...}}: {{ {no_key} {asks} }}")
    edit(doc1 / "configuration.nix", "imports = [", "imports = [./locked.nix ")

    def commit() -> str:
        for words in (("add", "-A"), ("commit", "-qm", "x"), ("rev-parse", "HEAD")):
            argv = ("git", "-c", "user.name=a", "-c", "user.email=a@b", *words)
            output = subprocess.run(argv, cwd=copy, check=True, capture_output=True, text=True).stdout
        return output.strip()

    first = commit()
    assert run(["--fleet", str(copy), "check", "--only", "lockout", "--only", "closures", "--json"]) == 1
    told = [each for each in json.loads(capsys.readouterr().out)["findings"] if each["attribute"]]
    assert [(each["attribute"], each["file"]) for each in told if each["severity"] == "error"] == [
        ("proxmox-vm", "hosts/proxmox-vm/configuration.nix")
    ]
    found = [each for each in told if each["severity"] != "error"]
    assert [(each["severity"], each["file"], each["line"], each["attribute"]) for each in found] == [
        ("warning", f"hosts/{host}/planted.nix", 2, f"nixosConfigurations.{host}")
        for host, (_, expected) in sorted(PLANTED.items())
        if expected
    ]
    for each in found:
        expected = PLANTED[each["attribute"].partition(".")[2]][1]
        assert f"its closure holds {expected}" in each["what"]

    # the one with its revision in it: as of the revision before it is what it was
    shared = Shared(load_fleet(copy), tmp_path / "token")
    hosts = ("framework",)
    before = shared.evaluator.evaluate(hosts, "framework")
    assert (before.configuration_revision, before.revision) == (first, first)
    (copy / "NOTES.md").write_text("x")
    second = commit()
    shared.evaluator.forget()
    after = shared.evaluator.evaluate(hosts, "framework")
    assert (after.revision, after.toplevel == before.toplevel) == (second, False)
    assert shared.evaluator.as_of(["framework"], first) == {"framework": before.toplevel}
    assert shared.evaluator.as_of(["framework"], "another") != {"framework": before.toplevel}
    assert shared.evaluator.as_of(["nosuch"], first) == {}


def test_nix_trusts_root_alone_on_every_machine(flake: Path) -> None:
    read = "builtins.mapAttrs (_: m: m.config.nix.settings.trusted-users)"
    trusted = nix_json("eval", "--json", f"{flake}#nixosConfigurations", "--apply", read)
    assert {user for users in trusted.values() for user in users} == {"root"}


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ("", "list their keys in nixherd.trustedKeys"),
        ('nixherd.trustedKeys = ["k-1:x"]; nix.settings.trusted-users = ["*"];', "nixherd-push not a trusted user"),
        ('nixherd.trustedKeys = ["k-1:x"]; nix.settings.require-sigs = false;', "require-sigs must be true"),
        ('nixherd.trustedKeys = ["k-1:x"];', None),
    ],
)
def test_a_machine_that_closures_are_pushed_to_checks_signatures(flake: Path, more: str, why: str | None) -> None:
    module = f'{{ nixherd.access.kind = "push-closure"; {more} }}'
    read = "m: (m.extendModules { modules = [ MODULE ]; }).config.system.build.toplevel.drvPath".replace(
        "MODULE", module
    )
    done = try_nix("eval", "--raw", f"{flake}#nixosConfigurations.dev", "--apply", read)
    assert (done.returncode == 0) is (why is None), done.stderr
    assert why is None or why in done.stderr


def test_root_has_no_other_keys_where_deployments_get_in_by_one_program(flake: Path) -> None:
    """The first line with a key counts for sshd: a plain one before the restricted one would let nobody in."""
    access = 'nixherd.access = { kind = "trigger"; keys = ["ssh-ed25519 AAAA deployer"]; }; '
    root = 'users.users.root.openssh.authorizedKeys.keys = ["ssh-ed25519 AAAA somebody"];'
    read = """m: let
      config = module: (m.extendModules { modules = [ module ]; }).config;
      failing = c: map (a: a.message) (builtins.filter (a: !a.assertion) c.assertions);
    in {
      keys = (config { ACCESS }).users.users.root.openssh.authorizedKeys.keys;
      fine = failing (config { ACCESS });
      plain = failing (config { ACCESS ROOT });
    }"""
    read = read.replace("ACCESS", access).replace("ROOT", root)
    found = nix_json("eval", "--json", f"{flake}#nixosConfigurations.dev", "--apply", read)
    [line] = found["keys"]
    assert line.startswith('restrict,command="')
    assert line.endswith('" ssh-ed25519 AAAA deployer')
    assert found["fine"] == []
    assert len(found["plain"]) == 1
    assert "nixherd.access: ssh-ed25519 AAAA deployer is also in users.users.root" in found["plain"][0]


def test_dev_matches_its_firmware_boot_loader_and_disk(flake: Path) -> None:
    read = """c: {
      loader = c.boot.loader.systemd-boot.enable;
      grub = c.boot.loader.grub.enable;
      device = map (d: d.device) (builtins.attrValues c.disko.devices.disk);
      systems = builtins.mapAttrs (_: fs: fs.fsType) c.fileSystems;
      agent = c.services.qemuGuest.enable;
      ssh = c.services.openssh.settings.PasswordAuthentication;
    }"""
    assert nix_json("eval", "--json", f"{flake}#nixosConfigurations.dev.config", "--apply", read) == {
        "loader": True,
        "grub": False,
        "device": ["/dev/sda"],
        "systems": {"/": "ext4", "/boot": "vfat"},
        "agent": True,
        "ssh": False,
    }


def test_what_provisioning_needs_builds_offline(flake: Path) -> None:
    config = ".#nixosConfigurations.dev.config.system.build"
    toplevel, disko, installer = build(f"{config}.toplevel", f"{config}.diskoScript", ".#kexec-installer", cwd=flake)
    assert {file.name for file in toplevel.iterdir()} >= {
        *("activate", "bin", "dry-activate", "etc", "init", "init-interface-version", "initrd", "kernel"),
        *("kernel-params", "kernel-modules", "nixos-version", "sw", "system"),
    }
    assert (toplevel / "bin" / "switch-to-configuration").stat().st_mode & 0o111
    assert (toplevel / "etc" / "hostname").read_text() == "dev\n"
    assert (toplevel / "etc" / "ssh" / "authorized_keys.d" / "abl030").read_text() == OPERATOR + "\n"
    assert disko.stat().st_mode & 0o111
    assert [file.name for file in installer.iterdir()] == ["nixos-kexec-installer-noninteractive-x86_64-linux.tar.gz"]


def test_the_flake_has_no_lock_of_its_own() -> None:
    """The user's first `nix flake lock` makes it, with inputs of that day."""
    assert not (FLEET / "flake.lock").exists()


def test_the_lock_of_the_copy_reaches_nothing_outside(flake: Path) -> None:
    nodes = json.loads((flake / "flake.lock").read_text())["nodes"]
    assert {node["locked"]["type"] for name, node in nodes.items() if name != "root"} == {"path"}
