"""The rights that making a template needs, each named with the path where it lacks."""

import pytest

from nixherd.proxmox.answers import Permissions
from nixherd.proxmox.template.create import missing_rights
from nixherd.proxmox.template.image import Image, Source, TemplateSpec

VOLUME = "local:import/debian-13.qcow2"
SPEC = TemplateSpec(
    *("prom", 9002, "debian-13", "nvmeprom", "ovmf", None, "vmbr0", 2, 2048, "templates"),
    source=Source(volume=VOLUME),
    images=None,
    fleet_id="lab",
)
REST = {"/storage/nvmeprom": {"Datastore.AllocateSpace": False}, "/sdn/zones/localnetwork/vmbr0": {"SDN.Use": False}}


def lacking_at(granted: dict[str, dict[str, bool]], image: Image | None) -> list[str]:
    lines = missing_rights(Permissions(granted), SPEC, 9003, image, 9)
    return [line.partition(" on ")[2].partition(";")[0] for line in lines]


@pytest.mark.parametrize("image", [Image(VOLUME), None], ids=["image", "no-image"])
def test_without_a_pool_both_guests_need_rights_of_their_own(image: Image | None) -> None:
    assert lacking_at(REST, image) == ["/vms/9002", "/vms/9003"]


def test_rights_on_the_two_guests_are_enough() -> None:
    guest = dict.fromkeys(
        (
            *("VM.Allocate", "VM.Audit", "VM.Clone", "VM.PowerMgmt", "VM.GuestAgent.Unrestricted"),
            *(f"VM.Config.{it}" for it in ("CPU", "Memory", "Options", "Disk", "Network", "HWType", "Cloudinit")),
        ),
        False,
    )
    assert lacking_at({**REST, "/vms/9002": guest, "/vms/9003": guest}, Image(VOLUME)) == []
