"""What a configuration declares of secrets: known by itself, and of which file of the repository."""

import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from nixherd.base.errors import FleetError
from nixherd.base.run import Run
from nixherd.fleet.revisions import Tree
from nixherd.nix.declared import Declared, DeclaredSecret, Identity, files_of, parse
from nixherd.nix.evaluator import Evaluator
from nixherd.nix.kinds import Output
from nixherd.nix.store_source import StoreSource, source_path
from tests.nix_cli import environment, nix_json

STORE = "/nix/store/0v9ar9z6mfqxrpgsmzz7b7y5vkzncq5d-source"
INPUT = "/nix/store/1v9ar9z6mfqxrpgsmzz7b7y5vkzncq5d-source"
SOURCE = StoreSource(STORE, "fleet", {INPUT: "private"})


@pytest.mark.parametrize(
    ("path", "file", "origin"),
    [
        (f"{STORE}/fleet/secrets/dev.yaml", "secrets/dev.yaml", None),
        (f"{STORE}/fleet/hosts/../secrets/dev.yaml", "secrets/dev.yaml", None),
        (f"{STORE}/secrets/common.yaml", "../secrets/common.yaml", None),
        (f"{INPUT}/dev.yaml", None, "dev.yaml of the flake's input private"),
        ("/etc/secrets/x.yaml", None, "/etc/secrets/x.yaml on the machine, which is not in this repository"),
        (f"{INPUT[:-6]}other/x", None, f"{INPUT[:-6]}other/x, which is not in this repository"),
    ],
)
def test_a_file_is_known_by_where_it_is_in_the_store(path: str, file: str | None, origin: str | None) -> None:
    assert SOURCE.place(path) == (file, origin)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"path": "/x", "locks": 3}', '{"path": "/x", "resolved": 3}'])
def test_other_metadata_is_one_clear_error(text: str) -> None:
    with pytest.raises(FleetError, match="nix flake metadata printed something unexpected"):
        StoreSource.parse(text)


