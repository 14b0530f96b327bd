"""Where a fleet host is right now, and which host key must answer there.

A VM is its VMID and MAC, never an address: the address is looked up anew through the hypervisor after every
hop, and so is what runs there (the clone, the installer, the installed system). Each of these epochs has a
host key of its own, and each key comes from here or through the authenticated API, never from the wire.
"""

import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from nixherd.errors import ApiError, DeadlineExceeded, FleetError, Refused
from nixherd.models import GuestType, Host, Vm
from nixherd.proxmox.address import address_of
from nixherd.proxmox.errors import AgentUnavailable
from nixherd.proxmox.identity import is_ours, not_ours
from nixherd.proxmox.observe import find
from nixherd.session import Misused, Session
from nixherd.ssh_keys import parse_public_key

# It takes a tenth of a second: not for those who need no API.
if TYPE_CHECKING:
    from nixherd.proxmox.client import Client

HOST_KEY_FILE = "/etc/ssh/ssh_host_ed25519_key.pub"
_ADDRESS = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*|[0-9A-Fa-f:]+(%[A-Za-z0-9]+)?", re.ASCII)
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*", re.ASCII)
SHORTEST, LONGEST = 0.05, 1.0  # seconds between two looks at a machine that is on its way


class Absent(FleetError):
    """There is no such machine to reach: it does not exist, or it is switched off. `what` leaves out the remedy."""

    def __init__(self, what: str, remedy: str) -> None:
        self.what = what
        super().__init__(f"{what}; {remedy}")


class Epoch(StrEnum):
    """Which system answers at a machine's address."""

    CLONE = "clone"
    INSTALLER = "installer"
    FINAL = "final"

    @property
    def user(self) -> str | None:
        """Who logs in there; None: the host's own admin user."""
        return "root" if self is Epoch.INSTALLER else None


@dataclass(frozen=True)
class Place:
    """One address to try, with the only host key that may answer there."""

    address: str
    epoch: Epoch
    host_key: str
    user: str


@dataclass(frozen=True)
class Hints:
    """What the operator says of a machine that no hypervisor can be asked about, with `--data`.

    `host_key` is that of the system which runs there before the installation (a rescue system, another
    distribution), `user` who may log in to it.
    """

    address: str | None = None
    host_key: str | None = None
    user: str | None = None

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> "Hints":
        """From the data ssh_hostname, host_key and install_user. Misused when one of them is not what it says."""
        address, host_key, user = (data.get(name) for name in ("ssh_hostname", "host_key", "install_user"))
        if address is not None and not _ADDRESS.fullmatch(str(address)):
            raise Misused(f"--data ssh_hostname={address} is no host name or address; the user goes to install_user")
        if user is not None and not _USER.fullmatch(str(user)):
            raise Misused(f"--data install_user={user} is no user's name")
        if host_key is not None:
            try:
                parse_public_key(str(host_key))
            except ValueError as error:
                raise Misused(
                    f"--data host_key: {error}; give it as `cat /etc/ssh/ssh_host_*_key.pub` shows it"
                ) from error
        return cls(*(None if value is None else str(value) for value in (address, host_key, user)))


def epoch_of(os_release: str) -> Epoch:
    """What a machine's /etc/os-release says it is. NixOS marks its installers with `VARIANT_ID=installer`."""
    values = dict(line.split("=", 1) for line in os_release.splitlines() if "=" in line)
    values = {key: value.strip().strip("\"'") for key, value in values.items()}
    if values.get("VARIANT_ID") == "installer":
        return Epoch.INSTALLER
    names = {values.get("ID"), *values.get("ID_LIKE", "").split()}  # system.nixos.distroId changes ID
    return Epoch.FINAL if "nixos" in names else Epoch.CLONE


def look(
    session: Session,
    host: Host,
    hints: Hints,
    *,
    epochs: Collection[Epoch],
    patience: float,
    progress: Callable[[str], None],
    by_name: bool = False,
) -> list[Place]:
    """The places where `host` may answer now, in one of `epochs`; none while it is on its way.

    `by_name`: a machine that is installed, whose entry in hosts.nix says where it is, needs no hypervisor to be found.

    `patience` is how many seconds a fresh clone may take to say through its agent that cloud-init is done; until
    then it still shows the template's host key, which all clones share. The question is the one changing call
    there is: without patience, while we only plan, it is not asked.

    Raises Absent when there is nothing to wait for.
    """
    vm = session.vm(host.id)
    known = by_name and host.addresses is not None and session.pinned_key(host.id) is not None
    if vm is not None and vm.is_managed and vm.type is GuestType.QEMU and not known:
        return _look_at_vm(session, host, vm, epochs=epochs, patience=patience, progress=progress)
    return list(_look_at_names(session, host, hints))


def addresses(host: Host) -> list[str]:
    """Under which names and addresses a host that no hypervisor knows of is tried, in order.

    An `addresses` list in hosts.nix comes first; without one the hostname, then the SSH alias.
    """
    if host.addresses is not None:
        return list(host.addresses)
    return list(dict.fromkeys(name for name in (host.hostname, host.ssh_alias) if name))


