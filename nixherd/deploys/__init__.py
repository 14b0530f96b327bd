"""The workflow's steps as deploys of pyinfra, for a deploy file of one's own:

    from nixherd.deploys import deploy, vms

    vms()
    deploy()

The files in `deploys/` of the checkout are one call each. Their hosts are those of nixherd's inventory (`@fleet`).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nixherd.deploys.guests import vms
    from nixherd.deploys.machines import install, provision
    from nixherd.deploys.nodes import proxmox_host
    from nixherd.deploys.quality import check
    from nixherd.deploys.rolling import copy, deploy, reboot
    from nixherd.deploys.trusted import enroll, post_provision, secrets_check

# Each is imported when it is named: most of a run's start is importing.
_MODULES = {
    **dict.fromkeys(("install", "provision"), "machines"),
    **dict.fromkeys(("copy", "deploy", "reboot"), "rolling"),
    **dict.fromkeys(("enroll", "post_provision", "secrets_check"), "trusted"),
    "check": "quality",
    "proxmox_host": "nodes",
    "vms": "guests",
}
__all__ = [
    "check",
    "copy",
    "deploy",
    "enroll",
    "install",
    "post_provision",
    "provision",
    "proxmox_host",
    "reboot",
    "secrets_check",
    "vms",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"{__name__} has no {name}; it has {', '.join(__all__)}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
