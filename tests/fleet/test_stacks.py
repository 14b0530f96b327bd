"""The stacks of containers: what docker compose is given, their units, and what is refused."""

import itertools
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.places import cache_directory
from lab.setup import compose, golang
from tests.nix_cli import build, environment, nix_json

DOCKER = Path(__file__).parent.parent.parent / "fleet" / "docker"
HERE = Path(__file__).parent
# A file of a public repository as it is at one commit.
PUBLIC = re.compile(r"# https://github\.com/[\w.-]+/[\w.-]+/blob/[0-9a-f]{40}/\S+$")


@pytest.fixture(scope="module")
def doc1(flake: Path) -> dict[str, Any]:
    """Of doc1 by one evaluation: the compose texts, and what else of it belongs to stacks."""
    read = """c: {
      texts = builtins.mapAttrs (_: stack: stack.compose) c.homelab.stacks;
      declared = builtins.mapAttrs (_: stack: stack.services) c.homelab.stacks;
      failing = map (a: a.message) (builtins.filter (a: !a.assertion) c.assertions);
      secrets = builtins.mapAttrs (_: s: { inherit (s) path reloadUnits key; file = baseNameOf s.sopsFile; })
        c.sops.secrets;
      backup = c.homelab.docker.backupPaths;
    }"""
    seen: dict[str, Any] = nix_json("eval", "--json", f"{flake}#nixosConfigurations.proxmox-vm.config", "--apply", read)
    return seen


