"""All that a new host comes to: files of its own, edits of the fleet's, what Nix makes of them. Nothing is written."""

import difflib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from nixherd.errors import FleetError, FleetInvalid
from nixherd.fleet import tree
from nixherd.fleet.edited import require_exactly
from nixherd.fleet.git import Repository
from nixherd.fleet.load import load_fleet
from nixherd.fleet.models import Fleet
from nixherd.fleet.validate import DEFINITIONS, HOSTS
from nixherd.nix.commands import Evaluated
from nixherd.run import Run
from nixherd.trust.new import entries, files, proof
from nixherd.trust.new import secrets as secrets_
from nixherd.trust.new.host import Kind, NewHost
from nixherd.trust.new.secrets import Secrets
from nixherd.trust.secrets.sops import Sops
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
            yield from difflib.unified_diff(
                old, new, "/dev/null" if before is None else f"a/{path}", f"b/{path}", lineterm=""
            )


def there_already(root: Path, fleet: Fleet, host: NewHost, repository: Repository | None) -> list[str]:
    """What the host would need, and somebody has in the fleet's directory; a line each."""
    found = []
    place = root / host.directory
    if place.is_symlink() or (place.exists() and not place.is_dir()) or (place.is_dir() and any(place.iterdir())):
        found.append(f"{host.directory}: is there already; move it away, or take another name")
    if host.secrets:
        found += secrets_.problems(Store.load(root), fleet, host.id)
    new = [
        *(f"{host.directory}/{name}" for name in files.names(host)),
        *((f"secrets/{host.id}.yaml",) * bool(host.secrets)),
    ]
    if not found and repository is not None and (ignored := repository.ignored(new)):
        found.append(f"{ignored[0]}: git ignores it, and a flake has what git knows; see .gitignore")
    return found


def scaffold(
    run: Run,
    fleet: Fleet,
    host: NewHost,
    scratch: Path,
    *,
    repository: Repository | None,
    sops: Callable[[], Sops],
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
        contents |= {secrets.config: secrets.rules, secrets.path: _encrypted(sops(), secrets, host, scratch)}
    say(f"evaluate {HOSTS} and {DEFINITIONS} before and after")
    intended = {leaf: value for entry in edits for leaf, value in entry.intended.items()}
    world = require_exactly(root, contents, intended, scratch)
    after = replace(load_fleet(world.fleet, world), path=fleet.path)
    _require_no_new_warnings(fleet, after)
    if repository is not None and (unknown := _unknown_to_git(repository, [entry.path for entry in edits])):
        raise FleetError(f"{unknown}: git does not know it, and a flake has what git knows; git add it first")
    done = Scaffold(host, after, contents, {path: tree.read(root, path) for path in contents}, secrets)
    return _proven(run, done, scratch, repository, token_file=token_file, say=say) if evaluated else done


def _unknown_to_git(repository: Repository, paths: Collection[str]) -> str | None:
    known = repository.tracked(paths)
    return next((path for path in paths if path not in known), None)


def _entries(root: Path, fleet: Fleet, host: NewHost) -> list[entries.Entry]:
    found = [entries.host_entry(tree.read(root, HOSTS) or b"", host, hosts=len(fleet.hosts))]
    if host.guest is not None:
        source = tree.read(root, DEFINITIONS) or b""
        found.append(entries.guest_entry(source, host, managed=_managed(fleet, source)))
    return found


def _managed(fleet: Fleet, source: bytes) -> int | None:
    from nixherd.nix.edit import NixText

    number = sum(vm.is_managed for vm in fleet.vms.values())
    return number if number or NixText(DEFINITIONS, source).mentions(("managed",)) else None


def _encrypted(sops: Sops, secrets: Secrets, host: NewHost, scratch: Path) -> bytes:
    staged = scratch / "secrets-staged"
    config = staged / secrets.config
    config.parent.mkdir(parents=True)
    config.write_bytes(secrets.rules)
    return secrets_.encrypt(sops, secrets, host.secrets, staged)


def _require_no_new_warnings(before: Fleet, after: Fleet) -> None:
    known = set(before.warnings)
    if found := [warning for warning in after.warnings if warning not in known]:
        raise FleetInvalid(found)


def _proven(
    run: Run, done: Scaffold, scratch: Path, repository: Repository | None, *, token_file: Path | None, say: Say
) -> Scaffold:
    """With what the flake says of it. Where nobody could become root there, its own configuration lets them."""
    root, host = Path(done.fleet.path), done.host
    for _ in range(2):
        say(f"evaluate {host.id}")
        url = proof.copied(root, repository, done.files, scratch / "flake")
        try:
            about = proof.evaluated(run, done.fleet, host, url)
        except FleetError as error:
            raise FleetError(f"{error}; nothing was changed (--no-eval leaves the evaluation out)") from error
        if about.root_access is not False or host.root_keys:
            break
        host = replace(host, root_keys=True)
        done = replace(done, host=host, files={**done.files, **files.render(host)})
    if why := proof.problem(host, about, done.fleet):
        raise FleetError(f"{why}; nothing was changed")
    obstacles = proof.obstacles(token_file, done.fleet, host, about) if token_file and host.kind is Kind.VM else ()
    return replace(done, evaluated=about, obstacles=obstacles)
