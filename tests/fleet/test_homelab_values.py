"""What the modules make of the reference fleet: caches, keys, identities, the cache server, the hosts' own parts."""

import json
from pathlib import Path
from typing import Any

from tests.nix_cli import nix_json

KEY = "ours-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY="


def read(flake: Path, expression: str) -> Any:
    """The value of an expression over `host NAME` (its config) and `more NAME MODULE` (the same with a module)."""
    text = f"""machines: let
      host = name: machines.${{name}}.config;
      more = name: module: (machines.${{name}}.extendModules {{modules = [module];}}).config;
    in {expression}"""
    return nix_json("eval", "--impure", "--json", f"{flake}#nixosConfigurations", "--apply", text)


def test_caches_by_profile(flake: Path) -> None:
    seen = read(
        flake,
        f"""{{
          internal = (host "dev").nix.settings;
          external = (host "framework").nix.settings;
          server = (host "proxmox-vm").nix.settings;
          more = (more "dev" {{
            nix.settings.substituters = ["https://mine.example.org"];
            homelab.nixCaches = {{
              hyprland.enable = true;
              upstream.priority = 5;
              cachix = {{name = "ours"; publicKey = "{KEY}";}};
            }};
          }}).nix.settings;
        }}""",
    )
    serve, mirror = "https://nixcache.ablz.au?priority=", "https://nix-mirror.ablz.au?priority="
    substituters = {name: settings["substituters"] for name, settings in seen.items()}
    assert substituters["internal"] == [f"{serve}10", f"{mirror}20"]
    assert {f"{serve}20", f"{mirror}30"} <= set(substituters["external"])
    assert f"{mirror}20" in substituters["server"]
    assert f"{serve}10" not in substituters["server"]
    assert set(substituters["more"]) == {
        *(f"{serve}10", f"{mirror}20", "https://mine.example.org", "https://hyprland.cachix.org?priority=15"),
        *("https://cache.nixos.org?priority=5", "https://ours.cachix.org?priority=50"),
    }
    assert seen["internal"]["narinfo-cache-positive-ttl"] == 300
    assert seen["internal"]["narinfo-cache-negative-ttl"] == 10
    assert {key.partition(":")[0] for key in seen["more"]["trusted-public-keys"]} == {
        *("nixcache.ablz.au-1", "hyprland.cachix.org-1", "ours-1"),
    }


def test_who_is_known_and_who_gets_in(flake: Path) -> None:
    seen = read(
        flake,
        """{
          known = (host "dev").programs.ssh.knownHosts;
          root = builtins.mapAttrs (_: m: builtins.length m.config.users.users.root.openssh.authorizedKeys.keys)
            machines;
          usual = (host "dev").services.openssh.settings;
          open = (more "dev" {homelab.ssh.secure = false;}).services.openssh.settings;
        }""",
    )
    assert seen["known"]["homelab-proxmox-vm"]["hostNames"] == ["proxmox-vm", "doc1"]
    assert seen["known"]["homelab-igpu"]["publicKey"].startswith("ssh-ed25519 AAAA")
    assert "homelab-dev" not in seen["known"], "it is not installed yet: a placeholder is not a key"
    assert set(seen["root"].values()) == {1}
    for settings, password in ((seen["usual"], False), (seen["open"], True)):
        assert settings["PermitRootLogin"] == "prohibit-password"
        assert (settings["PasswordAuthentication"], settings["KbdInteractiveAuthentication"]) == (password, password)