def containers(doc1: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {f"{stack}/{name}": c for stack, text in doc1["texts"].items() for name, c in text["services"].items()}


def test_every_stack_of_the_fleet_runs_on_doc1(doc1: dict[str, Any]) -> None:
    assert sorted(doc1["texts"]) == sorted(file.parent.name for file in DOCKER.glob("*/docker-compose.nix"))
    assert len(doc1["texts"]) >= 20
    assert doc1["failing"] == []


def test_every_image_names_a_public_file_that_has_it(doc1: dict[str, Any]) -> None:
    named = set()
    for file in DOCKER.rglob("*.nix"):
        lines = [line.strip() for line in file.read_text().splitlines()]
        for before, line in itertools.pairwise(lines):
            if image := re.fullmatch(r'image (?:=|\?) "(.+)"[;,]', line):
                assert PUBLIC.match(before), f"{file}: {line}"
                named.add(image[1])
    assert named == {service["image"] for text in doc1["texts"].values() for service in text["services"].values()}


def validate(program: Path, text: Any, directory: Path) -> str:
    """What compose-go says against the text; nothing if it takes it."""
    file = directory / "compose.json"
    file.write_text(json.dumps(text))
    done = subprocess.run([program, file], cwd=directory, env={"PATH": os.devnull}, capture_output=True, text=True)
    assert done.returncode == 0 or done.stderr
    return done.stderr


def test_compose_takes_every_text(doc1: dict[str, Any], tmp_path: Path) -> None:
    try:
        program = compose.build(cache_directory())
    except golang.GoMissing as why:
        pytest.skip(str(why))
    assert {stack: validate(program, text, tmp_path) for stack, text in doc1["texts"].items()} == dict.fromkeys(
        doc1["texts"], ""
    )
    wrong = doc1["texts"]["mealie"] | {"services": {"mealie": {"imagee": "mealie:1"}}}
    assert "imagee" in validate(program, wrong, tmp_path)


def test_every_container_is_watched_updated_and_backed_up(doc1: dict[str, Any]) -> None:
    kept = set()
    for name, container in containers(doc1).items():
        stack, service = name.split("/")
        declared = doc1["declared"][stack][service]
        assert ("healthcheck" in container) is (declared["healthCheck"] != "image"), name
        labels = container["labels"]
        assert labels["homelab.stack"] == stack
        assert labels["homelab.update"] in ("automatic", "notify", "off")
        assert {"com.centurylinklabs.watchtower.enable", "diun.enable"} <= labels.keys()
        assert labels["homelab.backup"] in ("true", "false")
        kept |= set(filter(None, labels.get("homelab.backup.paths", "").split(",")))
        for volume in container.get("volumes", []):
            assert volume["source"].startswith((f"/srv/stacks/{stack}/", "/srv/media", "/run/docker.sock")), name
            assert volume["bind"] == {"create_host_path": False}
    assert kept == set(doc1["backup"])
    # what they can make anew is in no backup
    assert not {path for path in kept if re.search("cache$|models|broker", path)} - {"/srv/stacks/ntfy/cache"}


def test_secrets_are_files_of_sops_and_in_no_text(doc1: dict[str, Any], flake: Path) -> None:
    secrets = {name: s for name, s in doc1["secrets"].items() if name.startswith("stacks/")}
    for directory in (DOCKER.parent, flake):  # the reference's own, and the lab's
        values = yaml.safe_load((directory / "secrets" / "stacks.yaml").read_text())
        del values["sops"]
        assert {f"{stack}/{name}" for stack in values for name in values[stack]} == {s["key"] for s in secrets.values()}
        assert all(value.startswith("ENC[") for stack in values.values() for value in stack.values())
    assert len(secrets) >= 9
    used = {file["path"] for c in containers(doc1).values() for file in c.get("env_file", [])}
    assert used == {s["path"] for s in secrets.values()} == {f"/run/secrets/{name}" for name in secrets}
    for name, secret in secrets.items():
        _, stack, _ = name.split("/")
        assert secret["reloadUnits"] == [f"stack-{stack}.service"]
        assert secret["key"] == name.removeprefix("stacks/")
        assert secret["file"] == "stacks.yaml"
    # As they are: no `$NAME` in them is replaced.
    assert all(file["format"] == "raw" for c in containers(doc1).values() for file in c.get("env_file", []))


def test_the_units_are_ones_that_systemd_takes(flake: Path, tmp_path: Path) -> None:
    [etc] = build(".#nixosConfigurations.proxmox-vm.config.system.build.etc", cwd=flake)
    units = {file.name: file.read_text() for file in etc.glob("**/systemd/system/stack-*.service")}
    assert len(units) == len(list(DOCKER.glob("*/docker-compose.nix")))
    for name, text in units.items():
        (tmp_path / name).write_text(text)
        assert {"Requires=docker.service", "RemainAfterExit=true", "X-ReloadIfChanged=true"} <= set(text.splitlines())
    (tmp_path / "docker.service").write_text("[Service]\nExecStart=/bin/true\n")
    output = verify(tmp_path, sorted(units))
    assert output == ""
    (tmp_path / "stack-mealie.service").write_text(units["stack-mealie.service"].replace("Type=oneshot", "Typ=oneshot"))
    assert "Unknown key" in verify(tmp_path, ["stack-mealie.service"])


def verify(directory: Path, units: list[str]) -> str:
    """What systemd has against the units of a directory."""
    where = environment() | {"SYSTEMD_UNIT_PATH": f"{directory}:/usr/lib/systemd/system:/lib/systemd/system"}
    try:
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *units],
            cwd=directory,
            env=where,
            capture_output=True,
            text=True,
        )
    except FileNotFoundError:
        pytest.skip("there is no systemd-analyze here")
    assert done.returncode == 0 or done.stderr
    return done.stderr