@pytest.mark.parametrize("hash", ["", "sha256-", "sha256-AAAA", "sha1-2jmj7l5rSw0yVb/vlWAYkK/YBwk=", "sha256-***"])
def test_what_is_no_hash_has_no_path(hash: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        source_path(hash)


def one(**changes: Any) -> dict[str, Any]:
    secret: dict[str, Any] = {
        "attribute": "token",
        "name": "token",
        "path": "/run/secrets/token",
        "sopsFile": f"{STORE}/s.yaml",
    }
    secret |= {"format": "yaml", "key": "token", "mode": "0400", "neededForUsers": None, "owner": None, "uid": 0}
    secret |= {"group": None, "gid": 0, "unknown": []}
    identity = {"ageKeyFile": None, "ageSshKeys": ["/k"], "gnupgHome": None, "gnupgSshKeys": [], "unknown": []}
    module = {"user": None, "secrets": [secret | changes], "templates": [], "identity": identity, "symlinks": {}}
    return {"sops": [module], "others": []}


@pytest.mark.parametrize(
    ("changes", "owner", "group"),
    [
        ({}, "0", "0"),
        ({"uid": 5000, "gid": None}, "5000", "0"),
        ({"owner": "root", "group": "users"}, "root", "users"),
    ],
)
def test_an_owner_is_a_name_or_a_number(changes: dict[str, Any], owner: str, group: str) -> None:
    (secret,) = parse("dev", one(**changes)).secrets
    assert (secret.owner, secret.group) == (owner, group)


def test_what_cannot_be_evaluated_of_a_secret_is_a_problem() -> None:
    declared = parse("dev", one(sopsFile=None, unknown=["sopsFile"]))
    assert declared.problem == "sops.secrets.token.sopsFile cannot be evaluated: set it, or sops.defaultSopsFile"
    assert declared.secrets[0].file is declared.secrets[0].origin is None


@pytest.mark.parametrize("values", [{}, {"sops": 3, "others": []}, {"sops": [{}], "others": []}, 3])
def test_other_values_are_refused(values: Any) -> None:
    with pytest.raises((KeyError, TypeError, ValueError, AttributeError)):
        parse("dev", values)


# By Nix: configurations as the module system would have them

FLAKE = """{
  inputs.private = { url = "path:PRIVATE"; flake = false; };
  outputs = { self, private }: let
    lack = name: throw "The option `sops.${name}' was accessed but has no value defined";
    secret = name: more: { inherit name; path = "/run/secrets/${name}"; format = "yaml"; key = name; mode = "0400"; }
      // { owner = null; uid = 0; group = null; gid = 0; neededForUsers = false; restartUnits = [ ]; } // more;
    sops = secrets: {
      inherit secrets;
      defaultSopsFile = lack "defaultSopsFile";
      age = { keyFile = null; sshKeyPaths = [ /etc/ssh/ssh_host_ed25519_key ]; };
      gnupg = { home = null; sshKeyPaths = [ ]; };
      templates."x.conf" = { name = "x.conf"; path = "/etc/x"; mode = "0444"; owner = "ann"; content = lack "nosuch"; };
    };
    machine = secrets: more: {
      config = {
        networking.hostName = "x";
        users.users.ann = { group = "users"; };
        sops = sops secrets;
        system.build.toplevel = throw "Failed assertions: of something else";
      } // more;
    };
  in {
    nixosConfigurations = {
      none = { config.networking.hostName = "none"; };
      usual = machine {
        "wifi/password" = secret "wifi/password" { sopsFile = ./secrets/common.yaml; };
        above = secret "above" { sopsFile = ../secrets/above.yaml; };
        text = secret "text" { sopsFile = "${self}/secrets/text.yaml"; owner = "ann"; group = "users"; };
        missing = secret "missing" { sopsFile = ./secrets/not-there.yaml; owner = "nosuch"; group = { }.nosuch; };
        copied = secret "copied" { sopsFile = builtins.path { path = ./secrets/common.yaml; name = "c"; }; };
        interpolated = secret "interpolated" { sopsFile = "${./secrets/dev.yaml}"; };
        input = secret "input" { sopsFile = "${private}/hidden.yaml"; key = ""; };
        machine = secret "machine" { sopsFile = "/var/lib/x.yaml"; neededForUsers = true; path = "/elsewhere"; };
      } { };
      incomplete = machine {
        a = secret "a" { sopsFile = lack "defaultSopsFile"; };
        b = secret "b" { sopsFile = ./b; };
      } { };
      homes = machine { } {
        home-manager.users.ann.sops = sops { k = { name = "k"; path = "%r/k"; sopsFile = ./secrets/dev.yaml; }; }
          // { defaultSymlinkPath = "/home/ann/s"; };
        home-manager.users.bob = throw "The option `nosuch' does not exist";
        home-manager.users.cay = { };
      };
      special = machine { a = secret "a" { sopsFile = ./secrets/common.yaml; }; } {
        specialisation.travel.configuration = (machine {
          a = secret "a" { sopsFile = ./secrets/common.yaml; };
          b = secret "b" { sopsFile = ./secrets/dev.yaml; };
        } { home-manager.users.ann.sops = sops { k = secret "k" { sopsFile = ./secrets/text.yaml; }; }
          // { defaultSymlinkPath = "/home/ann/s"; }; }).config;
        specialisation.bad.configuration = throw "The option `nosuch' does not exist";
        specialisation.half.configuration = (machine { c = secret "c" { sopsFile = lack "sopsFile"; }; } { }).config;
      };
      boxes = machine { } {
        containers.db.config.sops = sops { d = secret "d" { sopsFile = ./secrets/dev.yaml; }; };
        containers.plain.config = { };
        containers.path.path = "/nix/store/x";
        containers.unset.config = lack "config";
      };
      broken = { config = throw "The option `nosuch' does not exist"; };
      worse = { config.sops.secrets = 1 + "a"; };
      agenix = { config.age.secrets.a.file = ./a.age; };
      clan = { config.clan.core.vars.generators.a = throw "not looked into"; };
    };
    homeConfigurations."ann@x" = {
      config.home.username = "ann";
      config.sops = sops { k = { name = "k"; path = "%r/k"; sopsFile = ./secrets/dev.yaml; }; };
      activationPackage = throw "not asked for";
    };
  };
}
"""
HOSTS = ("none", "usual", "incomplete", "homes", "special", "boxes", "broken", "worse", "agenix", "clan", "nosuch")


class Hosts:
    kinds: Mapping[str, Output] = MappingProxyType({"ann@x": Output.HOME})
    attributes: Mapping[str, str] = {}

    def __init__(self, path: Path) -> None:
        self.path = str(path)


@pytest.fixture(scope="module")
def declared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Declared]:
    """By host, of a flake in a subdirectory of its repository; evaluated together."""
    place = tmp_path_factory.mktemp("declared")
    top, private = place / "top", place / "private"
    files = {"fleet/flake.nix": FLAKE.replace("PRIVATE", str(private)), "secrets/above.yaml": "above: 1\n"}
    files |= {f"fleet/secrets/{name}.yaml": f"{name}: 1\n" for name in ("common", "dev", "text")}
    private.mkdir()
    (private / "hidden.yaml").write_text("hidden: 1\n")
    for name, text in files.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(text)
    env = {**environment(), "XDG_CACHE_HOME": str(place / "cache"), "XDG_STATE_HOME": str(place / "state")}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        for words in (["git", "init", "-q"], ["git", "add", "-A"], ["nix", "flake", "lock", "./fleet"]):
            subprocess.run(words, cwd=top, check=True, capture_output=True)
        subprocess.run(["git", "add", "-A"], cwd=top, check=True)
        run = Run("declared")
        evaluator = Evaluator(Hosts(top / "fleet"), run, lambda: Tree(str(top / "fleet")))
        try:
            return {id: evaluator.declared((*HOSTS, "ann@x"), id) for id in (*HOSTS, "ann@x")}
        finally:
            run.close()


