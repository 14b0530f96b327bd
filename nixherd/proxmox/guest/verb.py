"""What a verb is: something that people and deploys ask of one guest, defined in one class.

The class says what it is called, which parameters it has and how they are read, which steps follow from a look at the
guest, and what is left when they were carried out. The operation, the `vm` command and their help are made from it
(`operations.proxmox`, `nixherd.cli.vm_change`); the requests that it may send are those of its steps.
"""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, ClassVar, Self

from nixherd.base.errors import Usage
from nixherd.base.names import flag_of, some_names
from nixherd.fleet.models import Fleet, Vm
from nixherd.proxmox.client import Client
from nixherd.proxmox.guest import names
from nixherd.proxmox.guest.apply import PATIENCE, achieve, require_awake
from nixherd.proxmox.guest.identity import ActualVm, label, require_may_change, require_ours
from nixherd.proxmox.guest.observe import observe
from nixherd.proxmox.guest.storages import require_places
from nixherd.proxmox.guest.tasks import Progress
from nixherd.proxmox.steps import Note, Row, Steps, why_nothing

TASK_SECONDS = PATIENCE


@dataclass(frozen=True, slots=True)
class Guest:
    """One look at a guest; `actual` is None while it does not exist."""

    client: Client
    fleet: Fleet
    vm: Vm
    actual: ActualVm | None

    @property
    def ours(self) -> ActualVm:
        """The guest as observed. FleetError when it is not there, Refused when it is not this fleet's."""
        config, node = (self.actual.config, self.actual.node) if self.actual else (None, "")
        require_ours(self.fleet, self.vm, config, node)
        assert self.actual is not None
        return self.actual

    @property
    def label(self) -> str:
        return label(self.vm)

    def storage(self, named: str | None) -> str:
        """Return the storage that was named, else the declared one. Raise Usage without either."""
        place = named or self.fleet.storage_of(self.vm)
        if place is None:
            raise Usage(f"{self.label}: no storage is declared; name one")
        return place


# Parameters

Read = Callable[[str, object], Any]
SAME = object()  # the default of a parameter is the same for a person and for an operation


@dataclass(frozen=True, slots=True)
class Parameter:
    """How a parameter of a verb is read, and how it is written on the command line.

    `positional`: an argument there, not an option. `option` is the option's name where it is not the parameter's;
    `negated`: a flag that makes it False. `guest`: the name of a guest, or the very one that is asked (`itself`).
    `deploys_default` is the operation's, where it is another one than a person's.
    """

    read: Read
    help: str = ""
    metavar: str | None = None
    option: str = ""
    positional: bool = False
    negated: bool = False
    guest: bool = False
    itself: bool = False
    deploys_default: Any = SAME


def argument(read: Read, *, kw_only: bool = False, **more: Any) -> Any:
    """Declare a parameter that must be given; `more` as Parameter has it."""
    return field(kw_only=kw_only, metadata={"parameter": Parameter(read, positional=True, **more)})


def option(read: Read, default: Any = None, help: str = "", **more: Any) -> Any:
    """Declare a parameter that may be left out. One whose default is None is not read then."""
    return field(default=default, metadata={"parameter": Parameter(read, help, **more)})


def discarded(otherwise: str) -> Any:
    """Declare the names of parts that may be lost."""
    help = f"What may go although {otherwise}: scsi1, unused0, snapshot:clean. May be repeated."
    return option(some_names, (), help, metavar="NAME")


def flag(help: str = "", *, default: bool = False, **more: Any) -> Any:
    return option(flag_of, default, help, **more)


