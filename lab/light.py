"""Light hosts: deployed machines without systemd and disk, each with a namespace and an overlay.

`python -m lab fleet N` adds them to the fleet's copy (light001, …, one configuration for all), builds their system and
starts them: sshd, a separate Nix store, the system activated. A hundred start in seconds. They end with the lab.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from lab.errors import LabError
from lab.fleet import Edit
from lab.machines.network import BRIDGE, ip
from lab.places import Places

NETWORK = "10.78"  # .0.0/16, separate from the machines' network
MOST = 500  # above this the kernel forgets neighbours: its table holds 1,024 for all namespaces together
CONFIGURATION = """\
# A light host of the lab: no boot loader, no hardware; what is common to all machines comes by itself.
{lib, ...}: {
  boot.isContainer = true;
  users.users.root = {
    isNormalUser = lib.mkForce false;
    home = lib.mkForce "/root";
  };
  system.stateVersion = "25.11";
}
"""
# $0: the lab's base root, $1: the host's directory, $2: its name, $3: its system
START = """
set -e
mount --make-rprivate /
mkdir -p "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=$0,upperdir=$1/upper,workdir=$1/work" "$1/root"
cd "$1/root"
mkdir -p nix dev proc sys run tmp root/.ssh etc/ssh old
nix --extra-experimental-features nix-command copy --no-check-sigs --to "local?root=$1/root" "$3"
cp "$1/authorized_keys" root/.ssh/; chmod 0700 root root/.ssh
cp "$1/ssh_host_ed25519_key" "$1/ssh_host_ed25519_key.pub" etc/ssh/; chmod 0600 etc/ssh/ssh_host_ed25519_key
mount -t proc proc proc
mount --rbind /dev dev
mount -t tmpfs -o mode=755 tmpfs run
pivot_root . old
umount -l /old
rmdir /old
hostname "$2"
export PATH=/usr/bin:/usr/sbin HOME=/root NIX_CONF_DIR=/etc/nix
unset NIX_REMOTE
nix-env --profile /nix/var/nix/profiles/system --set "$3"
NIXOS_ACTIVATE=1 "$3/activate" >/var/log/activation 2>&1 || true
ln -sfn "$3" /run/booted-system
mkdir -p /run/sshd
echo started >&2
exec /usr/sbin/sshd -D -o UsePAM=no -o PidFile=none -o HostKey=/etc/ssh/ssh_host_ed25519_key \
    -o KexAlgorithms=curve25519-sha256,curve25519-sha256@libssh.org \
    -o AuthorizedKeysFile=/root/.ssh/authorized_keys -o PermitRootLogin=prohibit-password -o MaxStartups=100 \
    -f /dev/null 2>/dev/null
"""


@dataclass(frozen=True)
class Light:
    """One light host."""

    name: str
    address: str
    system: str = ""

    @property
    def mac(self) -> str:
        """Return a locally administered address, derived from the IP address."""
        return "02:4c:" + ":".join(f"{int(part):02x}" for part in self.address.split("."))

    @classmethod
    def number(cls, number: int) -> "Light":
        return cls(f"light{number:03}", f"{NETWORK}.{number // 250}.{number % 250 + 1}")


Inside = Callable[[list[str], Path], list[str]]


def make(places: Places, base: str, count: int, inside: Inside, environment: Mapping[str, str]) -> list[Light]:
    """Ensure that exactly this many light hosts are in the fleet's copy and running. Raises LabError."""
    if not 0 <= count <= MOST:
        raise LabError(f"0 to {MOST} light hosts")

    def run(argv: list[str], stdin: str = "") -> str:
        done = subprocess.run(
            inside(argv, places.checkout), env=dict(environment), input=stdin, capture_output=True, text=True
        )
        if done.returncode:
            raise LabError(f"{argv[0]}: {' / '.join((done.stderr or done.stdout).strip().splitlines()[-3:])}")
        return done.stdout

    run(["sh", "-c", f"for note in {places.state}/light/*/pid; do kill -9 $(cat $note); done 2>/dev/null; true"])
    hosts = [Light.number(number) for number in range(1, count + 1)]
    directory = places.state / "light"
    shutil.rmtree(directory, ignore_errors=True)
    for host in hosts:
        ssh_files = directory / host.name
        ssh_files.mkdir(parents=True)
        key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"root@{host.name}", "-f"]
        subprocess.run([*key, ssh_files / "ssh_host_ed25519_key"], check=True)
        shutil.copy(places.home / ".ssh/id_ed25519.pub", ssh_files / "authorized_keys")
    _declare(places, hosts, run)
    if not hosts:
        return []
    toplevels = [f"{places.fleet}#nixosConfigurations.{host.name}.config.system.build.toplevel^out" for host in hosts]
    systems = run(["nix", "build", "--no-link", "--print-out-paths", *toplevels]).split()
    hosts = [Light(host.name, host.address, system) for host, system in zip(hosts, systems, strict=True)]
    orders = {"base": base, "directory": str(directory), "hosts": [asdict(host) for host in hosts]}
    run([sys.executable, "-m", "lab.light"], json.dumps(orders))
    return hosts


