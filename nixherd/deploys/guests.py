"""Guests of the hypervisor, as declared."""

from pyinfra import host

from nixherd.operations import proxmox
from nixherd.pyinfra_glue.deploy_file import workflow


@workflow("vms", asks_machines=False)
def vms() -> None:
    """Bring all managed guests to their definitions; those that may not be changed show how they differ."""
    proxmox.drift(name="drift: what is left alone")
    proxmox.apply(
        name="apply: as declared",
        allow_reboot=host.data.get("allow_reboot", False),
        snapshot=host.data.get("snapshot"),
    )
