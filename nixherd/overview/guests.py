"""What the hypervisor says of guests: one list of all, each guest's configuration and snapshots, and the backups.

Only GETs are sent, and none but these: what they do not tell is not told here. A guest's pending options and the sizes
of its unused disks are not asked for, nor is the template: what only waits for the guest's next start, and the
`onboot` and `protection` that the template left, are no differences here; `nixherd vm diff` says them.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from nixherd.base.errors import FAILURES, ApiError, FleetError, OtherServer, OutcomeUnknown, Refused
from nixherd.base.terminal import worded
from nixherd.fleet.models import Fleet, Vm
from nixherd.overview.document import Guest, Hypervisor
from nixherd.overview.judge import written

if TYPE_CHECKING:
    from nixherd.proxmox.answers import Resource, Resources, SnapshotRow, StorageRow, Volume
    from nixherd.proxmox.client import Client
    from nixherd.proxmox.config import VmConfig
    from nixherd.proxmox.hypervisor import Hypervisor as Api

T = TypeVar("T")

AT_ONCE = 8
"""requests that are in flight at most"""

_OURS = re.compile(r"(\S+), by nixherd")  # what `vm backup` notes where nobody says otherwise
_MADE = re.compile(r"(?:^|,)ctime=(\d+)")


@dataclass(frozen=True)
class GuestsSeen:
    """By the id of the host that lives in it: each guest, why nothing or not all is known of it, and why nothing is of
    its backups."""

    hypervisor: Hypervisor
    guests: Mapping[str, Guest] = field(default_factory=dict)
    unknown: Mapping[str, str] = field(default_factory=dict)
    no_backups: Mapping[str, str] = field(default_factory=dict)


def look_at_guests(api: "Api", fleet: Fleet, vms: Mapping[str, Vm], *, at_once: int = AT_ONCE) -> GuestsSeen:
    """Ask for these guests. What goes wrong with one of them is said of that one; nothing is raised for the others.

    A guest without a row in the list is asked for its configuration where it should be, and the client then asks
    whether its VMID is free: so one that does not exist is told from one that the token may not see.
    """
    endpoint = fleet.endpoint
    where = f"{endpoint.host}:{endpoint.port}" if endpoint else None

    def not_answered(state: str, error: BaseException) -> GuestsSeen:
        why = _line(error)
        return GuestsSeen(Hypervisor(state, where, why), unknown=dict.fromkeys(vms, why))

    try:
        client, listed = _tried(lambda: (api.guarded, api.guarded.all_resources()), "asking the hypervisor")
    except (OtherServer, Refused) as error:
        return not_answered("refused", error)
    except ApiError as error:
        return not_answered("refused" if error.status in (401, 403) else "unreachable", error)
    except FleetError as error:  # no token, or not a readable one
        return not_answered("not asked", error)
    look = _Look(client, fleet, listed)
    with ThreadPoolExecutor(at_once) as pool:
        begun = {id: look.begin(pool, vm) for id, vm in vms.items()}
        backups = look.begin_backups(pool)
        seen = {id: _seen(look, vms[id], guest) for id, guest in begun.items()}
        archives = _archives(backups, look.backup_storages)
    return _together(look, where, vms, seen, archives)


def _tried(act: Callable[[], T], what: str) -> T:
    """Do one thing. What goes wrong with it is a FleetError in one line, whatever it is: others go on."""
    try:
        return act()
    except FAILURES as error:
        problem = worded(error, what)
    raise problem


@dataclass
class _Look:
    """What is asked, after the list. `lost` is why nothing more is sent: nobody answers any more."""

    client: "Client"
    fleet: Fleet
    listed: "Resources"
    lost: ApiError | None = None

    def __post_init__(self) -> None:
        self._offline = {each.name for each in self.listed.nodes if each.status == "offline"}
        self._rows = {row.vmid: row for row in self.listed.guests}
        named = self.fleet.endpoint.backup_storage if self.fleet.endpoint else None
        self.backup_storages = tuple(_places(self.fleet, self.listed.storages, named, self._offline))

    def row(self, vm: Vm) -> "Resource | None":
        return self._rows.get(vm.vmid)

    def begin(self, pool: ThreadPoolExecutor, vm: Vm) -> "_Begun":
        """Ask for a guest's configuration, and for its snapshots where it is there."""
        row, what = self.row(vm), f"guest {vm.vmid}"
        if row is not None and row.type is not vm.type:
            return _Begun()
        place = (row.node if row else self.fleet.node_of(vm), vm.vmid, vm.type)
        config = pool.submit(self._ask, what, place[0], partial(self.client.config, *place))
        if row is None:
            return _Begun(config)
        return _Begun(config, pool.submit(self._ask, what, row.node, partial(self.client.snapshots, *place)))

    def begin_backups(self, pool: ThreadPoolExecutor) -> "list[Future[tuple[Volume, ...]]]":
        calls = {
            each: partial(self.client.volumes, each.node, each.name, content="backup") for each in self.backup_storages
        }
        return [pool.submit(self._ask, f"storage {each.name}", each.node, call) for each, call in calls.items()]

    def _ask(self, what: str, node: str, call: Callable[[], T]) -> T:
        if node in self._offline:
            raise FleetError(f"{what} is not known: node {node} is offline")
        if self.lost:
            raise FleetError(str(self.lost))
        try:
            return _tried(call, what)
        except ApiError as error:
            if error.status is None and not isinstance(error, OutcomeUnknown):  # it hung up on this one alone
                self.lost = error
            raise