def test_the_identity_of_the_user(flake: Path) -> None:
    home = f"""{{
      home-manager.users.abl030.sops.secrets.token.sopsFile = {flake}/secrets/common.env;
    }}"""
    seen = read(
        flake,
        f"""{{
          secrets = builtins.mapAttrs (_: s: {{inherit (s) owner format path; file = baseNameOf s.sopsFile;}})
            (host "framework").sops.secrets;
          links = (host "framework").systemd.tmpfiles.rules;
          opens = (more "framework" {home}).home-manager.users.abl030.sops.age.sshKeyPaths;
          without = (more "dev" {home}).home-manager.users.abl030.sops.age.sshKeyPaths;
          given = builtins.attrNames (host "dev").sops.secrets;
        }}""",
    )
    decrypted = "/run/secrets/ssh_key_abl030"
    assert seen["secrets"] == {
        "ssh_key_abl030": {"owner": "abl030", "format": "binary", "path": decrypted, "file": "ssh_key_abl030"}
    }
    assert "d /home/abl030/.ssh 0700 abl030 users -" in seen["links"]
    assert f"L /home/abl030/.ssh/id_ed25519 - - - - {decrypted}" in seen["links"]
    assert seen["opens"] == [decrypted]
    assert seen["without"] == ["/home/abl030/.ssh/id_ed25519"]
    assert "ssh_key_abl030" not in seen["given"], "hosts.nix gives dev nobody's key"


def test_the_cache_server(flake: Path) -> None:
    seen = read(
        flake,
        """let c = host "proxmox-vm"; in {
          serve = {inherit (c.services.nix-serve) bindAddress secretKeyFile;};
          hosts = c.networking.hosts."127.0.0.1";
          environment = c.security.acme.defaults.environmentFile;
          certificates = builtins.attrNames c.security.acme.certs;
          prune = c.systemd.services.nix-mirror-prune.script;
          kept = (more "proxmox-vm" {homelab.cache.mirrorRetentionDays = 0;}).systemd.services ? nix-mirror-prune;
          runner = {inherit (c.services.github-runners.proxmox-bastion) tokenFile url replace;};
          environments = c.systemd.services.github-runner-proxmox-bastion.environment;
          trusted = c.nix.settings.trusted-users;
          sources = builtins.mapAttrs (_: s: baseNameOf s.sopsFile) c.sops.secrets;
        }""",
    )
    assert seen["serve"] == {"bindAddress": "127.0.0.1", "secretKeyFile": "/run/secrets/nix_serve_key"}
    assert seen["hosts"] == ["nix-mirror.ablz.au", "nixcache.ablz.au"]
    assert seen["environment"] == "/run/secrets/acme/cloudflare"
    assert set(seen["certificates"]) == {"nix-mirror.ablz.au", "nixcache.ablz.au"}
    assert "-atime +45 -mtime +45 -delete" in seen["prune"]
    assert seen["kept"] is False
    runner = seen["runner"]
    assert runner["tokenFile"] == "/run/secrets/github_runner_token"
    assert runner["url"] == "https://github.com/abl030/nixosconfig"
    assert runner["replace"] is True
    assert seen["environments"]["ACTIONS_RUNNER_HOOK_JOB_STARTED"].endswith("-refuse-forks.sh")
    assert seen["trusted"] == ["root"]
    assert (
        seen["sources"].items()
        >= {
            "acme/cloudflare": "acme-cloudflare.env",
            "github_runner_token": "proxmox-vm.yaml",
            "nix_serve_key": "proxmox-vm.yaml",
        }.items()
    )


def test_what_is_special_about_each_host(flake: Path) -> None:
    seen = read(
        flake,
        """{
          framework = {
            resume = (host "framework").boot.resumeDevice;
            hardware = (host "framework").boot.kernelParams;
            sleep = (host "framework").systemd.sleep.settings.Sleep;
            lid = (host "framework").services.logind.settings.Login.HandleLidSwitch;
            finger = (host "framework").services.fprintd.enable;
            update = {inherit ((host "framework").homelab.update) enable checkAcPower checkWifi wakeOnUpdate;};
          };
          igpu = {
            groups = (host "igpu").users.users.abl030.extraGroups;
            driver = (host "igpu").hardware.amdgpu.initrd.enable;
            update = {inherit ((host "igpu").homelab.update) enable updateDates gcDates rebootOnKernelUpdate;};
          };
          doc1.update = {inherit ((host "proxmox-vm").homelab.update) enable updateDates gcDates rebootOnKernelUpdate;};
          tpm = (host "epimetheus").systemd.services.tailscaled.environment;
          mesh = builtins.mapAttrs (_: m: m.config.services.tailscale.enable) {inherit (machines) wsl dev;};
          loaders = builtins.mapAttrs (_: m: m.config.boot.loader.systemd-boot.enable) machines;
        }""",
    )
    laptop = seen["framework"]
    assert laptop["resume"] == "/dev/disk/by-label/swap"
    assert laptop["hardware"], "nixos-hardware's module is in"
    assert laptop["sleep"]["HibernateDelaySec"]
    assert laptop["lid"] == "suspend-then-hibernate"
    assert laptop["finger"] is True
    assert laptop["update"] == {"enable": True, "checkAcPower": True, "checkWifi": True, "wakeOnUpdate": True}
    assert {"wheel", "video", "render"} <= set(seen["igpu"]["groups"])
    assert seen["igpu"]["driver"] is True
    nightly = {"enable": True, "updateDates": "03:00", "gcDates": "03:30", "rebootOnKernelUpdate": True}
    assert seen["igpu"]["update"] == seen["doc1"]["update"] == nightly
    assert seen["tpm"] == {"TS_NO_TPM": "true"}
    assert seen["mesh"] == {"wsl": False, "dev": True}
    assert [name for name, on in seen["loaders"].items() if not on] == ["igpu", "proxmox-vm", "wsl"]


