"""What is in effect, what waits for a boot, whom that stops, and what guests are given."""

from pyinfra import host
from pyinfra.api import operation

from facts.proxmox_host import Boot, Dkms, Modules, Pci
from nixherd.errors import FleetError
from nixherd.proxmox.node import passthrough, status
from nixherd.proxmox.node.kernel import words_for
from operations.proxmox_host.asking import ask, decide_on_node, node_of_host, source_version, wanted_of
from operations.proxmox_host.guests import given_lines, guests_line
from operations.steps import Commands, executing


@operation()
def report() -> Commands:
    """Say what is in effect and what waits for a boot, whom that stops, and what guests are given; changes nothing."""
    yield from decide_on_node(_report)


def _report() -> Commands:
    wanted, node, boot = wanted_of(host), node_of_host(), ask(Boot)
    pci, modules = ask(Pci), ask(Modules)
    dkms = ask(Dkms, source=wanted.source) if wanted.source else None
    seen = status.Seen(
        node, boot, modules, pci, dkms,
        devices=passthrough.named(wanted, pci),
        words=words_for(node["vendor"], wanted.words),
        version=source_version(wanted) if wanted.source else None,
    )  # fmt: skip
    host.log(status.read_back(seen))
    waiting = status.waiting(seen)
    for each in waiting:
        host.log(str(each))
    for remark in status.remarks(seen):
        host.log(remark)
    if any(not each.booted for each in waiting):
        host.log(f"a boot of {host.data.node} is due; nixherd never boots a node. {guests_line(host)}")
    for line in given_lines(host, pci["devices"], seen.devices, wanted.guests):
        host.log(line.text)
        if line.command:
            host.log(f"  for a person, as root on {host.data.node}: {line.command}")
    if executing(host):
        failing = [*status.problems(seen), *(str(each) for each in waiting if each.booted)]
        if failing:
            raise FleetError(f"{host.data.node}: {'; '.join(failing)}")
    if not waiting:
        host.log("all of it is in effect")
    host.noop("the node was looked at")
    yield from ()
