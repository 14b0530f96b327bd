"""The Home Manager modules: what each makes, that nothing comes of what has no display, and what they refuse."""

import configparser
import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.fleet_copy import make
from tests.nix_cli import nix, nix_json

pytestmark = pytest.mark.xdist_group("homes")

HERE = Path(__file__).parent
SCRIPTS = HERE.parent.parent / "fleet/modules/home-manager/shell/scripts"
# The NixOS host below the homes of the cases: it has what the modules ask a host for.
HOST = """{
  programs.dconf.enable = true;
  services.udisks2.enable = true;
  security.pam.services = {hyprlock = {}; wayvnc = {};};
}"""
# One that has none of it.
SERVER = "flake.nixosConfigurations.dev.config"
UNIT = ".config/systemd/user/"
# module: what it is switched on with beside `enable`, the files and units it makes, the packages it brings
DISPLAY = {
    "waybar": ("", [".config/waybar/config", ".config/waybar/style.css", f"{UNIT}waybar.service"], ["waybar"]),
    "hypridle": (
        "",
        [".config/hypr/hypridle.conf", ".config/hypr/hyprlock.conf", f"{UNIT}hypridle.service"],
        ["hyprlock"],
    ),
    "gtk": ("", [".config/gtk-3.0/settings.ini", ".config/gtk-4.0/settings.ini"], ["adw-gtk3", "dejavu_fonts"]),
    "qt": ("", [".local/share/color-schemes/Homelab.colors"], []),
    "dolphin": ("", [".config/udiskie/config.yml", f"{UNIT}udiskie.service"], ["dolphin", "ark"]),
    "mime": ('browser = "firefox.desktop";', [".config/mimeapps.list"], []),
    "remote-desktop": ("", [".config/wayvnc/config", f"{UNIT}wayvnc.service"], ["wayvnc"]),
    "pdf": ("", [".config/zathura/zathurarc"], ["zathura"]),
    "player": ("", [".config/mpv/mpv.conf"], ["mpv"]),
}
ANYWHERE = {
    "aliases": ("", [".bashrc", ".profile"], ["eza"]),
    "prompt": ("", [".bashrc", ".config/starship.toml"], ["starship"]),
    "scripts": ("", [], ["reboot-pending", "system-diff", "unpack"]),
    "ssh": ("", [".ssh/config"], []),
    "yazi": ("", [".config/yazi/yazi.toml", ".config/yazi/theme.toml"], ["yazi"]),
    "music": ("", [f"{UNIT}mpd.service", f"{UNIT}mpd.socket"], ["mpd", "ncmpcpp"]),
}
# (what is set, the host below, what is said)
REFUSED = [
    (
        'homelab.ssh.enable = true; homelab.fleet.hosts = {a = {sshAlias = "x";}; b = {sshAlias = "x";};};',
        "null",
        "homelab.ssh: hosts.nix: a and b have the same sshAlias, x: give each its own",
    ),
    (
        'homelab.ssh.enable = true; homelab.fleet.hosts.a = {sshAlias = "x *"; hostname = "a";};',
        "null",
        'homelab.ssh: hosts.nix: a.sshAlias is "x *", which cannot be written into ssh\'s configuration',
    ),
    (
        'homelab.ssh.enable = true; homelab.fleet.hosts.a = {sshAlias = "x"; publicKey = "ssh-ed25519\\n* AAAA";};',
        "null",
        "homelab.ssh: hosts.nix: a.publicKey is not a public key: copy the line",
    ),
    (
        'homelab.ssh = {enable = true; forwardAgent = ["y"];}; homelab.fleet.hosts.a.sshAlias = "x";',
        "null",
        "homelab.ssh.forwardAgent: no host has the sshAlias y; use one of x",
    ),
    (
        "homelab.display.enable = true; homelab.hypridle = {enable = true; lockTimeout = 60; suspendTimeout = 60;};",
        HOST,
        "homelab.hypridle.suspendTimeout (60 s) must be longer than homelab.hypridle.lockTimeout (60 s)",
    ),
    (
        "homelab.display.enable = true; homelab.hypridle.enable = true;",
        SERVER,
        "set security.pam.services.hyprlock = { }; in its configuration.nix",
    ),
    (
        "homelab.display.enable = true; homelab.hypridle.enable = true;",
        "null",
        "set homelab.hypridle.lockCommand to the lock of the system, for example",
    ),
    (
        'homelab.display.enable = true; homelab.remote-desktop = {enable = true; address = "0.0.0.0";};',
        HOST,
        "set certificateFile and privateKeyFile, or keep the address 127.0.0.1 and connect with ssh -L",
    ),
    (
        'homelab.display.enable = true; homelab.remote-desktop = {enable = true; certificateFile = "/c";};',
        HOST,
        "set both certificateFile and privateKeyFile, or neither",
    ),
    (
        "homelab.display.enable = true; homelab.remote-desktop = "
        '{enable = true; certificateFile = "/c"; privateKeyFile = "/nix/store/k";};',
        HOST,
        "homelab.remote-desktop.privateKeyFile is in the Nix store",
    ),
    (
        'homelab.display.enable = true; homelab.remote-desktop = {enable = true; certificateFile = "/c"; '
        'privateKeyFile = "/k";};',
        SERVER,
        "set security.pam.services.wayvnc = { }; in its configuration.nix",
    ),
    ("homelab.display.enable = true; homelab.gtk.enable = true;", SERVER, "set programs.dconf.enable = true"),
    ("homelab.display.enable = true; homelab.dolphin.enable = true;", SERVER, "set services.udisks2.enable = true"),
]


