"""What would make provisioning a VM fail, found before anything is changed: surveyed with GETs, and judged purely."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from nixherd.base.errors import ApiError, FleetError, Refused, is_passing
from nixherd.base.names import DNS_NAME, is_a
from nixherd.fleet import lockout
from nixherd.fleet.models import DEFINITIONS, Fleet, Host, Vm
from nixherd.nix.commands import Evaluated
from nixherd.proxmox.answers import Permissions, Storage, Version
from nixherd.proxmox.client import Client
from nixherd.proxmox.config import VmConfig
from nixherd.proxmox.guest import names, storages
from nixherd.proxmox.guest.identity import ActualVm
from nixherd.proxmox.guest.observe import observe, template_node
from nixherd.proxmox.guest.plan import Desired, plan_vm, require_changeable
from nixherd.proxmox.hypervisor import Hypervisor
from nixherd.proxmox.steps import AddDisk, AwaitClone, Cannot, Clone, CloudInit, Configure, Resize, Start, Step, doable


class BootLoader(StrEnum):
    """What the NixOS configuration installs."""

    SYSTEMD_BOOT = "systemd-boot"
    GRUB = "grub"
    GRUB_EFI = "grub with efiSupport"

    @property
    def firmware(self) -> str:
        """The VM's `bios` that can start it."""
        return "seabios" if self is BootLoader.GRUB else "ovmf"


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What one Nix evaluation says of a host; `boot_loader` is None where it could not be told.

    `disko_devices` are the devices of `disko.devices.disk.*`, as written (`/dev/sda`). `guest_agent` and `ssh` say
    whether the installed system runs them, `root_access` whether anybody gets to be root there; None is not judged.
    """

    hostname: str
    boot_loader: BootLoader | None
    disko_devices: tuple[str, ...]
    guest_agent: bool | None = None
    ssh: bool | None = None
    root_access: bool | None = None


@dataclass(frozen=True, slots=True)
class Survey:
    """What the API says of the places that a VM is to use; None where it does not exist.

    `template_unseen` is why the template could not be looked at, which does not matter once the VM exists.

    `storages` are those of the VM's node that it uses or is to use, `template_storages` those of the template's node
    that its disks are on; what the token may not ask for is not among them.
    """

    version: Version
    nodes: tuple[str, ...]
    permissions: Permissions
    template: VmConfig | None
    actual: ActualVm | None
    storages: Mapping[str, Storage | None]
    template_storages: Mapping[str, Storage | None] = field(default_factory=dict)
    template_unseen: FleetError | None = None

    def lacks(self, storage: str) -> bool:
        """Whether the node is known to have no such storage."""
        return storage in self.storages and self.storages[storage] is None


INSTALLER_MEMORY = 2048  # MiB: the installer and all that it unpacks live in memory


def preflight(fleet: Fleet, vm: Vm, host: Host, facts: HostFacts, seen: Survey) -> tuple[str, ...]:
    """One line per finding: what, where, what to do; none when provisioning may begin. Refused by the guard."""
    node = fleet.node_of(vm)
    if node not in seen.nodes:
        known = ", ".join(seen.nodes) or "none that this token may see"
        return (f"{DEFINITIONS}: node {node} does not exist; correct `node` (the cluster has: {known})",)
    if seen.actual is None:
        if seen.template_unseen is not None:
            raise seen.template_unseen
        reasons = tuple(template_findings(fleet, seen.template))
        if reasons:
            return reasons
    try:
        planned = plan_vm(Desired(fleet, vm, host, seen.template, seen.template_unseen), seen.actual)
        steps = tuple(step for step in doable(planned) if step.row is not None)
        require_changeable(vm, steps)
    except Refused:
        raise
    except FleetError as error:
        return (str(error),)
    reasons = tuple(str(step) for step in planned if isinstance(step, Cannot))
    if reasons:
        return reasons
    config = seen.actual.config if seen.actual else seen.template
    assert config is not None
    if vm.readonly:
        return ()  # it matches, and nothing will be done to it
    return tuple(_findings(fleet, vm, host, facts, seen, steps, config))


def _findings(
    fleet: Fleet, vm: Vm, host: Host, facts: HostFacts, seen: Survey, steps: Sequence[Step], config: VmConfig
) -> Iterator[str]:
    if not is_a(DNS_NAME, vm.name):
        yield f"{DEFINITIONS}: {vm.attribute}: `{vm.name}` is not a DNS name, which a VM's name must be; rename it"
    if not host.authorized_keys:
        yield f"{fleet.file}: {host.id}: authorizedKeys is empty, nobody could log in; add a key"
    yield from _services(facts)
    if seen.actual is None:
        yield from _memory(vm, config)
    yield from _firmware(fleet, vm, facts, config, is_template=seen.actual is None)
    yield from _devices(vm, facts, config, steps)
    node = seen.actual.node if seen.actual and seen.actual.node else fleet.node_of(vm)
    starts = config if seen.actual and any(isinstance(step, Start) for step in steps) else None
    yield from storages.findings(vm, node, seen.storages, storages.growth(vm, steps, config), starts)
    if fleet.template and seen.actual is None:
        yield from storages.template_findings(fleet.template.vmid, template_node(fleet), seen.template_storages)
    yield from _permissions(fleet, vm, seen, steps, config)


def template_findings(fleet: Fleet, template: VmConfig | None) -> Iterator[str]:
    """What the declared template lacks for being cloned from, a line each."""
    if fleet.template is None:
        yield f"{DEFINITIONS}: no `template` is declared; declare the VMID of the template to clone"
        return
    vmid, node = fleet.template.vmid, template_node(fleet)
    if template is None:
        yield f"template {vmid} does not exist on {node}; make it, or correct template.vmid in {DEFINITIONS}"
        return
    if not template.is_template:
        yield f"vm {vmid} on {node} is not a template; convert it (`qm template {vmid}`) or correct template.vmid"
    disk = template.boot_disk
    if disk is None or disk.size is None:
        yield f"template {vmid} on {node} boots from no disk; import or name one: `qm set {vmid} --boot order=scsi0`"
    if not template.agent_enabled:
        yield f"template {vmid} on {node} has no guest agent; install it there, `qm set {vmid} --agent 1`"
    if not any(drive.is_cloudinit for drive in template.drives.values()):
        yield f"template {vmid} on {node} has no cloud-init drive; add one: `qm set {vmid} --ide2 STORAGE:cloudinit`"
    card = template.nets.get("net0")
    if card is None or card.bridge is None:
        yield f"template {vmid} on {node} has no net0 on a bridge; add one: `qm set {vmid} --net0 virtio,bridge=vmbr0`"


def _services(facts: HostFacts) -> Iterator[str]:
    """Without them the run would end after the disk was formatted: with a machine that cannot be found or reached."""
    if facts.guest_agent is False:
        yield (
            f"{facts.hostname}: its configuration has no guest agent, which tells where the installed system "
            "answers; set services.qemuGuest.enable = true"
        )
    if facts.ssh is False:
        yield f"{facts.hostname}: its configuration has no SSH server; set services.openssh.enable = true"
    if facts.root_access is False:
        yield f"{facts.hostname}: its configuration has {lockout.WHAT}; {lockout.REMEDY}"


def _memory(vm: Vm, template: VmConfig) -> Iterator[str]:
    memory = vm.memory or template.memory
    if memory is not None and memory < INSTALLER_MEMORY:
        yield (
            f"{DEFINITIONS}: {vm.attribute}.memory: {memory} MiB is too little for the installer, which lives in "
            f"memory; declare {INSTALLER_MEMORY} or more until it is installed"
        )


def _firmware(fleet: Fleet, vm: Vm, facts: HostFacts, config: VmConfig, *, is_template: bool) -> Iterator[str]:
    vmid = fleet.template.vmid if is_template and fleet.template else vm.vmid
    machine = f"template {vmid}" if is_template else f"vm {vmid} ({vm.name})"
    if config.secure_boot:
        yield (
            f"{machine} has Secure Boot's keys (efidisk0: pre-enrolled-keys=1): neither the installer nor an unsigned "
            f"boot loader would start; replace that disk: `qm set {vmid} --delete efidisk0`, then "
            f"`qm set {vmid} --efidisk0 STORAGE:1,efitype=4m,pre-enrolled-keys=0`"
        )
    if facts.boot_loader is None or config.bios == facts.boot_loader.firmware:
        return
    yield (
        f"{facts.hostname}: its configuration installs {facts.boot_loader}, which needs bios "
        f"{facts.boot_loader.firmware}, but {machine} has {config.bios} and would not boot; "
        "change one of the two"
    )


def _devices(vm: Vm, facts: HostFacts, config: VmConfig, steps: Sequence[Step]) -> Iterator[str]:
    """Disko's disks are the VM's: what it boots from among them, each there, and none twice."""
    disk = config.boot_disk
    if disk is None:
        return
    disks, others = names.disks_of(config, steps), names.has_others(config) or bool(vm.settings.pci)
    devices = names.kernel_names(disk.name, disks)
    if not facts.disko_devices:
        yield f"{facts.hostname}: its disko configuration declares no disk; declare one on {devices[0]}"
        return
    meant = {device: names.meant(device, disks, others=others) for device in facts.disko_devices}
    if not any(candidates is None or disk.name in candidates for candidates in meant.values()):
        yield (
            f"{facts.hostname}: disko formats {', '.join(facts.disko_devices)}, but the disk {disk.name} of "
            f"vm {vm.vmid} ({vm.name}) is {devices[0]} in the guest; correct disko's device or the disk's bus"
        )
        return
    known = ", ".join(f"{name} ({' or '.join(names.kernel_names(name, disks))})" for name in sorted(disks))
    whose = f"vm {vm.vmid} ({vm.name})"
    for device, candidates in meant.items():
        if candidates is not None and not candidates:
            yield (
                f"{facts.hostname}: disko formats {device}, which {whose} does not have; its disks are {known}: "
                f"declare one more in {vm.attribute}.disks, or correct disko's device"
            )
    for device in dict.fromkeys(each for each in facts.disko_devices if facts.disko_devices.count(each) > 1):
        yield f"{facts.hostname}: disko formats {device} more than once; give each disk of {whose} its own device"
    crowded = names.crowded({device: candidates for device, candidates in meant.items() if candidates})
    if crowded:
        devices, few = crowded
        both = (
            f"are both the disk {few[0]}" if (len(devices), len(few)) == (2, 1) else f"can only be {' and '.join(few)}"
        )
        yield (f"{facts.hostname}: disko formats {' and '.join(devices)}, which {both} of {whose}; it has {known}")


def _permissions(fleet: Fleet, vm: Vm, seen: Survey, steps: Sequence[Step], config: VmConfig) -> Iterator[str]:
    agent = ("VM.GuestAgent.Unrestricted",) if seen.version.major >= 9 else ("VM.Monitor",)
    pool = vm.settings.pool
    guest = [f"/vms/{vm.vmid}", *([f"/pool/{pool}"] if pool else [])]
    needs: list[tuple[Sequence[str], tuple[str, ...]]] = [(guest, ("VM.Audit",)), (guest, agent)]
    for step in steps:
        match step:
            case Clone():
                needs += [([f"/vms/{step.template}"], ("VM.Clone",)), (guest, ("VM.Allocate",))]
                if step.storage and not seen.lacks(step.storage):  # a missing one is a finding of its own
                    needs.append(([f"/storage/{step.storage}"], ("Datastore.AllocateSpace",)))
                bridges = {card.bridge for card in config.nets.values() if card.bridge}
                needs += [([f"/sdn/zones/localnetwork/{bridge}"], ("SDN.Use",)) for bridge in sorted(bridges)]
            case Configure():
                needs += [(guest, (_privilege_of(change.key),)) for change in step.changes]
            case Resize():
                needs.append((guest, ("VM.Config.Disk",)))
            case CloudInit():
                # either lets the options be set, but only one the drive of a running VM be written anew
                either = () if step.running else ("VM.Config.Network",)
                needs.append((guest, ("VM.Config.Cloudinit", *either)))
            case Start():
                needs.append((guest, ("VM.PowerMgmt",)))
            case AddDisk():
                needs.append((guest, ("VM.Config.Disk",)))
                if not seen.lacks(step.storage):
                    needs.append(([f"/storage/{step.storage}"], ("Datastore.AllocateSpace",)))
            case AwaitClone():
                pass
    for paths, privileges in dict.fromkeys((tuple(paths), privileges) for paths, privileges in needs):
        if not any(seen.permissions.allows(path, privilege) for path in paths for privilege in privileges):
            path, lacking, role = paths[-1], " or ".join(privileges), "ROLE"
            line = f"the API token lacks {lacking} on {path}; on the node, grant a role with it to token and user"
            kind, _, name = path[1:].partition("/")
            if kind == "storage" and name not in seen.storages:  # nobody tells who may not see it whether it is there
                where, role = fleet.node_of(vm), "PVEDatastoreUser"
                line = (
                    f"no storage {name} on {where} is visible to the API token; correct {vm.attribute}.storage, or on "
                    f"the node, grant {role} to token and user"
                )
            yield f"{line}: `pveum acl modify {path} --roles {role} --tokens TOKEN --users USER`"


def _privilege_of(option: str) -> str:
    """What setting an option of a VM needs (`PVE::API2::Qemu`); `startup` is the node's affair and needs more."""
    if option.startswith("net"):
        return "VM.Config.Network"
    if option.startswith("hostpci") or option == "machine":
        return "VM.Config.HWType"
    if option == "boot":
        return "VM.Config.Disk"
    return _OPTION_PRIVILEGE.get(option, "VM.Config.Options")


