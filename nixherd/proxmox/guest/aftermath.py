"""What a request has left behind that was refused, or whose end is not known; and taking that back."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from nixherd.base.errors import ApiError, FleetError, OutcomeUnknown, StillRunning, TaskFailed, Undecided
from nixherd.fleet.models import Fleet, Vm
from nixherd.proxmox.answers import Pending
from nixherd.proxmox.client import Client
from nixherd.proxmox.config import VmConfig
from nixherd.proxmox.guest.identity import ActualVm, is_stuck, label, volume_of
from nixherd.proxmox.guest.observe import observe
from nixherd.proxmox.guest.tasks import stands
from nixherd.proxmox.steps import AddDisk, Step

# What the server changes by itself where an option is set or a disk moved.
_OF_THE_SERVER = frozenset(("boot", "digest", "lock", "meta", "parent", "vmgenid"))


def changed_by_others(before: ActualVm | None, after: ActualVm | None, step: Step) -> list[str]:
    """Return the options that changed while this step was carried out, and not by it."""
    by_us = step.touches
    if before is None or after is None or not by_us:
        return []
    keys = (before.config.values.keys() | after.config.values.keys()) - by_us - _OF_THE_SERVER
    return sorted(
        key for key in keys if not key.startswith("unused") and before.config.text(key) != after.config.text(key)
    )


@dataclass(frozen=True, slots=True)
class _Seen:
    """The guest's configuration as it is in force, and what waits, of the same moment where the digest still fits."""

    config: VmConfig
    pending: Mapping[str, Pending]


def _look(client: Client, step: Step) -> _Seen:
    config = client.config(step.node, step.vmid, step.type, current=True)
    if config is None:
        raise ApiError(f"{step.guest} is not on {step.node} any more", None)
    return _Seen(config, {row.key: row for row in client.pending(step.node, step.vmid, step.type)})


def _new(step: Step, before: ActualVm, seen: _Seen) -> dict[str, Pending]:
    """Return what waits now and did not before, of the step's options."""
    ours = step.options
    return {key: row for key, row in seen.pending.items() if key in ours and before.waiting(key) != row}


def after_refusal(client: Client, step: Step, before: ActualVm, error: FleetError) -> FleetError:
    """Return the refusal with what was taken back, what was set all the same, and what still waits.

    `before` is what the step was decided on. Raise OutcomeUnknown when the guest cannot be looked at.
    """
    ours = step.options
    if not ours:
        return error
    try:
        seen = _look(client, step)
        new = _new(step, before, seen)
        back, failure = _take_back(client, step, before, seen, _mine(before, new))
        seen = _look(client, step) if new else seen
    except ApiError as why:
        look = f"{step.tool} pending {step.vmid}"
        return OutcomeUnknown(f"{error}; what of it waits for the next start is unknown ({why}); look: `{look}`", None)
    waiting, spare = _new(step, before, seen), list[tuple[str, str]]()
    done = sorted(key for key in ours if seen.config.text(key) != before.in_force(key))
    words = [f"{_kept(back)} taken back"] if back else []
    words += [f"{', '.join(done)} {_is(done)} set all the same"] if done else []
    if waiting:
        names = ",".join(sorted(waiting))
        words.append(
            f"{_described(waiting.values())}, for the next start, which may fail by it"
            f"{f' (not taken back: {failure})' if failure else ''}; `{step.tool} set {step.vmid} --revert {names}` "
            f"on {step.node} takes back all that waits there"
        )
    if isinstance(step, AddDisk) and back:
        spare = sorted(_unused(seen.config) - _unused(before.config))
        words += [f"its new volume is left as {name} ({volume})" for name, volume in spare]
    if done or waiting or spare:
        client.recount(1)
    return _worded(error, "; ".join([str(error), *words])) if words else error


def after_lost_answer(client: Client, step: Step, before: ActualVm, error: OutcomeUnknown) -> str:
    """Return what to say before the guest is looked at again.

    A change that waits where it should have been plugged in was refused, and its answer lost: it is taken back, so that
    asking again tells why. What replaced something that had waited cannot be taken back: that is raised.
    """
    if not step.options or not before.running:
        return str(error)
    try:
        seen = _look(client, step)
        late = {key: row for key, row in _new(step, before, seen).items() if is_stuck(before, row)}
        back, failure = _take_back(client, step, before, seen, _mine(before, late))
        left = set(_new(step, before, _look(client, step))) & set(late) if late else set()
    except ApiError:
        return str(error)  # the next look finds out, or says why it cannot
    if left and failure != _STALE:
        client.recount(1)
        text = f"{error}; {_described(late[key] for key in left)}, for the next start, which may fail by it"
        raise FleetError(f"{text}; `{step.tool} set {step.vmid} --revert {','.join(sorted(left))}` takes it back")
    return f"{error}; {_kept(back)} taken back, to be tried again" if back else str(error)


