"""What the stand-ins make of a configuration: units, files, packages, disks, homes; and what they refuse."""

import json
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.nix_cli import environment, nix, nix_json, stand_ins, try_nix

pytestmark = pytest.mark.nix

PRELUDE = """
  let
    lib = import @lab@/nixpkgs/lib;
    pkgs = import @lab@/nixpkgs {system = "x86_64-linux";};
    nixos = modules: import @lab@/nixpkgs/nixos/lib/eval-config.nix {inherit lib modules; system = "x86_64-linux";};
    disko = @lab@/inputs/disko/module.nix;
    homeManager = @lab@/inputs/home-manager/nixos.nix;
    home = modules: import @lab@/inputs/home-manager/eval.nix {inherit lib pkgs modules; extraSpecialArgs = {};};
    disk = {boot.loader.systemd-boot.enable = true; fileSystems."/" = {device = "/dev/sda2"; fsType = "ext4";};};
    system = modules: (nixos ([disk] ++ modules)).config;
  in
"""


def in_lab(expression: str) -> str:
    return PRELUDE.replace("@lab@", str(stand_ins())) + expression


def value(expression: str) -> Any:
    return nix_json("eval", "--impure", "--json", "--expr", in_lab(expression))


def error(expression: str) -> str:
    done = try_nix("eval", "--impure", "--json", "--expr", in_lab(expression))
    assert done.returncode != 0
    return done.stderr


def built(expression: str) -> Path:
    path = nix("build", "--impure", "--no-link", "--print-out-paths", "--expr", in_lab(expression))
    return Path(path.strip())


def units(*modules: str) -> Path:
    return built(f"(system [{' '.join(modules)}]).system.build.units")


def test_a_services_text() -> None:
    made = units("""{systemd.services.web = {
      description = "Serves";
      wantedBy = ["multi-user.target"];
      after = ["a.service" "b.service"];
      requires = ["a.service"];
      path = [pkgs.jq];
      environment.NAME = "a \\"b\\" c";
      serviceConfig = {Type = "oneshot"; RemainAfterExit = true; ExecStartPre = ["-/bin/false"]; Restart = null;};
      script = "echo hello";
      stopIfChanged = false;
    };}""")
    lines = (made / "web.service").read_text().splitlines()
    assert {
        "Description=Serves",
        "After=a.service b.service",
        "Requires=a.service",
        "Type=oneshot",
        "RemainAfterExit=true",
        "ExecStartPre=-/bin/false",
        'Environment="NAME=a \\"b\\" c"',
        "X-StopIfChanged=false",
    } <= set(lines)
    assert not [line for line in lines if line.startswith(("Restart=", "X-RestartIfChanged"))]
    (start,) = (line.removeprefix("ExecStart=") for line in lines if line.startswith("ExecStart="))
    assert Path(start).read_text().endswith("set -e\necho hello\n")
    (path,) = (line for line in lines if line.startswith('Environment="PATH='))
    assert "jq-0.lab/bin:/run/current-system/sw/bin" in path
    assert str((made / "multi-user.target.wants" / "web.service").readlink()) == "../web.service"


def test_timers_sockets_mounts_and_what_debian_ships() -> None:
    made = units(
        '{systemd.services.backup = {script = "true"; startAt = "03:00";};}',
        '{systemd.sockets.web = {wantedBy = ["sockets.target"]; listenStreams = ["8080"];};}',
        '{fileSystems."/srv/data" = {device = "/dev/sdb1"; fsType = "ext4"; options = ["noatime"];};}',
        '{systemd.services.systemd-networkd.serviceConfig.Restart = "always";}',
        "{systemd.services.sshd.enable = lib.mkForce false; services.openssh.enable = true;}",
    )
    assert "OnCalendar=03:00" in (made / "backup.timer").read_text()
    assert str((made / "timers.target.wants" / "backup.timer").readlink()) == "../backup.timer"
    assert "ListenStream=8080" in (made / "web.socket").read_text()
    mount = (made / "srv-data.mount").read_text()
    assert {"What=/dev/sdb1", "Where=/srv/data", "Type=ext4", "Options=noatime"} <= set(mount.splitlines())
    assert "Restart=always" in (made / "systemd-networkd.service.d" / "overrides.conf").read_text()
    assert str((made / "sshd.service").readlink()) == "/dev/null"
    assert str((made / "apt-daily.timer").readlink()) == "/dev/null"


