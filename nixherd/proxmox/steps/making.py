"""Making guests, moving them to another node, and removing them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from nixherd.fleet.models import GuestType
from nixherd.proxmox.belongings import Belongings
from nixherd.proxmox.config import VmConfig
from nixherd.proxmox.route import GUESTS, Effect, Guest, Kind, Requests, Route, each, on_container, on_guests, on_vm
from nixherd.proxmox.steps.base import QEMU, Await, Row, Step
from nixherd.proxmox.steps.hardware import CT_DEVICES, CT_OPTIONS, VM_DEVICES, VM_OPTIONS

_LXC = GuestType.LXC


@dataclass(frozen=True, slots=True)
class Clone(Step):
    """Copy a VM, with our mark on the copy from the first moment. Not `full`: a linked clone of a template."""

    name: str
    template: int
    template_node: str
    description: str
    storage: str | None = None
    pool: str | None = None
    full: bool = True
    is_template: bool = True
    row = Row.CLONE
    requests = on_vm(
        *("POST", "/clone", Effect.DATA),
        {
            **{"newid": Kind.NEW_VMID, "target": Kind.NODE, "storage": Kind.STORAGE, "pool": Kind.NAME},
            **{"full": Kind.BOOLEAN, **each(Kind.TEXT, "name description")},
        },
        required=("newid",),
        guest=Guest.SOURCE,
        trial=True,
    )

    def names(self) -> Mapping[str, object]:
        return {"node": self.template_node, "vmid": self.template}

    def parameters(self) -> Mapping[str, object]:
        return {
            **{"newid": self.vmid, "name": self.name, "description": self.description, "full": self.full},
            **{"storage": self.storage, "pool": self.pool},
            "target": self.node if self.node != self.template_node else None,
        }

    def __str__(self) -> str:
        where = f" on {self.storage}" if self.storage else ""
        source = f"template {self.template}" if self.is_template else f"vm {self.template}"
        return f"{'' if self.full else 'link-'}clone {source} to vm {self.vmid} ({self.name}){where}"


@dataclass(frozen=True, slots=True)
class AwaitClone(Await):
    row = Row.CLONE
    what = "clone"


_NEW = {"vmid": Kind.NEW_VMID, "pool": Kind.NAME, "storage": Kind.STORAGE, "force": Kind.BOOLEAN}
# Guests are made, and restored, by one call.
CREATION: Requests = {
    QEMU: Route(
        *("POST", GUESTS[QEMU], Effect.DATA),
        {**VM_OPTIONS, **_NEW, "name": Kind.TEXT, **each(Kind.NAME, "ostype scsihw"), "archive": Kind.ARCHIVE},
        {**VM_DEVICES, "efidisk": Kind.DRIVE, "serial": Kind.SOCKET},
        required=("vmid",),
        template=True,
    ),
    _LXC: Route(
        *("POST", GUESTS[_LXC], Effect.DATA),
        {
            **{**CT_OPTIONS, **_NEW, "hostname": Kind.TEXT, **each(Kind.BOOLEAN, "restore unprivileged")},
            **{"ostemplate": Kind.UNPACKED, "rootfs": Kind.DRIVE, "ssh-public-keys": Kind.TEXT},
        },
        {**CT_DEVICES, "mp": Kind.DRIVE},
        required=("vmid", "ostemplate"),
    ),
}


@dataclass(frozen=True, slots=True)
class Create(Step):
    """Make a guest from its definition: an empty VM, or a container out of its archive."""

    name: str
    values: Mapping[str, object]
    row = Row.CLONE
    requests = CREATION

    def parameters(self) -> Mapping[str, object]:
        return {"vmid": self.vmid, **self.values}

    def places(self) -> Iterator[tuple[str, str, str]]:
        for drive in VmConfig(self.values).volumes.values():
            yield self.node, drive.storage, self.content
        if archive := self.values.get("ostemplate"):
            yield self.node, str(archive).partition(":")[0], "vztmpl"

    def __str__(self) -> str:
        source = f" out of {self.values['ostemplate']}" if "ostemplate" in self.values else " from its definition"
        return f"create {self.guest} ({self.name}){source}"


@dataclass(frozen=True, slots=True)
class Restore(Step):
    """Make the guest out of a backup; with `overwrite` in the place of the one that is there.

    In words: what of that one `stays` as unused disks, what of it `goes` though the backup does not hold it, what
    `strays` on its storage, where nothing names it then, and which disks of its own the backup `lacks`. `leftover`:
    what is there is what a restore that failed has left, and empty.
    """

    name: str
    archive: str
    storage: str | None = None
    pool: str | None = None
    overwrite: bool = False
    stays: tuple[str, ...] = ()
    goes: tuple[str, ...] = ()
    strays: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    leftover: bool = False
    row = Row.CLONE
    interrupts = True
    repeatable = False
    task_types = ("qmrestore", "vzrestore")
    requests = CREATION

    def parameters(self) -> Mapping[str, object]:
        source = {"archive": self.archive} if self.type is QEMU else {"ostemplate": self.archive, "restore": True}
        force = {"force": True} if self.overwrite else {}
        return {"vmid": self.vmid, "storage": self.storage, "pool": self.pool, **source, **force}

    def __str__(self) -> str:
        over = ", over the one that is there" if self.overwrite else ""
        if self.leftover:
            over = ", in the place of the empty one that a restore left"
        rest = (
            *(("not in it", self.lacks), ("stays as an unused disk", self.stays), ("goes", self.goes)),
            ("stays on its storage, named by nothing", self.strays),
        )
        told = "".join(f"; {what}: {', '.join(names)}" for what, names in rest if names)
        return f"restore {self.guest} ({self.name}) from {self.archive}{over}{told}"


@dataclass(frozen=True, slots=True)
class AwaitRestore(Await):
    name: str
    archive: str
    row = Row.CLONE

    def __str__(self) -> str:
        return f"wait for the restore of {self.guest} ({self.name}) from {self.archive} that is under way"


@dataclass(frozen=True, slots=True)
class MakeTemplate(Step):
    """Turn a stopped VM into a template, for good."""

    at_once = True
    requests = on_vm("POST", "/template", Effect.DATA, template=True)

    def __str__(self) -> str:
        return f"convert {self.guest} to a template, for good"


@dataclass(frozen=True, slots=True)
class Migrate(Step):
    """Move the guest to another node; a running container is stopped, moved and started there."""

    target: str
    online: bool = False
    local_disks: bool = False
    storage: str | None = None
    requests = on_vm(
        *("POST", "/migrate", Effect.DATA),
        {
            **{"target": Kind.NODE, "targetstorage": Kind.STORAGE},
            **each(Kind.BOOLEAN, "online with-local-disks"),
        },
        required=("target",),
    ) | on_container(
        *("POST", "/migrate", Effect.DATA),
        {"target": Kind.NODE, "target-storage": Kind.STORAGE, "restart": Kind.BOOLEAN},
        required=("target",),
    )

    def parameters(self) -> Mapping[str, object]:
        if self.type is _LXC:
            restart = {"restart": True} if self.online else {}
            return {"target": self.target, "target-storage": self.storage, **restart}
        disks = {"with-local-disks": True} if self.local_disks else {}
        return {"target": self.target, "online": self.online, "targetstorage": self.storage, **disks}

    def places(self) -> Iterator[tuple[str, str, str]]:
        if self.storage:
            yield self.target, self.storage, self.content

    def __str__(self) -> str:
        how = " with its local disks" if self.local_disks else ""
        state = " online" if self.online and self.type is QEMU else " (restarting it)" if self.online else ""
        return f"migrate {self.guest} from {self.node} to {self.target}{state}{how}"


# What no configuration names was neither announced nor saved: it stays, whatever the server's default is.
_GONE = {"purge": Kind.BOOLEAN, "destroy-unreferenced-disks": Kind.ZERO}


@dataclass(frozen=True, slots=True)
class Destroy(Step):
    """Remove the guest with what belongs to it; `purge`: also from backup jobs, replication and HA.

    `backup` is where it was saved before; `given_up` are the names of parts that it need not hold, `saving` whether
    one was asked for. `pool` is the one whose member it is, None where that is not known; `left` are volumes that the
    server left where they are, `unseen` those that it may have left, where the token is not shown them any more.
    """

    name: str = ""
    mac: str | None = None
    belongings: Belongings = field(default_factory=Belongings)
    backup: str | None = None
    given_up: tuple[str, ...] = ()
    saving: bool = True
    purge: bool = False
    pool: str | None = None
    left: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()
    interrupts = True
    requests = on_guests("DELETE", "", Effect.DESTROY, _GONE, template=True, trial=True)

    def parameters(self) -> Mapping[str, object]:
        return {"purge": True if self.purge else None, "destroy-unreferenced-disks": False}

    def __str__(self) -> str:
        what = self.belongings.shown(self.belongings.parts) or "no disk"
        rest = {
            "given up": self.given_up if self.saving else (),
            "stays": tuple(map(str, self.belongings.stays)),
            "left on the storage": self.left,
            "perhaps left on the storage, where this token no longer sees it": self.unseen,
            "backup": (self.backup,) if self.backup else (),
        }
        return "; ".join(
            (
                f"destroy {self.guest} ({self.name}), net0 {self.mac or 'without a MAC'}, with {what}",
                self._goes_too(),
                *(() if self.saving else ("no backup is made, all of it is given up",)),
                *(f"{key}: {', '.join(names)}" for key, names in rest.items() if names),
            )
        )

    def _goes_too(self) -> str:
        pool = f"pool {self.pool}" if self.pool else "a pool if it is in one"
        jobs = ", its entries in backup jobs, replication and HA" if self.purge else ""
        return f"with it go the rights set on /vms/{self.vmid}, its firewall rules{jobs}, and its membership of {pool}"


@dataclass(frozen=True, slots=True)
class AwaitRemoval(Await):
    interrupts = True
    what = "removal"
