"""The stand-in's system on a real machine: installed by its disko script, booted, switched, rolled back."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import setup
from lab.fleet import prepare_fleet
from tests.lab.conftest import MachineError, Machines, until
from tests.lab.test_machines_boot import kexec
from tests.nix_cli import build, environment

pytestmark = pytest.mark.lab

CONFIG = ".#nixosConfigurations.dev.config.system.build"
PROFILE = "/nix/var/nix/profiles/system"


class Installed:
    """A machine that was installed from the fleet in `flake`, and what was done to it."""

    def __init__(self, machines: Machines, flake: Path) -> None:
        self.machines = machines
        self.flake = flake
        self.configuration = (flake / "hosts" / "dev" / "configuration.nix").read_text().rstrip().removesuffix("}")
        self.toplevel, disko = build(f"{CONFIG}.toplevel", f"{CONFIG}.diskoScript", cwd=flake)
        machines.boot(110)
        kexec(machines, machines.ready(110))
        until(lambda: self._hostname_is("nixos-installer"))
        self.address = machines.ready(110, "root")
        self.copy(disko, "root")
        self.disko = self._must(machines.ssh("root", self.address, str(disko)))
        self._must(machines.ssh("root", self.address, "mkdir -p /mnt/etc/ssh; cp -p /etc/ssh/ssh_host_* /mnt/etc/ssh"))
        self.key = machines.host_key(self.address)
        self.copy(self.toplevel, "root", "?remote-store=local?root=/mnt")
        install = f"nixos-install --root /mnt --system {self.toplevel} --no-root-passwd --no-channel-copy"
        self._must(machines.ssh("root", self.address, f"{install} && umount -R /mnt && (sleep 0.2; reboot) >&- 2>&- &"))
        until(lambda: self._hostname_is("dev"))
        self.wait()

    def _hostname_is(self, name: str) -> bool:
        try:
            return bool(self.machines.agent(110, "get-host-name")["host-name"] == name)
        except MachineError as error:
            if error.args[0] != "AgentAbsent":
                raise
            return False

    def wait(self) -> None:
        self.address = until(lambda: self.machines.address(110))
        until(lambda: self.machines.ssh("abl030", self.address, "true").returncode == 0)

    def _must(self, done: subprocess.CompletedProcess[str]) -> str:
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def run(self, script: str) -> str:
        """What a script of the admin prints; it must succeed."""
        done = self.machines.ssh("abl030", self.address, script)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def copy(self, path: Path, user: str, more: str = "") -> None:
        options = "-oStrictHostKeyChecking=no -oUserKnownHostsFile=/dev/null -oLogLevel=ERROR"
        env = environment() | {"NIX_SSHOPTS": f"-i {self.machines.key} {options}"}
        argv = ["nix", "copy", "--no-check-sigs", "--to", f"ssh://{user}@{self.address}{more}", str(path)]
        self._must(self.machines.inside(*argv, env=env))

    def switch(self, change: str, action: str = "switch") -> tuple[int, str, Path]:
        """Bring the configuration with `change` there; exit status and words of the switch, the new path."""
        (self.flake / "hosts" / "dev" / "configuration.nix").write_text(self.configuration + change + "\n}\n")
        (new,) = build(f"{CONFIG}.toplevel", cwd=self.flake)
        self.copy(new, "abl030", "?remote-program=sudo%20nix-store")
        if action in ("switch", "boot"):
            self.run(f"sudo -n nix-env -p {PROFILE} --set {new}")
        done = self.machines.ssh("abl030", self.address, f"sudo -n {new}/bin/switch-to-configuration {action}")
        return done.returncode, done.stderr, new


@pytest.fixture(scope="module")
def dev(lab_parts: setup.Parts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    place = tmp_path_factory.mktemp("installed")
    machines = Machines(place / "checkout")
    try:
        prepare_fleet(
            place / "fleet",
            nix="nix",
            machines=1,
            endpoint_host="10.77.0.1",
            fingerprint="0" * 64,
            operator_key=machines.key.with_suffix(".pub").read_text().strip(),
            recipient="age1x6g6ll4yw7wqcwe4z8gf35vg0x03f30s22mcxnu30n8dy7e2gghszp0ls5",
            env=environment(),
        )
        _without_secrets(place / "fleet")  # this machine is not enrolled
        yield Installed(machines, place / "fleet")
    finally:
        machines.close()
        shutil.rmtree(machines.places.state)


def _without_secrets(flake: Path) -> None:
    file = flake / "hosts" / "dev" / "configuration.nix"
    file.write_text(re.sub(r"  # Decrypted at activation.*?\n\n(?=  system\.)", "", file.read_text(), flags=re.DOTALL))
    subprocess.run(["git", "commit", "-qam", "without secrets"], cwd=flake, env=environment(), check=True)


def test_disko_made_the_disk_as_described(dev: Installed) -> None:
    table = dev.run("sudo -n sgdisk -p /dev/sda")
    rows = re.findall(r"^ +(\d) +\d+ +\d+ +(\S+ \S+) +(\S+) +(\S+)$", table, re.MULTILINE)
    assert [(number, code, name) for number, _, code, name in rows] == [
        ("1", "EF00", "disk-main-ESP"),
        ("2", "8300", "disk-main-root"),
    ]
    assert rows[0][1] == "512.0 MiB"
    assert dev.run("findmnt -no SOURCE,FSTYPE -t ext4 /").split() == ["/dev/sda2", "ext4"]
    assert dev.run("findmnt -no TARGET /boot") == "/boot\n"
    # nothing of the template's is left on it
    assert dev.run("sudo -n ls /boot/loader/entries") == "nixos-generation-1.conf\n"


def test_it_runs_what_was_installed(dev: Installed) -> None:
    links = dev.run(f"readlink -f /run/current-system /run/booted-system {PROFILE}")
    assert set(links.split()) == {str(dev.toplevel)}
    assert dev.run("hostname; cat /etc/hostname; . /etc/os-release; echo $ID") == "dev\ndev\nnixos\n"
    version = json.loads(dev.run("nixos-version --json"))
    assert "configurationRevision" not in version, "every commit would change every machine"
    assert dev.run("systemctl is-system-running") == "running\n"
    assert dev.run("systemctl --failed --no-legend") == ""


def test_the_host_key_that_was_there_is_kept(dev: Installed) -> None:
    assert dev.machines.host_key(dev.address) == dev.key


def test_the_admin_has_keys_groups_and_sudo_and_no_password_works(dev: Installed) -> None:
    assert dev.run("id -un; id -Gn; sudo -n id -un") == "abl030\nusers wheel\nroot\n"
    assert dev.run("sudo -n grep -c '^abl030:!:' /etc/shadow") == "1\n"
    ssh = dev.run("sudo -n /usr/sbin/sshd -T -f /etc/ssh/sshd_config")
    assert {"passwordauthentication no", "kbdinteractiveauthentication no", "permitrootlogin without-password"} <= set(
        ssh.splitlines()
    )


def test_commands_over_ssh_and_sudo_find_the_systems_programs(dev: Installed) -> None:
    assert dev.run("command -v nix nixos-version; sudo -n sh -c 'command -v nixos-version'").splitlines() == [
        "/run/current-system/sw/bin/nix",
        "/run/current-system/sw/bin/nixos-version",
        "/run/current-system/sw/bin/nixos-version",
    ]
    assert dev.run("nix eval --expr 'builtins.length [1 2]'") == "2\n"


def test_the_home_is_laid_out_by_its_service(dev: Installed) -> None:
    assert dev.run("systemctl is-active home-manager-abl030") == "active\n"
    assert "home-manager-generation" in dev.run("readlink -f ~/.local/state/nix/profiles/home-manager")


def test_a_switch_changes_units_files_users_and_the_boot_default(dev: Installed) -> None:
    change = """
      networking.hostName = "renamed";
      environment.etc."lab/note".text = "here";
      users.users.guest = {isNormalUser = true; openssh.authorizedKeys.keys = ["ssh-ed25519 AAAA guest"];};
      systemd.services.web = {wantedBy = ["multi-user.target"]; script = "exec sleep 1000";};
    """
    status, output, new = dev.switch(change)
    assert status == 0, output
    assert dev.run("hostname; cat /etc/lab/note; id -u guest; systemctl is-active web").splitlines() == [
        "renamed",
        "here" + "1001",
        "active",
    ]
    assert dev.run("readlink -f /run/current-system") == f"{new}\n"
    assert dev.run("readlink -f /run/booted-system") == f"{dev.toplevel}\n"
    default = dev.run("sudo -n cat /boot/loader/loader.conf")
    assert "default nixos-generation-2.conf\n" in default
    assert f"init={new}/init" in dev.run("sudo -n cat /boot/loader/entries/nixos-generation-2.conf")

    # a changed unit is restarted, a removed one stopped; a test leaves the boot default alone
    before = dev.run("systemctl show -p MainPID web")
    status, output, _ = dev.switch(change := change + 'systemd.services.web.environment.NEW = "1";', "dry-activate")
    assert (status, "would stop the following units: web.service" in output) == (0, True)
    assert dev.run("systemctl show -p MainPID web") == before
    status, output, _ = dev.switch(change, "test")
    assert (status, "starting the following units: web.service" in output) == (0, True)
    assert dev.run("systemctl show -p MainPID web") != before
    assert dev.run("sudo -n cat /boot/loader/loader.conf") == default

    # a unit that fails is named, with the status of its own
    bad = (
        'systemd.services.bad = {wantedBy = ["multi-user.target"]; script = "exit 3"; serviceConfig.Type = "oneshot";};'
    )
    status, output, _ = dev.switch(change + bad, "test")
    assert (status, "the following units failed: bad.service" in output) == (4, True)

    # rolled back, everything of it is gone, and the machine boots what it ran
    done = dev.machines.ssh("abl030", dev.address, f"sudo -n {dev.toplevel}/bin/switch-to-configuration switch")
    assert done.returncode == 0, done.stderr
    gone = "hostname; test ! -e /etc/lab/note; ! id guest 2>/dev/null; systemctl is-active web bad || true"
    assert dev.run(gone).splitlines() == ["dev", "inactive", "inactive"]
    assert "default nixos-generation-1.conf\n" in dev.run("sudo -n cat /boot/loader/loader.conf")


def test_a_second_activation_beside_a_running_one_is_refused(dev: Installed) -> None:
    lock = "/run/nixos/switch-to-configuration.lock"
    script = f"sudo -n flock {lock} /run/current-system/bin/switch-to-configuration test"
    done = dev.machines.ssh("abl030", dev.address, script)
    assert (done.returncode, done.stderr) == (1, "Could not acquire lock\n")


def test_it_boots_the_default_generation_again(dev: Installed) -> None:
    status, output, new = dev.switch('networking.hostName = "rebooted";', "boot")
    assert (status, dev.run("hostname")) == (0, "dev\n"), output
    dev.machines.ssh("abl030", dev.address, "sudo -n reboot")
    until(lambda: dev._hostname_is("rebooted"))
    dev.wait()
    assert dev.run("readlink -f /run/booted-system /run/current-system").split() == [str(new)] * 2
    assert dev.machines.host_key(dev.address) == dev.key


def test_outside_nixos_it_refuses_to_run(dev: Installed) -> None:
    """These scripts are built on people's own machines."""
    for script in ("activate", "bin/switch-to-configuration switch", "init"):
        done = dev.machines.inside("sh", "-c", f"{dev.toplevel}/{script}")
        assert done.returncode == 1
        assert re.search("not a NixOS|only the kernel", done.stderr), done.stderr
