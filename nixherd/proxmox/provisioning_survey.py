"""Asks the hypervisor what `preflight` judges; what is the same for every VM is asked once per run."""

from collections.abc import Iterable, Mapping

from nixherd.errors import ApiError, FleetError
from nixherd.fleet.models import Fleet, Vm
from nixherd.nix.commands import Evaluated
from nixherd.proxmox.answers import Storage
from nixherd.proxmox.client import Client
from nixherd.proxmox.config import VmConfig
from nixherd.proxmox.guest.observe import observe
from nixherd.proxmox.guest.plan import template_node
from nixherd.proxmox.hypervisor import Hypervisor
from nixherd.proxmox.preflight import BootLoader, HostFacts, Survey


def survey(hypervisor: Hypervisor, vm: Vm) -> Survey:
    """What the API says of the places that this VM is to use; only GETs are sent."""
    client, fleet = hypervisor.client, hypervisor.fleet
    storage = fleet.storage_of(vm)
    if storage is None:
        raise FleetError(
            f"vms/definitions.nix: {vm.attribute}.storage: no storage is declared; set it or proxmox.defaultStorage"
        )
    node, nodes = fleet.node_of(vm), hypervisor.nodes
    there = node in nodes
    actual = observe(client, fleet, vm) if there else None
    template, unseen = hypervisor.template
    wanted = {storage, *(disk.storage for disk in vm.settings.disks if disk.storage)}
    if actual:
        node, wanted = actual.node or node, wanted | _used(actual.config)
    return Survey(
        version=hypervisor.version,
        nodes=nodes,
        permissions=hypervisor.permissions,
        template=template,
        template_unseen=unseen,
        actual=actual,
        storages=_storages(client, node, wanted) if there else {},
        template_storages=hypervisor.template_storages(lambda: _of_template(client, fleet, template)),
    )


def _used(config: VmConfig) -> set[str]:
    return {drive.storage for drive in config.volumes.values()}


def _storages(client: Client, node: str, names: Iterable[str]) -> Mapping[str, Storage | None]:
    """The storages as the node sees them, without those that the token may not ask for."""
    found = {}
    for name in sorted(names):
        try:
            found[name] = client.storage(node, name)
        except ApiError as error:
            if error.status != 403:
                raise
    return found


def _of_template(client: Client, fleet: Fleet, template: VmConfig | None) -> Mapping[str, Storage | None]:
    return _storages(client, template_node(fleet), _used(template)) if template else {}


def host_facts(about: Evaluated) -> HostFacts:
    """What the flake says of the host, in preflight's words."""
    loaders = {
        ("systemd-boot", False): BootLoader.SYSTEMD_BOOT,
        ("grub", False): BootLoader.GRUB,
        ("grub", True): BootLoader.GRUB_EFI,
    }
    efi = about.grub_efi and about.boot_loader == "grub"
    return HostFacts(
        hostname=about.hostname,
        boot_loader=loaders.get((about.boot_loader or "", efi)),
        disko_devices=about.devices,
        guest_agent=about.guest_agent,
        ssh=about.ssh,
        root_access=about.root_access,
    )
