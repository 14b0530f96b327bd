"""Machines without the API: template, installer and back, power, agent, disks."""

import json
import subprocess
import time
from pathlib import Path

import pytest

from tests.lab.conftest import DISK, MachineError, Machines, until

pytestmark = pytest.mark.lab

KEXEC = Path(__file__).parent.parent.parent / "lab" / "inputs" / "nixos-images"


def kexec(machines: Machines, address: str) -> None:
    """Take the machine into the installer."""
    tarball = subprocess.run(["tar", "-C", KEXEC, "-c", "kexec"], capture_output=True, check=True).stdout
    done = machines.ssh(
        "deploy",
        address,
        "sudo tar -C /root -x && sudo /root/kexec/run",
        input=tarball.decode("latin-1"),
        encoding="latin-1",
    )
    assert done.returncode == 0, done.stderr


def test_a_clone_boots_and_its_cloud_init_replaces_the_shared_host_key(machines: Machines) -> None:
    machines.boot(110)
    until(lambda: machines.agent_answers(110))
    early = machines.agent(110, "file-read", file="/etc/ssh/ssh_host_ed25519_key.pub")["content"]
    address = machines.ready(110)
    late = machines.agent(110, "file-read", file="/etc/ssh/ssh_host_ed25519_key.pub")["content"]
    assert early != late
    assert machines.host_key(address) == " ".join(late.split()[1:2])
    assert machines.agent(110, "get-host-name") == {"host-name": "vm110"}
    assert machines.ssh("deploy", address, "sudo id -u").stdout == "0\n"


def test_the_root_is_the_machines_own_disk(machines: Machines) -> None:
    machines.boot(110)
    address = machines.ready(110)
    output = machines.ssh(
        "deploy", address, "findmnt -no SOURCE,FSTYPE /; cat /sys/class/block/*/size; sudo sgdisk -p /dev/sda"
    )
    assert output.stdout.startswith("/dev/sda2 ext4\n")
    assert f"Disk /dev/sda: {DISK // 512} sectors" in output.stdout


def test_loopback_and_docker_come_first_among_the_interfaces(machines: Machines) -> None:
    machines.boot(110)
    machines.ready(110)
    names = [item["name"] for item in machines.agent(110, "network-get-interfaces")]
    assert names == ["lo", "docker0", "ens18"]


def test_the_agent_runs_commands_as_root_and_reports_them_once(machines: Machines) -> None:
    machines.boot(110)
    until(lambda: machines.agent_answers(110))
    given = {"input-data": "in \xff"}
    pid = machines.agent(110, "exec", command=["/bin/sh", "-c", "cat; echo err >&2; exit 3"], **given)["pid"]
    time.sleep(0.3)
    status = machines.agent(110, "exec-status", pid=pid)
    assert (status["exitcode"], status["out-data"], status["err-data"]) == (3, "in \xff", "err\n")
    with pytest.raises(MachineError, match="PID ld does not exist"):
        machines.agent(110, "exec-status", pid=pid)
    assert machines.execute(110, "/bin/sh", "-c", "kill -9 $$") == {"exited": True, "signal": 9}
    with pytest.raises(MachineError, match="Failed to execute child process “/nosuch”"):
        machines.agent(110, "exec", command=["/nosuch"])
    environment = machines.execute(110, "/usr/bin/env")["out-data"].split("\n")
    assert "USER=root" in environment
    assert not [line for line in environment if line.startswith(("SSH", "HOME=/root/", "PYTHON"))]


def test_the_agent_writes_and_reads_bytes(machines: Machines) -> None:
    machines.boot(110)
    until(lambda: machines.agent_answers(110))
    machines.agent(110, "file-write", file="/root/é", content="\x00\xff\n")
    assert machines.agent(110, "file-read", file="/root/é")["content"] == "\x00\xff\n"
    with pytest.raises(MachineError, match=r"failed to open file '/no/file' \(mode: 'r'\): No such file or directory"):
        machines.agent(110, "file-read", file="/no/file")


def test_a_guest_cannot_reach_the_hosts_disk(machines: Machines) -> None:
    machines.boot(110)
    until(lambda: machines.agent_answers(110))
    number = Path("/sys/class/block/vda/dev") if Path("/sys/class/block/vda/dev").exists() else None
    major, minor = (number.read_text().strip() if number else "8:0").split(":")
    assert machines.execute(110, "/usr/bin/mknod", "/root/disk", "b", major, minor)["exitcode"] == 1


def test_kexec_keeps_host_key_and_users_key_and_the_address_changes(machines: Machines) -> None:
    machines.boot(110)
    address = machines.ready(110)
    key = machines.host_key(address)
    machines.call("fault", "address-changes", True, {"vmid": 110})
    kexec(machines, address)
    fresh = machines.in_installer(110)
    assert fresh != address
    assert machines.host_key(fresh) == key
    output = machines.ssh(
        "root", fresh, "hostname; . /etc/os-release; echo $VARIANT_ID; findmnt -no FSTYPE /; nix eval --expr 1+1"
    )
    assert output.stdout.split() == ["nixos-installer", "installer", "overlay", "2"], output.stderr