@pytest.fixture(scope="module")
def flake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the reference's own machines alone: further ones have no keys yet."""
    return make(tmp_path_factory.mktemp("fleet") / "fleet")


@pytest.fixture(scope="module")
def homes(flake: Path) -> Any:
    """What tests/fleet/homes.nix says of all cases, in one evaluation."""
    cases = [
        f'{{ name = "{name}{"" if display else " alone"}"; nixos = {HOST}; modules = [{{ homelab.{name} = '
        f"{{ enable = true; {more} }}; homelab.display.enable = {str(display).lower()}; }}]; }}"
        for modules, displays in ((DISPLAY, (True, False)), (ANYWHERE, (False,)))
        for name, (more, _files, _packages) in modules.items()
        for display in displays
    ]
    cases += [
        f'{{ name = "refused {number}"; nixos = {host}; modules = [{{ {settings} }}]; }}'
        for number, (settings, host, _said) in enumerate(REFUSED)
    ]
    return nix_json(
        *("eval", "--json", "--impure", "--expr"),
        f'let flake = builtins.getFlake "git+file://{flake}"; in '
        f"import {HERE}/homes.nix {{ inherit flake; cases = [{' '.join(cases)}]; }}",
    )


@pytest.fixture(scope="module")
def desktop(flake: Path) -> Path:
    """The home of epimetheus, built: it has every module."""
    home = ".#nixosConfigurations.epimetheus.config.home-manager.users.abl030.home.activationPackage"
    return Path(nix("build", "--no-link", "--print-out-paths", home, cwd=flake).strip())


def test_each_module_makes_its_files_and_units(homes: Any) -> None:
    for name, (_more, files, packages) in (DISPLAY | ANYWHERE).items():
        made = homes["cases"][name if name in DISPLAY else f"{name} alone"]
        assert set(made["files"]) >= set(files), name
        assert set(made["packages"]) >= set(packages), name
        assert (made["warnings"], made["failing"]) == ([], []), name


def test_nothing_comes_of_a_module_that_has_no_display_and_it_is_said(homes: Any) -> None:
    for name in DISPLAY:
        made = homes["cases"][f"{name} alone"]
        assert (made["files"], made["packages"], made["failing"]) == ([], [], []), name
        assert made["warnings"] == [
            f"homelab.{name}.enable: has no effect, because homelab.display.enable is false. Set "
            "homelab.display.enable = true if there is a display, or disable it."
        ]


def test_another_flakes_home_gets_nothing_unasked(homes: Any) -> None:
    assert homes["bare"]["warnings"] == homes["bare"]["failing"] == []
    assert homes["bare"]["files"] == []


def test_every_option_is_typed_described_and_off(homes: Any) -> None:
    options = {option["name"]: option for option in homes["options"]}
    assert len(options) > 40
    for name, option in options.items():
        assert option["type"], name
        assert len(option["description"]) > 10, name
        assert option["default"] != "none", name
    switches = {name for name in options if name.endswith(".enable")}
    assert switches == {f"homelab.{name}.enable" for name in (*DISPLAY, *ANYWHERE, "display")}
    assert not any(options[name]["default"] for name in switches)


