"""Whether what is there under the template's VMID is what an earlier run made and did not finish. Pure.

It is gone on with, or destroyed: only as long as nobody else has laid a hand on it.
"""

from collections.abc import Iterable

from nixherd.fleet.models import Fleet, GuestType
from nixherd.proxmox.answers import Pending
from nixherd.proxmox.belongings import belongings, owner
from nixherd.proxmox.config import VmConfig
from nixherd.proxmox.preflight import template_findings
from nixherd.proxmox.template.wanted import MADE_OF, Wanted


def is_unfinished(wanted: Wanted, config: VmConfig) -> bool:
    """Whether an earlier run of ours made this, and was killed before it was a template."""
    lines = map(str.strip, config.description.splitlines())
    return not config.is_template and config.name == wanted.name and wanted.mark in lines


def is_made_of(wanted: Wanted, config: VmConfig, volume: str) -> bool:
    """Whether it was made of this image as it is wanted now."""
    return _notes(config) == wanted.notes(volume).splitlines()


def said_besides(wanted: Wanted, config: VmConfig) -> str:
    """What its notes say that no run of ours wrote, or do not say any more; empty where they are a run's."""
    lines = _notes(config)
    more = [line for line in lines if line != wanted.mark and not line.startswith(MADE_OF)]
    if more:
        return f"its notes say {more[0]!r}"
    made = [line for line in lines if line.startswith(MADE_OF)]
    return "" if lines == [wanted.mark, *made] and len(made) == 1 else "its notes were changed"


def _notes(config: VmConfig) -> list[str]:
    return [line.strip() for line in config.description.strip().splitlines() if line.strip()]


def foreign(wanted: Wanted, config: VmConfig, pending: Iterable[Pending]) -> list[str]:
    """The drives that hold something else than a volume of its own: a conversion would rename another guest's.

    `config` is without what is `pending`. A volume whose name does not tell whose it is counts as somebody else's.
    """
    found = belongings(GuestType.QEMU, wanted.vmid, config, pending=pending)
    others = [f"{part.name} {part.volume}" for part in found.parts if owner(part.volume or "") != wanted.vmid]
    return [*map(str, found.stays), *others]


def unfit(fleet: Fleet, config: VmConfig) -> list[str]:
    """What it would lack as a template: found while it is none yet, for there is no way back."""
    return list(template_findings(fleet, VmConfig({**config.values, "template": 1})))
