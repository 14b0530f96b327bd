"""A real sshd on loopback that can be killed, over a root of its own: what SSH meets, without a machine.

The root is an overlay on the lab's base, so nothing has to be installed on the machine that runs the tests.
"""

import os
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from nixherd.base.ssh_keys import KeyPair

MAC = "BC:24:11:00:01:10"  # of the one network card that its machine has
CONFIG = """\
HostKey /run/test/host_key
AuthorizedKeysFile /run/test/authorized_keys
PidFile none
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
PerSourcePenalties no
KexAlgorithms curve25519-sha256,curve25519-sha256@libssh.org
LogLevel VERBOSE
Subsystem sftp /usr/lib/openssh/sftp-server
"""
# $0: base root, $1: the machine's directory, $2: what is to be done in it first
START = """
mount --make-rprivate /
mount -t tmpfs tmpfs /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay overlay -o "lowerdir=$0,upperdir=/mnt/upper,workdir=/mnt/work" /mnt/root
for each in dev proc; do mount --rbind /$each /mnt/root/$each; done
mkdir -p /mnt/root/run/sshd /mnt/root/run/test
cp "$1"/* /mnt/root/run/test
cp "$1/os-release" /mnt/root/etc/os-release
mkdir -p /mnt/root/sys/class/net/ens18
cat "$1/mac" >/mnt/root/sys/class/net/ens18/address
hostname dev
chroot /mnt/root sh -ec "$2"
exec chroot /mnt/root /usr/sbin/sshd -D -e -f /run/test/sshd_config
"""


@dataclass
class Sshd:
    """One machine; `key` is the client's private key file that may log in to it as root."""

    base: Path
    directory: Path
    port: int
    key: Path
    processes: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def start(
        self,
        host_key: KeyPair,
        *,
        system: str = "ID=debian",
        address: str = "127.0.0.1",
        setup: str = ":",
        mac: str = MAC,
    ) -> None:
        """Listen at `address`, showing this key; `system` is the machine's /etc/os-release, `setup` a script in it."""
        files = self.directory / f"{len(self.processes)}"
        files.mkdir()
        (files / "host_key").write_text(host_key.private_openssh)
        (files / "host_key").chmod(0o600)
        shutil.copy(f"{self.key}.pub", files / "authorized_keys")
        (files / "os-release").write_text(f"{system}\n")
        (files / "mac").write_text(f"{mac.lower()}\n")
        (files / "sshd_config").write_text(f"Port {self.port}\nListenAddress {address}\n{CONFIG}")
        enter = ["unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
        with self.log.open("ab") as log:
            process = subprocess.Popen([*enter, "sh", "-ec", START, self.base, files, setup], stdout=log, stderr=log)
        self.processes.append(process)
        self._wait(process, len(self.processes))

    def _wait(self, process: "subprocess.Popen[bytes]", listening: int) -> None:
        for _ in range(500):
            assert process.poll() is None, self.log.read_text()
            if self.log.read_text().count("Server listening") == listening:
                return
            time.sleep(0.01)
        raise AssertionError(f"no sshd: {self.log.read_text()}")

    def kill(self) -> None:
        """Pull the plug: listener and connections are gone at once."""
        for process in self.processes:
            process.kill()
            process.wait()

    @property
    def log(self) -> Path:
        return self.directory / "log"

    @property
    def logins(self) -> int:
        return self.log.read_text().count("Accepted publickey for root")

    @property
    def commands(self) -> int:
        """How many were begun."""
        return self.log.read_text().count("Starting session: command")

    @property
    def contacted(self) -> bool:
        """Whether anybody has come so far as to say who wants to log in."""
        return "user root" in self.log.read_text() or "for root" in self.log.read_text()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def usable() -> str | None:
    """Why there can be no such machine here; None when there can."""
    return None if os.geteuid() == 0 else "an sshd over a root of its own needs root"