INSTALL = """
set -e
sgdisk --zap-all /dev/sda
sgdisk -n 1:0:+64M -t 1:EF00 -c 1:boot -n 2:0:0 -c 2:system /dev/sda
partprobe /dev/sda
udevadm settle
mkfs.vfat /dev/disk/by-partlabel/boot
mkfs.ext4 -q /dev/disk/by-partlabel/system
mount /dev/disk/by-partlabel/system /mnt
mkdir /mnt/boot
mount -t vfat /dev/disk/by-partlabel/boot /mnt/boot -o umask=0077
cat >/tmp/builder <<'END'
mkdir -p $out/bin
cat >$out/init <<'END2'
#!/usr/bin/sh
export PATH=/usr/bin:/usr/sbin
cp -a /seed/. /etc
exec /usr/lib/systemd/systemd
END2
cat >$out/bin/switch-to-configuration <<END2
#!/usr/bin/sh -e
test "\\$NIXOS_INSTALL_BOOTLOADER" = 1
mkdir -p /boot/loader/entries
echo default a.conf >/boot/loader/loader.conf
echo options init=$out/init >/boot/loader/entries/a.conf
END2
chmod +x $out/init $out/bin/*
END
path=$(nix build --impure --no-link --print-out-paths --expr 'derivation {
  name = "system"; system = "x86_64-linux"; builder = "/bin/sh"; PATH = "/usr/bin"; args = [ /tmp/builder ]; }')
nix copy --no-check-sigs --to 'local?root=/mnt' $path
mkdir /mnt/seed
cp -a /etc/. /mnt/seed
echo installed >/mnt/seed/hostname
cp -a /root /mnt/root
nixos-install --root /mnt --system $path --no-root-passwd --no-channel-copy
umount -R /mnt
echo $path
"""


@pytest.mark.slow
def test_an_installed_system_boots_from_its_own_disk_and_switches_off(machines: Machines) -> None:
    machines.boot(110)
    address = machines.ready(110)
    kexec(machines, address)
    address = machines.in_installer(110)
    done = machines.ssh("root", address, "sh -s", input=INSTALL)
    assert done.returncode == 0, done.stderr
    path = done.stdout.split()[-1]
    machines.ssh("root", address, "reboot")
    until(lambda: machines.told(110, "get-host-name", "host-name") == "installed")
    address = machines.ready(110, "root")
    output = machines.ssh("root", address, "findmnt -no SOURCE /; readlink -f /nix/var/nix/profiles/system")
    assert output.stdout.split() == ["/dev/sda2", path]
    assert machines.call("shutdown", 110, 10) is True
    assert machines.call("switched_off") == [110]
    assert machines.call("running", 110) is False
    # It was not the installation that made it boot: BIOS firmware finds nothing there.
    machines.start(110, bios="seabios")
    time.sleep(1)
    assert machines.call("running", 110) is True
    assert not machines.agent_answers(110)


def test_pulling_the_plug_keeps_the_disk_and_resetting_boots_again(machines: Machines) -> None:
    machines.boot(110)
    address = machines.ready(110)
    assert machines.ssh("deploy", address, "echo kept | sudo tee /root/mark; sync").returncode == 0
    before = machines.execute(110, "/usr/bin/cat", "/proc/sys/kernel/random/boot_id")["out-data"]
    machines.call("reset", 110)
    until(lambda: machines.agent_answers(110))
    after = until(lambda: machines.execute(110, "/usr/bin/cat", "/proc/sys/kernel/random/boot_id")["out-data"])
    assert before != after
    machines.call("stop", 110)
    assert machines.call("running", 110) is False
    assert machines.call("switched_off") == []
    machines.start(110)
    until(lambda: machines.agent_answers(110))
    assert machines.agent(110, "file-read", file="/root/mark")["content"] == "kept\n"


def test_a_machine_that_does_not_return_has_power_and_nothing_else(machines: Machines) -> None:
    machines.boot(110)
    address = machines.ready(110)
    machines.call("fault", "no-return", True, {})
    machines.ssh("deploy", address, "sudo reboot")
    until(lambda: not machines.agent_answers(110))
    time.sleep(1.5)
    assert machines.call("running", 110) is True
    assert not machines.agent_answers(110)
    machines.call("fault", "no-return", False, {})
    machines.call("reset", 110)
    machines.ready(110)


def test_an_address_moves_under_a_running_machine(machines: Machines) -> None:
    machines.boot(110)
    address = machines.ready(110)
    machines.call("fault", "address-moves", True, {"vmid": 110})
    moved = until(lambda: machines.address(110) not in (None, address) and machines.address(110))
    assert machines.ssh("deploy", moved, "true").returncode == 0


def test_reset_forgets_machines_volumes_and_faults(machines: Machines) -> None:
    for vmid in (110, 111):
        machines.boot(vmid)
    machines.call("fault", "no-return", True, {})
    until(lambda: machines.agent_answers(111))
    began = time.monotonic()
    machines.call("reset_all")
    assert time.monotonic() - began < 15
    assert machines.call("running", 110) is False
    assert list(machines.places.disks.iterdir()) == []
    assert machines.inside("losetup", "-nO", "BACK-FILE").stdout.count(str(machines.places.disks)) == 0
    assert machines.call("fault", "nosuch", True, {}) is False


def test_a_disk_grows_under_a_running_machine(machines: Machines) -> None:
    machines.boot(110)
    address = machines.ready(110)
    machines.call("resize_volume", "nvmeprom:vm-110-disk-0", DISK + (1 << 30))
    output = machines.ssh("deploy", address, "lsblk -bdJo SIZE /dev/sda")
    assert json.loads(output.stdout)["blockdevices"][0]["size"] == DISK + (1 << 30)