def test_a_changed_script_changes_the_unit_that_runs_it_alone() -> None:
    def texts(script: str) -> dict[str, str]:
        made = units(f'{{systemd.services.a.script = "{script}"; systemd.services.b.script = "same";}}')
        return {name: (made / f"{name}.service").read_text() for name in "ab"}

    before, after = texts("one"), texts("two")
    assert before["a"] != after["a"]
    assert before["b"] == after["b"]


def test_etc_holds_texts_links_and_copies() -> None:
    tree = built("""(system [{environment.etc = {
      "a/text".text = "plain '\\"$x\\n";
      "secret" = {text = "s"; mode = "0400"; user = "nobody"; group = "nogroup";};
      "link".source = "/run/elsewhere";
      "off" = {enable = false; text = "";};
      "long".text = lib.strings.replicate 200000 "x";
    };}]).system.build.etc""")
    assert (tree / "etc" / "a" / "text").read_text() == "plain '\"$x\n"
    assert len((tree / "etc" / "long").read_text()) == 200000
    assert str((tree / "etc" / "link").readlink()) == "/run/elsewhere"
    manifest = (tree / "manifest").read_text().splitlines()
    assert "0400 nobody:nogroup secret" in manifest
    assert "symlink root:root link" in manifest
    assert not [line for line in manifest if line.endswith(" off")]


def test_users_groups_and_keys(tmp_path: Path) -> None:
    (tmp_path / "key.pub").write_text("ssh-ed25519 BBBB file\n")
    tree = built(f"""(system [{{
      users.users.ann = {{
        isNormalUser = true; extraGroups = ["wheel" "docker"]; shell = pkgs.zsh;
        openssh.authorizedKeys = {{keys = ["ssh-ed25519 AAAA ann"]; keyFiles = [{tmp_path}/key.pub];}};
      }};
      users.users.daemon = {{isSystemUser = true; group = "daemon"; uid = 77;}};
      users.groups.daemon = {{}};
      users.groups.docker.gid = 131;
    }}]).system.build.etc""")
    keys = (tree / "etc" / "ssh" / "authorized_keys.d" / "ann").read_text()
    assert keys == "ssh-ed25519 AAAA ann\nssh-ed25519 BBBB file\n"
    users = (tree / "etc" / "nixos-users").read_text().splitlines()
    assert "ann::users:/home/ann:/run/current-system/sw/bin/zsh:normal+home:700:::" in users
    assert "daemon:77:daemon:/var/empty:/usr/sbin/nologin:system:700:::" in users
    groups = (tree / "etc" / "nixos-groups").read_text().splitlines()
    assert {"wheel:1:ann", "docker:131:ann", "daemon::"} <= set(groups)


def test_sshd_and_sudo_say_what_the_options_say() -> None:
    tree = built("""(system [{
      services.openssh = {
        enable = true;
        ports = [22 2222];
        settings = {PermitRootLogin = "no"; AllowUsers = ["a" "b"]; Ciphers = ["x" "y"];};
      };
      security.sudo.wheelNeedsPassword = false;
      security.sudo.extraRules = [{users = ["deploy"]; commands = [{command = "/bin/x"; options = ["NOPASSWD"];}];}];
    }]).system.build.etc""")
    sshd = (tree / "etc" / "ssh" / "sshd_config").read_text().splitlines()
    assert {"Port 22", "Port 2222", "PermitRootLogin no", "AllowUsers a b", "Ciphers x,y"} <= set(sshd)
    rules = [line for line in (tree / "etc" / "sudoers").read_text().splitlines() if "ALL=" in line]
    assert rules == [
        "root ALL=(ALL:ALL) SETENV: ALL",
        "%wheel ALL=(ALL:ALL) SETENV: NOPASSWD: ALL",
        "deploy ALL=(ALL:ALL) NOPASSWD: /bin/x",
    ]


def test_activation_snippets_run_in_the_order_they_ask_for() -> None:
    toplevel = built("""(system [{system.activationScripts = {
      zero = {deps = ["one"]; text = "# zero";};
      one = {deps = ["etc"]; text = "# one";};
      plain = "# plain";
    };}]).system.build.toplevel""")
    script = (toplevel / "activate").read_text()
    assert script.index("#### etc") < script.index("# one") < script.index("# zero")
    assert "# plain" in script
    circle = '{system.activationScripts = {a = {deps = ["b"];}; b = {deps = ["a"];};};}'
    assert "circle: a -> b -> a" in error(f"(system [{circle}]).system.build.toplevel.drvPath")


