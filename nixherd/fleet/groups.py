"""Which groups a fleet has, how hosts are selected, and what pyinfra's group data and `--data NAME=VALUE` may say."""

import difflib
import runpy
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from nixherd.base.errors import Usage
from nixherd.fleet.models import Fleet, GuestType, Host, Vm
from nixherd.fleet.near_names import near_option
from nixherd.fleet.schema import FIELDS, OPERATORS, Place
from nixherd.fleet.validate import GROUPS

# Words that pyinfra cannot take as a group's name: parameters of its Inventory.
_TAKEN = ("self", "names_data", "override_data")


def groups_of(fleet: Fleet) -> dict[str, list[str]]:
    """Every group with the ids of its hosts: the kinds, one per alias and hostname, and tags.

    A name means one thing: a hostname or tag that is also a kind of host makes no group, nor does a tag that is
    also a name of a host.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    groups["all"] = list(fleet.hosts)
    names: dict[str, list[str]] = defaultdict(list)
    for host in fleet.hosts.values():
        for kind in _kinds(host, _guests(fleet, host)):
            groups[kind].append(host.id)
        for name in dict.fromkeys((host.hostname, host.ssh_alias)):
            # a home's machine is a host of its own, or has this home alone
            if name and _is_free(name) and (name not in fleet.hosts or name == host.id):
                names[name].append(host.id)
    for host in fleet.hosts.values():
        tags = (*host.tags, *(tag for vm in _guests(fleet, host) for tag in vm.tags))
        for tag in dict.fromkeys(tags):
            if _is_free(tag) and tag not in names and tag not in fleet.hosts:
                groups[tag].append(host.id)
    return {**groups, **names}


def separate(patterns: Iterable[str], names: Collection[str]) -> list[str]:
    """Each pattern by itself: `a,b` is two, unless a group is called so (tags may have a comma)."""
    separated: list[str] = []
    for pattern in patterns:
        parts = [] if pattern in names else [part for part in pattern.split(",") if part]
        separated += parts or [pattern]  # never none at all, which would be every host
    return separated


def check_selection(patterns: Iterable[str], groups: Mapping[str, Collection[str]], option: str) -> set[str]:
    """The ids of the hosts that these `--limit` or `--exclude` patterns select: a group, or a glob over ids.

    Usage, with the nearest names, when one of them selects nothing.
    """
    hosts = groups["all"]
    selected: set[str] = set()
    for pattern in patterns:
        matched = groups.get(pattern) or [host for host in hosts if fnmatchcase(host, pattern)]
        if not matched:
            raise Usage(f"{option} {pattern}: {_why_none(pattern, groups, option)}")
        selected.update(matched)
    return selected


def select(fleet: Fleet, names: Iterable[str], exclude: Iterable[str] = ()) -> list[str]:
    """The ids of the hosts that people mean on a command line, in the fleet's order, without those to be left out.

    Usage, with the nearest names, for a name of nobody.
    """
    groups = groups_of(fleet)
    chosen = check_selection(separate(names, groups), groups, "HOST")
    chosen -= check_selection(separate(exclude, groups), groups, "--exclude")
    return [host_id for host_id in fleet.hosts if host_id in chosen]


def _why_none(pattern: str, groups: Mapping[str, Collection[str]], option: str) -> str:
    if not groups.get("all"):
        return "the fleet has no host; `nixherd new NAME` adds one"
    if pattern in groups or pattern in GROUPS:
        return "no host of the fleet is in this group; nothing was done"
    if "," in pattern:
        return f"no host or group has this name; repeat {option} for each of several"
    names = sorted({*groups, *groups["all"]})
    near = difflib.get_close_matches(pattern, names, n=3)
    if near:
        return f"no host or group has this name; the nearest are {', '.join(near)}"
    return f"no host or group has this name; there are {', '.join(names)}"


def _guests(fleet: Fleet, host: Host) -> list[Vm]:
    return [vm for vm in fleet.vms.values() if vm.host_id == host.id]


def _kinds(host: Host, guests: list[Vm]) -> Iterator[str]:
    yield "nixos" if host.is_nixos else "home_manager"
    yield from sorted({vm.origin.value for vm in guests})
    if any(vm.readonly for vm in guests):
        yield "readonly"
    if any(vm.type is GuestType.LXC for vm in guests):
        yield "lxc"


def _is_free(name: str) -> bool:
    return name not in GROUPS and name not in _TAKEN and not name.startswith("_")


# Group data, and `--data`. How a host is deployed to is judged by `nixherd.deploy.options`; the rest is judged here.


def said_for_all(name: str, directories: Iterable[Path]) -> Iterator[Any]:
    """What `all.py` in each of the directories says, in their order; nothing where it says nothing."""
    for values in _said(directories):
        if values.get(name) is not None:
            yield values[name]


def for_all(directories: Iterable[Path]) -> dict[str, Any]:
    """What pyinfra takes from there for every host: later directories come first in rank."""
    return {name: value for values in _said(directories) for name, value in values.items() if not name.startswith("_")}


def names_in(file: Path) -> list[str]:
    """The names that a file of group data sets. Usage where it cannot be run."""
    return [name for name in _run(file) if not name.startswith("_")]


def _said(directories: Iterable[Path]) -> Iterator[dict[str, Any]]:
    for directory in directories:
        if (directory / "all.py").is_file():
            yield _run(directory / "all.py")


def _run(file: Path) -> dict[str, Any]:
    try:
        return runpy.run_path(str(file))
    except (Exception, SystemExit) as error:  # it is somebody's program
        line = f":{error.lineno}" if isinstance(error, SyntaxError) else ""
        why = error.msg if isinstance(error, SyntaxError) else " ".join(str(error).split())
        raise Usage(f"{file}{line}: cannot be run: {type(error).__name__}: {why}; correct it") from error


_LONGEST = 24 * 3600  # seconds


def _is_seconds(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _LONGEST


def _is_text(value: Any) -> bool:
    return isinstance(value, (str, int)) and not isinstance(value, bool) and str(value).isprintable() and value != ""


PHASES = ("kexec", "disko", "install", "reboot")
"""of an installation, in their order"""


def phases_of(value: Any) -> tuple[str, ...] | None:
    """The phases that are named, as `kexec,disko` or a list; all of them for None. None where it names no phases."""
    if value is None:
        return PHASES
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, (list, tuple)) or not names or [*names] != [each for each in PHASES if each in names]:
        return None
    return tuple(names)


DataKind = tuple[Callable[[Any], bool], str]
_FLAG: DataKind = (lambda value: value in (True, False, 0, 1), "true or false")
_SECONDS: DataKind = (_is_seconds, f"a whole number of seconds from 1 to {_LONGEST}")
_TEXT: DataKind = (_is_text, "one line of text")
_ANY: DataKind = (lambda _: True, "")

_DEPLOYMENT = (*(field.name for field in FIELDS[Place.HOST] if field.deploys), *OPERATORS)

# By name, what each has to be; whoever asks for one of the last kind judges it.
HOST_DATA: Mapping[str, DataKind] = {
    **dict.fromkeys(_DEPLOYMENT, _ANY),
    **dict.fromkeys(
        ("allow_reboot", "ask_hypervisor", "commit", "edit_generated", "force", "give_up", "local", "protect"), _FLAG
    ),
    "rotate_removed": _FLAG,
    "secrets_create": _FLAG,
    **dict.fromkeys(("boot_deadline", "task_deadline"), _SECONDS),
    **dict.fromkeys(("age_identity", "commit_message", "docs_file", "docs_template", "flake", "host_key"), _TEXT),
    **dict.fromkeys(("hardware_configuration", "install_user", "journal", "proxmox_token_file"), _TEXT),
    "secrets": (lambda value: value == "none", "none: no secrets are looked after"),
    **dict.fromkeys(("hardware_report", "kexec", "kexec_sha256", "secrets_directory"), _TEXT),
    "phases": (lambda value: phases_of(value) is not None, f"some of {','.join(PHASES)}, in this order"),
    "snapshot": (lambda value: value in ("keep", "remove"), "keep or remove"),
    "sudo_password": (lambda value: value == "stdin", "stdin: the password itself is never said here"),
    **dict.fromkeys(
        ("disk_encryption_keys", "extra_files", "extra_owners", "secrets_replace", "secrets_rules", "without"), _ANY
    ),
}
NODE_DATA: Mapping[str, DataKind] = {
    **dict.fromkeys(("blacklist", "devices", "hostpci", "kernel_words", "vendor_reset"), _ANY),
    **dict.fromkeys(("host_key", "proxmox_token_file"), _TEXT),
}


def check_data(data: Mapping[str, Any], known: Mapping[str, DataKind], *, others: bool = False) -> None:
    """Usage for a datum that nobody asks for or that cannot be meant; `others` allows names that are near no known one.

    What it was to say would not be done, and nothing else would tell.
    """
    for name, value in data.items():
        if name in known:
            is_right, expected = known[name]
            if not is_right(value):
                raise Usage(f"--data {name}={value} is not {expected}")
        elif not name.startswith(("_", "ssh_")):
            _refuse_unknown(f"--data {name}", name, known, others=others)


def check_group_data(names: Iterable[str], where: str) -> None:
    """Usage for a name in group data near one that is asked for; other names may be for deploy files of one's own."""
    for name in names:
        if name not in {**HOST_DATA, **NODE_DATA}:
            _refuse_unknown(f"{where}: {name}", name, HOST_DATA, others=True)


def _refuse_unknown(what: str, name: str, known: Mapping[str, DataKind], *, others: bool) -> None:
    near = near_option(name) if known is HOST_DATA else None
    near = near or next(iter(difflib.get_close_matches(name.lower().replace("-", "_"), known, 1, 0.8)), None)
    if near:
        raise Usage(f"{what}: nobody asks for it; write {near}, or another name")
    if not others:
        raise Usage(f"{what}: nobody asks for it; correct the name, or leave it out (docs/operations.md lists them)")