_OPTION_PRIVILEGE = {
    **dict.fromkeys(("cores", "sockets", "cpu"), "VM.Config.CPU"),
    **dict.fromkeys(("memory", "balloon"), "VM.Config.Memory"),
}


def survey(hypervisor: Hypervisor, vm: Vm) -> Survey:
    """What the API says of the places that this VM is to use; only GETs are sent."""
    client, fleet = hypervisor.client, hypervisor.fleet
    storage = fleet.storage_of(vm)
    if storage is None:
        raise FleetError(f"{DEFINITIONS}: {vm.attribute}.storage: none is declared; set it or proxmox.defaultStorage")
    node, nodes = fleet.node_of(vm), hypervisor.nodes
    exists = node in nodes
    actual = observe(client, fleet, vm) if exists else None
    template, unseen = hypervisor.template
    used = {storage, *(disk.storage for disk in vm.settings.disks if disk.storage)}
    if actual:
        node, used = actual.node or node, used | _used(actual.config)
    with hypervisor.template_storages as of_template:
        if of_template.is_empty:
            of_template.value = _storages_seen(client, template_node(fleet), _used(template)) if template else {}
            of_template.passes = is_passing(unseen)
    return Survey(
        version=hypervisor.version,
        nodes=nodes,
        permissions=hypervisor.permissions,
        template=template,
        template_unseen=unseen,
        actual=actual,
        storages=_storages_seen(client, node, used) if exists else {},
        template_storages=of_template.value,
    )


def _used(config: VmConfig) -> set[str]:
    return {drive.storage for drive in config.volumes.values()}


def _storages_seen(client: Client, node: str, names: Iterable[str]) -> Mapping[str, Storage | None]:
    """The storages as the node sees them, without those that the token may not ask for."""
    seen = {}
    for name in sorted(names):
        try:
            seen[name] = client.storage(node, name)
        except ApiError as error:
            if error.status != 403:
                raise
    return seen


def host_facts(config: Evaluated) -> HostFacts:
    """What the flake says of the host, in preflight's words."""
    loaders = {
        ("systemd-boot", False): BootLoader.SYSTEMD_BOOT,
        ("grub", False): BootLoader.GRUB,
        ("grub", True): BootLoader.GRUB_EFI,
    }
    efi = config.grub_efi and config.boot_loader == "grub"
    return HostFacts(
        hostname=config.hostname,
        boot_loader=loaders.get((config.boot_loader or "", efi)),
        disko_devices=config.devices,
        guest_agent=config.guest_agent,
        ssh=config.ssh,
        root_access=config.root_access,
    )