@dataclass(frozen=True)
class _Begun:
    """What was asked of one guest; nothing where the list tells that it is another one."""

    config: "Future[VmConfig | None] | None" = None
    snapshots: "Future[tuple[SnapshotRow, ...]] | None" = None


def _places(
    fleet: Fleet, rows: "tuple[StorageRow, ...]", named: str | None, offline: set[str]
) -> "Iterator[StorageRow]":
    """The storages that hold backups: the declared one, else all that may; a shared one once, at a node that is up."""
    from nixherd.proxmox.answers import StorageRow

    found = [row for row in rows if (row.name == named if named else "backup" in row.content)]
    nearest = fleet.endpoint.node if fleet.endpoint else ""
    if named and not found:  # it is not shown, and is asked all the same: its answer says why
        yield StorageRow(named, nearest, ("backup",), shared=True)
    shared = set[str]()
    for row in sorted(found, key=lambda row: (row.name, row.node in offline, row.node != nearest, row.node)):
        if row.name not in shared:
            yield row
        if row.shared:
            shared.add(row.name)


@dataclass(frozen=True)
class _Archives:
    """The backups by VMID; `why` they are not known, of which storage."""

    of: "Mapping[int, list[Volume]]" = field(default_factory=dict)
    why: str | None = None


def _archives(begun: "list[Future[tuple[Volume, ...]]]", storages: "tuple[StorageRow, ...]") -> _Archives:
    found = defaultdict[int, "list[Volume]"](list)
    problems = list[str]()
    for storage, future in zip(storages, begun, strict=True):
        try:
            volumes = future.result()
        except FleetError as error:
            problems.append(f"storage {storage.name} on {storage.node}: {_line(error)}")
            continue
        for volume in volumes:
            if volume.vmid is not None:
                found[volume.vmid].append(volume)
    if not storages:
        problems = ["this token sees no storage that takes backups"]
    return _Archives(found, "; ".join(problems) or None)


@dataclass(frozen=True)
class _Seen:
    """One guest, without its backups. `made` is when it was created, seconds since 1970, as far as it says so."""

    guest: Guest
    exists: bool | None
    why: str | None = None
    made: int = 0


def _seen(look: _Look, vm: Vm, begun: _Begun) -> _Seen:
    """Put together what was answered of one guest."""
    row = look.row(vm)
    power = None if row is None or row.status == "unknown" else row.status
    guest = Guest(vm.vmid, vm.name, str(vm.type), vm.may_change, row.node if row else None, power)
    problems = list[str]()

    def answer(future: "Future[T] | None") -> T | None:
        try:
            return future.result() if future else None
        except FleetError as error:
            problems.append(_line(error))
            return None

    config, rows = answer(begun.config), answer(begun.snapshots)
    if rows is not None:
        times = sorted(row.time for row in rows if row.time is not None)
        newest, oldest = (_time(times[-1]), _time(times[0])) if times else (None, None)
        guest = replace(guest, snapshots=len(rows), newest_snapshot=newest, oldest_snapshot=oldest)
    if begun.config is not None and config is None and not problems and row is not None:
        problems.append(f"guest {vm.vmid} left {row.node} while it was looked at; look again")
    if not problems:
        try:
            what = f"comparing guest {vm.vmid} with its definition"
            guest = replace(guest, **_tried(partial(_drift, look.fleet, vm, row, config), what))
        except FleetError as error:
            problems.append(_line(error))
    exists = None if problems else config is not None
    return _Seen(guest, exists, "; ".join(dict.fromkeys(problems)) or None, _made(config))


