"""The commands that ask something of a guest: actions of `nixherd.proxmox.guest.actions`, planned and carried out."""

import click

from nixherd.cli.front import Front, pass_front
from nixherd.cli.guests import declared, guest_named
from nixherd.cli.parameters import Size, WholeSeconds, changing, guest
from nixherd.cli.vm_storage import snapshots_of_guest
from nixherd.errors import FleetError
from nixherd.models import Host, Vm
from nixherd.proxmox.guest import actions
from nixherd.proxmox.guest.destroy import DestroyAction
from nixherd.proxmox.guest.identity import require_may_change
from nixherd.proxmox.guest.plan import SHUTDOWN_SECONDS
from nixherd.proxmox.guest.undo import reversible

_undo = click.option(
    "--snapshot", type=click.Choice(["keep", "remove"]), help="Take a snapshot before; keep or remove it after."
)
_timeout = click.option(
    "--timeout", type=WholeSeconds(1), default=SHUTDOWN_SECONDS, show_default=True, metavar="SECONDS"
)


@click.command()
@guest
@changing
@pass_front
def start(front: Front, guest: str) -> None:
    """Switch a guest on; a paused one goes on."""
    front.act(guest, actions.start())


@click.command()
@guest
@changing
@pass_front
def stop(front: Front, guest: str) -> None:
    """Pull the plug."""
    front.act(guest, actions.stop())


@click.command()
@guest
@_timeout
@click.option("--force", is_flag=True, help="Pull the plug when the time is over.")
@changing
@pass_front
def shutdown(front: Front, guest: str, timeout: int, force: bool) -> None:
    """Ask a guest to power off: its agent, else ACPI."""
    front.act(guest, actions.shutdown(timeout=timeout, force=force))


@click.command()
@guest
@_timeout
@click.option("--if-pending", is_flag=True, help="Only when options wait for it.")
@changing
@pass_front
def reboot(front: Front, guest: str, timeout: int, if_pending: bool) -> None:
    """Shut a guest down and start it again; options that wait take effect."""
    front.act(guest, actions.reboot(timeout=timeout, always=not if_pending))


@click.command()
@guest
@click.option("--to-disk", is_flag=True, help="Write its memory to disk and switch it off.")
@changing
@pass_front
def suspend(front: Front, guest: str, to_disk: bool) -> None:
    """Pause a guest."""
    front.act(guest, actions.suspend(to_disk=to_disk))


@click.command()
@guest
@changing
@pass_front
def resume(front: Front, guest: str) -> None:
    """Let a paused or suspended guest go on."""
    front.act(guest, actions.resume())


@click.command()
@guest
@click.option("--allow-reboot", is_flag=True, help="Reboot it when options wait for that.")
@_undo
@changing
@pass_front
def apply(front: Front, guest: str, allow_reboot: bool, snapshot: str | None) -> None:
    """Bring a managed guest to its definition, but for whether it runs."""
    vm = _changeable(front, guest, "change")
    front.act(guest, reversible(actions.as_declared(_host(front, vm), allow_reboot=allow_reboot), snapshot))


def _changeable(front: Front, guest: str, verb: str) -> Vm:
    """The declared guest that is meant, where the definitions let it be changed."""
    vm = declared(front.fleet, guest, verb)
    require_may_change(vm, verb)
    return vm


def _host(front: Front, vm: Vm) -> Host:
    host = front.fleet.hosts.get(vm.host_id or "")
    if host is None:
        raise FleetError(f"{vm.attribute} belongs to no host of hosts.nix")
    return host


@click.command()
@guest
@click.option("--from", "source", metavar="GUEST", help="Copy this managed guest instead of the template.")
@click.option("--linked", is_flag=True, help="A linked clone of the template: quick, and bound to it.")
@click.option("--empty", is_flag=True, help="No template: a VM from its definition alone, with empty disks.")
@changing
@pass_front
def clone(front: Front, guest: str, source: str | None, linked: bool, empty: bool) -> None:
    """Make a declared guest: a clone of the template, or a container out of its archive."""
    if empty and (source or linked):
        raise click.UsageError("--empty copies nothing; leave --from and --linked out")
    vm = _changeable(front, guest, "create")
    copied = declared(front.fleet, source, "clone") if source else None
    host = _host(front, vm)
    front.act(guest, _made(host, empty=empty, linked=linked, copied=copied))


def _made(host: Host, *, empty: bool, linked: bool, copied: Vm | None) -> actions.Action:
    if empty:
        return actions.create_empty(host, asked=True)
    return actions.create(host, full=not linked, source=copied, asked=True)


@click.command()
@guest
@click.argument("size", type=Size())
@click.option("--disk", metavar="NAME", help="Another one than it boots from.")
@_undo
@changing
@pass_front
def resize(front: Front, guest: str, size: int, disk: str | None, snapshot: str | None) -> None:
    """Grow a disk to SIZE (64G). Disks are never shrunk."""
    front.act(guest, reversible(actions.resize(size, disk=disk), snapshot))


@click.command("add-disk")
@guest
@click.argument("disk")
@click.argument("size", type=Size())
@click.option("--storage", metavar="NAME")
@_undo
@changing
@pass_front
def add_disk(front: Front, guest: str, disk: str, size: int, storage: str | None, snapshot: str | None) -> None:
    """Give a guest a new, empty disk (scsi1) of SIZE (10G)."""
    front.act(guest, reversible(actions.add_disk(disk, size, storage=storage), snapshot))


