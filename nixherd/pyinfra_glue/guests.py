"""Operations on guests, each made from its verb: it acts for its host's guest, through the guarded API."""

from collections.abc import Callable
from dataclasses import MISSING
from inspect import Parameter, Signature
from typing import Any

from pyinfra import host

from nixherd.base.errors import FleetError, Refused, Usage
from nixherd.base.names import options_of, parse_seconds
from nixherd.fleet.models import DEFINITIONS, GuestType, Vm
from nixherd.proxmox.guest.apply import ensure, plan_of
from nixherd.proxmox.guest.identity import label, require_may_change
from nixherd.proxmox.guest.snapshots import Action, reversible
from nixherd.proxmox.guest.verb import SAME, TASK_SECONDS, Verb
from nixherd.proxmox.steps import Cannot, Outcome, Row, Steps, rows, why_nothing
from nixherd.pyinfra_glue.hosts import context_of, fleet_host, vm_of
from nixherd.pyinfra_glue.operation import Change, NoChange, Planned, operation

# Seconds for a task of provisioning and for whoever holds its locks, unless the data `task_deadline` says so.
ROW_DEADLINE = 300.0


def operation_of(verb: type[Verb]) -> Any:
    """Make the operation of a verb, with its name, parameters and docstring; `snapshot` is for the one before it."""

    def body(*args: Any, **kwargs: Any) -> Planned:
        bound = signature.bind(*args, **kwargs)
        if verb.row and not options_of(bound.arguments):
            return row(verb.row)
        bound.apply_defaults()
        given = bound.arguments
        snapshot = given.pop("snapshot", None)
        return act(reversible(verb.read(**given), snapshot))

    signature = Signature(list(_parameters(verb)))
    body.__name__ = body.__qualname__ = verb.name
    body.__module__, body.__doc__ = "nixherd.operations.proxmox", verb.__doc__
    body.__signature__ = signature  # type: ignore[attr-defined]
    return operation(is_idempotent=verb.idempotent)(body)


def _parameters(verb: type[Verb]) -> list[Parameter]:
    """The parameters as Python has them; where its row serves as well, none must be given."""
    found = []
    for name, (parameter, default) in verb.parameters().items():
        default = default if parameter.deploys_default is SAME else parameter.deploys_default
        if default is MISSING:
            default = None if verb.row else Parameter.empty
        found.append(Parameter(name, Parameter.POSITIONAL_OR_KEYWORD, default=default))
    if verb.undo:
        found.append(Parameter("snapshot", Parameter.POSITIONAL_OR_KEYWORD, default=None))
    return found


def guest_of() -> Vm:
    """The guest that the host runs in. FleetError when the definitions have none."""
    vm = vm_of(host)
    if vm is None:
        raise FleetError(f"{fleet_host(host).id} is not a guest of {DEFINITIONS}; nothing can be done for it here")
    return vm


def deadline_of(default: float = TASK_SECONDS) -> float:
    """Seconds for a task of the hypervisor, and for whoever holds its locks: data `task_deadline`, or the default."""
    given = host.data.get("task_deadline")
    try:
        return default if given is None else parse_seconds(given)
    except ValueError as error:
        raise Usage(f"task_deadline={error}") from None


def act(action: Action) -> Planned:
    """Plan the action, and have it carried out; nothing where nothing is left to do."""
    hypervisor, vm = context_of(host).hypervisor, guest_of()
    deadline = deadline_of()
    require_may_change(vm, action.verb)  # before a client is made: nothing at all is sent
    steps = action.plan(hypervisor.client, hypervisor.fleet, vm)
    if not steps:
        why = why_nothing(steps)
        return NoChange(f"{label(vm)}: nothing is left to do to {action.verb} it{f': {why}' if why else ''}")
    planned = "; ".join(map(str, steps))

    def carry_out() -> None:
        done = action.run(hypervisor.client, hypervisor.fleet, vm, timeout=deadline, progress=host.log)
        tell(step for step in done if str(step) not in planned)
        tell(done.lines if isinstance(done, Outcome) else ())
        tell(action.left(hypervisor.client, hypervisor.fleet, vm) or ())  # what waits for its next start

    return Change(planned, carry_out, by_api=True)


def tell(lines: Any) -> None:
    for line in lines:
        host.log(str(line))


# Rows of provisioning


def managed_guest() -> Vm:
    vm = vm_of(host)
    if vm is None:
        raise FleetError(
            f"{fleet_host(host).id} is not a VM of {DEFINITIONS}; `nixherd install` is for machines that SSH reaches"
        )
    if not vm.is_managed:
        raise Refused(
            f"vm {vm.vmid} ({vm.name}) is {vm.attribute} in {DEFINITIONS}: documented, never changed; "
            "refusing to provision it"
        )
    return vm


def managed_vm() -> Vm:
    vm = managed_guest()
    if vm.type is not GuestType.QEMU:
        raise Refused(f"{vm.attribute} is a container (lxc); only virtual machines are provisioned by cloning")
    return vm


def row(row: Row, deadline: float = ROW_DEADLINE, before: Callable[[], object] | None = None) -> Planned:
    """The steps of one row of the plan for the host's guest; what cannot be done of it fails the host after them.

    `before` is done first. Refused when a readonly guest needs anything, or the guest is not ours.
    """
    hypervisor, vm, fleet = context_of(host).hypervisor, managed_guest(), context_of(host).fleet
    deadline, planned = deadline_of(deadline), plan_of(hypervisor.client, fleet, vm, fleet_host(host))
    steps: Steps = rows(planned, row)
    obstacles = [str(step) for step in planned if isinstance(step, Cannot) and step.of_row is row]
    if not (steps or obstacles):
        return NoChange(f"vm {vm.vmid} ({vm.name}): nothing to {row}")

    def make() -> None:
        if before:
            before()
        ensure(hypervisor.client, fleet, vm, fleet_host(host), row, timeout=deadline, progress=host.log)
        require_none(obstacles)

    return Change("; ".join(map(str, steps)) or f"nothing that can be done to {row}", make, by_api=True)


def require_none(obstacles: list[str]) -> None:
    """FleetError that says what could not be done."""
    if obstacles:
        raise FleetError("; ".join(f"not as declared: {each}" for each in obstacles))
