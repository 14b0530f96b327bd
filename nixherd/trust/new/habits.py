"""What the hosts of a fleet have in common, so that a new one is like them."""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath
from typing import TypeVar

from nixherd.fleet.models import Fleet
from nixherd.fleet.validate import HOSTS
from nixherd.nix.edit import CannotEdit, NixText
from nixherd.trust.new.host import Keys

T = TypeVar("T")
Read = Callable[[str], bytes | None]
"""A file's content, by its path below the fleet's directory."""

_USUAL = "hosts"
_STATE_VERSION = re.compile(r'\bstateVersion\s*=\s*"(\d\d\.(?:05|11))"')
_SHARED = re.compile(r"(?<![\w./])((?:\.\./)+[A-Za-z0-9_+-][A-Za-z0-9_./+-]*\.nix)\b")
_REFERENCE = re.compile(r"[A-Za-z_][A-Za-z0-9_'-]*(?:\.[A-Za-z_][A-Za-z0-9_'-]*)*")


def user(fleet: Fleet) -> str | None:
    """The admin user of most hosts; None where no host has one."""
    return _most(host.user for host in fleet.hosts.values())


def home_of(fleet: Fleet, user: str) -> str:
    """Where this user's home is, as other hosts have it."""
    homes = (host.home_directory for host in fleet.hosts.values() if host.user == user and host.home_directory)
    return _most(homes) or ("/root" if user == "root" else f"/home/{user}")


def has_homes(fleet: Fleet) -> bool:
    """Whether most hosts have a homeFile; so too where there is no host yet."""
    return not fleet.hosts or _most(host.home_file is not None for host in fleet.hosts.values()) is True


def sudo_passwordless(fleet: Fleet) -> bool:
    """Whether sudo asks nobody on most hosts that live in managed guests."""
    managed = [
        fleet.hosts[vm.host_id or ""] for vm in fleet.vms.values() if vm.is_managed and vm.host_id in fleet.hosts
    ]
    return _most(host.sudo_passwordless is True for host in managed) is True


def pool(fleet: Fleet) -> str | None:
    """The pool that most managed guests are made in: often a token may make guests in that one alone."""
    return _most(vm.settings.pool for vm in fleet.vms.values() if vm.is_managed)


def directory(fleet: Fleet) -> str:
    """Where the directories of hosts are, below the fleet's: what most have whose files are in one of their own."""
    found = []
    for host in fleet.hosts.values():
        for file in filter(None, (host.configuration_file, host.home_file)):
            place = _below(fleet, file)
            if place is not None and place.parent.name == host.id and len(place.parts) > 2:
                found.append(str(place.parent.parent))
    return _most(found) or _USUAL


def state_version(fleet: Fleet, read: Read) -> str | None:
    """The newest release that a host's files say their state is of; None where none says."""
    found: list[str] = []
    for host in fleet.hosts.values():
        for place in filter(None, (_below(fleet, file) for file in (host.configuration_file, host.home_file) if file)):
            found += _STATE_VERSION.findall((read(str(place)) or b"").decode(errors="replace"))
    return max(found, default=None)


def home_imports(fleet: Fleet, read: Read, directory: str) -> tuple[str, ...]:
    """What most homes import of what they share, as paths from a directory of a host."""
    depth = len(PurePosixPath(directory).parts) + 1
    counted: Counter[str] = Counter()
    homes = 0
    for host in fleet.hosts.values():
        place = _below(fleet, host.home_file) if host.home_file else None
        if place is None or len(place.parts) != depth + 1:
            continue
        homes += 1
        text = (read(str(place)) or b"").decode(errors="replace")
        counted.update(list(dict.fromkeys(_SHARED.findall(text))))
    return tuple(path for path, number in counted.items() if homes > 1 and number * 2 > homes)


def keys(fleet: Fleet, hosts_nix: bytes, of: str | None = None) -> Keys | None:
    """Who may log in to most hosts, or to the host `of`, and how hosts.nix says it; None where nobody may anywhere."""
    hosts = [fleet.hosts[of]] if of else list(fleet.hosts.values())
    lines = _most(host.authorized_keys for host in hosts if host.authorized_keys)
    if lines is None:
        return None
    text = NixText(HOSTS, hosts_nix)
    written = []
    for host in (host for host in hosts if host.authorized_keys == lines):
        try:
            expression = text.written((host.id, "authorizedKeys"))
        except CannotEdit:
            return Keys(lines)
        written.append(expression if expression and _REFERENCE.fullmatch(expression) else None)
    return Keys(lines, _most(written))


def _below(fleet: Fleet, file: str) -> PurePosixPath | None:
    path = PurePosixPath(file)
    return path.relative_to(fleet.path) if path.is_relative_to(fleet.path) else None


def _most(values: Iterable[T]) -> T | None:
    """The most frequent one, the first of those that are equally so; None where there is none."""
    counted = Counter(values).most_common(1)
    return counted[0][0] if counted else None
