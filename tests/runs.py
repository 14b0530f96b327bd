"""Runs of pyinfra as its API makes them: a real State, our connector, the emulator's API, and an sshd or nothing.

For what pyinfra's own harness cannot show: its fake host has no log, no connection and no stages.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from pyinfra.api.config import Config
from pyinfra.api.exceptions import PyinfraError
from pyinfra.api.host import Host
from pyinfra.api.inventory import Inventory
from pyinfra.api.operation import add_op
from pyinfra.api.operations import run_ops
from pyinfra.api.state import State, StateStage

from nixherd.base.files import BOOT_ID
from nixherd.locate.proof import PLANT
from nixherd.nix.commands import Evaluated
from nixherd.nix.image import Image
from nixherd.proxmox.guest.identity import mark
from tests.nixherd.proxmox.conftest import Emulator
from tests.nixherd.proxmox.fleets import DEV, FLEET, HOST
from tests.shared import Shared
from tests.sshd import MAC

SYSTEM = "/nix/store/0v9ar9z6mfqxrpgsmzz7b7y5vkzncq5d-nixos-system-dev-26.05"
SCRIPT = "/nix/store/1v9ar9z6mfqxrpgsmzz7b7y5vkzncq5d-disko"
DESCRIBED = Evaluated(
    host_id="dev",
    toplevel=SYSTEM,
    toplevel_drv=f"{SYSTEM}.drv",
    disko_script=SCRIPT,
    disko_drv=f"{SCRIPT}.drv",
    hostname="dev",
    configuration_revision=None,
    revision="4f2c0d9b7e6a" + "0" * 28,
    devices=("/dev/sda",),
    boot_loader="systemd-boot",
    grub_efi=False,
    guest_agent=True,
    ssh=True,
    system="x86_64-linux",
)


def shared_at(emulator: Emulator, tmp_path: Path) -> Shared:
    """Of a fleet with a VM, `dev`, and a machine that no hypervisor knows of, `metal`; root may log in to both."""
    token = tmp_path / "token"
    token.write_text(emulator.token.to_toml())
    token.chmod(0o600)
    metal = replace(HOST, id="metal", user="root", addresses=("127.0.0.3", "127.0.0.1"))
    hosts = {"dev": replace(HOST, user="root"), "metal": metal}
    vms = {"dev": DEV}
    return Shared(replace(FLEET, hosts=hosts, vms=vms, endpoint=emulator.endpoint), token)


def evaluates_to(shared: Shared, **changes: Any) -> None:
    """What Nix says of `dev` and its flake, so that it is not asked."""
    shared.evaluator._results[("dev",)].value = {"dev": replace(DESCRIBED, **changes)}
    has_installer(shared)
    shared.builder._tarballs[Image("x86_64-linux")].value = Path("/nix/store/installer.tar.gz")


def has_installer(shared: Shared, *names: str) -> None:
    """What packages the flake has for `dev`, without `names` the installer."""
    shared.builder._installers["packages.x86_64-linux"].value = list(names or ("kexec-installer",))


def vm(
    emulator: Emulator, address: str, *, key: str = "", system: str = "ID=debian", boot_id: str = "", **config: Any
) -> None:
    """The VM `dev` runs, ours by its mark, and its agent says this of it; its boot is that of our sshds."""
    guest = {
        "interfaces": [{"name": "e", "hardware-address": MAC, "ip-addresses": [{"ip-address": address}]}],
        "files": {
            "/etc/os-release": f"{system}\n",
            "/etc/ssh/ssh_host_ed25519_key.pub": f"{key}\n",
            BOOT_ID: boot_id or Path(BOOT_ID).read_text(),
        },
        "commands": [
            {"argv": argv, "exitcode": 0} for argv in (["cloud-init", "status", "--wait"], ["/bin/sh", "-c", PLANT])
        ],
    }
    base = {"name": "dev", "agent": "1", "net0": f"virtio={MAC},bridge=vmbr0", "description": mark(FLEET, DEV)}
    one = {"type": "qemu", "node": "prom", "status": "running", "agent": "running", "guest": guest}
    emulator.control("reset", patch={"vms": {"110": {**one, "config": {**base, **config}}}})


def connected(shared: Shared, host_id: str = "dev", *, beside: tuple[str, ...] = (), **data: Any) -> Host:
    """A run over one host that has tried to connect to it; whether that went well is `host.connected`.

    `beside` are hosts of the inventory that the run is not over.
    """
    given = {"context": shared.context, "boot_deadline": 1, "task_deadline": 5, **data}
    entries = [(f"@fleet/{each}", {**given, "host_id": each}) for each in (host_id, *beside)]
    state = State(Inventory((entries, {})), Config())
    state.should_raise_failed_hosts = lambda state: False
    host = state.inventory.get_host(host_id)
    if beside:
        state.limit_hosts = [host]
    host.connect()
    if host.connected:
        state.activate_host(host)
    return host


def executing(host: Host) -> Host:
    host.state.current_stage = StateStage.Execute
    return host


@dataclass(frozen=True)
class Outcome:
    """How one operation ended on its host, and what was said meanwhile."""

    changed: bool
    failed: bool
    said: list[str]


Said = Callable[[], list[str]]
Perform = Callable[..., Outcome]


def said_by(caplog: pytest.LogCaptureFixture) -> Said:
    """The lines that were logged so far, without the name of the host and pyinfra's own words."""
    caplog.set_level(logging.INFO, logger="pyinfra")
    narration = ("Connected", "Success", "No changes", "Error: ", "")

    def lines() -> list[str]:
        found = (record.getMessage().partition("] ")[2].strip() for record in caplog.records)
        return [
            line for line in found if not any(line == word or (word and line.startswith(word)) for word in narration)
        ]

    return lines


def perform(host: Host, said: Said, operation: Any, *, plan: bool = False, **arguments: Any) -> Outcome:
    """Run one operation on one host, as a deploy of one row would; with `plan` only as far as --dry goes."""
    before, state = len(said()), host.state
    state.current_stage = StateStage.Prepare
    try:
        meta = add_op(state, operation, host=host, **arguments)[host]
        changed = meta.will_change
        if not plan and host not in state.failed_hosts:
            executing(host)
            run_ops(state)
            changed = bool(state.results[host].success_ops) and meta.did_change()
    except PyinfraError as error:  # raised when the last host has failed
        if str(error) != "No hosts remaining!":
            raise
        changed = False
    return Outcome(changed, host in state.failed_hosts, said()[before:])
