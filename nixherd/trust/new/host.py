"""A host that is to be, with all of it decided. Pure values."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePosixPath

from nixherd.fleet.models import GuestType
from nixherd.trust.new.sizes import Size

PLACEHOLDER = "placeholder"
"""its publicKey until it is installed (`nixherd.fleet.field_types.is_placeholder`)"""


class Kind(StrEnum):
    """What it is."""

    VM = "vm"
    CONTAINER = "container"
    METAL = "metal"
    HOME = "home"

    @property
    def is_guest(self) -> bool:
        return self in (Kind.VM, Kind.CONTAINER)

    @property
    def has_disk(self) -> bool:
        """Whether disko lays out its disk."""
        return self in (Kind.VM, Kind.METAL)


@dataclass(frozen=True, slots=True)
class Keys:
    """Who may log in: `lines` of public keys, and what hosts.nix calls them (`masterKeys`), None if it does not."""

    lines: tuple[str, ...]
    expression: str | None = None


@dataclass(frozen=True, slots=True)
class Guest:
    """Its entry under `managed`. Memory is in MiB, `disk` as it is written there.

    `free` is what is known of the VMID: whether the hypervisor says that nobody has it, None where it was not asked.
    """

    size: Size
    vmid: int
    cores: int
    memory: int
    disk: str
    storage: str | None = None
    node: str | None = None
    pool: str | None = None
    pci: tuple[str, ...] = ()
    archive: str | None = None
    free: bool | None = None


@dataclass(frozen=True, slots=True)
class Machine:
    """What its configuration has to agree with: `firmware` is the VM's `bios`, `device` its disk as disko is told.

    `told_by` says who said so, None where nobody did and it is taken for granted.
    """

    firmware: str = "ovmf"
    device: str = "/dev/sda"
    told_by: str | None = None


@dataclass(frozen=True, slots=True)
class NewHost:
    """`directory` is where its files come, below the fleet's; `home_imports` are paths from there."""

    id: str
    kind: Kind
    alias: str
    user: str
    home_directory: str
    keys: Keys
    directory: str
    state_version: str
    machine: Machine = Machine()
    guest: Guest | None = None
    purpose: str = ""
    home: bool = True
    home_imports: tuple[str, ...] = ()
    sudo_passwordless: bool = False
    secrets: tuple[str, ...] = ()
    root_keys: bool = False
    """whether its own configuration has to let root in by key, as no module of the fleet does"""

    @property
    def is_nixos(self) -> bool:
        return self.kind is not Kind.HOME

    @property
    def type(self) -> GuestType | None:
        return self.guest.size.kind if self.guest else None

    @property
    def up(self) -> str:
        """The way from its files to the fleet's directory."""
        return "/".join(".." for _ in PurePosixPath(self.directory).parts)