def _look_at_names(session: Session, host: Host, hints: Hints) -> Iterator[Place]:
    pinned = session.pinned_key(host.id)
    if pinned is None and hints.host_key is None:
        raise Absent(
            f"{host.id}: hosts.nix has a placeholder for its publicKey, so no host key is known to pin",
            "say which one it shows now with --data host_key='ssh-ed25519 …'",
        )
    for address in [hints.address] if hints.address else addresses(host):
        if pinned:
            yield Place(address, Epoch.FINAL, pinned, host.user)
        if hints.host_key:
            _require_nobody_elses(session, host, hints.host_key)
            # kexec keeps the key: whether the installer or what was there before answers shows after login
            for user in dict.fromkeys((hints.user or "root", "root")):
                yield Place(address, Epoch.CLONE, hints.host_key, user)


def _require_nobody_elses(session: Session, host: Host, host_key: str) -> None:
    """Refused when the key that the operator gave for this host is known as another's: a mistyped address."""
    given = parse_public_key(host_key).blob
    for other in session.fleet.hosts:
        known = session.pinned_key(other) if other != host.id else None
        if known and parse_public_key(known).blob == given:
            raise Refused(f"--data host_key is the key of {other}, not of {host.id}; correct it and ssh_hostname")


def _look_at_vm(
    session: Session,
    host: Host,
    vm: Vm,
    *,
    epochs: Collection[Epoch],
    patience: float,
    progress: Callable[[str], None],
) -> list[Place]:
    client, found = session.client, find(session.client, session.fleet, vm)
    if found is None:
        raise Absent(f"vm {vm.vmid} ({vm.name}) does not exist on {session.fleet.node_of(vm)}", "provision it first")
    node, config = found
    status = client.status(node, vm.vmid, vm.type)
    if status is None:
        raise Absent(f"vm {vm.vmid} ({vm.name}) went away", "look at its node's task list")
    if not status.running:
        raise Absent(f"vm {vm.vmid} ({vm.name}) is {status.status}", "start it first")
    try:
        address = address_of(config, client.agent_interfaces(node, vm.vmid))
        if address is None:
            progress("the guest has no address yet")
            return []
        epoch = epoch_of(client.agent_read(node, vm.vmid, "/etc/os-release"))
        if epoch not in epochs:
            progress(f"the {epoch} still answers")
            return []
        if epoch is not Epoch.FINAL and not is_ours(session.fleet, vm, config):
            raise Refused(not_ours(session.fleet, vm, config))  # whose word on its key would count for nothing
        key = _key_of(session, host, client, node, vm, epoch, patience=patience, progress=progress)
    except AgentUnavailable as error:
        progress(str(error))
        return []
    return [Place(address, epoch, key, epoch.user or host.user)] if key else []


def _key_of(
    session: Session,
    host: Host,
    client: "Client",
    node: str,
    vm: Vm,
    epoch: Epoch,
    *,
    patience: float,
    progress: Callable[[str], None],
) -> str | None:
    if epoch is Epoch.FINAL:
        key = session.pinned_key(host.id)
        if key is None:
            raise Absent(
                f"{host.id}: an installed system answers, but hosts.nix has a placeholder for its publicKey "
                f"and {session.state_of(host.id).private_key_file} is missing",
                "put its publicKey into hosts.nix",
            )
        return key
    if epoch is Epoch.CLONE:
        if not patience:
            return None
        progress("waiting for cloud-init")
        done = client.agent_exec(node, vm.vmid, ["cloud-init", "status", "--wait"], timeout=patience)
        if done.exitcode not in (0, 2):  # 2: done, with recoverable errors
            words = (done.stdout or done.stderr).strip()
            raise ApiError(f"vm {vm.vmid} ({vm.name}): cloud-init failed ({done.exitcode}): {words}", None)
    return client.agent_read(node, vm.vmid, HOST_KEY_FILE).strip()


def stranger(session: Session, host: Host) -> str | None:
    """Why the guest under this host's VMID is somebody else's; None when it is ours, in the making, or not there."""
    vm = session.vm(host.id)
    if vm is None or not vm.is_managed or vm.type is not GuestType.QEMU:
        return None
    found = find(session.client, session.fleet, vm)
    if found is None or found[1].lock == "clone" or is_ours(session.fleet, vm, found[1]):
        return None
    return not_ours(session.fleet, vm, found[1], found[0])


def until(deadline: float, what: str, attempt: Callable[[], bool]) -> None:
    """Call `attempt` until it says True; the less often the longer it takes, so that little is added to any wait.

    DeadlineExceeded `deadline` seconds from now, naming what was waited for.
    """
    began = time.monotonic()
    while not attempt():
        waited = time.monotonic() - began
        if waited > deadline:
            raise DeadlineExceeded(f"{what}: not within {deadline:.0f} s")
        time.sleep(min(max(waited / 10, SHORTEST), LONGEST))
