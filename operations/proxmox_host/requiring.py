"""Whether a node is the one that is meant, and can be given what is asked for."""

from pyinfra import host
from pyinfra.api import operation

from facts.proxmox_host import Boot, Modules, Pci
from nixherd.errors import Usage
from nixherd.proxmox.node import passthrough
from nixherd.proxmox.node.kernel import loader_of, words_for
from operations.proxmox_host.asking import ask, decide_on_node, node_of_host, source_version, wanted_of
from operations.proxmox_host.booting import edited
from operations.steps import Commands


@operation()
def require() -> Commands:
    """Refuse a machine that is not the Debian node that is meant, and a request that cannot be met there."""
    yield from decide_on_node(_require)


def _require() -> Commands:
    wanted, node = wanted_of(host), node_of_host()
    boot, pci, modules = ask(Boot), ask(Pci), ask(Modules)
    loader = loader_of(boot)
    devices = passthrough.named(wanted, pci)
    passthrough.require_no_others(modules)
    words = words_for(node["vendor"], wanted.words)
    for file in loader.files:
        edited(boot, file, words)
    if wanted.source:
        source_version(wanted)
        if not passthrough.cards(devices):
            raise Usage(f"vendor_reset: none of {', '.join(wanted.devices)} is a card of AMD's, which it is for")
    system = f"Proxmox VE {node['pve']}" if node["pve"] else str(node["id"])
    have = ", ".join(f"{device['address']} is {device['id']}" for device in devices)
    host.noop(f"{host.data.node}: {system}, kernel {node['kernel']}, booted by {loader.name}; {have}")
    yield from ()