def _declare(places: Places, hosts: Sequence[Light], run: Callable[[list[str]], str]) -> None:
    """Declare exactly these light hosts in the fleet's copy, and commit."""
    edit = Edit(places.fleet / "hosts.nix")
    begin, end = "  # light hosts\n", "  # no more light hosts\n"
    if begin in edit.text:
        edit.text = edit.text[: edit.text.index(begin)] + edit.text[edit.text.index(end) + len(end) :]
    entries = begin + "".join(_entry(places, host) for host in hosts) + end if hosts else ""
    edit.text = edit.text.rstrip().removesuffix("}") + entries + "}\n"
    edit.save()
    configuration = places.fleet / "hosts/light"
    configuration.mkdir(exist_ok=True)
    (configuration / "configuration.nix").write_text(CONFIGURATION)
    git = f"cd {places.fleet} && git add --all && git commit --quiet --no-verify --allow-empty --message 'light hosts'"
    run(["sh", "-c", git])


def _entry(places: Places, host: Light) -> str:
    key = (places.state / "light" / host.name / "ssh_host_ed25519_key.pub").read_text().strip()
    return (
        f'  {host.name} = {{\n    hostname = "{host.name}";\n    user = "root";\n    homeDirectory = "/root";\n'
        f'    publicKey = "{key}";\n    authorizedKeys = masterKeys;\n    addresses = [ "{host.address}" ];\n'
        f"    configurationFile = ./hosts/light/configuration.nix;\n  }};\n"
    )


# Inside the lab's namespaces


def main() -> int:
    orders = json.load(sys.stdin)
    with suppress(subprocess.CalledProcessError):  # it exists already
        ip("addr", "add", f"{NETWORK}.255.254/16", "dev", BRIDGE)
    hosts = [Light(**host) for host in orders["hosts"]]
    with ThreadPoolExecutor((os.cpu_count() or 1) * 2) as pool:
        for host, problem in zip(hosts, pool.map(lambda host: _start(host, orders), hosts), strict=True):
            if problem:
                print(f"{host.name}: {problem}", file=sys.stderr)
                return 1
    return 0


def _start(host: Light, orders: Mapping[str, str]) -> str | None:
    """Start one host; return the error if it did not start."""
    directory = Path(orders["directory"]) / host.name
    link = f"l-{host.name[-3:]}"
    for old in (("netns", "del", host.name), ("link", "del", link)):
        with suppress(subprocess.CalledProcessError):
            ip(*old)
    ip("netns", "add", host.name)
    ip(
        batch=[
            # the same MAC each time, so neighbour caches stay valid
            f"link add {link} type veth peer name eth0 address {host.mac} netns {host.name}",
            f"link set {link} master {BRIDGE} up",
        ]
    )
    ip("-n", host.name, batch=["link set lo up", f"addr add {host.address}/16 dev eth0", "link set eth0 up"])
    spaces = [
        "nsenter",
        f"--net=/run/netns/{host.name}",
        "unshare",
        "--mount",
        "--uts",
        "--pid",
        "--fork",
        "--kill-child",
    ]
    log = directory / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [*spaces, "sh", "-c", START, orders["base"], str(directory), host.name, host.system],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
    assert process.stderr is not None
    lines: list[str] = []
    for line in process.stderr:
        if line == "started\n":
            (directory / "pid").write_text(str(process.pid))
            return _listens(host.address)
        lines.append(line)
    return "".join(lines[-3:]).strip() or "it ended"


def _listens(address: str) -> str | None:
    end = time.monotonic() + 10
    while True:
        try:
            socket.create_connection((address, 22), timeout=1).close()
            return None
        except OSError as error:
            if time.monotonic() > end:
                return f"no SSH at {address}: {error}"
        time.sleep(0.02)


if __name__ == "__main__":
    sys.exit(main())