def test_starting_makes_directories_once_and_calls_compose(flake: Path, tmp_path: Path) -> None:
    module = """{pkgs, lib, ...}: {
      virtualisation.docker.package = lib.mkForce (pkgs.writeShellScriptBin "docker" ''
        echo "$@" >>DIRECTORY/calls; [ "$2" != inspect ]
      '');
      homelab.docker.dataDirectory = "DIRECTORY/data";
      homelab.stacks.sonarr.services.sonarr.data.config = {
        owner = lib.mkForce UID;
        group = lib.mkForce GID;
        mode = "0700";
      };
    }"""
    for name, value in {"DIRECTORY": tmp_path, "UID": os.getuid(), "GID": os.getgid()}.items():
        module = module.replace(name, str(value))
    (tmp_path / "module.nix").write_text(module)
    (tmp_path / "unit.nix").write_text(
        f'((builtins.getFlake "git+file://{flake}").nixosConfigurations.proxmox-vm.extendModules {{'
        f" modules = [{tmp_path}/module.nix]; }}).config.systemd.services.stack-sonarr.serviceConfig"
    )
    unit = nix_json("eval", "--impure", "--json", "--file", tmp_path / "unit.nix")
    start = Path(unit["ExecStart"])
    assert unit["ExecReload"] == unit["ExecStart"]
    derivation = f"builtins.head (builtins.attrNames (builtins.getContext (import {tmp_path}/unit.nix).ExecStart))"
    [script] = build("--impure", "--expr", f"import ({derivation})", cwd=tmp_path)
    assert script == start
    directory = tmp_path / "data" / "sonarr" / "config"
    assert subprocess.run([script], capture_output=True, text=True).returncode == 0
    assert directory.stat().st_mode & 0o7777 == 0o700
    (directory / "kept").touch()
    directory.chmod(0o755)
    assert subprocess.run([script], capture_output=True, text=True).returncode == 0
    assert (directory.stat().st_mode & 0o7777, [file.name for file in directory.iterdir()]) == (0o755, ["kept"])
    assert [file.name for file in directory.parent.iterdir()] == ["config"]
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls[:2] == ["network inspect media", "network create media"]
    assert re.fullmatch(
        r"compose --project-name sonarr --file /nix/store/\S+-compose-sonarr\.json"
        r" up --detach --remove-orphans --wait --wait-timeout 470",
        calls[2],
    )
    assert calls[3:] == calls[:3]
    assert re.fullmatch(r"\S+/bin/docker compose --project-name sonarr --file \S+ down --timeout 60", unit["ExecStop"])


WRONG = {
    # a port of two stacks, on all addresses and on one
    "a = one (port 80 // {hostNetwork = true;}); b = one (port 80);": "both use tcp port 80 of the machine",
    'a = one {ports = [{host = 80; container = 1; address = "0.0.0.0";}];}; b = one (port 80);': (
        "homelab.stacks.a.services.c and homelab.stacks.b.services.c both use tcp port 80 of the machine: "
        "give homelab.stacks.b.services.c another `host` port"
    ),
    'a = one {ports = [{host = 22; container = 1; address = "::";}];};': (
        "services.openssh and homelab.stacks.a.services.c both use tcp port 22"
    ),
    'a = one {mounts = [{source = "media"; target = "/m";}];};': (
        'homelab.stacks.a.services.c.mounts: source is "media": it must be an absolute path'
    ),
    'a = one {mounts = [{source = "/srv/../etc"; target = "/m";}];};': "absolute path without `..`",
    'a = one {data.d = "var";};': 'homelab.stacks.a.services.c.data.d.target is "var"',
    'a = one {data."../d" = "/var";};': "must consist of letters, digits",
    'a = one {image = "nginx:latest";};': "use a version as its tag, or add the digest",
    'a = one {image = "registry.invalid:5000/nginx";};': "whose image changes over time",
    'a = one {image = "nginx:stable-alpine";};': "use a version as its tag",
    'a = one {image = "pgvecto-rs:latest-pg16";};': "use a version as its tag",
    'a = one {image = "nginx:1@sha256:beef";};': "which is not an image",
    'a = one {secrets = ["env"];};': 'names "env", which the stack does not declare: add it to the stack\'s `secrets`',
    "a = one {} // {secrets.env = {};};": "homelab.stacks.a.secrets.env has no file: set homelab.docker.sopsFile",
    "a = one {} // {secrets.env.sopsFile = ./nowhere.yaml;};": "nowhere.yaml, which is not there: make it with sops",
    'a = one {networks = ["net"];};': 'networks names "net", which the stack does not declare',
    'a = one {dependsOn = ["db"];};': 'dependsOn names "db", which is not a container of the stack; it has c',
    'a = one {environment.DB_PASSWORD = "hunter2";};': "environment.DB_PASSWORD would be in the Nix store",
    'a = one {environment.PAPERLESS_DBPASS = "x";};': "environment.PAPERLESS_DBPASS would be in the Nix store",
    'a = one {environment.URL = "postgres://a:b@db/a";};': "environment.URL would be in the Nix store",
    r'a = one {image = "nginx:\${TAG}";};': "which is not an image",
    'a = one {data.x = "/v"; mounts = [{source = "/s"; target = "/v";}];};': "two volumes at one path of the",
    'a = one {hostNetwork = true; networks = ["default"];};': "remove one of the two",
    "a = {services = {};};": "homelab.stacks.a.services has no container",
    'a.services."c d".image = "nginx:1.27";': "here are c d",
    "A = one {};": "homelab.stacks.A: docker compose wants names of lower-case letters",
}
RIGHT = [
    # the same port on two addresses, or of two protocols
    'a = one {ports = [{host = 9; container = 1; address = "10.0.0.1";}];}; b = one (port 9);',
    'a = one {ports = [{host = 9; container = 1;} {host = 9; container = 1; protocol = "udp";}];};',
    f'a = one {{image = "nginx:latest@sha256:{"0" * 64}";}};',
    'a = one {environment = {DB_PASSWORD_FILE = "/x"; TOKEN = ""; URL = "redis://broker:6379/@x"; PROXYBYPASS = 1;};};',
    'a = one {image = "ghcr.io/hotio/qbittorrent:release-5.2.3";};',
    'a = one {image = "nginx:latest";} // {enable = false;};',
]


