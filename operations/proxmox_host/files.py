"""The files that bind devices to vfio-pci and have a card reset by vendor-reset."""

from pyinfra import host
from pyinfra.api import operation

from facts.proxmox_host import Modules, Pci
from nixherd.errors import FleetError
from nixherd.proxmox.node import passthrough
from nixherd.proxmox.node.states import VENDOR_RESET
from operations.proxmox_host.asking import ask, decide_on_node, run_there, wanted_of
from operations.steps import Commands, do, executing


@operation()
def vfio() -> Commands:
    """Bind the devices to vfio-pci, before the drivers that the host would have for them, from the next boot on."""
    yield from decide_on_node(_vfio)


def _vfio() -> Commands:
    wanted = wanted_of(host)
    yield from _write(passthrough.vfio(wanted, passthrough.named(wanted, ask(Pci))))


@operation()
def reset_method() -> Commands:
    """Have vendor-reset loaded, and the kernel reset the card by it, from the next boot on."""
    yield from decide_on_node(_reset_method)


def _reset_method() -> Commands:
    wanted = wanted_of(host)
    if not wanted.source:
        host.noop(f"{VENDOR_RESET} is not asked for")
        return
    yield from _write(passthrough.reset(passthrough.named(wanted, ask(Pci))))


def _write(files: dict[str, str]) -> Commands:
    """Have these files on the node, each one whole or as it was."""
    differing = passthrough.differing(files, ask(Modules))
    if not differing:
        host.noop(f"{', '.join(files)}: as wanted")
        return
    for path, text in differing.items():
        if not executing(host):
            for line in text.splitlines()[1:]:
                host.log(f"{path}: {line}")

    def act() -> None:
        for path, text in differing.items():
            run_there(
                f'umask 022; mkdir -p "$(dirname {path})"; new=$(mktemp {path}.XXXXXX); cat >"$new"; chmod 644 "$new"; '
                f'sync -- "$new"; mv -- "$new" {path}',
                stdin=text,
                what=f"writing {path}",
            )
        if still := passthrough.differing(files, ask(Modules)):
            raise FleetError(f"{host.data.node}: {', '.join(still)}: not as written; who else writes there?")

    yield from do(host, f"write {', '.join(differing)}", act)
