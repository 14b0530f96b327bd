"""Where a fleet host is right now, and which host key must answer there.

A VM is its VMID and MAC, never an address: the address is looked up anew through the hypervisor after every
hop, and so is what runs there (the clone, the installer, the installed system). Each of these epochs has a
host key of its own, and each key comes from here or through the authenticated API, never from the wire.

What the API passes on of a guest is still the word of whoever is root in it. So no place that a guest names is more
than one to try: who answers there has to prove that it is the guest (`nixherd.locate.proof`), and a key, an address or
a system that cannot be its own is refused at once.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, MutableSet
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from typing_extensions import TypeIs

from nixherd.base.errors import AgentUnavailable, ApiError, FleetError, Misused, NoAgent, Refused
from nixherd.base.names import USER, is_a
from nixherd.base.ssh_keys import parse_public_key, same_key
from nixherd.fleet.host_keys import HostKeys
from nixherd.fleet.models import Fleet, GuestType, Host, Vm
from nixherd.locate.proof import Asked, require_a_guests, told_key
from nixherd.proxmox.config import VmConfig
from nixherd.proxmox.guest.identity import address_of, contradiction, declared_mac, label, why_not_ours
from nixherd.proxmox.guest.observe import find
from nixherd.proxmox.hypervisor import Hypervisor

_ADDRESS = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*|[0-9A-Fa-f:]+(%[A-Za-z0-9]+)?", re.ASCII)


class Absent(FleetError):
    """The machine cannot be reached: it does not exist, or is switched off. `what` leaves out the remedy."""

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
    """One address to try, with the only host key that may answer there.

    `identity` is that of the guest that named it, which whoever answers has to prove; `told`: the guest named the key.
    """

    address: str
    epoch: Epoch
    host_key: str
    user: str
    identity: Asked | None = field(default=None, compare=False)
    told: bool = field(default=False, compare=False)


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
            raise Misused(f"--data ssh_hostname={address} is not a host name or address; the user goes to install_user")
        if user is not None and not is_a(USER, str(user)):
            raise Misused(f"--data install_user={user} is not a user's name")
        if host_key is not None:
            try:
                parse_public_key(str(host_key))
            except ValueError as error:
                raise Misused(f"--data host_key: {error}; give what `cat /etc/ssh/ssh_host_*_key.pub` shows") from error
        return cls(*(None if value is None else str(value) for value in (address, host_key, user)))


class NotInstalled(Refused):
    """Something else than an installed system answers, in a run that installs none."""

    def __init__(self, who: str, epoch: Epoch, word: str) -> None:
        remedy = "only a run that installs it goes there (nixherd provision, nixherd install)"
        super().__init__(f"{who} runs no installed system: {word} the {epoch}; {remedy}")


def epoch_of(os_release: str) -> Epoch:
    """What a machine's /etc/os-release says it is. NixOS marks its installers with `VARIANT_ID=installer`."""
    values = dict(line.split("=", 1) for line in os_release.splitlines() if "=" in line)
    values = {key: value.strip().strip("\"'") for key, value in values.items()}
    if values.get("VARIANT_ID") == "installer":
        return Epoch.INSTALLER
    names = {values.get("ID"), *values.get("ID_LIKE", "").split()}  # system.nixos.distroId changes ID
    return Epoch.FINAL if "nixos" in names else Epoch.CLONE


def epoch_on(host: Host, os_release: str) -> Epoch:
    """The same of this very host: whatever else than an installer runs on one without NixOS is what it is to run."""
    epoch = epoch_of(os_release)
    return Epoch.FINAL if epoch is Epoch.CLONE and not host.is_nixos else epoch


@dataclass(frozen=True)
class Look:
    """How a machine is looked for: in which of `epochs` it is to answer, and how long a clone may take.

    `accepted` are the epochs that this run has any business in: a VM in another one is Refused.

    `patience` is how many seconds a fresh clone may take to say through its agent that cloud-init is done; until then
    it still shows the template's host key, which all clones share. The question is the one changing call there is:
    without patience, while we only plan, it is not asked. `done` keeps which guests have said it, so that who looks
    again does not ask again.
    """

    epochs: Collection[Epoch] = (Epoch.FINAL,)
    accepted: Collection[Epoch] = (Epoch.FINAL,)
    patience: float = 0
    progress: Callable[[str], None] = field(default=lambda text: None, repr=False)
    done: MutableSet[str] | None = None

    @classmethod
    def anywhere(cls, **values: Any) -> "Look":
        """Whichever epoch it is in."""
        return cls(tuple(Epoch), tuple(Epoch), **values)