def test_what_cannot_work_is_refused_with_what_to_do(flake: Path, tmp_path: Path) -> None:
    """In a machine of another flake, without anything of ours but the module: one evaluation of all cases."""
    cases = "\n".join(f"[{{ {case} }}]" for case in [*WRONG, *RIGHT])
    (tmp_path / "cases.nix").write_text(f"""
      let
        inputs = (builtins.getFlake "git+file://{flake}").inputs;
        port = host: {{ports = [{{inherit host; container = 1;}}];}};
        one = service: {{services.c = {{image = "nginx:1.27";}} // service;}};
        machine = stacks: inputs.nixpkgs.lib.nixosSystem {{
          system = "x86_64-linux";
          modules = [
            {flake}/modules/nixos/homelab/stacks
            inputs.sops-nix.nixosModules.sops
            {{ services.openssh.enable = true; homelab = {{ inherit stacks; }}; }}
          ];
        }};
        ours = a: !a.assertion && builtins.match "(services|homelab).*" a.message != null;
        failing = m: map (a: a.message) (builtins.filter ours m.config.assertions);
      in map (stacks: failing (machine (builtins.head stacks))) [{cases}]
    """)
    seen = nix_json("eval", "--impure", "--json", "--file", tmp_path / "cases.nix")
    for (case, why), messages in zip(WRONG.items(), seen, strict=False):
        assert [message for message in messages if why in message], (case, messages)
        assert len(messages) == 1, (case, messages)
    assert seen[len(WRONG) :] == [[]] * len(RIGHT)


def test_texts_reach_the_container_as_they_are_written(flake: Path, tmp_path: Path) -> None:
    """Compose would replace $NAME. In another flake, which takes the modules and a stack; it has no sops-nix."""
    (tmp_path / "one.nix").write_text(f"""
      let fleet = builtins.getFlake "git+file://{flake}"; machine = fleet.inputs.nixpkgs.lib.nixosSystem {{
        system = "x86_64-linux";
        modules = [fleet.nixosModules.default "${{fleet}}/docker/actual/docker-compose.nix" {{
          homelab.stacks.actual.services.actual = {{
            environment = {{ PRICE = "$5"; ON = true; N = 3; }};
            command = ["sh" "-c" "echo $HOME"];
            extra.shm_size = "64m";
          }};
        }}];
      }}; c = machine.config; in {{
        service = c.homelab.stacks.actual.compose.services.actual;
        bad = builtins.filter (a: !a.assertion && builtins.match ".*stacks.*" a.message != null) c.assertions;
        docker = c.virtualisation.docker.enable;
        secret = map (a: a.message) (builtins.filter (a: !a.assertion)
          (machine.extendModules {{ modules = [{{ homelab.stacks.actual.secrets.x = {{}}; }}]; }}).config.assertions);
      }}
    """)
    seen = nix_json("eval", "--impure", "--json", "--file", tmp_path / "one.nix")
    assert seen["service"]["environment"] == {"PRICE": "$$5", "ON": "true", "N": "3"}
    assert seen["service"]["command"] == ["sh", "-c", "echo $$HOME"]
    assert seen["service"]["shm_size"] == "64m"
    assert seen["service"]["ports"][0]["host_ip"] == "127.0.0.1"
    assert (seen["bad"], seen["docker"]) == ([], True)
    assert [message for message in seen["secret"] if "needs sops-nix: add its nixosModules.sops" in message]