def _made(config: "VmConfig | None") -> int:
    match = _MADE.search(config.text("meta") or "") if config else None
    return int(match[1]) if match else 0


def _drift(fleet: Fleet, vm: Vm, row: "Resource | None", config: "VmConfig | None") -> dict[str, Any]:
    """How the guest differs from its definition, and what mends it. FleetError where that cannot be told."""
    from nixherd.fleet.models import GuestType
    from nixherd.proxmox.guest.differences import Differs, differences
    from nixherd.proxmox.guest.identity import ActualVm, label, of_another_kind
    from nixherd.proxmox.guest.plan import Desired

    if row is not None and (why := of_another_kind(vm, row)):
        return {"drift": (why,), "remedy": "by hand"}
    if config is None and vm.is_managed:
        makes = f"`nixherd provision {vm.host_id}` makes it" if vm.may_change else f"correct {vm.attribute}"
        return {"drift": (f"{label(vm)} does not exist on {fleet.node_of(vm)}; {makes}",), "remedy": "by hand"}
    if config is not None and config.lock == "clone" and vm.is_managed and vm.type is GuestType.QEMU:
        raise FleetError(f"{label(vm)} is being cloned, or was left half cloned: `nixherd vm diff {vm.name}` tells")
    actual = ActualVm(config, row.status == "running", node=row.node) if config is not None and row else None
    if vm.status is not None and (row is None or row.status == "unknown"):
        vm = replace(vm, status=None) if actual else vm  # whether it runs is not known
    unseen = FleetError("the template was not looked at")

    def target() -> Desired:
        return Desired(fleet, vm, fleet.hosts[vm.host_id or ""], unseen=unseen)

    try:
        found = list(differences(fleet, vm, actual, target, lambda note: None))
    except Refused as error:  # of a disk whose size nobody knows: to be seen to
        found = [Differs(str(error), "by hand")]
    remedies = [each.remedy for each in found]
    remedy = next((each for each in ("adopt", "apply") if each in remedies), "by hand" if found else None)
    return {"drift": tuple(each.difference for each in found), "remedy": remedy}


def _together(
    look: _Look, where: str | None, vms: Mapping[str, Vm], seen: Mapping[str, _Seen], archives: _Archives
) -> GuestsSeen:
    guests, no_backups = dict[str, Guest](), dict[str, str]()
    for id, each in seen.items():
        vm = vms[id]
        mine = [row for row in archives.of.get(vm.vmid, ()) if _is_of(look.fleet, vm, row, each.made)]
        why = archives.why
        if why is None and not mine and not _may_see_backups(vm):
            why = f"no backup of it is shown; without VM.Backup on /vms/{vm.vmid} a token is shown none"
        guest = each.guest
        if why is not None:
            no_backups[id] = why
        elif mine or each.exists is not False:
            times = [row.ctime for row in mine if row.ctime is not None]
            guest = replace(guest, backups=len(mine), newest_backup=_time(max(times)) if times else None)
        guests[id] = guest
    state = Hypervisor("unreachable", where, _line(look.lost)) if look.lost else Hypervisor("answered", where)
    return GuestsSeen(state, guests, {id: each.why for id, each in seen.items() if each.why}, no_backups)


def _may_see_backups(vm: Vm) -> bool:
    """Whether the documented rights show a guest's backups: VM.Backup, which those on its pool have."""
    return vm.is_managed and (vm.may_change or vm.settings.pool is not None)


def _is_of(fleet: Fleet, vm: Vm, archive: "Volume", made: int) -> bool:
    """Whether a backup under the guest's VMID may be of this guest, and not of one that had the VMID before."""
    notes = (archive.notes or "").strip()
    other = match[1] if (match := _OURS.fullmatch(notes)) else notes if notes in fleet.vms else vm.name
    return other == vm.name and (archive.ctime is None or archive.ctime >= made)


def _time(seconds: int) -> str:
    return written(datetime.fromtimestamp(seconds, UTC))


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
