"""What the reference flake offers beside its configurations: checks that build them, commands, a shell."""

import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from lab.places import cache_directory
from lab.setup import gate
from tests.integration.lab_driver import edit
from tests.nix_cli import environment, nix_json, try_nix

COMMANDS = ["check", "fmt-nix", "lint-nix", "post-provision-vm", "provision-vm", "proxmox-ops"]
OUTPUTS = """
let
  flake = builtins.getFlake "git+file://FLAKE";
  machines = flake.nixosConfigurations;
  build = name: builtins.mapAttrs (_: m: m.config.system.build.${name}.drvPath);
  system = "x86_64-linux";
in {
  checks = builtins.mapAttrs (_: check: check.drvPath) flake.checks.${system};
  hosts = build "toplevel" machines;
  homes = builtins.mapAttrs (_: home: home.activationPackage.drvPath) flake.homeConfigurations;
  disks = build "diskoScript" {inherit (machines) dev dev2 dev3;};
  apps = builtins.mapAttrs (_: app: {inherit (app) type program; about = app.meta.description;}) flake.apps.${system};
  packages = builtins.mapAttrs (_: each: "${each}") (removeAttrs flake.packages.${system} ["kexec-installer"]);
  formatter = "${flake.formatter.${system}}";
}"""


def test_checks_are_all_that_is_deployed_and_apps_are_the_packages(flake: Path) -> None:
    output: dict[str, Any] = nix_json("eval", "--json", "--impure", "--expr", OUTPUTS.replace("FLAKE", str(flake)))
    expected = {
        f"{kind}-{id}": derivation
        for kind, found in (("host", output["hosts"]), ("home", output["homes"]), ("disko", output["disks"]))
        for id, derivation in found.items()
    }
    assert output["checks"] == expected
    assert {"host-wsl", "home-caddy", "disko-dev"} <= expected.keys()
    assert "disko-wsl" not in expected
    assert sorted(output["packages"]) == sorted(output["apps"]) == COMMANDS
    for name, app in output["apps"].items():
        assert (app["type"], app["program"]) == ("app", f"{output['packages'][name]}/bin/{name}")
        assert len(app["about"]) > 10
    assert output["formatter"] == output["packages"]["fmt-nix"]


@pytest.mark.slow
def test_flake_check_builds_every_machine_and_home(flake: Path, tmp_path: Path) -> None:
    """One that evaluates and does not build: without `checks` it would be passed over."""
    passed = try_nix("flake", "check", flake)
    assert passed.returncode == 0, passed.stderr
    copy = tmp_path / "fleet"
    shutil.copytree(flake, copy)
    edit(
        copy / "hosts/igpu/configuration.nix",
        "  system.stateVersion",
        '  environment.etc.x.source = pkgs.runCommand "broken" {} "echo no >&2; exit 1";\n  system.stateVersion',
    )
    assert try_nix("flake", "check", "--no-build", copy).returncode == 0
    failed = try_nix("flake", "check", "--keep-going", copy)
    assert failed.returncode != 0
    assert "-broken.drv' failed" in failed.stderr
    assert "nixos-system-igpu" in failed.stderr


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """On PATH: what the packages of the lab's nixpkgs lead to. Alejandra is itself where it can be built."""
    place = tmp_path / "tools"
    place.mkdir()
    for name, script in {
        "alejandra": 'for file; do case $file in *.nix) sed -i "s/a=1/a = 1/" "$file" ;; esac; done',
        "deadnix": 'echo "$2" >"$HOME/deadnix-looked"',  # silent where all is well, as the real one
        "statix": 'echo "statix looks at $2"; exit 1',
        "nixherd": 'echo "nixherd $*"; for each in alejandra deadnix statix; do command -v $each; done',
    }.items():
        (place / name).write_text(f"#!/bin/sh\n{script}\n")
        (place / name).chmod(0o755)
    with suppress(gate.CargoMissing):
        real = gate.build(cache_directory()) / "alejandra"
        (place / "alejandra").unlink()
        (place / "alejandra").symlink_to(real)
    return place


def test_the_commands_of_people_run_in_the_flake_and_in_its_shell(flake: Path, tools: Path, tmp_path: Path) -> None:
    """`nix fmt` with and without words, `nix run .#…`, `nix develop`, as they are typed."""
    copy = tmp_path / "fleet"
    shutil.copytree(flake, copy)
    known = environment()
    env = {**os.environ, **known, "PATH": f"{tools}:{known['PATH']}", "HOME": str(tmp_path)}
    env = {name: value for name, value in env.items() if name not in ("FLEET", "NIXHERD")}

    def typed(*words: str, cwd: Path = copy) -> tuple[int, list[str]]:
        done = subprocess.run(words, cwd=cwd, env=env, capture_output=True, text=True, stdin=subprocess.PIPE)
        return done.returncode, done.stdout.splitlines()

    (copy / "docs").mkdir()
    for name in ("new.nix", "docs/own.nix"):
        (copy / name).write_text("{a=1;}\n")
    subprocess.run(["git", "add", "."], cwd=copy, env=env, check=True)
    status, output = typed("nix", "run", ".#fmt-nix", "--", "--check")
    assert (status, output) == (1, ["would format: docs/own.nix", "would format: new.nix"])
    assert typed("nix", "fmt", "docs", cwd=copy) == (0, ["formatted: docs/own.nix"])
    assert typed("nix", "fmt", cwd=copy / "docs") == (0, ["formatted: new.nix"])
    assert (copy / "new.nix").read_text() == (copy / "docs/own.nix").read_text() == "{a = 1;}\n"

    status, output = typed("nix", "run", ".#lint-nix")
    assert (status, output[:3]) == (2, ["▶ deadnix", "▶ statix", "statix looks at ."])
    assert (tmp_path / "deadnix-looked").read_text() == ".\n"
    status, output = typed("nix", "run", ".#check", "--", "--json")
    assert (status, output[0]) == (0, f"nixherd --fleet {copy} check --json")
    assert [Path(line).parts[3].partition("-")[2] for line in output[1:]] == [
        "alejandra-0.lab",
        "deadnix-0.lab",
        "statix-0.lab",
    ]
    for words, becomes in {
        "provision-vm dev": "provision dev",
        "post-provision-vm dev 192.0.2.9 110": "post-provision dev --ip 192.0.2.9 --vmid 110",
        "proxmox-ops status 110": "vm status 110",
    }.items():
        program, *rest = words.split()
        assert typed("nix", "run", f".#{program}", "--", *rest)[1][0] == f"nixherd --fleet {copy} {becomes}"

    programs = ["sops", "age", "ssh-to-age", "alejandra", "deadnix", "statix", *COMMANDS]
    inside = f"check --only x | head -n 1; type -P {' '.join(programs)}"
    status, output = typed("nix", "develop", "-c", "bash", "-c", inside)
    assert (status, output[0]) == (0, f"nixherd --fleet {copy} check --only x")
    assert [Path(line).name for line in output[1:] if line.startswith("/nix/store/")] == programs
