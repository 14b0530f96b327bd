"""All that a new host comes to: files of its own, edits of the fleet's, what Nix makes of them in a copy of the flake.

Nothing is written.
"""

import difflib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from nixherd.base.errors import FleetError, FleetInvalid
from nixherd.base.run import Run
from nixherd.fleet import lockout, tree
from nixherd.fleet.git import Repository
from nixherd.fleet.load import ABSENT, Leaf, load_fleet, require_exactly
from nixherd.fleet.models import DEFINITIONS, HOSTS, Fleet
from nixherd.nix.commands import Evaluated, nix_string
from nixherd.nix.edit import CannotEdit, NixText, attribute_name
from nixherd.nix.evaluator import Evaluator
from nixherd.nix.flakes import Flake
from nixherd.proxmox import preflight
from nixherd.proxmox.hypervisor import Hypervisor
from nixherd.proxmox.preflight import host_facts, survey
from nixherd.trust import rehearsal, templating
from nixherd.trust.new.host import PLACEHOLDER, Kind, NewHost, Secrets, encrypt_secrets, plan_secrets, secrets_problems
from nixherd.trust.secrets.sops import nobody
from nixherd.trust.secrets.store import Secrets as AllSecrets

_TEMPLATES = Path(__file__).parents[1] / "templates"
Say = Callable[[str], None]


def render_files(host: NewHost) -> dict[str, bytes]:
    """The contents of the new host's files, by path below the fleet's directory."""
    templates = {name: (_TEMPLATES / f"{name}.j2").read_text() for name in file_names(host)}
    values = partial(_values, host)
    return {f"{host.directory}/{name}": templating.render(text, values).encode() for name, text in templates.items()}


def file_names(host: NewHost) -> tuple[str, ...]:
    """The files that a host of this kind has."""
    nixos = ("configuration.nix", "hardware-configuration.nix") if host.is_nixos else ()
    disk = ("disko.nix",) if host.kind.has_disk else ()
    return (*nixos, *disk, *(("home.nix",) if host.home else ()))


def _values(host: NewHost) -> Mapping[str, Any]:
    return {
        "host": host,
        "summary": summary(host),
        "size": host.guest.size.name if host.guest else "",
        "attribute": attribute_name(host.id),
        "device": nix_string(host.machine.device),
        "user": attribute_name(host.user),
        "secrets": [attribute_name(name) for name in host.secrets],
    }


def summary(host: NewHost) -> str:
    """Return one line that says what the host is."""
    words = {
        Kind.VM: "a virtual machine",
        Kind.CONTAINER: "a container",
        Kind.METAL: "a machine",
        Kind.HOME: "a home on another system",
    }
    number = f", VMID {host.guest.vmid}" if host.guest else ""
    return f"{host.id}: {host.purpose or words[host.kind]}{number}."


@dataclass(frozen=True, slots=True)
class Written:
    """An expression as it is to be written, and what it is to evaluate to."""

    text: str
    value: Any


@dataclass(frozen=True, slots=True)
class Entry:
    """A file's new content, and by attribute what its evaluation is to differ in."""

    path: str
    content: bytes
    intended: Mapping[Leaf, Any]


def host_entry(source: bytes, host: NewHost, *, hosts: int) -> Entry:
    """hosts.nix with the host, which has so many others now. CannotEdit names the lines to add by hand."""
    return _added(HOSTS, source, (host.id,), _host_values(host), summary(host), empty=not hosts)


def guest_entry(source: bytes, host: NewHost, *, managed: int | None) -> Entry:
    """vms/definitions.nix with the guest. `managed` is how many there are now, None without such an attribute."""
    values = _guest_values(host)
    if managed is None:
        lines = (f"  {line}" for line in _entry_lines(host.id, values))
        text = NixText(DEFINITIONS, source).add(("managed",), ["{", *lines, "}"])
        return Entry(DEFINITIONS, text, _leaves((DEFINITIONS, "managed", host.id), values))
    return _added(DEFINITIONS, source, ("managed", host.id), values, "", empty=not managed)