def test_nobody_is_locked_out_and_no_password_is_in_the_tree(flake: Path) -> None:
    rule = Path(__file__).parents[2] / "nixherd/nix/root_access.nix"
    ways = read(
        flake,
        f"""{{
          now = builtins.mapAttrs (_: m: import {rule} m.config) machines;
          asks = import {rule} (more "igpu" ({{lib, ...}}: {{
            users.users.root.openssh.authorizedKeys.keys = lib.mkForce [];
          }}));
          passwords = builtins.mapAttrs (_: m: map (user: builtins.filter (value: value != null) [
            (user.password or null) (user.initialPassword or null) (user.hashedPassword or null)
            (user.initialHashedPassword or null) (user.hashedPasswordFile or null)
          ]) (builtins.attrValues m.config.users.users)) machines;
        }}""",
    )
    assert set(ways["now"].values()) == {True}
    assert ways["asks"] is False
    assert {value for users in ways["passwords"].values() for user in users for value in user} <= {"!"}
    hosts = nix_json("eval", "--json", "--file", flake / "hosts.nix")
    assert not [id for id, host in hosts.items() if "initialHashedPassword" in host]


def test_modules_and_homes_get_the_special_arguments(flake: Path) -> None:
    """The contract of nix/lib.nix: flake-root is the flake, which scripts may run things of."""
    told = """{hostname, hostConfig, allHosts, inputs, system, flake-root, ...}: {
      TEXT = builtins.toJSON {
        inherit hostname system;
        alias = hostConfig.sshAlias;
        hosts = builtins.attrNames allHosts;
        inputs = builtins.attrNames inputs;
        root = flake-root._type or "none";
      };
    }"""
    machine = told.replace("TEXT", 'environment.etc."told".text')
    home = told.replace("TEXT", "home.file.told.text")
    seen = [
        *read(
            flake,
            f"""[
              (more "proxmox-vm" ({machine})).environment.etc.told.text
              (more "proxmox-vm" {{home-manager.sharedModules = [({home})];}})
                .home-manager.users.abl030.home.file.told.text
            ]""",
        ),
        nix_json(
            *("eval", "--json", f"{flake}#homeConfigurations.caddy"),
            *("--apply", f"h: (h.extendModules {{modules = [({home})];}}).config.home.file.told.text"),
        ),
    ]
    inputs = {"nixpkgs", "home-manager", "sops-nix", "disko", "nixos-hardware", "nixos-images", "nixos-wsl", "self"}
    for text, name in zip(seen, ("proxmox-vm", "proxmox-vm", "caddy"), strict=True):
        properties = json.loads(text)
        assert (properties["hostname"], properties["system"], properties["root"]) == (name, "x86_64-linux", "flake")
        assert properties["alias"] == {"proxmox-vm": "doc1", "caddy": "cad"}[name]
        assert set(properties["inputs"]) == inputs
        assert {"dev", "caddy", "igpu"} <= set(properties["hosts"])
