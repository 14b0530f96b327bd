"""`make fleet-real`, with the stand-ins in the place of the real things: what it says of a fleet, and how it ends."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lab.real import evaluation
from tests.nix_cli import environment, stand_ins

pytestmark = pytest.mark.nix

ROOT = Path(__file__).parent.parent.parent
FLAKE = """
{
  inputs.nixpkgs.url = "github:NixOS/nixpkgs";
  inputs.home-manager.url = "github:nix-community/home-manager";
  inputs.home-manager.inputs.nixpkgs.follows = "nixpkgs";
  inputs.words.url = "path:/nowhere";
  inputs.words.flake = false;
  inputs.again.follows = "home-manager/nixpkgs";
  outputs = {self, nixpkgs, home-manager, words, again}: let
    inherit (nixpkgs) lib;
    host = module: lib.nixosSystem {
      system = "x86_64-linux";
      modules = [{boot.loader.systemd-boot.enable = true; fileSystems."/" = {device = "/dev/sda2"; fsType = "ext4";};} module];
    };
  in {
    nixosConfigurations = {@hosts@};
    homeConfigurations.home = home-manager.lib.homeManagerConfiguration {
      pkgs = nixpkgs.legacyPackages.x86_64-linux;
      modules = [{home = {username = "a"; homeDirectory = "/home/a"; stateVersion = "26.05";};}];
    };
    packages.x86_64-linux.paper = nixpkgs.legacyPackages.x86_64-linux.writeText "paper" "${again.lib.version} ${words}";
  };
}
"""  # noqa: E501
GOOD = "good = host {};"


def run(tmp_path: Path, *arguments: str, hosts: str = GOOD) -> subprocess.CompletedProcess[str]:
    fleet = tmp_path / "fleet"
    fleet.mkdir()
    (fleet / "flake.nix").write_text(FLAKE.replace("@hosts@", hosts))
    return real("--fleet", str(fleet), *arguments)


def real(*arguments: str) -> subprocess.CompletedProcess[str]:
    path = {**os.environ, **environment()}
    return subprocess.run(
        [sys.executable, "-m", "lab.real", *arguments], cwd=ROOT, env=path, capture_output=True, text=True
    )


def given(*names: str) -> list[str]:
    places = {"NIXPKGS": "nixpkgs", "HOME_MANAGER": "inputs/home-manager", "WORDS": "inputs"}
    return [f"{name}={stand_ins() / places[name]}" for name in names]


def test_a_fleet_without_a_fault_is_0_with_figures(tmp_path: Path) -> None:
    done = run(tmp_path, *given("NIXPKGS", "HOME_MANAGER", "WORDS"))
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line for line in done.stdout.splitlines() if " GB" in line and "CPU" in line]
    for label, row in zip(("host good", "home home", "package paper", "flake check"), rows, strict=False):
        assert re.match(rf"{label} +ok +\d+\.\d s  CPU +\d+\.\d s +\d+\.\d GB$", row), row
    assert "\n0 errors, 0 failing assertions, 0 warnings; CPU " in done.stdout
    assert "nixpkgs unknown revision /" in done.stdout
    assert not (tmp_path / "fleet" / "flake.lock").exists()


def test_each_fault_is_told_with_its_host_and_all_others_are_evaluated(tmp_path: Path) -> None:
    hosts = (
        GOOD
        + """
        failing = host {assertions = [{assertion = false; message = "it needs\\nmore";}];};
        gone = host {systemd.sleep.extraConfig = "x";};
        misspelt = host {services.opensh.enable = true;};
        warning = host ({lib, ...}: {warnings = ["told"]; networking.hostName = builtins.warn "traced" "b";});
        """
    )
    done = run(tmp_path, *given("NIXPKGS", "HOME_MANAGER", "WORDS"), hosts=hosts)
    assert done.returncode == 1, done.stderr
    messages: dict[str, list[str]] = {}
    row = ""
    for line in done.stdout.splitlines():
        if line.startswith("    "):
            messages[row].append(line.strip())
        elif found := re.match(r"(\w+ \w+) +(\w.*?)  ", line):
            row = found[1]
            messages[row] = [found[2]]
    assert messages["host good"] == ["ok"]
    assert messages["home home"] == ["ok"]
    assert messages["host failing"] == ["fails", "assertion: it needs", "more"]
    assert messages["host gone"][0] == "fails"
    assert "`systemd.sleep.extraConfig'" in messages["host gone"][1]
    assert messages["host misspelt"][:2] == [
        "does not evaluate",
        "error: The option `services.opensh' does not exist. Definition values:",
    ]
    assert messages["host warning"] == ["warns", "warning: told", "warning: traced"]
    assert messages["flake check"][0] == "does not evaluate"
    assert re.search(r"\n2 errors, 2 failing assertions, \d+ warnings; CPU", done.stdout)


def test_an_input_that_is_not_given_is_an_error_of_what_needs_it(tmp_path: Path) -> None:
    done = run(tmp_path, *given("NIXPKGS"))
    assert done.returncode == 1
    assert re.search(r"host good +ok ", done.stdout)
    assert "error: the input home-manager of " in done.stdout
    assert "error: not run: missing home-manager, words, and nothing is fetched" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        ([], "give the directory of a nixpkgs, nothing is fetched: NIXPKGS=/path [DISKO=/path] [HOME_MANAGER=/path] "),
        (["NIXPKGS"], "NIXPKGS: expected NAME=DIRECTORY, for example NIXPKGS=/path/to/nixpkgs"),
        (["NIXPKGS=/not/there"], "NIXPKGS=/not/there: no such directory"),
        (["NIXPKGS=/usr"], "NIXPKGS=/usr: the directory has no flake.nix"),
        (["NIXPKGS=@disko@"], "not a nixpkgs, it has no nixos/modules/module-list.nix"),
        (["NIXPKS=/usr"], "NIXPKS=/usr: "),
        (["NIXPKS=/usr"], "/flake.nix has no such input; it has DISKO, HOME_MANAGER, "),
        (["DISKO=@disko@", "DISKO=@disko@"], "DISKO is given twice"),
        (["--fleet", "/not/there"], "--fleet=/not/there: no such directory"),
        (["--jobs", "0"], "--jobs 0: must be at least 1"),
    ],
)
def test_what_is_given_wrong_is_one_line(arguments: list[str], messages: str) -> None:
    disko = str(stand_ins() / "inputs" / "disko")
    done = real(*(argument.replace("@disko@", disko) for argument in arguments))
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"fleet-real: [^\n]+\n", done.stderr)
    assert messages in done.stderr


def test_a_flake_that_does_not_parse_is_one_line(tmp_path: Path) -> None:
    done = run(tmp_path, *given("NIXPKGS"), hosts="good = host {")
    assert done.returncode == 2
    assert re.fullmatch(r"fleet-real: /\S+/flake\.nix: [^\n]+\n", done.stderr)


def test_what_nix_says_of_this_machine_is_no_warning_of_the_fleet() -> None:
    messages = (
        "warning: Git tree '/x' is dirty\nevaluation warning: a\ntrace: evaluation warning: b\nwarning: a\nerror: x"
    )
    assert evaluation._warnings(messages) == ["a", "b"]
    assert evaluation._last("error:\n   … while\n\n   error: one\n   two\n") == "one\ntwo"
    assert evaluation._last("") == "nix printed no message"
