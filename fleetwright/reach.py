"""Where a fleet host is right now, and which host key must answer there.

A VM is its VMID and MAC, never an address: the address is looked up anew through the hypervisor after every
hop, and so is what runs there (the clone, the installer, the installed system). Each of these epochs has a
host key of its own, and each key comes from here or through the authenticated API, never from the wire.
"""

import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from enum import StrEnum

from fleetwright.errors import ApiError, DeadlineExceeded, FleetError, Refused
from fleetwright.models import GuestType, Host, Vm
from fleetwright.proxmox.address import address_of
from fleetwright.proxmox.client import Client
from fleetwright.proxmox.errors import AgentUnavailable
from fleetwright.proxmox.plan import is_ours, not_ours
from fleetwright.session import Session

HOST_KEY_FILE = "/etc/ssh/ssh_host_ed25519_key.pub"
POLL = 0.25  # seconds between two looks at a machine that is on its way


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


def epoch_of(os_release: str) -> Epoch:
    """What a machine's /etc/os-release says it is. NixOS marks its installers with `VARIANT_ID=installer`."""
    values = dict(line.split("=", 1) for line in os_release.splitlines() if "=" in line)
    if values.get("VARIANT_ID", "").strip('"') == "installer":
        return Epoch.INSTALLER
    return Epoch.FINAL if values.get("ID", "").strip('"') == "nixos" else Epoch.CLONE


def look(
    session: Session,
    host: Host,
    hints: Hints,
    *,
    epochs: Collection[Epoch],
    may_exec: bool,
    progress: Callable[[str], None],
) -> list[Place]:
    """The places where `host` may answer now, in one of `epochs`; none while it is on its way.

    `may_exec` allows the one changing call there is, asking a fresh clone through its agent whether cloud-init
    is done; until then the clone still shows the template's host key, which all clones share.

    Raises Absent when there is nothing to wait for.
    """
    vm = session.vm(host.id)
    if vm is not None and vm.is_managed and vm.type is GuestType.QEMU:
        return _look_at_vm(session, host, vm, epochs=epochs, may_exec=may_exec, progress=progress)
    return list(_look_at_names(session, host, hints))


def addresses(host: Host) -> list[str]:
    """Under which names and addresses a host that no hypervisor knows of is tried, in order.

    An `addresses` list in hosts.nix comes first; without one the hostname, then the SSH alias.
    """
    declared = host.extra.get("addresses")
    if isinstance(declared, (list, tuple)):
        return [str(address) for address in declared]
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
            # kexec keeps the key: whether the installer or what was there before answers shows after login
            for user in dict.fromkeys((hints.user or "root", "root")):
                yield Place(address, Epoch.CLONE, hints.host_key, user)


def _look_at_vm(
    session: Session,
    host: Host,
    vm: Vm,
    *,
    epochs: Collection[Epoch],
    may_exec: bool,
    progress: Callable[[str], None],
) -> list[Place]:
    client, node = session.client, session.fleet.node_of(vm)
    status = client.status(node, vm.vmid, vm.type)
    if status is None:
        raise Absent(f"vm {vm.vmid} ({vm.name}) does not exist on {node}", "provision it first")
    config = client.config(node, vm.vmid, vm.type)
    if config is None:
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
        key = _key_of(session, host, client, node, vm, epoch, may_exec=may_exec, progress=progress)
    except AgentUnavailable as error:
        progress(str(error))
        return []
    return [Place(address, epoch, key, epoch.user or host.user)] if key else []


def _key_of(
    session: Session,
    host: Host,
    client: Client,
    node: str,
    vm: Vm,
    epoch: Epoch,
    *,
    may_exec: bool,
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
        if not may_exec:
            return None
        progress("waiting for cloud-init")
        done = client.agent_exec(node, vm.vmid, ["cloud-init", "status", "--wait"])
        if done.exitcode not in (0, 2):  # 2: done, with recoverable errors
            words = (done.stdout or done.stderr).strip()
            raise ApiError(f"vm {vm.vmid} ({vm.name}): cloud-init failed ({done.exitcode}): {words}", None)
    return client.agent_read(node, vm.vmid, HOST_KEY_FILE).strip()


def stranger(session: Session, host: Host) -> str | None:
    """Why the guest under this host's VMID is somebody else's; None when it is ours, in the making, or not there."""
    vm = session.vm(host.id)
    if vm is None or not vm.is_managed or vm.type is not GuestType.QEMU:
        return None
    config = session.client.config(session.fleet.node_of(vm), vm.vmid)
    if config is None or config.lock == "clone" or is_ours(session.fleet, vm, config):
        return None
    return not_ours(session.fleet, vm, config)


def until(deadline: float, what: str, attempt: Callable[[], bool], pause: float = POLL) -> None:
    """Call `attempt` until it says True. DeadlineExceeded `deadline` seconds from now, naming what was waited for."""
    began = time.monotonic()
    while not attempt():
        if time.monotonic() - began > deadline:
            raise DeadlineExceeded(f"{what}: not within {deadline:.0f} s")
        time.sleep(pause)
