"""The modules of the fleet: that other flakes can take them, that a host has the last word, and what they refuse."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.nix_cli import nix, nix_json

HERE = Path(__file__).parent


def test_another_flake_takes_the_modules_without_our_arguments(flake: Path, tmp_path: Path) -> None:
    shutil.copytree(HERE / "foreign", tmp_path / "foreign")
    theirs = tmp_path / "foreign"
    (theirs / "flake.nix").write_text((theirs / "flake.nix").read_text().replace("FLEET", str(flake)))
    (theirs / "secret.env").write_text("CLOUDFLARE_DNS_API_TOKEN=ENC[]\n")
    nix("flake", "lock", theirs)
    read = f"""let flake = builtins.getFlake "path:{theirs}"; machines = flake.nixosConfigurations; in {{
      machines = builtins.mapAttrs (_: m: m.config.system.build.toplevel.drvPath) machines;
      homes = builtins.mapAttrs (_: h: h.activationPackage.drvPath) flake.homeConfigurations;
      users = builtins.attrNames machines.base.config.users.users;
      ssh = builtins.mapAttrs (_: m: m.config.services.openssh.enable) machines;
      keys = flake.homeConfigurations.secret.config.sops.age.sshKeyPaths;
    }}"""
    seen = nix_json("eval", "--impure", "--json", "--expr", read)
    assert seen["machines"].keys() == {"bare", "base", "ssh", "all"}
    assert seen["homes"].keys() == {"bare", "secret"}
    assert "root" in seen["users"]
    assert "abl030" not in seen["users"]
    assert seen["ssh"] == {"bare": False, "base": True, "ssh": True, "all": True}
    assert seen["keys"] == ["/home/ann/.ssh/id_ed25519"]


BASE = "profiles/base.nix"
NAMES = ("cache", "github-runner", "nginx", "nix-caches", "ssh", "tailscale", "update/default")
MODULES = [f"homelab/{name}.nix" for name in NAMES]


@pytest.mark.parametrize(("host", "at_least"), [("proxmox-vm", 60), ("framework", 40)])
def test_a_hosts_own_value_beats_every_default(flake: Path, host: str, at_least: int) -> None:
    files = " ".join(f"{flake}/modules/nixos/{file}" for file in (BASE, *MODULES))
    read = f"""machine: import {HERE}/own_values.nix {{
      inherit machine;
      files = [{files}];
      skipped = [["assertions"] ["systemd"] ["sops"] ["programs" "ssh" "knownHosts"]];
    }}"""
    seen = nix_json("eval", "--impure", "--json", f"{flake}#nixosConfigurations.{host}", "--apply", read)
    assert {"time.timeZone", "homelab.ssh.enable", "nix.settings.fallback"} <= set(seen["asked"])
    assert len(seen["asked"]) >= at_least
    assert seen["strong"] == []
    assert seen["loses"] == []


def test_every_option_says_what_it_is(flake: Path) -> None:
    read = """machine: let
      walk = value:
        if value._type or null == "option"
        then [{name = builtins.concatStringsSep "." value.loc; said = value.description or "" != "" && value ? type;}]
        else if builtins.isAttrs value
        then builtins.concatMap walk (builtins.attrValues value)
        else [];
    in walk machine.options.homelab"""
    seen = nix_json("eval", "--json", f"{flake}#nixosConfigurations.dev", "--apply", read)
    assert len(seen) >= 50
    assert [option["name"] for option in seen if not option["said"]] == []


SECRET_KEY = "homelab.cache.nixServeSecretKeyFile"
REFUSED = [
    ("dev", "homelab.nixCaches.nixServe.publicKey = null;", "nixServe: a cache needs a url and a publicKey"),
    ("dev", "homelab.nixCaches.mirror = {enable = true; url = null;};", "nixCaches.mirror: set its url, or mirror."),
    (
        "dev",
        "homelab.nixCaches.cachix.enable = true;",
        "homelab.nixCaches.cachix: a cache needs a name and a publicKey",
    ),
    ("dev", "homelab.cache.enable = true; homelab.nginx.enable = false;", "homelab.cache serves nothing: set"),
    (
        "dev",
        'homelab.ssh.identitySecretName = "k"; homelab.fleet.secrets = lib.mkForce null;',
        "set homelab.fleet.secrets",
    ),
    ("proxmox-vm", f"{SECRET_KEY} = lib.mkForce null;", "set nixServeSecretKeyFile to the path of the key"),
    ("proxmox-vm", f'{SECRET_KEY} = lib.mkForce "${{FLAKE}}";', "in the Nix store, which every user can read"),
    ("proxmox-vm", 'homelab.cache.mirrorHost = lib.mkForce "nixcache.ablz.au";', "must be two different names"),
    ("proxmox-vm", 'homelab.nixCaches.upstream.url = "https://a.example/b";', "https://a.example/b cannot be mirrored"),
    ("proxmox-vm", "homelab.nginx.acmeEmail = lib.mkForce null;", "acmeEmail: the certificate authority needs"),
    ("proxmox-vm", "homelab.nginx.cloudflareSopsFile = lib.mkForce null;", "name a dotenv file, encrypted with sops"),
    (
        "proxmox-vm",
        "homelab.services.githubRunner.repoUrl = lib.mkForce null;",
        "set it to the repository that the runner serves",
    ),
    (
        "proxmox-vm",
        "homelab.services.githubRunner.tokenFile = lib.mkForce null;",
        "the runner needs a token to register; set it",
    ),
]


def failing(flake: Path, cases: list[tuple[str, str]]) -> list[list[str]]:
    """For each (host, what it says besides): the messages of its failing assertions."""
    messages = "\n".join(
        f'(of "{host}" ({{lib, ...}}: {{{text.replace("FLAKE", f"{flake}/flake.nix")}}}))' for host, text in cases
    )
    read = f"""machines: let
      messages = machine: map (a: a.message) (builtins.filter (a: ! a.assertion) machine.config.assertions);
      of = host: module: messages (machines.${{host}}.extendModules {{modules = [module];}});
    in [{messages}]"""
    found: list[list[str]] = nix_json("eval", "--impure", "--json", f"{flake}#nixosConfigurations", "--apply", read)
    return found


def test_what_cannot_work_is_refused_with_its_remedy(flake: Path) -> None:
    seen = failing(flake, [(host, text) for host, text, _why in REFUSED])
    for (_host, text, why), messages in zip(REFUSED, seen, strict=True):
        assert any(why in message for message in messages), (text, messages)


def test_no_host_of_the_reference_fails_an_assertion(flake: Path) -> None:
    hosts = ["dev", "epimetheus", "framework", "igpu", "proxmox-vm", "wsl"]
    assert failing(flake, [(host, "") for host in hosts]) == [[]] * len(hosts)


def test_values_have_types(flake: Path) -> None:
    """tryEval sees no type error: each wrong value is its own evaluation, so one of each kind of pattern is enough."""
    wrong: dict[str, Any] = {
        "nixCaches.nixServe.publicKey": '"nonsense"',
        "nixCaches.profile": '"outside"',
        "tailscale.lanSubnets": '["home"]',
        "services.githubRunner.repoUrl": '"https://example.org/x/y"',
        "cache.mirrorCacheRoot": '"/srv/a b"',
    }
    read = "\n".join(
        f'{{name = "{name}"; fails = ! (builtins.tryEval (builtins.deepSeq (machine.extendModules '
        f"{{modules = [{{homelab.{name} = {value};}}];}}).config.homelab.{name} true)).success;}}"
        for name, value in wrong.items()
    )
    seen = nix_json("eval", "--json", f"{flake}#nixosConfigurations.dev", "--apply", f"machine: [{read}]")
    assert {case["name"] for case in seen if case["fails"]} == wrong.keys()