@pytest.mark.nix
class TestByNix:
    def test_each_files_place(self, declared: dict[str, Declared]) -> None:
        usual = {secret.name: secret for secret in declared["usual"].secrets}
        assert {name: secret.file for name, secret in usual.items()} == {
            "wifi/password": "secrets/common.yaml",
            "above": "../secrets/above.yaml",
            "text": "secrets/text.yaml",
            "missing": "secrets/not-there.yaml",
            "copied": "secrets/common.yaml",
            "interpolated": "secrets/dev.yaml",
            "input": None,
            "machine": None,
        }
        assert usual["input"].origin == "hidden.yaml of the flake's input private"
        assert usual["machine"].origin == "/var/lib/x.yaml on the machine, which is not in this repository"
        assert (usual["machine"].path, usual["machine"].needed_for_users) == ("/elsewhere", True)
        assert (usual["input"].key, usual["text"].owner, usual["text"].group) == ("", "ann", "users")
        assert (usual["missing"].owner, usual["missing"].group) == ("nosuch", "0")
        assert declared["usual"].problem is None
        assert declared["usual"].identities == (Identity(None, age_ssh_keys=("/etc/ssh/ssh_host_ed25519_key",)),)
        (template,) = declared["usual"].templates
        assert (template.path, template.mode, template.owner, template.group) == ("/etc/x", "0444", "ann", "0")
        assert "secrets/common.yaml" in files_of(declared["usual"].secrets)

    def test_those_without_secrets(self, declared: dict[str, Declared]) -> None:
        assert declared["none"] == Declared("none")
        assert (declared["agenix"].others, declared["clan"].others) == (("agenix",), ("clan",))
        assert declared["agenix"].secrets == ()

    def test_what_is_incomplete_is_not_known_and_the_rest_is(self, declared: dict[str, Declared]) -> None:
        found = declared["incomplete"]
        assert found.problem == "sops.secrets.a.sopsFile cannot be evaluated: set it, or sops.defaultSopsFile"
        assert [secret.file for secret in found.secrets] == [None, "b"]

    def test_homes(self, declared: dict[str, Declared]) -> None:
        found = declared["homes"]
        assert found.problem == "bob's home cannot be evaluated"
        assert found.of_system == ()
        secret = DeclaredSecret("k", "%r/k", "secrets/dev.yaml", "yaml", "k", owner="", group="", user="ann")
        assert found.of_homes == (secret,)
        assert found.symlinks == {"ann": "/home/ann/s"}
        assert [identity.user for identity in found.identities] == [None, "ann"]
        alone = declared["ann@x"]
        assert alone.secrets == (secret,)
        assert alone.problem is None

    def test_specialisations(self, declared: dict[str, Declared]) -> None:
        found = declared["special"]
        assert found.problem == (
            "specialisation bad cannot be evaluated; specialisation half: sops.secrets.c.sopsFile cannot be evaluated: "
            "set it, or sops.defaultSopsFile"
        )
        assert [secret.name for secret in found.secrets] == ["a"], "what is there whichever runs"
        assert [(secret.name, secret.file) for secret in found.of_system] == [
            ("a", "secrets/common.yaml"),
            ("c", None),
            ("b", "secrets/dev.yaml"),
        ]
        assert [(secret.user, secret.file) for secret in found.of_homes] == [("ann", "secrets/text.yaml")]
        assert [each.path for each in found.specialisations["travel"].templates] == ["/etc/x", "/etc/x"]
        assert found.files == ("secrets/common.yaml", "secrets/dev.yaml", "secrets/text.yaml")

    def test_containers(self, declared: dict[str, Declared]) -> None:
        found = declared["boxes"]
        assert (found.problem, found.of_system) == (None, ())
        assert found.files == ("secrets/dev.yaml",)
        assert found.unhandled == (
            "boxes: containers.db: who decrypts its secrets is unknown: they are for the container's own key "
            "(docs/secrets.md)",
        )

    def test_a_host_that_cannot_be_asked_says_why_and_leaves_the_others(self, declared: dict[str, Declared]) -> None:
        assert "The option `nosuch' does not exist" in str(declared["broken"].problem)
        assert declared["worse"].problem
        assert declared["nosuch"].problem == "nixosConfigurations.nosuch does not exist"
        assert all("\n" not in str(each.problem) for each in declared.values())

    def test_the_path_of_a_source_is_nixs(self, tmp_path: Path) -> None:
        (tmp_path / "x").write_text("x\n")
        words = ("eval", "--impure", "--json", "--expr")
        text = f'builtins.fetchTree {{ type = "path"; path = "{tmp_path}"; }}'
        tree = nix_json(*words, f"let t = {text}; in {{ inherit (t) narHash; path = t.outPath; }}")
        assert source_path(tree["narHash"]) == tree["path"]
