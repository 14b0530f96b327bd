"""A Debian machine of the lab that is a Proxmox VE node as far as its files and programs go, reached by real SSH."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from nixherd.base.ssh_keys import KeyPair, known_hosts_line
from tests.sshd import Sshd

ROOT = Path(__file__).parents[2]
STAND_INS = Path(__file__).with_suffix(".sh").read_text()
PROGRAMS = "uname modinfo dpkg-query dpkg apt-get update-grub update-initramfs proxmox-boot-tool"
# What nobody of ours may ask a node for.
FORBIDDEN = "qm pct pvesh reboot shutdown poweroff systemctl service modprobe rmmod insmod pvecm pveam kexec init"
KERNEL, NEXT = "6.14.8-2-pve", "6.14.11-1-pve"
GRUB = """\
# Proxmox VE's own
GRUB_DEFAULT=0
GRUB_TIMEOUT=5
GRUB_CMDLINE_LINUX_DEFAULT="quiet mitigations=auto"
GRUB_CMDLINE_LINUX=""
"""
SETUP = f"""
hostname prom
mkdir -p /run/node /usr/local/sbin /usr/local/bin /boot/grub /etc/default/grub.d /usr/local/src
cat >/usr/local/sbin/stand-in <<'STAND-IN'
#!/bin/sh
{STAND_INS}STAND-IN
chmod 755 /usr/local/sbin/stand-in
for each in {PROGRAMS} {FORBIDDEN}; do cp /usr/local/sbin/stand-in /usr/local/sbin/$each; done
echo {KERNEL} >/run/node/kernel
: >/run/node/installed; : >/run/node/asked; : >/run/node/signer
for each in {KERNEL} {NEXT}; do : >/boot/vmlinuz-$each; mkdir -p /lib/modules/$each; echo old >/boot/initrd.img-$each
  touch -d 2020-01-01 /boot/initrd.img-$each; done
