"""Flakes of people who have deploy-rs or colmena, with the real Nix and stand-ins of ours for what those tools give."""

import json
import shutil
from collections.abc import Callable

import pytest

from nixherd.base.errors import FleetError, FleetInvalid
from nixherd.fleet.load import load_fleet
from nixherd.nix.kinds import Output
from tests import nix_cli
from tests.nixherd.fleet.test_any_fleet import Counted, flake, people

__all__ = ["flake", "people"]
pytestmark = pytest.mark.nix

_FLAKE = """{
  outputs = { self }: let
    derivationOf = name: more: derivation ({ inherit name; system = "aarch64-linux"; builder = "/bin/sh"; } // more);
    system = name: more: builtins.trace "EVALUATED ${name}" {
      config = {
        networking.hostName = name;
        users.users.root.openssh.authorizedKeys.keys = [ "k" ];
        system.build.toplevel = derivationOf name { };
        nixpkgs.hostPlatform.system = "aarch64-linux";
      } // more;
    };
    # as deploy-rs's activate.nixos does: a derivation with the system among what it joins
    activate = configuration: derivationOf "activatable" {
      pkgs = builtins.toJSON [ { paths = [ "${configuration.config.system.build.toplevel}" ]; priority = 5; } ];
    };
  in { OUTPUTS };
}
"""
NODES = _FLAKE.replace(
    "OUTPUTS",
    """
    nixosConfigurations = builtins.mapAttrs (name: _: system name { }) {
      web = 1; other = 1; text = 1; bare = 1; structured = 1; plain = 1;
    };
    deploy = {
      sshUser = "al";
      magicRollback = false;
      nodes = {
        web = {
          hostname = self.nixosConfigurations.web.config.networking.hostName + ".lan";
          sshOpts = [ "-p" "2222" "-o" "ProxyCommand=touch /tmp/x" ];
          fastConnection = true;
          profiles.system = { user = "root"; path = activate self.nixosConfigurations.web; };
          profiles.al.path = throw "never looked at";
        };
        other.profiles.system.path = activate self.nixosConfigurations.web;
        text.profiles.system.path = "${activate self.nixosConfigurations.text}";
        bare.hostname = "bare";
        structured.profiles.system.path = derivationOf "activatable" {
          __structuredAttrs = true;
          paths.deep = [ self.nixosConfigurations.structured.config.system.build.toplevel ];
        };
        gone.hostname = "gone";
      };
    };
""",
)
HIVE = _FLAKE.replace(
    "OUTPUTS",
    """
    nixosConfigurations.web = system "never" { };
    nixosConfigurations.plain = system "plain" { };
    colmenaHive = {
      __schema = "v0";
      nodes = {
        web = system "web" {
          deployment = {
            targetHost = "al@10.0.0.5"; targetUser = null; targetPort = 2222; tags = [ "x" ]; buildOnTarget = true;
            allowLocalDeployment = true; keys = { };
          };
        };
        keyed = system "keyed" {
          deployment = {
            targetHost = "keyed"; targetUser = "root";
            keys.secret = throw "never looked at";
          };
        };
      };
      toplevel = throw "never looked at";
    };
    colmena = throw "never looked at";
""",
)

CLAN = _FLAKE.replace(
    "OUTPUTS",
    """
    nixosConfigurations = builtins.mapAttrs (name: core: system name { clan = { inherit core; }; }) {
      web = {
        networking = { targetHost = throw "the inventory says it"; buildHost = null; };
        deployment.requireExplicitUpdate = true;
        vars.settings.secretStore = "sops";
        vars.generators = {
          openssh.files."ssh.id_ed25519" = { secret = true; neededFor = "services"; value = throw "no"; };
          openssh.files."ssh.id_ed25519.pub".secret = false;
          zfs.files.key = { secret = true; deploy = true; neededFor = "partitioning"; };
          ca.files.key = { secret = true; deploy = false; neededFor = "activation"; };
        };
      };
      db.networking = {
        targetHost = "al@[fe80::1]:2222?IdentityFile=/k&ProxyJump=gate";
        buildHost = "root@builder";
        forwardAgent = true;
      };
      early.vars.generators.initrd.files.key = { secret = true; deploy = true; neededFor = "activation"; };
      passed.vars = { settings.secretStore = "password-store"; generators.wifi.files.psk = { secret = true; }; };
      older = { facts = { secretStore = "password-store"; services.borg.secret.key = { }; }; networking = { }; };
      silent = { };
    } // { plain = system "plain" { }; };
    darwinConfigurations.mac = throw "never looked at";
    clan.inventory.machines = {
      web = { deploy.targetHost = "10.0.0.5"; tags = [ "all" "nixos" "front" ]; description = throw "people's own"; };
      mac.machineClass = "darwin";
      db = { deploy = { targetHost = null; buildHost = null; }; tags = [ "all" ]; };
    };
    clanInternals = {
      machines = throw "never looked at";
      inventoryClass.inventory.machines = throw "clan.inventory is the same";
    };
""",
)