def _added(
    name: str, source: bytes, path: tuple[str, ...], values: Mapping[str, Any], comment: str, *, empty: bool
) -> Entry:
    lines = _entry_lines(path[-1], values)
    try:
        first, *rest = lines
        value = [first.partition(" = ")[2], *rest[:-1], rest[-1].removesuffix(";")]
        content = NixText(name, source).add(path, value, comment=comment)
    except CannotEdit as error:
        raise ByHand(f"{error}; nothing was changed, add the lines above by hand", name, path, lines) from error
    emptied = {(name, *path[:-1]): ABSENT} if empty else {}
    return Entry(name, content, {**emptied, **_leaves((name, *path), values)})


class ByHand(CannotEdit):
    """A file is written in a way that is not edited here. `lines` are what to add to its attribute `path`."""

    def __init__(self, message: str, name: str, path: tuple[str, ...], lines: Sequence[str]) -> None:
        self.lines = tuple(lines)
        self.place = f"{name}{''.join(f': {part}' for part in path[:-1])}"
        super().__init__(message)


def _host_values(host: NewHost) -> dict[str, Any]:
    files = f"./{host.directory}"
    lines = list(host.keys.lines)
    written = Written(host.keys.expression, lines) if host.keys.expression else lines
    entry: dict[str, Any] = {
        "hostname": host.id,
        "sshAlias": host.alias,
        "user": host.user,
        "homeDirectory": host.home_directory,
        "publicKey": PLACEHOLDER,
        "authorizedKeys": written,
    }
    if host.sudo_passwordless:
        entry["sudoPasswordless"] = True
    if host.is_nixos:
        entry["configurationFile"] = _nix_path(f"{files}/configuration.nix")
    if host.home:
        entry["homeFile"] = _nix_path(f"{files}/home.nix")
    return entry


def _nix_path(path: str) -> Written:
    return Written(path, ("path", path.removeprefix(".")))


def _guest_values(host: NewHost) -> dict[str, Any]:
    guest = host.guest
    assert guest is not None
    entry: dict[str, Any] = {"vmid": guest.vmid}
    if guest.size.kind.value != "qemu":
        entry["type"] = guest.size.kind.value
    entry |= {"cores": guest.cores, "memory": guest.memory, "disk": guest.disk}
    optional = {name: getattr(guest, name) for name in ("storage", "node", "pool", "archive")}
    optional["pci"] = list(guest.pci) or None
    entry |= {name: value for name, value in optional.items() if value is not None}
    entry |= guest.size.settings
    entry["nixosConfig"] = host.id
    if host.purpose:
        entry["purpose"] = host.purpose
    return entry


def _entry_lines(name: str, values: Mapping[str, Any]) -> list[str]:
    """`name = { … };`, a line each."""
    found = [f"{attribute_name(name)} = {{"]
    for key, value in values.items():
        if isinstance(value, Written):
            found.append(f"  {attribute_name(key)} = {value.text};")
        elif isinstance(value, Mapping):
            found += [f"  {line}" for line in _entry_lines(key, value)]
        elif isinstance(value, int):  # a number or a truth value, which Nix writes as JSON does
            found.append(f"  {attribute_name(key)} = {json.dumps(value)};")
        elif isinstance(value, str):
            found.append(f"  {attribute_name(key)} = {nix_string(value)};")
        elif not value:
            found.append(f"  {attribute_name(key)} = [];")
        else:
            found += [f"  {attribute_name(key)} = [", *(f"    {nix_string(each)}" for each in value), "  ];"]
    return [*found, "};"]


def _leaves(path: Leaf, values: Mapping[str, Any]) -> dict[Leaf, Any]:
    found: dict[Leaf, Any] = {}
    for key, value in values.items():
        if isinstance(value, Written):
            found[(*path, key)] = value.value
        elif isinstance(value, Mapping):
            found |= _leaves((*path, key), value)
        else:
            found[(*path, key)] = value
    return found


