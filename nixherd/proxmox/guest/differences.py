"""How a guest that was looked at differs from its definition, and what would mend that. Pure."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from nixherd.fleet.models import Fleet, Vm
from nixherd.proxmox.guest.identity import ActualVm, contradiction, why_not_ours
from nixherd.proxmox.guest.plan import Desired, compared, drift, in_the_making
from nixherd.proxmox.steps import Cannot, Note, Row, Step


@dataclass(frozen=True, slots=True)
class Differs:
    """One difference in words. `remedy`: apply, adopt, by hand, or left alone (of a readonly guest); None of a guest
    that is documented only. `interrupts`: mending it interrupts the guest."""

    difference: str
    remedy: str | None
    interrupts: bool = False


def difference(vm: Vm, step: Step) -> Differs:
    """What a step that is left to do says of the guest as it is."""
    remedy = "by hand" if isinstance(step, Cannot) else "left alone" if vm.readonly else "apply"
    return Differs(str(step), remedy, step.interrupts)


def differences(
    fleet: Fleet, vm: Vm, actual: ActualVm | None, target: Callable[[], Desired], note: Callable[[Note], None]
) -> Iterator[Differs]:
    """Compare a guest, None while it does not exist, with its definition; whether it runs does not count.

    `target` says what a managed one is to be, where that is needed; notes go to `note`. Raises as `compared` does.
    """
    if not vm.is_managed:
        yield from (Differs(str(step), None) for step in drift(vm, fleet.node_of(vm), actual))
        return
    whole = actual if actual is not None and not in_the_making(fleet, vm, actual) else None
    if whole and (why := why_not_ours(fleet, vm, whole.config, whole.node)):
        other = contradiction(fleet, vm, whole.config, whole.node)
        yield Differs(why, "by hand" if other else "adopt")
        if other:
            return  # another machine: what it has is not compared with ours
    for step in compared(target(), actual):
        if isinstance(step, Note):
            note(step)
        elif step.row is not Row.START:
            yield difference(vm, step)