# What stands in `same` is what colmena would make of web, by its manual.
RAW = """{
  outputs = { self }: let
    overlay = _: _: { mine = "overlaid"; };
    nixpkgs = config: import ./nixpkgs { system = "x86_64-linux"; inherit config; overlays = [ overlay ]; };
    machine = { name, pkgs, ... }: {
      networking.hostName = builtins.trace "EVALUATED ${name}" name;
      users.users.root.openssh.authorizedKeys.keys = [ "k" ];
      fileSystems."/".device = "/dev/sda";
      boot.loader.grub.device = "/dev/sda";
      system.stateVersion = "25.11";
    };
    web = { lib, nodes, here, only, pkgs, ... }: {
      deployment = lib.mkIf (only == "web") {
        targetHost = "al@10.0.0.5"; targetPort = 2222; tags = [ "x" ]; nonsense.of = "people";
      };
      environment.etc.words.text = "${here} ${pkgs.mine} ${nodes.db.config.networking.hostName}";
    };
  in {
    nixosConfigurations.same = (import ./nixpkgs/nixos/lib/eval-config.nix) {
      system = "x86_64-linux";
      modules = [
        machine
        { nixpkgs.overlays = [ overlay ]; }
        { environment.etc.words.text = "there overlaid db"; }
      ];
      specialArgs.name = "web";
    };
    colmena = {
      meta = {
        nixpkgs = nixpkgs { };
        nodeNixpkgs.db = nixpkgs { allowUnfree = true; };
        specialArgs = { here = "there"; only = "nobody"; };
        nodeSpecialArgs.web.only = "web";
      };
      defaults = machine;
      web = [ web ];
      db = { deployment.tags = [ "data" ]; };
      broken = throw "it is broken";
    };
  };
}
"""


def test_a_list_of_nodes_evaluates_no_configuration(flake: Counted) -> None:
    flake.file("flake.nix", NODES)
    fleet = flake.fleet
    assert sorted(fleet.hosts) == ["bare", "other", "plain", "structured", "text", "web"]
    assert fleet.kinds == dict.fromkeys(("bare", "other", "structured", "text", "web"), Output.NODE)
    assert list(fleet.skipped) == ["deploy.nodes.gone"]
    assert [each.attribute for each in fleet.unkept] == ["deploy.magicRollback", "deploy.nodes.web.profiles.al"]
    assert flake.fleet.kinds == fleet.kinds
    assert (flake.asked, flake.evaluated) == (["."], [])


def test_what_a_node_says_is_read_with_its_host(flake: Counted) -> None:
    flake.file("flake.nix", NODES)
    fleet, _ = flake.completed("web", "plain")
    web = fleet.hosts["web"]
    assert (web.unread, web.addresses, web.user, web.port) == (None, ("web.lan",), "al", 2222)
    assert web.deployment == {"substitute_on_destination": False}
    assert fleet.hosts["plain"].user == "root"
    assert str(fleet.unkept[-1]).startswith("deploy.nodes.web.sshOpts: -o ProxyCommand=touch /tmp/x: the way to a ")
    assert set(flake.evaluated) == {"plain", "web"}
    flake.forget()
    again, _ = flake.completed("web")
    assert (again.hosts["web"], again.unkept, flake.evaluated) == (web, fleet.unkept, [])


def test_what_deploy_rs_would_deploy_is_deployed_or_it_is_refused(flake: Counted) -> None:
    flake.file("flake.nix", NODES)
    host_ids = ("bare", "other", "plain", "structured", "text", "web")
    fleet, evaluator = flake.completed(*host_ids, whole=True)
    for host_id in ("plain", "structured", "web"):
        assert evaluator.evaluate(host_ids, host_id).toplevel.endswith(host_id)
        assert fleet.hosts[host_id].unread is None
    for host_id, why in (
        ("other", "profiles.system.path is not made of nixosConfigurations.other, which nixherd deploys"),
        ("text", "profiles.system.path is not a derivation, so that what deploy-rs would deploy is not known"),
        ("bare", "has no profiles.system, so that deploy-rs deploys no system there"),
    ):
        with pytest.raises(FleetError) as caught:
            evaluator.evaluate(host_ids, host_id)
        line = f"path = deploy-rs.lib.aarch64-linux.activate.nixos self.nixosConfigurations.{host_id};"
        assert str(caught.value) == (
            f"{flake.directory}/flake.nix: deploy.nodes.{host_id}: {why}; write there: profiles.system = "
            f'{{ user = "root"; {line} }};'
        )
        assert fleet.hosts[host_id].unread == str(caught.value)
    assert flake.evaluated == [*host_ids]
    assert sorted(flake.asked) == [".", ".", "nixosConfigurations"]