@dataclass(frozen=True)
class Scaffold:
    """`files` are contents by path below the fleet's directory, `seen` what was there. `fleet` is as it will be.

    `evaluated` is None where that was left out.
    """

    host: NewHost
    fleet: Fleet
    files: Mapping[str, bytes]
    seen: Mapping[str, bytes | None]
    secrets: Secrets | None = None
    evaluated: Evaluated | None = None
    obstacles: tuple[str, ...] = field(default=())

    @property
    def new(self) -> tuple[str, ...]:
        return tuple(sorted(path for path, content in self.seen.items() if content is None))

    @property
    def changed(self) -> tuple[str, ...]:
        return tuple(sorted(path for path, content in self.seen.items() if content is not None))

    def diff(self) -> Iterator[str]:
        """What changes, as `diff -u` says it; of the secret file only what is in it, and for whom."""
        for path in (*self.changed, *self.new):
            if self.secrets is not None and path == self.secrets.path:
                names = ", ".join(self.host.secrets)
                yield f"{path}: new, encrypted for {', '.join(self.secrets.names)}: {names}"
                continue
            before = self.seen[path]
            old = [] if before is None else before.decode(errors="replace").splitlines()
            new = self.files[path].decode(errors="replace").splitlines()
            source = "/dev/null" if before is None else f"a/{path}"
            yield from difflib.unified_diff(old, new, source, f"b/{path}", lineterm="")


def there_already(root: Path, fleet: Fleet, host: NewHost, repository: Repository | None) -> list[str]:
    """What the host would need, and somebody has in the fleet's directory; a line each."""
    found = []
    place = root / host.directory
    if place.is_symlink() or (place.exists() and not place.is_dir()) or (place.is_dir() and any(place.iterdir())):
        found.append(f"{host.directory}: is there already; move it away, or take another name")
    if host.secrets:
        found += secrets_problems(AllSecrets.load(root), fleet, host.id)
    new = [f"{host.directory}/{name}" for name in file_names(host)]
    new += [f"secrets/{host.id}.yaml"] if host.secrets else []
    if not found and repository is not None and (ignored := repository.ignored(new)):
        found.append(f"{ignored[0]}: git ignores it, and a flake has what git knows; see .gitignore")
    return found


def scaffold(
    run: Run,
    fleet: Fleet,
    host: NewHost,
    scratch: Path,
    repository: Repository | None,
    *,
    recipients: Collection[str] = (),
    edit_generated: bool = False,
    evaluated: bool = True,
    token_file: Path | None = None,
    say: Say,
) -> Scaffold:
    """Make all of it in memory and below `scratch`, and prove it; with a token the hypervisor is asked as well.

    FleetInvalid, or another FleetError, with what is wrong: then nothing was changed.
    """
    root = Path(fleet.path)
    if found := there_already(root, fleet, host, repository):
        raise FleetInvalid(found)
    made, edits = render_files(host), _entries(root, fleet, host)
    contents = {**made, **{entry.path: entry.content for entry in edits}}
    secrets = None
    if host.secrets:
        secrets = plan_secrets(AllSecrets.load(root, edit_generated=edit_generated), fleet, host, recipients)
        say(f"encrypt {secrets.path} for {', '.join(secrets.names)}")
        encrypted = encrypt_secrets(nobody(run, secrets.recipients), secrets, host.secrets, scratch / "secrets-staged")
        contents |= {secrets.config: secrets.rules, secrets.path: encrypted}
    say(f"evaluate {HOSTS} and {DEFINITIONS} before and after")
    intended = {leaf: value for entry in edits for leaf, value in entry.intended.items()}
    world = require_exactly(root, contents, intended, scratch)
    after = replace(load_fleet(world.fleet, world), path=fleet.path)
    if warnings := [each for each in after.warnings if each not in fleet.warnings]:
        raise FleetInvalid(warnings)
    paths = [entry.path for entry in edits]
    if repository is not None and (unknown := set(paths).difference(repository.tracked(paths))):
        raise FleetError(f"{min(unknown)}: git does not know it, and a flake has what git knows; git add it first")
    done = Scaffold(host, after, contents, {path: tree.read(root, path) for path in contents}, secrets)
    return _proven(run, done, scratch, repository, token_file=token_file, say=say) if evaluated else done