@dataclass(frozen=True, kw_only=True)
class Verb:
    """An action that is repeated until looking finds nothing left to do.

    `verb` is how a refusal names it: "shut down". Its class is called `name` among the operations, and `command` on the
    command line, where that is not None. `undo`: a snapshot may be taken before it. `row`: without any parameter its
    operation carries out this row of provisioning.
    `asks`: whether a person at a terminal is shown the plan and asked first; None: where a step interrupts the guest.
    `by_person`: by a person who wants it now; then `look` may refuse what would be nothing to do otherwise.
    """

    name: ClassVar[str] = ""
    verb: ClassVar[str] = ""
    command: ClassVar[str | None] = None
    undo: ClassVar[bool] = False
    asks: ClassVar[bool | None] = None
    row: ClassVar[Row | None] = None
    idempotent: ClassVar[bool] = True
    by_person: bool = field(default=False, kw_only=True)

    @classmethod
    def parameters(cls) -> Mapping[str, tuple[Parameter, Any]]:
        """Return the parameters in their order, each with its default; MISSING where it must be given."""
        declared = {each.name: (each.metadata.get("parameter"), each.default) for each in fields(cls)}
        return {name: (parameter, default) for name, (parameter, default) in declared.items() if parameter}

    @classmethod
    def read(cls, *, by_person: bool = False, **given: object) -> Self:
        """Make the verb from parameters as people type them. Raise Usage for one that cannot be meant."""
        values = {}
        for name, (parameter, default) in cls.parameters().items():
            value = given.pop(name, default)
            if value is MISSING:
                raise Usage(f"{cls.name} needs {name}")
            values[name] = None if value is None and default is None else parameter.read(name, value)
        if given:
            raise Usage(f"{cls.name} has no parameter {', '.join(given)}")
        return cls(**values, by_person=by_person)

    def __post_init__(self) -> None:
        names.require_storage(getattr(self, "storage", None))

    # What a verb defines

    def check(self, fleet: Fleet, vm: Vm) -> None:
        """Raise Usage for what can never be meant of this guest, before anything is asked of the server."""

    def look(self, guest: Guest) -> Steps:
        """Return the steps that are left to do now."""
        raise NotImplementedError

    def refusal(self, vm: Vm) -> str | None:
        """Return what a person who asked for what exists already should do instead; None: nothing is refused."""
        return None

    def judge(self, guest: Guest) -> Steps | None:
        """Return what is left when it has ended; None where there is nothing to judge."""
        return None

    def read_back(self, guest: Guest, done: Steps) -> Steps:
        """Return the steps that were carried out, with what is seen of the guest afterwards."""
        return done

    # What all have in common

    def plan(self, client: Client, fleet: Fleet, vm: Vm) -> Steps:
        """Return the steps that would be carried out now; empty where nothing is left to do."""
        self.require(fleet, vm)
        guest = Guest(client, fleet, vm, observe(client, fleet, vm))
        steps = require_places(client, self.look_now(guest, first=True))
        require_awake(vm, guest.actual, steps)
        return steps

    def run(
        self, client: Client, fleet: Fleet, vm: Vm, *, timeout: float = TASK_SECONDS, progress: Progress | None = None
    ) -> Steps:
        """Carry the steps out and look again until none is left; returns those that were."""
        self.require(fleet, vm)
        looks: list[ActualVm | None] = []

        def replan(actual: ActualVm | None) -> Steps:
            looks.append(actual)
            return require_places(client, self.look_now(Guest(client, fleet, vm, actual), first=len(looks) == 1))

        done = achieve(client, fleet, vm, replan, timeout=timeout, progress=progress, what=self.verb)
        return self.read_back(Guest(client, fleet, vm, None), done) if done else done

    def look_now(self, guest: Guest, *, first: bool) -> Steps:
        """Return the steps; at the `first` look a person may be refused."""
        steps = self.look(guest)
        if first and self.by_person and not steps and (remedy := self.refusal(guest.vm)):
            raise Usage(f"{guest.label}: {why_nothing(steps)}; {remedy}")
        return steps

    def require(self, fleet: Fleet, vm: Vm) -> None:
        require_may_change(vm, self.verb)
        self.check(fleet, vm)

    def left(self, client: Client, fleet: Fleet, vm: Vm) -> Steps | None:
        """Return what still differs from the request and this does not change, and what should be known.

        None where there is nothing to judge.
        """
        if type(self).judge is Verb.judge:
            return None
        return self.judge(Guest(client, fleet, vm, observe(client, fleet, vm)))


def waiting(_verb: Verb, guest: Guest) -> Steps:
    """Note which options of a guest wait for its next start: how verbs that set some judge."""
    actual = guest.actual
    if actual is None or not actual.pending:
        return ()
    keys = ", ".join(each.key for each in actual.pending)
    return (Note(actual.node, guest.vm.vmid, f"waits for its next start: {keys}", type=guest.vm.type),)