def test_kernels_that_differ_are_different_files() -> None:
    def files(packages: str) -> list[str]:
        made = built(f"(system [{{boot.kernelPackages = pkgs.{packages};}}]).system.build.toplevel")
        return [str((made / name).readlink()) for name in ("kernel", "initrd", "kernel-modules")]

    assert not set(files("linuxPackages")) & set(files("linuxPackages_latest"))


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ("{boot.loader.systemd-boot.enable = true;}", "does not specify your root file system"),
        ("disk {boot.loader.systemd-boot.enable = lib.mkForce false;}", "boot.loader.grub.devices"),
        ('disk {boot.loader.grub = {enable = true; device = "/dev/sda";};}', "Only one of the boot loaders"),
        ("disk {users.users.x = {};}", "Exactly one of users.users.x.isSystemUser"),
        ("disk {users.users.x.isSystemUser = true;}", "users.users.x.group is unset"),
        ('disk {assertions = [{assertion = false; message = "mine";}];}', "- mine"),
        ('disk {networking.hostName = "-bad";}', "A definition for option `networking.hostName' is not of type"),
        (
            'disk {services.openssh = {enable = true; settings.PermitRootLogin = "perhaps";};}',
            "`services.openssh.settings.PermitRootLogin'",
        ),
        ("disk ({config, ...}: {x = config.services.nosuch.enable;})", "attribute 'nosuch' missing"),
    ],
)
def test_what_is_wrong_is_refused_with_its_name(modules: str, message: str) -> None:
    assert message in error(f"let c = (nixos [{modules}]).config; in [c.system.build.toplevel.drvPath (c.x or 0)]")


def test_programs_run_debians_and_say_what_they_are() -> None:
    jq = built("pkgs.jq")
    assert (jq / "bin" / "jq").read_text() == '#!/usr/bin/sh\nexec /usr/bin/jq "$@"\n'
    assert str((built("pkgs.coreutils") / "bin").readlink()) == "/usr/bin"
    assert value("[(lib.getExe pkgs.ripgrep) pkgs.linuxPackages_latest.jq.pname]")[1] == "jq"
    script = built('pkgs.writeShellApplication {name = "x"; runtimeInputs = [pkgs.jq]; text = "echo $((1 + 1))";}')
    assert subprocess.run([script / "bin" / "x"], capture_output=True, text=True).stdout == "2\n"
    joined = built('pkgs.symlinkJoin {name = "j"; paths = [pkgs.jq (pkgs.writeTextDir "share/doc" "d")];}')
    assert (joined / "share" / "doc").read_text() == "d"
    assert (joined / "bin" / "jq").exists()


def test_overlays_change_packages_and_add_new_ones() -> None:
    overlay = '(final: prev: {jq = prev.jq // {marker = 1;}; mine = final.writeText "mine" "text";})'
    pkgs = f"(nixos [disk {{nixpkgs.overlays = [{overlay}];}}]).pkgs"
    assert value(f"[{pkgs}.jq.marker (builtins.readFile {pkgs}.mine)]") == [1, "text"]


def test_toml_and_json_formats() -> None:
    toml = '(pkgs.formats.toml {}).generate "x" {a = 1; t.b = ["x" true]; t.u.c = 1.5;}'
    assert tomllib.loads(built(toml).read_text()) == {"a": 1, "t": {"b": ["x", True], "u": {"c": 1.5}}}
    assert json.loads(built('(pkgs.formats.json {}).generate "x" {a = [1 null];}').read_text()) == {"a": [1, None]}


LAYOUT = """{disko.devices.disk.main = {device = "/dev/vda"; content = {type = "gpt"; partitions = {
  zroot = {size = "100%"; content = {type = "filesystem"; format = "ext4"; mountpoint = "/";};};
  boot = {size = "1M"; type = "EF02";};
  home = {
    size = "10G";
    content = {type = "filesystem"; format = "ext4"; mountpoint = "/home"; extraArgs = ["-L" "my home"];};
  };
  swap = {size = "2G"; content.type = "swap";};
};};};}"""


