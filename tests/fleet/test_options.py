"""Every option that the fleet sets is declared by the real modules or by the fleet: read from its text, without Nix."""

import functools
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from lab.options import options
from lab.options.types import parse
from tests.fleet.option_names import Said, declarations, modules, settings, tree, unknown

FLEET = Path(__file__).parent.parent.parent / "fleet"
SETS = {
    "NixOS": ("nixos", "home-manager-nixos", "sops-nix", "disko", "nixos-wsl", "nixos-hardware"),
    "Home Manager": ("home-manager", "sops-nix-home"),
}


@functools.cache
def _kinds(which: str) -> Mapping[str, str]:
    return {name: kind for where in SETS[which] for name, kind in options()[where].items()}


def _starts(which: str, fleet: Path) -> list[Path]:
    """The files that a machine or a home begins with."""
    declared = fleet / "modules" / ("nixos" if which == "NixOS" else "home-manager")
    found = [declared, *sorted(declared.glob("profiles/*.nix"))]
    return found + sorted(fleet.glob(f"hosts/*/{'configuration' if which == 'NixOS' else 'home'}.nix"))


def _wrong(which: str, fleet: Path) -> list[str]:
    files = {file: None for start in _starts(which, fleet) for file in modules(start)}
    return [
        f"{setting.file.relative_to(fleet)}:{setting.line}: {'.'.join(setting.path)}"
        for setting in _undeclared(which, files)
    ]


def _undeclared(which: str, files: Iterable[Path]) -> list[Said]:
    files = list(files)
    declared = {
        ".".join(f'"{part}"' for part in setting.path): "any" for file in files for setting in declarations(file)
    }
    table = tree({name: _type(kind) for name, kind in _kinds(which).items()} | declared)
    return [setting for file in files for setting in settings(file) if unknown(setting, table)]


_type = functools.cache(parse)


@pytest.mark.parametrize("which", SETS)
def test_every_option_that_the_fleet_sets_is_declared(which: str) -> None:
    assert _wrong(which, FLEET) == []


def test_what_is_looked_at_is_the_whole_of_the_reference() -> None:
    files = {file for which in SETS for start in _starts(which, FLEET) for file in modules(start)}
    assert {FLEET / "hosts" / "dev" / "disko.nix", FLEET / "modules" / "nixos" / "pull.nix"} <= files
    setting = [setting for file in files for setting in settings(file)]
    assert len(setting) > 100
    assert ("services", "openssh", "settings", "PermitRootLogin") in {one.path for one in setting}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{services.openssh.setings.PermitRootLogin = "no";}', ["services.openssh.setings.PermitRootLogin"]),
        ('{services.openssh.settings.PermitRootLogin = "no";}', []),
        ("{services.openssh = {enable = true; prots = [22];};}", ["services.openssh.prots"]),
        # a format of its own: any name
        ("{services.openssh.settings.Whatever = 1;}", []),
        ('{lib, ...}: {config = lib.mkIf true {networking.hostNam = "a";};}', ["networking.hostNam"]),
        (
            "{lib, ...}: {config = lib.mkMerge [{a = 1;} (lib.mkIf true {boot.loadr.x = lib.mkForce 1;})];}",
            ["a", "boot.loadr.x"],
        ),
        ("let x = 1; in {users = {users.bob = {isNormalUsr = true;};};}", ["users.users.bob.isNormalUsr"]),
        ("{users.users.bob.isNormalUser = true;}", []),
        ("{config, ...}: {users.users.${config.x}.isNormalUser = true;}", []),
        ("{systemd.services.a.serviceConfig.Anything = 1;}", []),
        ("{systemd.services.a.servceConfig = {};}", ["systemd.services.a.servceConfig"]),
        ("{boot.kernelParams.a = 1;}", ["boot.kernelParams.a"]),
        (
            "{services.restic.backups.a.timerConfig.Any = 1; services.restic.backups.a.paths.b = 1;}",
            ["services.restic.backups.a.paths.b"],
        ),
        ("{security = {sudo.enable = true;} // {sudoo.enable = true;};}", ["security.sudoo.enable"]),
        # one of the module's own
        ('{lib, ...}: {options.my.switch = lib.mkEnableOption "x"; config.my.switch = true;}', []),
        ('{lib, ...}: {options.my.switch = lib.mkEnableOption "x"; config.my.swich = true;}', ["my.swich"]),
        ("{lib, ...}: {options.my = {a.b = lib.mkOption {};}; config.my = {a.b.c = 1; b = 2;};}", ["my.b"]),
        # of WSL, disko, sops and the hardware's modules
        ('{wsl.enabel = true; disko.devices.disk.a.device = "/"; sops.secrets.a.owner = "b";}', ["wsl.enabel"]),
        (
            "{hardware.framework.enableKmod = true; hardware.framework.enableKmood = true;}",
            ["hardware.framework.enableKmood"],
        ),
    ],
)
def test_a_misspelt_option_is_found(text: str, found: list[str], tmp_path: Path) -> None:
    file = tmp_path / "a.nix"
    file.write_text(text)
    assert [".".join(setting.path) for setting in _undeclared("NixOS", [file])] == found


def test_its_place_is_said(tmp_path: Path) -> None:
    (tmp_path / "hosts" / "a").mkdir(parents=True)
    (tmp_path / "hosts" / "a" / "configuration.nix").write_text("{\n  imports = [./more.nix];\n}\n")
    (tmp_path / "hosts" / "a" / "more.nix").write_text("{\n  services.opensh.enable = true;\n}\n")
    assert _wrong("NixOS", tmp_path) == ["hosts/a/more.nix:2: services.opensh.enable"]