@pytest.mark.parametrize("number", range(len(REFUSED)), ids=[output[:50] for _, _, output in REFUSED])
def test_what_cannot_be_is_refused_with_a_remedy(homes: Any, number: int) -> None:
    failing = homes["cases"][f"refused {number}"]["failing"]
    assert [REFUSED[number][2] in message for message in failing] == [True], failing


def test_the_homes_of_the_reference_have_neither_warnings_nor_failing_assertions(homes: Any) -> None:
    reference = homes["reference"]
    assert {name for name, home in reference.items() if home.pop("display")} == {"epimetheus", "framework"}
    assert set(reference) == {"epimetheus", "framework", "caddy", "wsl", "proxmox-vm", "igpu", "dev"}
    assert list(reference.values()) == [{"warnings": [], "failing": []}] * 7


def test_ssh_knows_every_host_by_its_alias_and_its_pinned_key(flake: Path, desktop: Path) -> None:
    config = (desktop / "home-files/.ssh/config").resolve()
    known = (desktop / "home-files/.ssh/known_hosts_fleet").read_text()
    hosts = nix_json("eval", "--json", "--file", flake / "hosts.nix")
    for id, host in hosts.items():
        done = subprocess.run(
            ["ssh", "-G", "-F", config, host["sshAlias"]], capture_output=True, text=True, check=True
        ).stdout.splitlines()
        output = dict(line.split(" ", 1) for line in done if " " in line)
        assert (output["hostname"], output["user"]) == (host["hostname"], host["user"]), id
        assert output["forwardagent"] == "no"
        # dev has a placeholder in the lab's copy: its key is asked for
        pinned = id != "dev"
        assert (output["stricthostkeychecking"], "known_hosts_fleet" in output["userknownhostsfile"]) == (
            ("true", True) if pinned else ("ask", False)
        )
        key = " ".join(host["publicKey"].split()[:2])
        assert (key in known) is pinned, id


def test_the_files_hold_what_the_programs_read(desktop: Path) -> None:
    config = desktop / "home-files/.config"
    (bar,) = json.loads((config / "waybar/config").read_text())
    assert bar["modules-center"] == ["clock"]
    assert {name for side in ("left", "center", "right") for name in bar[f"modules-{side}"]} >= {"tray", "network"}
    assert tomllib.loads((config / "starship.toml").read_text())["hostname"]["ssh_only"] is False
    assert tomllib.loads((config / "yazi/theme.toml").read_text())["mgr"]["cwd"]["fg"] == "#6fa8dc"
    mime = ini(config / "mimeapps.list")["Default Applications"]
    assert mime["application/pdf"] == "org.pwmt.zathura.desktop"
    assert mime["x-scheme-handler/https"] == "firefox.desktop"
    assert mime["inode/directory"] == "org.kde.dolphin.desktop"
    assert ini(config / "gtk-3.0/settings.ini")["Settings"]["gtk-theme-name"] == "adw-gtk3-dark"
    assert "gtk-theme-name" not in ini(config / "gtk-4.0/settings.ini")["Settings"]
    colors = ini(desktop / "home-files/.local/share/color-schemes/Homelab.colors")
    assert colors["Colors:View"]["BackgroundNormal"] == "32,36,44"
    session = (config / "environment.d/10-home-manager.conf").read_text().split()
    assert session == ["QT_QPA_PLATFORMTHEME=kde", "QT_STYLE_OVERRIDE=breeze"]
    idle = (config / "hypr/hypridle.conf").read_text()
    assert re.findall(r"timeout = (\d+)", idle) == ["300", "330", "1800"]
    assert "before_sleep_cmd = loginctl lock-session" in idle
    assert (config / "wayvnc/config").read_text().split() == ["address=127.0.0.1", "port=5900"]
    assert "kdeglobals" in (desktop / "activate").read_text()
    for name in ("waybar", "hypridle", "udiskie", "wayvnc"):
        unit = ini(config / f"systemd/user/{name}.service")
        assert os.access(unit["Service"]["ExecStart"], os.X_OK)
        assert (config / f"systemd/user/graphical-session.target.wants/{name}.service").is_file()
    listen = (config / "systemd/user/mpd.socket").read_text()
    assert "ListenStream=127.0.0.1:6600" in listen


