"""The lab's network: a bridge without uplink, DHCP by dnsmasq, a namespace and a veth per boot of a machine."""

import json
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

BRIDGE = "br0"
GATEWAY = "10.77.0.1"
PREFIX = 24
FIRST, LAST = 100, 250
LOOKS, PAUSE = 20, 0.25  # at a guest's addresses, seconds apart, until its cable is pulled again
GUEST_INTERFACE = "ens18"  # a PVE guest's name for its first virtio card


def ip(*arguments: str, batch: Iterable[str] = ()) -> str:
    """Run ip(8), with `batch` as one `ip -batch`. Raises CalledProcessError."""
    lines = "".join(line + "\n" for line in batch)
    argv = ["ip", *arguments, *(["-batch", "-"] if lines else [])]
    return subprocess.run(argv, input=lines, capture_output=True, text=True, check=True).stdout


class Network:
    """Bridge, DHCP server and the address of every card. Create one per network namespace."""

    def __init__(self, directory: Path) -> None:
        """`directory` holds dnsmasq's files."""
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
        """Return the address that DHCP assigns to this card; `fresh`: a different one than before."""
        with self._lock:
            if fresh or mac not in self._addresses:
                taken = set(self._addresses.values())
                while self._next in taken:
                    self._next = FIRST + (self._next + 1 - FIRST) % (LAST + 1 - FIRST)
                self._addresses[mac] = self._next
                self._next = FIRST + (self._next + 1 - FIRST) % (LAST + 1 - FIRST)
                # The MAC identifies the card, whatever client id the running system sends.
                lines = [f"{card},id:*,10.77.0.{last}\n" for card, last in self._addresses.items()]
                self._hosts.write_text("".join(lines))
                self._dnsmasq.send_signal(signal.SIGHUP)
            return f"10.77.0.{self._addresses[mac]}"

    @property
    def _leases(self) -> Path:
        return self._directory / "dhcp-leases"

    def forget(self) -> None:
        """Forget all cards: dnsmasq would not assign an address with an old lease to another card."""
        with self._lock:
            self._addresses.clear()
            self._next = FIRST
            self._hosts.write_text("")
            self._dnsmasq.kill()
            self._dnsmasq.wait()
            self._leases.unlink(missing_ok=True)
            self._dnsmasq = self._serve()

    def plug(self, vmid: int, mac: str | None, link_down: bool) -> "Plug":
        """Create a network namespace for one boot, with lo, docker0 and, given a MAC, a card on the bridge."""
        with self._lock:
            self._boots += 1
            number = self._boots % 1000
        return Plug(f"vm{vmid}-{number}", f"v{vmid}-{number}", mac, link_down)


class Plug:
    """A machine's network for one boot: `namespace` by name, `link` the bridge's end."""

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
        # A trap of real fleets: an address that does not reach the machine, listed before the real one.
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
        """Return the output of `ip -json address` inside, lo and docker0 first."""
        interfaces: list[dict[str, Any]] = json.loads(
            ip("-n", self.namespace, "-json", "-statistics", "address") or "[]"
        )
        order = {"lo": 0, "docker0": 1}
        return sorted(
            (item for item in interfaces if item), key=lambda item: (order.get(item["ifname"], 2), item["ifindex"])
        )

    def replug(self) -> None:
        """Reconnect the cable, so that the guest asks DHCP again."""
        if self.link:
            ip("link", "set", self.link, "down")
            ip("link", "set", self.link, "up")

    def move(self, address: str, is_due: Callable[[], bool]) -> None:
        """Reconnect the cable until the guest has this address, or while it `is_due` to have it.

        The kernel tells a guest of a short interruption only where it has told it of none shortly before.
        """
        while is_due():
            self.replug()
            for _ in range(LOOKS):
                time.sleep(PAUSE)
                if any(row.get("local") == address for card in self.interfaces() for row in card.get("addr_info", ())):
                    return

    def unplug(self) -> None:
        """Remove the namespace and its links."""
        if self.link:
            ip("link", "del", self.link)
        ip("netns", "del", self.namespace)
