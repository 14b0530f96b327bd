"""`nixherd vm storage` and `backups`, and the list of a guest's snapshots: what is kept on the hypervisor."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from nixherd.base.errors import Exit, FleetError, Usage
from nixherd.cli.completion import STORAGE
from nixherd.cli.front import Front, pass_front
from nixherd.cli.guests import guest_named
from nixherd.cli.output import narrate, show_rows
from nixherd.cli.parameters import guest, json_option
from nixherd.fleet.models import NO_ENDPOINT
from nixherd.proxmox.guest.names import require_node, require_storage
from nixherd.proxmox.guest.storages import require_place, storage_seen

if TYPE_CHECKING:
    from nixherd.proxmox.client import Client

_CONTENT = ("images", "rootdir", "backup", "iso", "vztmpl", "snippets", "import")
_STORAGES = ("name", "type", "enabled", "active", "content", "total", "used", "available", "shared")


@click.command()
@click.argument("name", required=False, type=STORAGE)
@click.option("--node", metavar="NODE", help="Another node than the endpoint's.")
@click.option("--content", type=click.Choice(_CONTENT), help="Only what may hold this, or volumes of this kind.")
@json_option
@pass_front
def storage(front: Front, name: str | None, node: str | None, content: str | None) -> None:
    """List the storages of a node, or the volumes of the storage NAME."""
    require_storage(name)
    if node is not None:
        require_node(node)
    where = node or endpoint_node(front)
    if name is None:
        rows = [asdict(each) for each in front.client.storages(where) if content is None or content in each.content]
        show_rows(rows, _STORAGES, front.as_json)
        return
    seen = storage_seen(front.client, where, name)
    if seen is None:
        raise Usage(f"{where} has no storage {name} that this token may see")
    if seen.away:
        raise FleetError(f"storage {name} on {where} {seen.away}; what is on it is not known")
    volumes = [asdict(each) for each in front.client.volumes(where, name, content=content)]
    show_rows(volumes, ("volid", "content", "format", "size", "vmid", "notes"), front.as_json)


@click.command()
@guest
@click.option("--storage", metavar="NAME", help="Only those on this one.")
@json_option
@pass_front
def backups(front: Front, guest: str, storage: str | None) -> int:
    """List a guest's backups, oldest first."""
    require_storage(storage)
    vm = guest_named(front.fleet, guest)
    node, vmid = (endpoint_node(front), vm) if isinstance(vm, int) else (front.fleet.node_of(vm), vm.vmid)
    unseen = ""
    if storage:
        names, away = [require_place(front.client, node, storage, "backup").name], []
    else:
        unseen = "" if _sees_every_storage(front.client) else _UNSEEN.format(token=front.client.token_id)
        # a storage that is switched off counts as absent
        able = [each for each in front.client.storages(node) if "backup" in each.content and each.enabled]
        names, away = [each.name for each in able if each.away is None], [each for each in able if each.away]
    volumes = [row for name in names for row in front.client.volumes(node, name, content="backup", vmid=vmid)]
    rows = [{**asdict(row), "made": when(row.ctime)} for row in sorted(volumes, key=lambda row: row.ctime or 0)]
    show_rows(rows, ("volid", "size", "made", "protected", "notes"), front.as_json)
    narrate(_hidden(front.client, vmid, names))
    if unseen:
        seen = f"only {', '.join(names)} on {node} was looked at" if names else f"no storage on {node} was looked at"
        narrate([f"{seen}, {unseen}{'' if names else f'; which backups guest {vmid} has is not known'}"])
    narrate(f"storage {each.name} on {node} {each.away}; which backups it has is not known" for each in away)
    return Exit.UNKNOWN if away or (unseen and not names) else Exit.DONE


_UNSEEN = (
    "and one that token {token} may not see is not shown at all: on the node, grant it and its user PVEDatastoreUser "
    "on /storage/NAME"
)


def _sees_every_storage(client: "Client") -> bool:
    """Whether the token's rights cover every storage, so that one that is not listed does not exist."""
    permissions = client.permissions()
    return any(permissions.allows("/storage/*", each) for each in ("Datastore.Audit", "Datastore.AllocateSpace"))


def _hidden(client: "Client", vmid: int, storages: Sequence[str]) -> Iterator[str]:
    """Warn of backups that may be hidden: what a pool gives the token ends with its guest."""
    permissions, path = client.permissions(), f"/vms/{vmid}"
    if permissions.allows(path, "VM.Backup"):
        return
    if storages and all(permissions.allows(f"/storage/{name}", "Datastore.Allocate") for name in storages):
        return
    user = client.token_id.partition("!")[0]
    yield (
        f"there may be backups of guest {vmid} that are hidden: they show with VM.Backup on {path}, which token "
        f"{client.token_id} lacks (what a pool gives goes with its guest); on the node: "
        f"`pveum acl modify {path} --roles ROLE --users {user} --tokens '{client.token_id}'`, with a role that has it"
    )


def snapshots_of_guest(front: Front, guest: str) -> None:
    node, vmid, kind, _ = front.placed(guest)
    rows = [{**asdict(row), "taken": when(row.time)} for row in front.client.snapshots(node, vmid, kind)]
    show_rows(rows, ("name", "taken", "parent", "with_memory", "description"), front.as_json)


def when(moment: int | None) -> str | None:
    return None if moment is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))


def endpoint_node(front: Front) -> str:
    """Give the node that the definitions name. Usage where they name none."""
    if front.fleet.endpoint is None:
        raise Usage(f"{NO_ENDPOINT}; add host and node")
    return front.fleet.endpoint.node


COMMANDS = (storage, backups)