def test_a_hive_is_listed_without_being_evaluated(flake: Counted) -> None:
    flake.file("flake.nix", HIVE)
    fleet = flake.fleet
    assert {id: str(host.attribute) for id, host in fleet.hosts.items()} == {
        "plain": "nixosConfigurations.plain",
        "web": "colmenaHive.nodes.web",
        "keyed": "colmenaHive.nodes.keyed",
    }
    assert (fleet.skipped, flake.asked, flake.evaluated) == ({}, ["."], [])


def test_a_node_of_a_hive_is_read_and_deployed_as_the_hive_has_it(flake: Counted) -> None:
    flake.file("flake.nix", HIVE)
    fleet, evaluator = flake.completed("keyed", "plain", "web", whole=True)
    web = fleet.hosts["web"]
    assert (web.unread, web.addresses, web.user, web.port) == (None, ("10.0.0.5",), "al", 2222)
    assert (web.tags, web.deployment) == (("x",), {"build_on": "target"})
    assert [each.attribute.rpartition(".")[2] for each in fleet.unkept] == ["allowLocalDeployment"]
    assert (fleet.hosts["keyed"].unread or "").startswith(
        "flake.nix: colmenaHive.nodes.keyed.config.deployment.keys: colmena uploads secret, and nixherd sends no key "
    )
    config = evaluator.evaluate(("keyed", "plain", "web"), "web")
    assert (config.host_id, config.hostname, config.toplevel.endswith("-web")) == ("web", "web", True)
    assert flake.evaluated == ["keyed", "plain", "web"]


def test_a_raw_hive_is_evaluated_as_colmena_does(flake: Counted) -> None:
    shutil.copytree(nix_cli.stand_ins(), flake.directory, dirs_exist_ok=True)
    flake.file("flake.nix", RAW)
    assert {id: str(host.attribute) for id, host in flake.fleet.hosts.items()} == {
        "same": "nixosConfigurations.same",
        "broken": "colmena.broken",
        "db": "colmena.db",
        "web": "colmena.web",
    }
    assert (flake.fleet.skipped, flake.asked, flake.evaluated) == ({}, ["."], [])
    fleet, evaluator = flake.completed("broken", "db", "same", "web", whole=True)
    web, db = fleet.hosts["web"], fleet.hosts["db"]
    assert (web.unread, web.addresses, web.user, web.port, web.tags) == (None, ("10.0.0.5",), "al", 2222, ("x",))
    assert (db.unread, db.addresses, db.user, db.tags) == (None, ("db",), "root", ("data",))
    assert "it is broken" in (fleet.hosts["broken"].unread or "")
    host_ids = ("broken", "db", "same", "web")
    assert evaluator.evaluate(host_ids, "web").toplevel == evaluator.evaluate(host_ids, "same").toplevel


@pytest.mark.parametrize("packages", ["./nixpkgs", "_: { }", "null", "{ outPath = ./nixpkgs; lib = { }; }"])
def test_a_raw_hive_needs_a_set_of_packages(flake: Counted, packages: str) -> None:
    text = _FLAKE.replace("OUTPUTS", f"colmena = {{ meta.nixpkgs = {packages}; web = {{ }}; }};")
    flake.file("flake.nix", text)
    why = flake.completed("web")[0].hosts["web"].unread or ""
    assert "colmena.meta.nixpkgs is not a package set; write colmena.meta.nixpkgs = import nixpkgs { system = " in why


@pytest.mark.parametrize(
    ("outputs", "line"),
    [
        ("colmena = { web = { }; };", "colmena is not one of ours: has no meta, which every hive has; write "),
        ("colmena = 5;", "colmena is not one of ours: has no meta, which every hive has; write "),
        ("colmenaHive = 5;", "colmenaHive is not one of ours: has no set of nodes; write colmenaHive = colmena.lib."),
        ("colmenaHive = { };", "colmenaHive is not one of ours: has no set of nodes; write colmenaHive = colmena.lib."),
        ("deploy.nodes = [ ];", "deploy.nodes is not one of ours: is of type list; it must be an attribute set"),
        ("deploy.nodes.a = 5;", "deploy.nodes.a is not one of ours: the flake has no nixosConfigurations of its name"),
        ("deploy = 5;", "homeConfigurations; add one, or write hosts.nix"),
    ],
)
def test_another_shape_is_one_line(flake: Counted, outputs: str, line: str) -> None:
    flake.file("flake.nix", _FLAKE.replace("OUTPUTS", outputs))
    with pytest.raises(FleetInvalid) as caught:
        load_fleet(flake.directory)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_hive_without_a_flake_is_one_line(flake: Counted) -> None:
    flake.file("hive.nix", "{ }")
    (flake.directory / "flake.nix").unlink()
    with pytest.raises(FleetInvalid, match=r"hive.nix is a hive without a flake, which is not read; "):
        load_fleet(flake.directory)