def ini(file: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(delimiters=("=",), interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(file.read_text())
    return parser


def test_the_shell_has_the_aliases_for_people_and_is_silent_for_programs(desktop: Path) -> None:
    script = f"shopt -s expand_aliases; . {desktop}/home-files/.bashrc; alias gs"
    env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    people = subprocess.run(["bash", "--norc", "-ic", script], env=env, capture_output=True, text=True)
    assert people.stdout == "alias gs='git status --short --branch'\n"
    programs = subprocess.run(["bash", "--norc", "-c", script], env=env, capture_output=True, text=True)
    assert (programs.stdout, programs.returncode) == ("", 1)


def test_of_the_fleets_tree_only_the_scripts_own_text_is_in_a_home(flake: Path, desktop: Path) -> None:
    assert (desktop / "home-path/bin/reboot-pending").stat().st_mode & 0o111
    source = nix_json("flake", "metadata", "--json", flake)["path"]
    closure = nix("path-info", "--recursive", desktop).split()
    assert len(closure) > 50
    assert [path for path in closure if path == source or path.endswith("-scripts")] == []


def run(script: str, *arguments: str | Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    env = {"PATH": f"{path}:{os.environ['PATH']}" if path else os.environ["PATH"]}
    options = ("-o", "errexit", "-o", "nounset", "-o", "pipefail")
    return subprocess.run(
        ["bash", *options, SCRIPTS / f"{script}.sh", *arguments], env=env, capture_output=True, text=True
    )


def test_a_pending_reboot_is_told_from_none_and_from_what_is_not_known(tmp_path: Path) -> None:
    def system(name: str, **parts: str) -> None:
        (tmp_path / name).mkdir(exist_ok=True)
        for part, version in parts.items():
            store = tmp_path / f"{part}-{version}"
            store.touch()
            (tmp_path / name / part).unlink(missing_ok=True)
            (tmp_path / name / part).symlink_to(store)

    def pending() -> tuple[int, str]:
        done = run("reboot-pending", tmp_path)
        return done.returncode, done.stdout.strip()

    assert pending() == (2, f"unknown: {tmp_path}/booted-system is missing; is this machine NixOS?")
    system("booted-system")
    system("current-system")
    assert pending() == (2, "unknown: neither system has a kernel or systemd to compare")
    system("booted-system", systemd="1")
    system("current-system", systemd="1")
    assert pending() == (0, "no")
    system("booted-system", kernel="6.1", initrd="a")
    system("current-system", kernel="6.2", initrd="a")
    assert pending() == (1, "yes: kernel")


def test_systems_are_compared_and_a_missing_one_is_named(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "nvd").write_text('#!/bin/sh\necho "nvd $*"\n')
    (programs / "nvd").chmod(0o755)
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    new.mkdir()
    assert run("system-diff", old, new, path=programs).stdout == f"nvd diff {old} {new}\n"
    assert run("system-diff", old, old, path=programs).stdout == f"no difference: both are {old}\n"
    missing = run("system-diff", old, tmp_path / "none", path=programs)
    assert (missing.returncode, missing.stdout) == (2, "")
    assert f"{tmp_path}/none is missing" in missing.stderr


def test_an_archive_is_unpacked_beside_itself_and_over_nothing(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    # tar takes the options that are used here
    (programs / "bsdtar").write_text('#!/bin/sh\nexec tar "$@"\n')
    (programs / "bsdtar").chmod(0o755)
    (tmp_path / "inside").write_text("text")
    archive = tmp_path / "a b.tar.gz"
    subprocess.run(["tar", "-czf", archive, "-C", tmp_path, "inside"], check=True)
    done = run("unpack", archive, path=programs)
    assert (done.returncode, done.stdout) == (0, f"{tmp_path}/a b\n")
    assert (tmp_path / "a b/inside").read_text() == "text"
    (tmp_path / "a b/inside").write_text("mine")
    again = run("unpack", archive, path=programs)
    assert (again.returncode, "would be unpacked to" in again.stderr) == (1, True)
    assert (tmp_path / "a b/inside").read_text() == "mine"
    assert run("unpack", tmp_path / "inside", path=programs).returncode == 1


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not on PATH")
def test_shellcheck_finds_nothing_in_the_scripts() -> None:
    done = subprocess.run(["shellcheck", *sorted(SCRIPTS.glob("*.sh"))], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("", 0)
