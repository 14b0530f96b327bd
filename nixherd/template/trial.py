"""One clone that shows whether an image will do: booted, asked through its agent, destroyed.

The clone's notes say what it is and under which VMID. What a killed run left is known by that, and removed by the next.
"""

import time
from collections.abc import Iterator
from typing import Any

from nixherd.errors import ApiError, FleetError
from nixherd.models import Fleet
from nixherd.proxmox import tasks
from nixherd.proxmox.client import Client
from nixherd.proxmox.errors import AgentUnavailable, NotVisible
from nixherd.proxmox.tasks import Progress
from nixherd.proxmox.vmids import range_of
from nixherd.template.wanted import Wanted

NEEDED = ("guest-exec", "guest-exec-status", "guest-file-open", "guest-file-read", "guest-file-close")
PAUSE = 1.0  # seconds between two questions to an agent that is on its way
_READY = ["cloud-init", "status", "--wait"]


def left_behind(client: Client, fleet: Fleet, wanted: Wanted) -> tuple[int, ...]:
    """The VMIDs of trials that a killed run left; only what is marked as one, in the range of trials."""
    span = range_of(fleet, wanted.trials)
    known = {vm.vmid for vm in fleet.vms.values()} | {wanted.vmid}
    rows = [row for row in client.resources() if row.vmid in span and row.vmid not in known and row.node == wanted.node]
    return tuple(row.vmid for row in rows if _is_one(client, wanted, row.vmid))


def _is_one(client: Client, wanted: Wanted, vmid: int) -> bool:
    try:
        config = client.config(wanted.node, vmid)
    except NotVisible:  # ours could be seen
        return False
    return config is not None and wanted.trial_mark(vmid) in map(str.strip, config.description.splitlines())


def run(client: Client, wanted: Wanted, vmid: int, *, boots: float, timeout: float, progress: Progress) -> list[str]:
    """Clone, boot, ask, destroy. What the image lacks, a line each; none when it will do. The clone is gone then."""
    with client.making(wanted.vmid, vmid):
        upid = client.clone(
            *(wanted.node, wanted.vmid, vmid),
            name=wanted.trial_name,
            description=wanted.trial_mark(vmid),
            storage=wanted.storage,
            pool=wanted.pool,
        )
        tasks.wait(client, upid, timeout, progress)
        try:
            tasks.wait(client, client.start(wanted.node, vmid), timeout, progress)
            return list(_lacks(client, wanted, vmid, boots, progress))
        finally:
            remove(client, wanted, vmid, timeout=timeout, progress=progress)


def remove(client: Client, wanted: Wanted, vmid: int, *, timeout: float, progress: Progress) -> None:
    """Destroy a trial, and see that it is gone. FleetError when what is there is none."""
    with client.making(wanted.vmid, vmid):
        if not _is_one(client, wanted, vmid):
            raise FleetError(f"vm {vmid} is no trial of template {wanted.vmid}; it is left alone, look at it by hand")
        status = client.status(wanted.node, vmid)
        if status is not None and status.running:
            tasks.wait(client, client.stop(wanted.node, vmid), timeout, progress)
        tasks.wait(client, client.destroy(wanted.node, vmid), timeout, progress)
        if client.config(wanted.node, vmid) is not None:
            raise FleetError(f"vm {vmid}, the trial, is still there although its removal ended well; remove it by hand")


def _lacks(client: Client, wanted: Wanted, vmid: int, boots: float, progress: Progress) -> Iterator[str]:
    progress(f"waiting for the guest agent of vm {vmid}, {boots:.0f} s at most")
    about = _answer(client, wanted, vmid, boots)
    if about is None:
        yield f"no guest agent answered within {boots:.0f} s of its first boot"
        return
    enabled = {str(row["name"]): bool(row.get("enabled", True)) for row in about.get("supported_commands", ())}
    barred = [name for name in NEEDED if enabled and not enabled.get(name, False)]
    if barred:
        yield f"its guest agent does not allow {', '.join(barred)}"
        return
    progress("waiting for cloud-init")
    try:
        done = client.agent_exec(wanted.node, vmid, _READY, timeout=boots)
    except ApiError as error:
        yield f"cloud-init cannot be asked: {error}"
        return
    if done.exitcode not in (0, 2):  # 2: done, with recoverable errors
        yield f"cloud-init failed ({done.exitcode}): {' '.join((done.stdout or done.stderr).split())[:200]}"


def _answer(client: Client, wanted: Wanted, vmid: int, boots: float) -> dict[str, Any] | None:
    until = time.monotonic() + boots
    while True:
        try:
            return client.agent_info(wanted.node, vmid)
        except AgentUnavailable:
            if time.monotonic() > until:
                return None
        time.sleep(min(PAUSE, boots))