def look(hypervisor: Hypervisor, keys: HostKeys, host: Host, hints: Hints, how: Look) -> list[Place]:
    """The places where `host` may answer now; none while it is on its way.

    A VM of ours is found through the hypervisor alone, as whoever installs it has to; one that is installed is better
    looked for by `nixherd.locate.installed`. A host whose key hosts.nix pins answers as installed only, unless the
    private half is here, for it is to be installed with that key.

    Raises Absent when there is nothing to wait for.
    """
    vm = hypervisor.fleet.vm_of(host.id)
    if not is_proven_by_agent(vm):
        card = _known_card(hypervisor, vm) if vm else None
        return [replace(place, identity=card) for place in _look_at_names(keys, host, hints)]
    guest = running(hypervisor, vm)
    try:
        return ask_agent(hypervisor, keys, host, guest, how)
    except NoAgent as error:
        file = keys.fleet.file
        pin = "" if keys.pinned(host.id) else f"put the host key of {host.id} into {file} as its publicKey, or "
        why = f"{label(vm)} has no guest agent, which alone could prove that a machine is it"
        raise Absent(why, f"{pin}have one run there (agent = true)") from error
    except AgentUnavailable as error:
        how.progress(str(error))
        return []


def is_proven_by_agent(vm: Vm | None) -> TypeIs[Vm]:
    """Whether this is a guest whose agent has to vouch for it before anything of it is wiped."""
    return vm is not None and vm.is_managed and vm.type is GuestType.QEMU


def addresses(host: Host) -> list[str]:
    """Under which names and addresses a host that no hypervisor knows of is tried, in order.

    An `addresses` list in hosts.nix comes first; without one the hostname, then the SSH alias.
    """
    return list(host.names)


def _look_at_names(keys: HostKeys, host: Host, hints: Hints) -> Iterator[Place]:
    pinned = keys.pinned(host.id)
    if host.public_key and hints.host_key and not same_key(host.public_key, hints.host_key):
        why = f"{host.id} has a publicKey in {keys.fleet.file}, so it is installed already"
        why += " and answers with that key alone"
        remedy = "leave --data host_key out, or put a placeholder there if it is to be installed anew"
        raise Refused(f"{why}; {remedy}")
    if pinned is None and hints.host_key is None:
        why = f"{host.id}: {keys.fleet.file} pins no host key of it (publicKey), so it is not connected to"
        pin = f"`nixherd trust {host.id}` pins the one that it proves to have"
        raise Absent(why, f"{pin}; to install it, say which one it shows now with --data host_key='ssh-ed25519 …'")
    for address in [hints.address] if hints.address else addresses(host):
        if pinned:
            yield Place(address, Epoch.FINAL, pinned, host.user)
        if hints.host_key and not host.public_key:
            if other := keys.owner(hints.host_key, but=host.id):  # a mistyped address
                raise Refused(f"--data host_key is the key of {other}, not of {host.id}; correct it and ssh_hostname")
            # kexec keeps the key: whether the installer or what was there before answers shows after login
            for user in dict.fromkeys((hints.user or "root", "root")):
                yield Place(address, Epoch.CLONE, hints.host_key, user)


def _known_card(hypervisor: Hypervisor, vm: Vm) -> Asked | None:
    """A guest that no agent is asked about, whose MAC is known: it is declared, or the hypervisor tells a container's.

    Its address is not its own word, so a hypervisor that cannot be asked is not an obstacle: the pinned key counts.
    """
    if card := declared_card(vm):
        return card
    if vm.is_managed and vm.type is GuestType.LXC:
        with suppress(FleetError):
            if found := find(hypervisor.client, hypervisor.fleet, vm):
                return Asked.of(vm, *found, has_agent=False)
    return None


def declared_card(vm: Vm) -> Asked | None:
    """A guest that no agent is asked about, whose MAC is declared."""
    mac = declared_mac(vm)
    return Asked(label(vm), "", vm.vmid, mac, has_agent=False) if mac else None


@dataclass(frozen=True)
class Running:
    """A guest that runs: on which node, and its configuration."""

    vm: Vm
    node: str
    config: VmConfig


@dataclass(frozen=True)
class _Seen:
    """A VM that runs, what its agent says of itself, and what is compared with it."""

    guest: Running
    identity: Asked
    address: str
    epoch: Epoch


def running(hypervisor: Hypervisor, vm: Vm) -> Running:
    """The guest as the hypervisor shows it. Absent when there is none, or it does not run."""
    client, found = hypervisor.client, find(hypervisor.client, hypervisor.fleet, vm)
    if found is None:
        raise Absent(f"{label(vm)} does not exist on {hypervisor.fleet.node_of(vm)}", "provision it first")
    node, config = found
    status = client.status(node, vm.vmid, vm.type)
    if status is None:
        raise Absent(f"{label(vm)} went away", "look at its node's task list")
    if not status.running:
        raise Absent(f"{label(vm)} is {status.status}", "start it first")
    return Running(vm, node, config)


def _see(hypervisor: Hypervisor, host: Host, guest: Running, progress: Callable[[str], None]) -> _Seen | None:
    """What the agent says; None, and why, while it has no address. AgentUnavailable, or Refused."""
    client, vm, node = hypervisor.client, guest.vm, guest.node
    address = address_of(guest.config, client.agent_interfaces(node, vm.vmid))
    if address is None:
        progress("the guest has no address yet")
        return None
    named = Asked.of(vm, node, guest.config)
    require_a_guests(hypervisor, named, address)
    return _Seen(guest, named, address, epoch_on(host, client.agent_read(node, vm.vmid, "/etc/os-release")))


