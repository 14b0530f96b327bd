"""What a directory has that could be a fleet, and the smallest file with which it is one. No host is evaluated."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nixherd.base.errors import Finding, FleetError, FleetInvalid, Usage
from nixherd.base.process import run
from nixherd.fleet import from_hosts_file
from nixherd.fleet.beside import Beside
from nixherd.fleet.from_flake import listed
from nixherd.fleet.load import Written, evaluate, load_fleet
from nixherd.fleet.models import DEFINITIONS, FLAKE, HOSTS, NIXHERD, Fleet
from nixherd.fleet.other_shape import REACHED_BY, is_about_something_else
from nixherd.fleet.outputs import Outputs, outputs_of
from nixherd.fleet.translating import Translation, Way, entries_in, shape_of, translation
from nixherd.fleet.validate import find
from nixherd.fleet.world import look
from nixherd.nix import commands as nix
from nixherd.nix.commands import nix_string
from nixherd.trust.secrets.rules import CONFIG

_TIMEOUT = 600.0  # seconds; inputs may have to be fetched first
_DEPTH = 3  # directories below the fleet's in which a .sops.yaml is looked for
_FILES = ("configurationFile", "homeFile")
_FOREIGN = ("hive.nix", "configuration.nix", "home.nix", "default.nix", "shell.nix")


@dataclass(frozen=True)
class Found:
    """What is there, by names. `outputs` are the flake's machines by what the flake calls them; `hosts_nix` is its
    shape in words, None without one. `unknown` are lines about what could not be looked at.
    """

    directory: Path
    files: tuple[str, ...] = ()
    outputs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    hosts_nix: str | None = None
    sops: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    written: Written = field(default=Written(), repr=False)
    names: Outputs | None = field(default=None, repr=False)
    closed: str | None = None
    """why its own files cannot be evaluated, None where they can"""

    @property
    def is_fleet(self) -> bool:
        """Whether there is what a fleet begins with."""
        return FLAKE in self.files or HOSTS in self.files

    @property
    def has_configurations(self) -> bool:
        """Whether the flake has hosts; not if that is unknown."""
        return self.names is not None and self.names.has_hosts

    def outputs_have(self, hosts: Iterable[str]) -> bool:
        """Whether one of the hosts is a configuration of the flake."""
        there = self.names or Outputs()
        return not {*there.systems, *there.homes, *there.hive, *there.raw}.isdisjoint(hosts)

    def lines(self) -> Iterator[str]:
        """Say what is there, a line each."""
        where = self.directory
        if not self.is_fleet:
            yield f"{where}: {'neither a flake nor hosts.nix' if where.is_dir() else 'does not exist yet'}"
        for output, names in self.outputs.items():
            yield f"{FLAKE}: {output}: {', '.join(names)}"
        if FLAKE in self.files and not self.outputs and self.names is not None:
            yield f"{FLAKE}: no configurations"
        if self.hosts_nix:
            yield f"{HOSTS}: {self.hosts_nix}"
        yield from (f"{name}: is there" for name in self.files if name not in (FLAKE, HOSTS))
        yield from (f"{path}: is there" for path in self.sops)
        yield from (f"unknown: {line}" for line in self.unknown)


def look_into(directory: Path) -> Found:
    """Look at a directory, which need not exist. Usage where it is something else than one."""
    if os.path.lexists(directory) and not directory.is_dir():
        raise Usage(f"{directory}: is not a directory; name one, or leave it out for the current one")
    files = tuple(name for name in (FLAKE, HOSTS, NIXHERD, DEFINITIONS, *_FOREIGN) if (directory / name).is_file())
    found = Found(directory, files, sops=tuple(sorted(_sops(directory))))
    if not found.is_fleet:
        return found
    written, closed, unknown = Written(), None, list[str]()
    try:
        written = evaluate(look(directory), directory)
    except FleetInvalid as error:
        closed = str(error).splitlines()[0]
    outputs: dict[str, tuple[str, ...]] = {}
    names = None
    if FLAKE in files:
        try:
            names = outputs_of(directory, look(directory))
            kinds = {"nixosConfigurations": names.systems, "homeConfigurations": names.homes}
            kinds["darwinConfigurations"] = names.macs
            outputs = {kind: each for kind, each in kinds.items() if each}
            outputs |= _others(directory)
        except FleetError as error:
            unknown.append(f"what the flake has: {str(error).splitlines()[0]}")
    shape = None
    if HOSTS in files:
        shape = shape_of(written.hosts) if written.hosts is not None else closed or "not the fleet's (useHostsFile)"
    return Found(directory, files, outputs, shape, found.sops, tuple(unknown), written, names, closed)


def _sops(directory: Path) -> Iterator[str]:
    for place, below, files in os.walk(directory):
        inner = Path(place).relative_to(directory)
        below[:] = [name for name in below if not name.startswith(".") and name != "node_modules"]
        if len(inner.parts) >= _DEPTH:
            below.clear()
        if CONFIG in files:
            yield str(inner / CONFIG)


def _others(directory: Path) -> dict[str, tuple[str, ...]]:
    document = json.loads(run(nix.others(str(directory)), timeout=_TIMEOUT).stdout)
    return {output: tuple(map(str, names)) for output, names in document.items() if names}


@dataclass(frozen=True)
class Beginning:
    """What makes a directory with something in it a fleet: the text of nixherd.nix, None where nothing is needed.

    `hosts` are the ids that it has then; `fields` what hosts.nix calls our attributes; `notes` are for its author.
    `fleet` is the one that it is already.
    """

    text: str | None
    hosts: tuple[str, ...]
    fleet: Fleet | None = None
    notes: tuple[str, ...] = ()
    fields: Mapping[str, Way] = field(default_factory=dict)

    @classmethod
    def of(cls, fleet: Fleet, notes: Iterable[str] = ()) -> "Beginning":
        """Return that nothing is needed."""
        return cls(None, tuple(sorted(fleet.hosts)), fleet, tuple(notes))


def beginning(found: Found, user: str | None = None) -> Beginning:
    """Decide what is needed. FleetError, in one line, where no small file of ours helps.

    `user` is who logs in where nothing there says it.
    """
    problem, fleet = None, None
    try:
        fleet = load_fleet(found.directory)
    except FleetInvalid as error:
        problem = error
    if NIXHERD in found.files:
        if problem is not None:
            raise FleetError(f"{_first(problem)}; {NIXHERD} is there, and is not overwritten: correct it by hand")
        assert fleet is not None
        return Beginning.of(fleet)
    entries = entries_in(found.written.hosts)
    if entries:
        return _translated(found, entries, fleet, user)
    if fleet is not None:
        return Beginning.of(fleet)
    if HOSTS in found.files and found.has_configurations:
        return _without_hosts_file(found, found.closed or f"{HOSTS} is {found.hosts_nix}, not a set of hosts")
    assert problem is not None
    raise FleetError(_first(problem))


def _first(problem: FleetError) -> str:
    first, *rest = str(problem).splitlines()
    return f"{first} (and {len(rest)} more)" if rest else first


def _translated(
    found: Found, entries: Mapping[str, Mapping[str, Any]], fleet: Fleet | None, user: str | None
) -> Beginning:
    seen, defaults = translation(entries), dict[str, Any]()
    notes = [f"{HOSTS}: {name} is not read as an attribute of ours: {why}" for name, why in seen.unfit.items()]
    if seen.unread:
        notes.append(f"{HOSTS}: means nothing to nixherd: {', '.join(seen.unread)}")
    if fleet is not None and not seen.fields.keys() & REACHED_BY:
        return Beginning.of(fleet, notes)
    has_files = any(entry.get(file) for entry in entries.values() for file in _FILES)
    if found.has_configurations and not has_files and not found.outputs_have(entries):
        return _without_hosts_file(found, f"{HOSTS} names none of the flake's configurations")
    if found.has_configurations and is_about_something_else(entries):
        return _without_hosts_file(found, f"{HOSTS} says nothing that nixherd reads")
    beside = Beside(fields=seen.fields)
    if without := [name for name, entry in entries.items() if beside.translated(entry).get("user") is None]:
        if user is None:
            others = f" and {len(without) - 1} others" if len(without) > 1 else ""
            raise Usage(f"--user: {HOSTS} does not say who logs in on {without[0]}{others}; say it with --user NAME")
        defaults["user"] = user
    if errors := _errors(found, Beside(defaults=defaults, fields=seen.fields)):
        raise FleetError(_first(FleetInvalid(list(map(str, errors)))))
    return Beginning(_text(seen, defaults), tuple(sorted(entries)), None, tuple(notes), seen.fields)


def _errors(found: Found, beside: Beside) -> list[Finding]:
    findings: list[Finding] = []
    entries = from_hosts_file.entries_of(found.written.hosts, beside, findings)
    from_hosts_file.configurations_of(entries, lambda: found.names or Outputs())
    return [each for each in find(entries, found.written.definitions, findings) if not each.is_warning]


def _text(seen: Translation, defaults: Mapping[str, Any]) -> str:
    """What is to be written: how hosts.nix calls what nixherd asks for."""
    lines = [f"# How nixherd reads {HOSTS}; it could say more of hosts: hosts.NAME = {{ … }};", "{"]
    if seen.fields:
        lines.append("  fields = {")
        for name, way in seen.fields.items():
            value = nix_string(".".join(way)) if way else "null"
            lines.append(f"    {name} = {value};{'' if way else f' # {HOSTS} has something else under this name'}")
        lines.append("  };")
    lines += [f"  defaults.{name} = {nix_string(value)};" for name, value in defaults.items()]
    return "\n".join([*lines, "}", ""])


def _without_hosts_file(found: Found, why: str) -> Beginning:
    text = f"{{\n  # {HOSTS} is not read as nixherd's: the hosts are the flake's configurations.\n"
    hosts = listed(found.names).configurations if found.names else {}
    return Beginning(f"{text}  useHostsFile = false;\n}}\n", tuple(sorted(hosts)), None, (why,))


def require_new(directory: Path, files: Mapping[str, bytes]) -> tuple[str, ...]:
    """Return the files that have to be written. Usage where something else is in the place of one."""
    return tuple(path for path, content in files.items() if _is_missing(directory, path, content))


def write_new(directory: Path, files: Mapping[str, bytes], prove: Callable[[], None]) -> tuple[str, ...]:
    """Write files that do not exist, all or none; those that are there as they are to be stay.

    Return what was written. Where it is not proven afterwards, which raises, it is removed again.
    """
    missing = require_new(directory, files)
    made: list[Path] = []
    try:
        for path in missing:
            target = directory / path
            for place in reversed([each for each in target.parents if not each.exists()]):
                place.mkdir()
                made.append(place)
            with target.open("xb") as file:
                made.append(target)
                file.write(files[path])
                file.flush()
                os.fsync(file.fileno())
        prove()
    except BaseException:
        for each in reversed(made):
            each.rmdir() if each.is_dir() else each.unlink()
        raise
    return missing


def _is_missing(directory: Path, path: str, content: bytes) -> bool:
    target = directory / path
    for above in (directory / each for each in Path(path).parents if each != Path()):
        if os.path.lexists(above) and (above.is_symlink() or not above.is_dir()):
            raise Usage(f"{above}: is in the way of {path}; move it, nothing is overwritten")
    if not os.path.lexists(target):
        return True
    if target.is_symlink() or not target.is_file() or target.read_bytes() != content:
        raise Usage(f"{target}: is there already, and nothing is overwritten; move it, or name another directory")
    return False