cat >/etc/default/grub <<'GRUB'
{GRUB}GRUB
update-grub; : >/run/node/asked
sed -n 's|.*/boot/vmlinuz-{KERNEL} |BOOT_IMAGE=/boot/vmlinuz-{KERNEL} |p' /boot/grub/grub.cfg >/run/node/cmdline
printf 'processor\\t: 0\\nvendor_id\\t: GenuineIntel\\n' >/run/node/cpuinfo
echo "btime 1700000000" >/run/node/stat
for each in cmdline cpuinfo stat; do mount --bind /run/node/$each /proc/$each; done
device() {{
  at=/sys/bus/pci/devices/$1
  mkdir -p $at /sys/kernel/iommu_groups/$5 /sys/bus/pci/drivers/$6 /sys/bus/pci/drivers/vfio-pci
  echo $2 >$at/vendor; echo $3 >$at/device; echo $4 >$at/class; echo "pm bus" >$at/reset_method
  ln -s /sys/kernel/iommu_groups/$5 $at/iommu_group; ln -s /sys/bus/pci/drivers/$6 $at/driver
}}
device 0000:7a:00.0 0x1002 0x13c0 0x030000 14 amdgpu
device 0000:7a:00.1 0x1002 0x1640 0x040300 15 snd_hda_intel
device 0000:00:08.1 0x1022 0x14dd 0x060400 14 pcieport
mkdir -p /sys/module /usr/local/src/vendor-reset/.git
printf 'PACKAGE_NAME="vendor-reset"\\nPACKAGE_VERSION="0.1.1"\\n' >/usr/local/src/vendor-reset/dkms.conf
echo one >/usr/local/src/vendor-reset/a.c
"""
# What a boot does: the kernel that comes next, told what the boot loader has, with modules and devices as files say.
BOOT = f"""
echo {NEXT} >/run/node/kernel
sed -n 's|.*/boot/vmlinuz-{NEXT} |BOOT_IMAGE=/boot/vmlinuz-{NEXT} |p' /boot/grub/grub.cfg >/run/node/cmdline
echo "btime $(($(date +%s) + 10))" >/run/node/stat
for each in $(cat /etc/modules-load.d/*.conf | grep -v '^#'); do mkdir -p /sys/module/$(echo $each | tr - _); done
for each in $(sed -n 's/.*ids=//p' /boot/initrd.img-{NEXT} | tr , ' '); do
  for device in /sys/bus/pci/devices/*; do
    [ "$(cat $device/vendor):$(cat $device/device)" != "0x${{each%:*}}:0x${{each#*:}}" ] ||
      ln -sfn /sys/bus/pci/drivers/vfio-pci $device/driver
  done
done
grep -q 0x13c0 /etc/udev/rules.d/99-nixherd-reset-method.rules &&
  [ -e /lib/modules/{NEXT}/updates/dkms/vendor-reset.ko ] &&
  echo device_specific >/sys/bus/pci/devices/0000:7a:00.0/reset_method
"""


@dataclass
class Ended:
    """How pyinfra ended; `said` is what it said of the node, a line each."""

    status: int
    text: str

    @property
    def said(self) -> str:
        return "\n".join(line.partition("] ")[2] for line in self.text.splitlines() if "[prom] " in line)

    @property
    def changes(self) -> list[str]:
        """The rows that did something, of the table at the end."""
        return [line for line in self.said.splitlines() if line.strip().startswith("Success")]


@dataclass
class Node:
    """The node, and pyinfra as an operator runs it on it: from `environment`, imported already (tests/preloaded)."""

    machine: Sshd
    key: KeyPair
    home: Path
    environment: dict[str, str]

    def start(self, *, setup: str = "", system: str = "ID=debian\nVERSION_ID=13") -> "Node":
        self.machine.start(self.key, system=system, setup=SETUP + setup)
        return self

    def pin(self, key: KeyPair | None = None) -> None:
        (self.home / ".ssh").mkdir(exist_ok=True)
        line = known_hosts_line("127.0.0.1", (key or self.key).public, port=self.machine.port)
        (self.home / ".ssh" / "known_hosts").write_text(line + "\n")

    def pyinfra(self, *words: str, inventory: str = "nodes.py", **data: str) -> Ended:
        given = {"ssh_port": str(self.machine.port), "ssh_key": str(self.machine.key), **data}
        argv = ["pyinfra", *words[:1], inventory, *words[1:]]
        argv += [word for name, value in given.items() for word in ("--data", f"{name}={value}")]
        done = subprocess.run(
            argv, cwd=ROOT, env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
            check=False,
        )  # fmt: skip
        assert "Traceback" not in done.stdout + done.stderr, done.stdout + done.stderr
        return Ended(done.returncode, done.stdout + done.stderr)

    def deploy(self, first: str = "-y", **data: str) -> Ended:
        wanted = {"devices": "1002:13c0,1002:1640", "vendor_reset": "/usr/local/src/vendor-reset", **data}
        return self.pyinfra(first, "deploys/proxmox_host.py", "--limit", "prom", **wanted)

    def run(self, script: str) -> str:
        """Run a script on the node, as its own root would."""
        options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR"]
        argv: list[str | Path] = ["ssh", "-F", "/dev/null", "-i", self.machine.key, "-p", str(self.machine.port)]
        argv += [word for option in options for word in ("-o", option)]
        done = subprocess.run(
            [*argv, "root@127.0.0.1", script], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def asked(self) -> list[str]:
        """What its programs were asked to do since this was looked at last."""
        return self.run("cat /run/node/asked; : >/run/node/asked").splitlines()

    def files(self) -> str:
        """A digest of every file that a run could have changed."""
        where = "/etc /boot /usr/src /usr/local/src /lib/modules /var/lib/dkms /var/lib/nixherd /var/backups"
        return self.run(f"find {where} -type f -exec sha256sum {{}} + 2>/dev/null | LC_ALL=C sort; true")