def test_a_node_that_is_no_node_stops_its_host(flake: Counted) -> None:
    flake.file("flake.nix", _FLAKE.replace("OUTPUTS", 'nixosConfigurations.a = system "a" { }; deploy.nodes.a = 5;'))
    fleet, _ = flake.completed("a", whole=True)
    assert "deploy.nodes.a: has no profiles.system" in (fleet.hosts["a"].unread or "")


def test_the_list_that_people_see(flake: Counted, people: Callable[..., str]) -> None:
    flake.file("flake.nix", NODES)
    shown = people("nixherd", "hosts", "--json")
    assert shown.startswith("0 "), shown
    rows, _ = json.JSONDecoder().raw_decode(shown[2:])
    unkept = {row["host"]: row["not_kept"] for row in rows}
    attributes = [each.partition(":")[0] for each in unkept["web"]]
    assert attributes == ["deploy.magicRollback", "deploy.nodes.web.profiles.al"]
    assert unkept["plain"] == []
    assert "skipped deploy.nodes.gone: the flake has no nixosConfigurations of its name" in shown
    assert shown.count("not kept: deploy.magicRollback: nixherd proves every system") == 1
    assert flake.evaluated == []
    assert people("nixherd", "eval", "web", "networking.hostName").startswith('0 "web"')


def test_a_list_of_clan_machines_evaluates_none(flake: Counted) -> None:
    flake.file("flake.nix", CLAN)
    fleet = flake.fleet
    assert sorted(fleet.hosts) == ["db", "early", "older", "passed", "plain", "silent", "web"]
    assert set(fleet.kinds.values()) == {Output.CLAN}
    assert list(fleet.skipped) == ["darwinConfigurations.mac"]
    assert (flake.asked, flake.evaluated) == (["."], [])


def test_what_clan_is_told_is_read_with_its_host(flake: Counted) -> None:
    flake.file("flake.nix", CLAN)
    host_ids = ("db", "plain", "silent", "web")
    fleet, evaluator = flake.completed(*host_ids, whole=True)
    web, db = fleet.hosts["web"], fleet.hosts["db"]
    assert (web.unread, web.addresses, web.user, web.port) == (None, ("10.0.0.5",), "root", None)
    assert (web.tags, web.deployment) == (("front",), {"build_on": "target"})
    assert (db.unread, db.addresses, db.user, db.port) == (None, ("fe80::1",), "al", 2222)
    assert (db.jump, db.deployment) == (("gate",), {})
    for host_id in ("plain", "silent"):
        assert (fleet.hosts[host_id].unread, fleet.hosts[host_id].addresses) == (None, None)
    assert evaluator.evaluate(host_ids, "web").toplevel.endswith("web")
    told = {each.attribute: each.hosts for each in fleet.unkept}
    system = "nixosConfigurations.{}.config.clan.core"
    assert told == {
        f"{system.format('db')}.networking.targetHost": ("db",),
        f"{system.format('db')}.networking.buildHost": ("db",),
        f"{system.format('db')}.networking.forwardAgent": ("db",),
        f"{system.format('web')}.deployment.requireExplicitUpdate": ("web",),
        f"{system.format('web')}.vars.generators": ("web",),
    }


def test_secrets_that_clan_uploads_are_refused(flake: Counted) -> None:
    flake.file("flake.nix", CLAN)
    fleet, _ = flake.completed("early", "older", "passed")
    for host_id, secret in (("early", "initrd/key"), ("older", "borg/key"), ("passed", "wifi/psk")):
        what = (
            f"flake.nix: nixosConfigurations.{host_id}.config.clan.core.vars: clan uploads {secret}, and nixherd sends"
        )
        assert str(fleet.hosts[host_id].unread).startswith(what)


def test_a_clan_that_passes_its_internals_alone_on(flake: Counted) -> None:
    older = CLAN.replace("clan.inventory.machines = {", "never = {").replace(
        'inventoryClass.inventory.machines = throw "clan.inventory is the same";',
        'inventory.machines.web.deploy.targetHost = "al@10.0.0.6:22";',
    )
    flake.file("flake.nix", older)
    fleet, _ = flake.completed("web")
    assert (fleet.hosts["web"].addresses, fleet.hosts["web"].user) == (("10.0.0.6",), "al")
