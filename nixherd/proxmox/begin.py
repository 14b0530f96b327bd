"""Each step as the call that begins it."""

from nixherd.errors import ApiError, Undecided
from nixherd.proxmox.client import Client
from nixherd.proxmox.creation import whole_gib
from nixherd.proxmox.errors import OutcomeUnknown
from nixherd.proxmox.models import Upid
from nixherd.proxmox.steps import (
    AddDisk,
    AwaitClone,
    AwaitRestore,
    Backup,
    Clone,
    CloudInit,
    Configure,
    Create,
    DeleteSnapshot,
    MakeTemplate,
    Mark,
    Migrate,
    MoveDisk,
    Reboot,
    Regenerate,
    Resize,
    Restore,
    Resume,
    Rollback,
    Shutdown,
    Snapshot,
    Start,
    Step,
    Stop,
    Suspend,
    sent,
)
from nixherd.sizes import format_size


def begin(client: Client, step: Step) -> Upid | None:
    """Send the step's call. Returns the task that does it, None where the answer meant that it is done."""
    node, vmid, kind = step.node, step.vmid, step.type
    match step:
        case AwaitClone(upid=upid) | AwaitRestore(upid=upid):
            return upid
        case Clone():
            return _clone(client, step)
        case Create():
            return client.create(node, vmid, step.values, kind)
        case Restore():
            return client.restore(
                node, vmid, step.archive, kind, storage=step.storage, pool=step.pool, overwrite=step.overwrite
            )
        case MakeTemplate():
            return client.make_template(node, vmid)
        case Configure():
            client.set_config(node, vmid, sent(step.changes), kind, digest=step.digest)
        case Mark():
            client.set_config(node, vmid, {"description": step.description}, kind, digest=step.digest)
        case CloudInit():
            client.set_config(node, vmid, sent(step.changes), digest=step.digest)
            if step.running:
                _regenerate(client, step)
        case Regenerate():
            _regenerate(client, step)
        case Resize():
            return client.resize(node, vmid, step.disk, format_size(step.after), kind, digest=step.digest)
        case AddDisk():
            volume = f"{step.storage}:{whole_gib(step.size)}{',' if step.options else ''}{step.options}"
            client.set_config(node, vmid, {step.disk: volume}, kind, digest=step.digest)
        case MoveDisk():
            return client.move_disk(
                node, vmid, step.disk, step.storage, delete=not step.keep_source, digest=step.digest
            )
        case Start():
            return client.start(node, vmid, kind)
        case Stop():
            return client.stop(node, vmid, kind)
        case Shutdown():
            return client.shutdown(node, vmid, kind, timeout=step.timeout, force=step.force)
        case Reboot():
            return client.reboot(node, vmid, kind, timeout=step.timeout)
        case Suspend():
            return client.suspend(node, vmid, kind, to_disk=step.to_disk)
        case Resume():
            return client.resume(node, vmid, kind)
        case Snapshot():
            return client.take_snapshot(
                node, vmid, step.name, kind, description=step.description or None, with_memory=step.with_memory
            )
        case Rollback():
            return client.rollback(node, vmid, step.name, kind)
        case DeleteSnapshot():
            return client.remove_snapshot(node, vmid, step.name, kind)
        case Backup():
            return client.backup(
                *(node, [vmid], step.storage),
                mode=step.mode,
                compress=step.compress,
                notes=step.notes or None,
                protected=step.protected or None,
            )
        case Migrate():
            return client.migrate(
                *(node, vmid, step.target, kind),
                online=step.online,
                local_disks=step.local_disks,
                storage=step.storage,
            )
        case _:
            raise TypeError(f"{type(step).__name__} is nothing that can be begun")
    return None


TRIES = 3  # of a call that may be made again without harm


def _regenerate(client: Client, step: Step) -> None:
    """Have the drive written, and see it. A second time it is the same drive, so a lost answer is asked for again.

    Undecided when no answer came and the server does not tell that the drive says what the options say.
    """
    for last in range(1, TRIES + 1):
        try:
            return client.regenerate_cloudinit(step.node, step.vmid)
        except OutcomeUnknown as error:
            try:
                if not client.cloudinit_differs(step.node, step.vmid):
                    return None
                why = "the server says that it differs from the options"
            except ApiError as unseen:
                why = f"what it says could not be asked for ({unseen})"
            if last == TRIES:
                raise Undecided(
                    f"{step.guest}: whether its cloud-init drive was written anew is not known: {error}; {why}; look "
                    f"with `qm cloudinit pending {step.vmid}` on {step.node}, and run again"
                ) from error
    raise AssertionError("the last try returns or raises")


def _clone(client: Client, step: Clone) -> Upid:
    return client.clone(
        step.template_node,
        step.template,
        step.vmid,
        name=step.name,
        description=step.description,
        storage=step.storage,
        target=step.node if step.node != step.template_node else None,
        pool=step.pool,
        full=step.full,
    )
