"""The lab's network: one bridge without uplink, DHCP by dnsmasq, a namespace and a veth per boot of a machine."""

import json
import signal
import subprocess
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

BRIDGE = "br0"
GATEWAY = "10.77.0.1"
PREFIX = 24
FIRST, LAST = 100, 250
GUEST_INTERFACE = "ens18"  # what a PVE guest calls its first virtio card


def ip(*arguments: str, batch: Iterable[str] = ()) -> str:
    """Run ip(8), with `batch` as one `ip -batch`. Raises CalledProcessError."""
    lines = "".join(line + "\n" for line in batch)
    argv = ["ip", *arguments, *(["-batch", "-"] if lines else [])]
    return subprocess.run(argv, input=lines, capture_output=True, text=True, check=True).stdout


class Network:
    """Bridge, DHCP server and the address of every card. Make one per network namespace."""

    def __init__(self, directory: Path) -> None:
        """`directory` takes dnsmasq's files."""
        self._directory = directory
        self._hosts = directory / "dhcp-hosts"
        self._hosts.write_text("")
        self._addresses: dict[str, int] = {}  # card → last byte; also of cards that are off
        self._next = FIRST
        self._lock = threading.Lock()
        self._boots = 0
        ip(
            batch=[
                "link set lo up",
                f"link add {BRIDGE} type bridge forward_delay 0",
                f"addr add {GATEWAY}/{PREFIX} dev {BRIDGE}",
                f"link set {BRIDGE} up",
            ]
        )
        self._dnsmasq = self._serve()

    def _serve(self) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root", "--pid-file="]
            + [f"--interface={BRIDGE}", "--bind-interfaces", "--no-ping", "--dhcp-authoritative", "--log-facility=-"]
            + [f"--dhcp-range=10.77.0.{FIRST},10.77.0.{LAST},255.255.255.0,12h", f"--dhcp-hostsfile={self._hosts}"]
            + [f"--dhcp-leasefile={self._leases}", "--dhcp-option=option:dns-server", "--quiet-dhcp"],
            stdin=subprocess.DEVNULL,
        )

    def give_address(self, mac: str, *, fresh: bool) -> str:
        """The address that DHCP will hand to this card; `fresh`: another one than before."""
        with self._lock:
            if fresh or mac not in self._addresses:
                taken = set(self._addresses.values())
                while self._next in taken:
                    self._next = FIRST + (self._next + 1 - FIRST) % (LAST + 1 - FIRST)
                self._addresses[mac] = self._next
                self._next = FIRST + (self._next + 1 - FIRST) % (LAST + 1 - FIRST)
                # Whatever client id the system of the hour sends: the card counts.
                lines = [f"{card},id:*,10.77.0.{last}\n" for card, last in self._addresses.items()]
                self._hosts.write_text("".join(lines))
                self._dnsmasq.send_signal(signal.SIGHUP)
            return f"10.77.0.{self._addresses[mac]}"

    @property
    def _leases(self) -> Path:
        return self._directory / "dhcp-leases"

    def forget(self) -> None:
        """Every card as never seen: an address that is leased to one of before would be given to no other."""
        with self._lock:
            self._addresses.clear()
            self._next = FIRST
            self._hosts.write_text("")
            self._dnsmasq.kill()
            self._dnsmasq.wait()
            self._leases.unlink(missing_ok=True)
            self._dnsmasq = self._serve()

    def plug(self, vmid: int, mac: str | None, link_down: bool) -> "Plug":
        """A network namespace for one boot, with lo, docker0 and, given a MAC, a card on the bridge."""
        with self._lock:
            self._boots += 1
            number = self._boots % 1000
        return Plug(f"vm{vmid}-{number}", f"v{vmid}-{number}", mac, link_down)


class Plug:
    """A machine's network of one boot: `namespace` by name, `link` the bridge's end."""

    def __init__(self, namespace: str, link: str, mac: str | None, link_down: bool) -> None:
        self.namespace = namespace
        self.link = link if mac else None
        ip("netns", "add", namespace)
        if mac:
            state = "down" if link_down else "up"
            ip(
                batch=[
                    f"link add {link} type veth peer name {GUEST_INTERFACE} address {mac.lower()} netns {namespace}",
                    f"link set {link} master {BRIDGE} {state}",
                ]
            )
        # A trap that real fleets have: an address that is nobody's way to the machine, listed before the real one.
        ip(
            "-n",
            namespace,
            batch=[
                "link set lo up",
                "link add docker0 type bridge",
                "addr add 172.17.0.1/16 dev docker0",
                "link set docker0 up",
            ],
        )

    @property
    def path(self) -> str:
        return f"/run/netns/{self.namespace}"

    def interfaces(self) -> list[dict[str, Any]]:
        """What `ip -json address` shows inside, lo and docker0 first."""
        found: list[dict[str, Any]] = json.loads(ip("-n", self.namespace, "-json", "-statistics", "address") or "[]")
        order = {"lo": 0, "docker0": 1}
        return sorted(
            (item for item in found if item), key=lambda item: (order.get(item["ifname"], 2), item["ifindex"])
        )

    def replug(self) -> None:
        """Cable out and in again: the guest asks DHCP anew."""
        if self.link:
            ip("link", "set", self.link, "down")
            ip("link", "set", self.link, "up")

    def unplug(self) -> None:
        """The namespace and its links go."""
        if self.link:
            ip("link", "del", self.link)
        ip("netns", "del", self.namespace)