def _entries(root: Path, fleet: Fleet, host: NewHost) -> list[Entry]:
    found = [host_entry(tree.read(root, HOSTS) or b"", host, hosts=len(fleet.hosts))]
    if host.guest is not None:
        source = tree.read(root, DEFINITIONS) or b""
        found.append(guest_entry(source, host, managed=_managed(fleet, source)))
    return found


def _managed(fleet: Fleet, source: bytes) -> int | None:
    number = sum(vm.is_managed for vm in fleet.vms.values())
    return number if number or NixText(DEFINITIONS, source).mentions(("managed",)) else None


def _proven(
    run: Run, done: Scaffold, scratch: Path, repository: Repository | None, *, token_file: Path | None, say: Say
) -> Scaffold:
    """With what the flake says of it. Where nobody could become root there, its own configuration lets them."""
    root, host = Path(done.fleet.path), done.host
    for _ in range(2):
        say(f"evaluate {host.id}")
        rehearsal.copy(root, repository, done.files, scratch / "flake")
        directory = f"?dir={quote(repository.prefix.rstrip('/'))}" if repository and repository.prefix else ""
        try:
            copy = partial(Flake, f"path:{quote(str(scratch / 'flake'))}{directory}", root, None)
            config = Evaluator(done.fleet, run, copy).evaluate((host.id,), host.id)
        except FleetError as error:
            raise FleetError(f"{error}; nothing was changed (--no-eval leaves the evaluation out)") from error
        if config.root_access is not False or host.root_keys:
            break
        host = replace(host, root_keys=True)
        done = replace(done, host=host, files={**done.files, **render_files(host)})
    if why := problem_of(host, config, done.fleet):
        raise FleetError(f"{why}; nothing was changed")
    obstacles = obstacles_of(token_file, done.fleet, host, config) if token_file and host.kind is Kind.VM else ()
    return replace(done, evaluated=config, obstacles=obstacles)


def problem_of(host: NewHost, config: Evaluated, fleet: Fleet) -> str | None:
    """Why what it evaluates to is not the host that was meant, None where it is. What is not known is not judged."""
    if host.kind is Kind.HOME:
        return None
    facts, machine = host_facts(config), host.machine
    if config.hostname != host.id:
        return f"{host.id}: its system would be called {config.hostname}; see what sets networking.hostName"
    if config.root_access is False:
        return str(next(iter(lockout.findings(fleet, {host.id: config}))))
    if facts.ssh is False:
        return f"{host.id}: its system would have no SSH server; see what sets services.openssh.enable"
    if host.kind.has_disk and facts.boot_loader is not None and facts.boot_loader.firmware != machine.firmware:
        return (
            f"{host.id}: its system installs {facts.boot_loader}, which needs bios {facts.boot_loader.firmware}, "
            f"and is to start with {machine.firmware}; see what sets boot.loader"
        )
    if host.kind.has_disk and config.devices != (machine.device,):
        return f"{host.id}: disko would format {', '.join(config.devices) or 'nothing'}, not {machine.device}"
    return None


def obstacles_of(token_file: Path, fleet: Fleet, host: NewHost, config: Evaluated) -> tuple[str, ...]:
    """What would keep the new VM from being provisioned as things are now; only GETs are sent."""
    try:
        vm = fleet.vms[host.id]
        seen = survey(Hypervisor(fleet, token_file), vm)
        found = preflight.preflight(fleet, vm, fleet.hosts[host.id], host_facts(config), seen)
        return tuple(f"{host.id}: provisioning would be refused now: {each}" for each in found)
    except FleetError as error:
        return (f"{host.id}: whether it could be provisioned now is unknown: {error}",)