_STALE = "it was changed meanwhile"
_TRIES = 3  # of taking back, while somebody else changes the guest as well


def _mine(before: ActualVm, new: Mapping[str, Pending]) -> dict[str, Pending]:
    """Return what waits by us alone: taking back what replaced another change would lose that too."""
    return {key: row for key, row in new.items() if before.waiting(key) is None}


def _take_back(
    client: Client, step: Step, before: ActualVm, seen: _Seen, mine: Mapping[str, Pending]
) -> tuple[list[str], str]:
    """Revert these on the very configuration that was seen, and remove the volumes made for them.

    Returns what was taken back, and why something was not. Raises ApiError when the guest cannot be looked at.
    """
    if not mine:
        return [], ""
    failure, after, left = _STALE, seen, dict(mine)
    for _ in range(_TRIES):
        if failure == _STALE and left:
            failure = _sent(client, step, {"revert": ",".join(sorted(left))}, after.config)
            after = _look(client, step)
            left = {key: row for key, row in mine.items() if after.pending.get(key) == row}
    # a plugging that was only slow has been done by now: that was not taken back
    gone = (key for key in mine if key not in after.pending)
    back = sorted(key for key in gone if after.config.text(key) == before.in_force(key))
    made = {volume_of(mine[key].after) for key in back} if isinstance(step, AddDisk) else set()
    known = {volume_of(str(value)) for value in before.config.values.values()}
    spare = [name for name, volume in _unused(after.config) if volume in made - known]
    if spare:
        failure = _sent(client, step, {"delete": ",".join(spare)}, after.config)
    return back, failure


def _unused(config: VmConfig) -> set[tuple[str, str]]:
    return {(name, each.volume) for name, each in config.unused.items()}


def _sent(client: Client, step: Step, values: Mapping[str, object], on: VmConfig) -> str:
    """Send the change that undoes; it counts as none. Why it failed, empty when it did not."""
    try:
        client.set_config(step.node, step.vmid, values, step.type, digest=on.digest)
    except ApiError as error:
        return _STALE if "checksum mismatch" in str(error) else str(error)
    client.recount(-1)
    return ""


def _kept(keys: list[str]) -> str:
    return f"{', '.join(keys)}, which the server had kept for the next start, {_is(keys)}"


def _is(keys: list[str]) -> str:
    return "are" if len(keys) > 1 else "is"


def _described(rows: Iterable[Pending]) -> str:
    waiting = sorted(f"{row.key} ({row.before or 'none'} → {row.after or 'none'})" for row in rows)
    return f"{', '.join(waiting)} {'wait' if len(waiting) > 1 else 'waits'}"


def _worded(error: FleetError, text: str) -> FleetError:
    if isinstance(error, TaskFailed):
        return TaskFailed(text, error.upid, error.exitstatus)
    return ApiError(text, error.status, error.errors) if isinstance(error, ApiError) else FleetError(text)


UNKNOWN = (OutcomeUnknown, StillRunning, Undecided)  # how whatever was asked for ended is not known


def add_seen(error: FleetError, client: "Client", fleet: Fleet, vm: Vm, step: Step | None = None) -> None:
    """Have the error say where the guest stands now."""
    error.args = (f"{error}; {seen(client, fleet, vm, step)}", *error.args[1:])


def seen(client: "Client", fleet: Fleet, vm: Vm, step: Step | None = None) -> str:
    """Say where the guest is, how it stands and what the step was to change; unknown where nobody tells."""
    try:
        actual = observe(client, fleet, vm)
        if actual is None:
            return f"{label(vm)} is not there now"
        status = client.status(actual.node, vm.vmid, vm.type)
        words = step.seen(client, actual.node, actual.config) if step else ()
        return "; ".join([f"now {label(vm)} on {actual.node} {stands(status)}", *words])
    except FleetError as error:
        return f"how {label(vm)} stands now is not known ({error})"
