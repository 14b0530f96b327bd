"""All that a new host comes to: files of its own, edits of the fleet's, what Nix makes of them in a copy of the flake.

Nothing is written.
"""

import difflib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from urllib.parse import quote

from nixherd.base.errors import FleetError, FleetInvalid
from nixherd.base.run import Run
from nixherd.fleet import lockout, tree
from nixherd.fleet.evaluate import require_exactly
from nixherd.fleet.git import Repository
from nixherd.fleet.load import load_fleet
from nixherd.fleet.models import DEFINITIONS, HOSTS, Fleet
from nixherd.nix.commands import Evaluated
from nixherd.nix.edit import NixText
from nixherd.nix.evaluator import Evaluator
from nixherd.nix.flakes import Flake
from nixherd.proxmox import preflight
from nixherd.proxmox.hypervisor import Hypervisor
from nixherd.proxmox.preflight import host_facts, survey
from nixherd.trust import rehearsal
from nixherd.trust.new import files
from nixherd.trust.new import secrets as secrets_
from nixherd.trust.new.host import Kind, NewHost
from nixherd.trust.new.secrets import Secrets
from nixherd.trust.secrets.sops import nobody
from nixherd.trust.secrets.store import Store

Say = Callable[[str], None]


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
        found += secrets_.problems(Store.load(root), fleet, host.id)
    new = [f"{host.directory}/{name}" for name in files.file_names(host)]
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
    made, edits = files.render(host), _entries(root, fleet, host)
    contents = {**made, **{entry.path: entry.content for entry in edits}}
    secrets = None
    if host.secrets:
        secrets = secrets_.plan(Store.load(root), fleet, host, recipients)
        say(f"encrypt {secrets.path} for {', '.join(secrets.names)}")
        encrypted = secrets_.encrypt(nobody(run), secrets, host.secrets, scratch / "secrets-staged")
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


def _entries(root: Path, fleet: Fleet, host: NewHost) -> list[files.Entry]:
    found = [files.host_entry(tree.read(root, HOSTS) or b"", host, hosts=len(fleet.hosts))]
    if host.guest is not None:
        source = tree.read(root, DEFINITIONS) or b""
        found.append(files.guest_entry(source, host, managed=_managed(fleet, source)))
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
        done = replace(done, host=host, files={**done.files, **files.render(host)})
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