def ask_agent(hypervisor: Hypervisor, keys: HostKeys, host: Host, guest: Running, how: Look) -> list[Place]:
    """Where the agent of a VM that runs says that it is, as `look` has it.

    AgentUnavailable when it does not answer, NoAgent where there is none.
    """
    seen = _see(hypervisor, host, guest, how.progress)
    if seen is None:
        return []
    if seen.epoch is not Epoch.FINAL:
        _require_installable(hypervisor.fleet, keys, host, seen, how.accepted)
    if seen.epoch not in how.epochs:
        how.progress(f"the {seen.epoch} still answers")
        return []
    key = _key_of(hypervisor, keys, host, seen, how)
    told = seen.epoch is not Epoch.FINAL
    return [Place(seen.address, seen.epoch, key, seen.epoch.user or host.user, seen.identity, told)] if key else []


def _require_installable(fleet: Fleet, keys: HostKeys, host: Host, seen: _Seen, accepted: Collection[Epoch]) -> None:
    """Refused where nothing but the installed system may answer for this host in this run."""
    if why := why_not_ours(fleet, seen.guest.vm, seen.guest.config, seen.guest.node):
        raise Refused(why)  # whose word on its key would count for nothing
    if problem := keys.problem(host.id):
        why = f"{seen.identity.label} answers as installed only, for {fleet.file} pins the key of {host.id}"
        remedy = f"look at it, and if it is to be installed anew: {problem}"
        raise Refused(f"{why}; its agent says that it is the {seen.epoch}: {remedy}")
    if seen.epoch not in accepted:
        raise NotInstalled(seen.identity.label, seen.epoch, "its agent says that it is")


def _key_of(hypervisor: Hypervisor, keys: HostKeys, host: Host, seen: _Seen, how: Look) -> str | None:
    client, guest, done = hypervisor.client, seen.guest, how.done
    vm = guest.vm
    if seen.epoch is Epoch.FINAL:
        key = keys.pinned(host.id)
        if key is None:
            file = keys.fleet.file
            why = f"{file} pins no publicKey of it and {keys.private_key_file(host.id)} is missing"
            remedy = f"`nixherd trust {host.id}`, or put its publicKey into {file}"
            raise Absent(f"{host.id}: an installed system answers, but {why}", remedy)
        return key
    if seen.epoch is Epoch.CLONE:
        if not how.patience:
            told_key(hypervisor, keys, host.id, seen.identity, for_good=False)
            return None
        this = f"{vm.vmid} {seen.identity.mac} {seen.identity.uuid}"
        if done is None or this not in done:
            how.progress("waiting for cloud-init")
            ended = client.agent_exec(guest.node, vm.vmid, ["cloud-init", "status", "--wait"], timeout=how.patience)
            if ended.exitcode not in (0, 2):  # 2: done, with recoverable errors
                words = (ended.stdout or ended.stderr).strip()
                raise ApiError(f"vm {vm.vmid} ({vm.name}): cloud-init failed ({ended.exitcode}): {words}", None)
            if done is not None:
                done.add(this)
    return told_key(hypervisor, keys, host.id, seen.identity, for_good=True)


def told_place(hypervisor: Hypervisor, keys: HostKeys, host: Host) -> Place | None:
    """Where the installed system of a VM of ours answers whose key nobody knows but its agent; None while none runs.

    What answers there has still to prove that it is that VM. Refused when it is not ours, or the key is another's;
    FleetError while it does not say.
    """
    vm = hypervisor.fleet.vm_of(host.id)
    found = find(hypervisor.client, hypervisor.fleet, vm) if vm else None
    if vm is None or found is None or found[1].lock == "clone":
        return None
    if why := why_not_ours(hypervisor.fleet, vm, found[1], found[0]):
        raise Refused(why)
    try:
        seen = _see(hypervisor, host, running(hypervisor, vm), lambda line: None)
    except Absent:
        return None
    except (AgentUnavailable, NoAgent) as error:
        raise FleetError(f"{host.id}: its guest agent does not say which host key it has: {error}") from error
    if seen is None:
        raise FleetError(f"{host.id}: its guest has no address yet, so what it says cannot be proven; try again")
    if seen.epoch is not Epoch.FINAL:
        return None
    key = told_key(hypervisor, keys, host.id, seen.identity, for_good=True)
    return Place(seen.address, Epoch.FINAL, key, host.user, seen.identity, told=True)


def stranger(hypervisor: Hypervisor, keys: HostKeys, host: Host, *, installs: bool) -> str | None:
    """Why the guest under this host's VMID is somebody else's; None when it is ours, in the making, or not there.

    Our mark counts where it may come to be installed (`installs`); else the key that is pinned for it decides.
    """
    vm = hypervisor.fleet.vm_of(host.id)
    if not is_proven_by_agent(vm):
        return None
    found = find(hypervisor.client, hypervisor.fleet, vm)
    if found is None or found[1].lock == "clone":
        return None
    judge = why_not_ours if installs and not keys.problem(host.id) else contradiction
    return judge(hypervisor.fleet, vm, found[1], found[0])
