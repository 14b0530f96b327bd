"""A template out of a cloud image, on real machines: its trial boots and answers, and a guest is cloned from it."""

import json
from typing import Any

from lab.start import IMAGE, TEMPLATE, TEMPLATE_DISK, TOKEN, USER
from tests.integration.lab_driver import Lab, edit

POOL = "nixherd-templates"
# What docs/proxmox.md grants for making a template, beside what the token has anyway.
RIGHTS = [
    *("VM.Allocate", "VM.Audit", "VM.Clone", "VM.PowerMgmt", "VM.Config.CPU", "VM.Config.Cloudinit", "VM.Config.Disk"),
    *("VM.Config.HWType", "VM.Config.Memory", "VM.Config.Network", "VM.Config.Options", "VM.GuestAgent.Unrestricted"),
]


def without_a_template(lab: Lab) -> None:
    """The node as it is before anybody made one, with the rights to make it."""
    state = json.loads((lab.state / "state.json").read_text())
    acl: list[dict[str, Any]] = state["acl"]
    grants = [(f"/pool/{POOL}", "NixherdTemplate"), ("/storage/local", "NixherdImages")]
    acl = acl + [
        {"path": path, "type": kind, "ugid": who, "roleid": role, "propagate": 1}
        for path, role in grants
        for kind, who in (("user", USER), ("token", f"{USER}!{TOKEN}"))
    ]
    roles = {"NixherdTemplate": RIGHTS, "NixherdImages": ["Datastore.AllocateTemplate", "Datastore.Audit"]}
    disk = TEMPLATE_DISK.rpartition("-")[0]
    patch = {
        **{"acl": acl, "roles": roles, "pools": {POOL: {"comment": "", "members": []}}, "vms": {str(TEMPLATE): None}},
        "storages": {"nvmeprom": {"volumes": {f"{disk}-{number}": None for number in (0, 1)}}},
    }
    lab("reset", "--patch", json.dumps(patch))


def test_a_template_is_made_tried_and_cloned_from(lab: Lab) -> None:
    without_a_template(lab)
    edit(lab.state / "fleet/vms/definitions.nix", "vmid = 9002;", f'vmid = 9002; pool = "{POOL}";')
    done = lab.run("nixherd", "template", "create", "--image", IMAGE)
    assert '"changed": true' in done.output
    made = lab.api(f"/nodes/prom/qemu/{TEMPLATE}/config")
    assert (made["template"], made["agent"], made["bios"]) == (1, "enabled=1", "ovmf")
    assert [row["vmid"] for row in lab.api("/cluster/resources?type=vm") if row["vmid"] >= 9000] == [TEMPLATE]
    changes = lab.changes()
    again = lab.run("nixherd", "template", "create", "--image", IMAGE)
    assert '"changed": false' in again.output
    assert lab.changes() == changes
    # the preflight of provisioning has nothing to say against it
    lab.pyinfra("-y", "inventory.py", "--limit", "dev", "operations.proxmox.validate")
    lab.run("nixherd", "vm", "clone", "dev")
    assert lab.api("/nodes/prom/qemu/110/config")["scsi0"].startswith("nvmeprom:vm-110-disk-")
