"""Asks the hypervisor what `preflight` judges; what is the same for every VM is asked once per run."""

from nixherd.errors import FleetError
from nixherd.models import Vm
from nixherd.nix import Evaluated
from nixherd.preflight import BootLoader, HostFacts, Hypervisor
from nixherd.proxmox.observe import observe, observe_template
from nixherd.session import Session


def hypervisor(session: Session, vm: Vm) -> Hypervisor:
    """What the API says of the places that this VM is to use; only GETs are sent."""
    client, fleet = session.client, session.fleet
    storage = fleet.storage_of(vm)
    if storage is None:
        raise FleetError(
            f"vms/definitions.nix: {vm.attribute}.storage: no storage is declared; set it or proxmox.defaultStorage"
        )
    node, nodes = fleet.node_of(vm), session.once("nodes", client.nodes)
    there = node in nodes
    return Hypervisor(
        version=session.once("version", client.version),
        nodes=nodes,
        permissions=session.once("permissions", client.permissions),
        template=session.once("template", lambda: observe_template(client, fleet)),
        actual=observe(client, fleet, vm) if there else None,
        storage=client.storage(node, storage) if there else None,
    )


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
    )