@click.command("move-disk")
@guest
@click.argument("disk")
@click.argument("storage")
@click.option("--keep-source", is_flag=True, help="Leave the old one as an unused disk.")
@_undo
@changing
@pass_front
def move_disk(front: Front, guest: str, disk: str, storage: str, keep_source: bool, snapshot: str | None) -> None:
    """Move a disk to another STORAGE, the guest running or not."""
    front.act(guest, reversible(actions.move_disk(disk, storage, keep_source=keep_source), snapshot))


@click.command()
@guest
@click.argument("name", required=False)
@click.option("--description", default="")
@click.option("--with-memory", is_flag=True, help="Its memory as well: a rollback brings it back running.")
@click.option("--delete", is_flag=True, help="Delete the snapshot NAME instead.")
@changing
@pass_front
def snapshot(front: Front, guest: str, name: str | None, description: str, with_memory: bool, delete: bool) -> None:
    """Take a snapshot NAME of a guest, or delete it; without a name, list them."""
    if name is None:
        if delete:
            raise click.UsageError("--delete needs the NAME of a snapshot")
        snapshots_of_guest(front, guest)
    elif delete:
        front.act(guest, actions.delete_snapshot(name, asked=True))
    else:
        front.act(guest, actions.snapshot(name, description=description, with_memory=with_memory, asked=True))


@click.command()
@guest
@click.argument("name")
@changing
@pass_front
def rollback(front: Front, guest: str, name: str) -> None:
    """Put a guest back to snapshot NAME; what was done since is lost."""
    front.act(guest, actions.rollback(name, asked=True))


@click.command()
@guest
@click.option("--storage", metavar="NAME", help="Else proxmox.backupStorage, else the node's only one for backups.")
@click.option("--mode", type=click.Choice(["snapshot", "suspend", "stop"]), default="snapshot", show_default=True)
@click.option("--newer-than", type=WholeSeconds(0, 2**31 - 1), help="None while one is newer than this.")
@click.option("--notes", default="")
@click.option("--protected", is_flag=True, help="Nobody removes it by accident.")
@changing
@pass_front
def backup(
    front: Front, guest: str, storage: str | None, mode: str, newer_than: int | None, notes: str, protected: bool
) -> None:
    """Back a guest up; no older backup is pruned."""
    action = actions.backup(storage=storage, mode=mode, newer_than=newer_than, notes=notes, protected=protected)
    front.act(guest, action)


@click.command()
@guest
@click.argument("archive")
@click.option("--storage", metavar="NAME")
@click.option("--overwrite", is_flag=True, help="In the place of the guest that is there; it must be off.")
@click.option(
    "--discard",
    multiple=True,
    metavar="NAME",
    help="What may go although the backup does not hold it: scsi1, mp0, snapshot:clean. May be repeated.",
)
@changing
@pass_front
def restore(
    front: Front, guest: str, archive: str, storage: str | None, overwrite: bool, discard: tuple[str, ...]
) -> None:
    """Make a guest out of the backup ARCHIVE (local:backup/vzdump-…); `vm backups` lists them."""
    action = actions.restore(archive, storage=storage, overwrite=overwrite, asked=True, discard=discard)
    front.act(guest, action)


@click.command()
@guest
@click.argument("target")
@click.option("--local-disks", is_flag=True, help="Take the disks along that only its node sees.")
@click.option("--storage", metavar="NAME", help="Where local disks go on the target.")
@changing
@pass_front
def migrate(front: Front, guest: str, target: str, local_disks: bool, storage: str | None) -> None:
    """Move a guest to the node TARGET, while it runs if it runs."""
    front.act(guest, actions.migrate(target, local_disks=local_disks, storage=storage))


@click.command()
@guest
@click.argument("vmid", type=int)
@click.option("--stop", is_flag=True, help="Also when it runs.")
@click.option("--no-backup", is_flag=True, help="Make no backup before: all of it is given up.")
@click.option(
    "--discard",
    multiple=True,
    metavar="NAME",
    help="What may go although no backup holds it: scsi1, unused0, snapshot:clean. May be repeated.",
)
@click.option("--storage", metavar="NAME", help="Where the backup goes.")
@click.option("--purge", is_flag=True, help="Also from backup jobs, replication and HA.")
@changing
@pass_front
def destroy(
    front: Front,
    guest: str,
    vmid: int,
    stop: bool,
    no_backup: bool,
    discard: tuple[str, ...],
    storage: str | None,
    purge: bool,
) -> None:
    """Remove a guest with all that belongs to it, after a backup that holds it. Name and VMID are both asked for.

    What a backup leaves out (backup=0, unused disks, snapshots) is named, and goes only with --discard.
    """
    found = guest_named(front.fleet, guest)
    name = found.name if isinstance(found, Vm) and not guest.isdigit() else guest
    action = DestroyAction(
        name=name, vmid=vmid, stop=stop, backup=not no_backup, storage=storage, purge=purge, discard=discard
    )
    front.act(guest, action)


COMMANDS = (
    *(start, stop, shutdown, reboot, suspend, resume, apply, clone, resize, add_disk, move_disk, snapshot, rollback),
    *(backup, restore, migrate, destroy),
)