def test_disko_makes_file_systems_swap_and_the_place_of_grub() -> None:
    config = f"(nixos [disko {LAYOUT} {{boot.loader.grub.enable = true;}}]).config"
    assert value(f"lib.mapAttrs (_: fs: [fs.device fs.fsType]) {config}.fileSystems") == {
        "/": ["/dev/disk/by-partlabel/disk-main-zroot", "ext4"],
        "/home": ["/dev/disk/by-partlabel/disk-main-home", "ext4"],
    }
    assert value(f"map (s: s.device) {config}.swapDevices") == ["/dev/disk/by-partlabel/disk-main-swap"]
    assert value(f"{config}.boot.loader.grub.devices") == ["/dev/vda"]
    assert value(f"(builtins.tryEval {config}.system.build.toplevel.drvPath).success") is True


def test_diskos_script_has_the_partitions_in_an_order_that_fits() -> None:
    text = built(f"(nixos [disko {LAYOUT}]).config.system.build.diskoScript").read_text()
    (creating,) = (line for line in text.splitlines() if "--new=1:" in line)
    first = shlex.split(creating.split("||")[0])
    labels = [word.split(":")[1] for word in first if word.startswith("--change-name=")]
    # GRUB's first, what takes the rest last
    assert (labels[0], labels[-1]) == ("disk-main-boot", "disk-main-zroot")
    assert "--new=4:0:-0" in first
    assert "mkfs.ext4 -L 'my home' /dev/disk/by-partlabel/disk-main-home" in text
    assert text.index(" /mnt/ ") < text.index(" /mnt/home ")


def test_diskos_other_scripts_do_their_part_only() -> None:
    build = f"(nixos [disko {LAYOUT}]).config.system.build"
    mount = built(f"{build}.mountScript").read_text()
    assert ("mount " in mount, "sgdisk" in mount, "mkfs" in mount) == (True, False, False)
    made = built(f"{build}.formatScript").read_text()
    assert ("mkfs" in made, "wipefs" in made) == (True, False)
    assert "umount -Rv /mnt" in built(f"{build}.unmountScript").read_text()
    assert "No disks defined" in error("(nixos [disko disk]).config.system.build.diskoScript.drvPath")
    pool = "{disko.devices.zpool.tank.mountpoint = null;}"
    output = error(f"(nixos [disko {LAYOUT} {pool}]).config.system.build.diskoScript.drvPath")
    assert "but not disko.devices.zpool." in output


def home_of(directory: Path, more: str) -> Path:
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    module = f'{{home = {{username = "{user}"; homeDirectory = "{directory}"; stateVersion = "25.11";}};}}'
    return built(f"(home [{module} {more}]).config.home.activationPackage")


def test_a_home_is_laid_out_changed_and_taken_away(tmp_path: Path) -> None:
    def activate(more: str) -> subprocess.CompletedProcess[str]:
        package = home_of(tmp_path, more)
        env = environment() | {"HOME": str(tmp_path)}
        return subprocess.run([package / "activate"], env=env, capture_output=True, text=True)

    files = """{
      home.file.".a/b".text = "1";
      xdg.configFile."c".text = "2";
      home.sessionVariables.EDITOR = "vim";
      programs.bash.enable = true;
    }"""
    done = activate(files)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / ".a" / "b").read_text() == "1"
    assert (tmp_path / ".config" / "c").read_text() == "2"
    # for login shells, where bash is Home Manager's to keep
    shell = ["bash", "-c", '. ~/.profile; echo "$EDITOR"']
    assert subprocess.run(shell, env={"HOME": str(tmp_path)}, capture_output=True, text=True).stdout == "vim\n"
    done = activate("""({lib, ...}: {
      home.file.".a/b".text = "new";
      home.activation.mine = lib.hm.dag.entryAfter ["linkGeneration"] "echo ran";
    })""")
    assert done.returncode == 0, done.stderr
    assert "ran" in done.stdout
    assert (tmp_path / ".a" / "b").read_text() == "new"
    assert not (tmp_path / ".config" / "c").is_symlink()
    # somebody's own file is not overwritten
    (tmp_path / "mine").write_text("precious")
    done = activate('{home.file."mine".text = "no";}')
    assert (done.returncode, "would be clobbered" in done.stderr) == (1, True)
    assert (tmp_path / "mine").read_text() == "precious"


def test_a_home_is_activated_by_its_own_user_only(tmp_path: Path) -> None:
    package = home_of(tmp_path, "{}")
    done = subprocess.run([package / "activate"], env=environment(), capture_output=True, text=True)
    assert (done.returncode, "HOME is set to" in done.stderr) == (1, True)
