"""What steps have in common, what cannot be done, and the result of an action: its steps and what was read back."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar

from nixherd.fleet.models import GuestType
from nixherd.proxmox.answers import Upid, VmStatus
from nixherd.proxmox.calls import Guests
from nixherd.proxmox.config import VmConfig
from nixherd.proxmox.route import Requests

QEMU = GuestType.QEMU


class Row(StrEnum):
    """The rows of provisioning that the hypervisor carries out, in their order."""

    CLONE = "clone"
    CONFIGURE = "configure"
    RESIZE = "resize"
    CLOUD_INIT = "cloud-init"
    START = "start"


@dataclass(frozen=True, slots=True)
class Step:
    """Something that may be done to a guest: `str(step)` says it, `requests` are its rows in the guard's table.

    `interrupts`: a machine that runs stops for it. `repeatable`: a second time does nothing, or the same again; of
    any other one `task_types` are the server's names for its tasks. `at_once`: the server may begin no task for it.
    """

    node: str
    vmid: int
    type: GuestType = field(default=QEMU, kw_only=True)
    row: ClassVar[Row | None] = None
    interrupts: ClassVar[bool] = False
    repeatable: ClassVar[bool] = True
    at_once: ClassVar[bool] = False
    task_types: ClassVar[tuple[str, ...]] = ()
    requests: ClassVar[Requests] = {}

    @property
    def guest(self) -> str:
        return f"{'vm' if self.type is QEMU else 'ct'} {self.vmid}"

    @property
    def tool(self) -> str:
        """The node's own program for such a guest."""
        return "qm" if self.type is QEMU else "pct"

    def names(self) -> Mapping[str, object]:
        """Return the names in the path of the request."""
        return {"node": self.node, "vmid": self.vmid}

    def parameters(self) -> Mapping[str, object]:
        """Return the request's parameters; None for what is left out."""
        return {}

    def begin(self, client: Guests) -> Upid | None:
        """Send the request. Returns the task that carries it out, None when the answer means that it is done."""
        route = self.requests.get(self.type)
        if route is None:
            raise TypeError(f"{type(self).__name__} is not a request that can be sent to {self.guest}")
        return client.change(route, self.names(), self.parameters(), at_once=self.at_once)

    def is_reached(self, status: VmStatus) -> bool:
        """Tell whether a guest with this status is where a switch of power was to bring it.

        False where that is unclear.
        """
        return False

    @property
    def options(self) -> frozenset[str]:
        """The options of the guest's configuration that the step sets or takes away."""
        return frozenset()

    @property
    def touches(self) -> frozenset[str]:
        """The options of the configuration that change by it."""
        return self.options

    def places(self) -> Iterator[tuple[str, str, str]]:
        """Return node, storage and content of each volume that the step makes: of one, if it has a `storage`."""
        if storage := getattr(self, "storage", None):
            yield self.node, storage, self.content

    @property
    def content(self) -> str:
        """The server's word for a volume of such a guest."""
        return "images" if self.type is QEMU else "rootdir"

    def seen(self, client: Guests, node: str, config: VmConfig) -> Iterator[str]:
        """Yield what the step was to change, as the server says now; `config` is the guest's on that `node`."""
        for key in sorted(self.touches):
            yield f"{key}: {config.text(key) or 'none'}"


@dataclass(frozen=True, slots=True)
class Await(Step):
    """A task that an earlier run began is still at work: wait for it instead of beginning another."""

    upid: Upid
    what: ClassVar[str]

    def begin(self, client: Guests) -> Upid | None:
        return self.upid

    def __str__(self) -> str:
        return f"wait for the {self.what} of {self.guest} that is under way"


@dataclass(frozen=True, slots=True)
class Change:
    """One option of a guest's configuration; `before` and `after` as people read them, `value` as it is sent.

    A value of None deletes the option.
    """

    key: str
    before: str
    after: str
    value: object

    def __str__(self) -> str:
        return f"{self.key} {self.before} → {self.after}"


# How people call some of the options.
_OPTIONS: Mapping[str, str] = {
    "user": "ciuser",
    "keys": "sshkeys",
    "network": "ipconfig0",
    "upgrade": "ciupgrade",
    "search domain": "searchdomain",
}


def sent(changes: Iterable[Change]) -> dict[str, object]:
    """Return the options of these changes as the API takes them; those to be taken away under `delete`."""
    values = {_OPTIONS.get(change.key, change.key): change.value for change in changes}
    gone = sorted(key for key, value in values.items() if value is None)
    kept = {key: value for key, value in values.items() if value is not None}
    return {**kept, "delete": ",".join(gone)} if gone else kept


def listed(changes: Iterable[Change]) -> str:
    return ", ".join(str(change) for change in changes)


# Words only


@dataclass(frozen=True, slots=True)
class Cannot(Step):
    """What differs and is not done here: why, and what to do. `of_row` is the row that would have done it."""

    what: str
    why: str
    remedy: str
    of_row: Row | None = field(default=None, kw_only=True)

    def __str__(self) -> str:
        return f"{self.what}: {self.why}; {self.remedy}"


@dataclass(frozen=True, slots=True)
class Drift(Step):
    """What a documented guest's definition says, and what is: nothing is done about it."""

    key: str
    documented: str
    actual: str

    def __str__(self) -> str:
        return f"{self.key}: documented {self.documented}, is {self.actual}"


@dataclass(frozen=True, slots=True)
class Note(Step):
    """What should be known of the guest and does not differ from its definition."""

    what: str

    def __str__(self) -> str:
        return self.what


WORDS = (Cannot, Drift, Note)


def rows(steps: Iterable[Step], row: Row) -> tuple[Step, ...]:
    return tuple(step for step in steps if step.row is row)


def doable(steps: Iterable[Step]) -> tuple[Step, ...]:
    """Return the steps that can be carried out."""
    return tuple(step for step in steps if not isinstance(step, WORDS))


# Results


class Outcome(tuple[Step, ...]):
    """Steps like any other, in order. Where there are none, `why` says what was seen instead: "it runs".

    `observed` is what was read back in the end, by name, as JSON has it; `lines` say the same to people.
    """

    why: str
    observed: Mapping[str, object]
    lines: tuple[str, ...]

    def __new__(
        cls,
        steps: Iterable[Step] = (),
        *,
        why: str = "",
        observed: Mapping[str, object] | None = None,
        lines: Iterable[str] = (),
    ) -> "Outcome":
        made = super().__new__(cls, steps)
        made.why, made.observed, made.lines = why, observed or {}, tuple(lines)
        return made


Steps = tuple[Step, ...]


def nothing(why: str) -> Outcome:
    """Return no step, and why none is needed."""
    return Outcome(why=why)


def why_nothing(steps: Iterable[Step]) -> str:
    """Return why there is nothing to do, empty where nobody said."""
    return steps.why if isinstance(steps, Outcome) else ""
