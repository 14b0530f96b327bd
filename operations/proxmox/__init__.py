"""Operations on guests of the hypervisor, on the controller, through the guarded API: each acts for its host's guest.

`pyinfra inventory.py --limit dev operations.proxmox.shutdown` calls one by hand. Each looks at the guest and does
nothing where nothing is left to do; a guest that the definitions do not let be changed is refused before anything is
sent. Most are made from the verbs of `nixherd.proxmox.guest`, whose parameters and docstrings they have: `shutdown`,
`resize`, `snapshot`, …; those that are more than one verb are written out here.
"""

from typing import TYPE_CHECKING, Any

from nixherd.proxmox.guest.verbs import VERBS
from nixherd.pyinfra_glue.guests import operation_of
from operations.proxmox.definitions import apply as apply
from operations.proxmox.definitions import drift as drift
from operations.proxmox.provisioning import address as address
from operations.proxmox.provisioning import clone as clone
from operations.proxmox.provisioning import validate as validate
from operations.proxmox.provisioning import wait_for_ssh as wait_for_ssh

_WRITTEN = {"address": address, "apply": apply, "clone": clone, "drift": drift}
_WRITTEN |= {"validate": validate, "wait_for_ssh": wait_for_ssh}
globals().update({name: operation_of(verb) for name, verb in VERBS.items() if name not in _WRITTEN})
__all__ = sorted({*VERBS, *_WRITTEN})

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...
