"""Guests by the names that the server knows them by."""

from types import SimpleNamespace
from typing import Any

import pytest

from nixherd.cli.guests import placed_named
from nixherd.fleet.models import GuestType
from nixherd.proxmox.answers import Resource
from tests.nixherd.cli.conftest import Nixherd
from tests.nixherd.proxmox.conftest import Emulator, granted
from tests.nixherd.proxmox.fleets import FLEET

pytestmark = pytest.mark.xdist_group("emulator")


def test_a_guest_is_looked_at_by_its_name_on_the_server(nixherd: Nixherd, emulator: Emulator) -> None:
    def vm(name: str) -> dict[str, Any]:
        return {"type": "qemu", "node": "prom", "status": "stopped", "config": {"name": name}}

    emulator.control(
        "reset",
        patch={
            "acl": granted(("/vms", "PVEAuditor")),
            "vms": {"105": vm("Web"), "106": vm("twin"), "107": vm("twin"), "108": vm("doc1")},
        },
    )
    found = nixherd("import", "web")
    assert (found.status, found.out.splitlines()[0]) == (0, "imported.Web = {")
    assert nixherd("status", "web").json["vmid"] == 105
    both = nixherd("import", "twin")
    assert (both.status, both.err) == (
        2,
        "several guests are called twin: 106 on prom, 107 on prom; name one by its VMID\n",
    )
    # a name of the definitions comes first, and is not given twice
    assert nixherd("import", "doc1").err == "vm 104 (doc1) is declared already, as imported.doc1\n"
    assert nixherd("import", "108").out.splitlines()[0] == "imported.doc1-108 = {"
    nobody = nixherd("import", "nobody")
    assert nobody.status == 2
    assert nobody.err.endswith("; nor does a guest that this token may see\n")
    assert nixherd("stop", "web").status == 2  # only what is declared is ever changed
    assert emulator.changes() == []


def test_a_guest_that_the_statistics_have_no_name_for_is_asked_itself() -> None:
    new, other = (Resource(vmid, GuestType.QEMU, "prom", "unknown") for vmid in (105, 106))
    names = {105: "web", 106: None}
    client: Any = SimpleNamespace(
        resources=lambda: [other, new], config=lambda node, vmid, kind: SimpleNamespace(name=names[vmid])
    )
    assert placed_named(FLEET, "web", client) is new
