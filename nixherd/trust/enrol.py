"""A host's way into the fleet's trust, and out of it, as changes of its files; none is written before `publish`.

Its host key becomes an age recipient of `.sops.yaml` and of the secret files, hosts.nix pins it, the definitions
protect its guest, the overview of the machines (rendered here) shows it. Nothing of that is published before all of it
was verified, and then it is published at once.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

from nixherd.base.errors import FleetError
from nixherd.base.names import format_size
from nixherd.base.ssh_keys import parse_public_key
from nixherd.fleet import tree
from nixherd.fleet.changeset import Changeset, Done
from nixherd.fleet.load import Leaf, require_exactly
from nixherd.fleet.models import DEFINITIONS, HOSTS, NIXHERD, Fleet, Host, Vm
from nixherd.nix.edit import NixText
from nixherd.trust import templating
from nixherd.trust.secrets.keys import Recipient
from nixherd.trust.secrets.placeholders import NewFile
from nixherd.trust.secrets.plan import Rekey
from nixherd.trust.secrets.rules import Rule, Rules, parse_rules
from nixherd.trust.secrets.sops import AsOperator, Sops
from nixherd.trust.secrets.store import Secrets, Store

OVERVIEW_BEGIN = f"<!-- nixherd: what follows is generated from hosts.nix and {DEFINITIONS} -->"
OVERVIEW_END = "<!-- nixherd: end -->"
SEEN = ("<!-- nixherd: what follows is what `nixherd overview` saw -->", "<!-- nixherd: end of what was seen -->")
"""The markers of the part that speaks of machines as they were seen (`nixherd.overview.machines_md`)."""
_TITLE = "# Machines\n\n"
_TEMPLATE = "templates/machines.md.j2"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Wanted:
    """Files of the fleet as they are to be, and how that came about.

    `files` are the new contents by path, None where a file is to go; `seen` what they were made from; `intended` what
    the Nix files' evaluation is to differ in, `gone` what it is to have no more; `rekeys` the secret files to be
    encrypted anew, `created` those that are to be made; `edits` a line for people for each of `files`, `notes` what
    people should know beside.
    """

    fleet: Fleet
    secrets: Secrets
    files: Mapping[str, bytes | None] = field(default_factory=dict)
    seen: Mapping[str, bytes | None] = field(default_factory=dict)
    intended: Mapping[Leaf, Any] = field(default_factory=dict)
    gone: tuple[Leaf, ...] = ()
    rekeys: tuple[Rekey, ...] = ()
    edits: tuple[str, ...] = ()
    created: tuple[NewFile, ...] = ()
    notes: tuple[str, ...] = ()
    host_key: Recipient | None = None
    """the recipient that joins; while its private half is here, it is seen to decrypt what it may"""

    @property
    def steps(self) -> tuple[str, ...]:
        """What is done, a line each."""
        made = (f"make {each}" for each in self.created)
        return (*self.edits, *made, *(f"encrypt {rekey}" for rekey in self.rekeys))

    @property
    def root(self) -> Path:
        return Path(self.fleet.path)

    def rules_text(self, store: Store) -> str:
        """A store's `.sops.yaml` as it is to be."""
        return (self.files.get(store.config) or store.text.encode()).decode()

    def rules(self) -> dict[str, Rules]:
        """All rules as they are to be, by configuration."""
        return {store.config: parse_rules(self.rules_text(store)) for store in self.secrets.stores}

    @property
    def paths(self) -> tuple[str, ...]:
        """Every file that will change."""
        encrypted = {*(rekey.path for rekey in self.rekeys), *(new.path for new in self.created)}
        return tuple(sorted({*self.files, *encrypted}))

    def edited(self, path: str, content: bytes, step: str, intended: Mapping[Leaf, Any] | None = None) -> "Wanted":
        """With one more file changed; as it is when that changes nothing."""
        before = self.current(path)
        if content == before:
            return self
        self.secrets.require_editable(path, step)
        return replace(
            self,
            files={**self.files, path: content},
            seen={path: before, **self.seen},
            intended={**self.intended, **(intended or {})},
            edits=(*self.edits, step),
        )

    def removed(self, paths: Iterable[str], step: str) -> "Wanted":
        """Without these files, which are there."""
        old = {path: self.current(path) for path in paths}
        files, secrets = {**self.files, **dict.fromkeys(old)}, self.secrets.without(old)
        return replace(self, secrets=secrets, files=files, seen={**old, **self.seen}, edits=(*self.edits, step))

    def without(self, path: str, attribute: Sequence[str], step: str) -> "Wanted":
        """Without an attribute of a Nix file. CannotEdit when it cannot be taken out faithfully."""
        text = NixText(path, self.current(path) or b"").remove(tuple(attribute))
        changed = self.edited(path, text, step)
        return replace(changed, gone=(*changed.gone, (path, *attribute)))

    def current(self, path: str) -> bytes | None:
        """A file's content by now, None where there is none."""
        if path in self.files:
            return self.files[path]
        if (store := self.secrets.store_at(path)) is not None:
            return store.text.encode()
        return tree.read(self.root, path)


def protected(change: Wanted, host_id: str) -> Wanted:
    """With the host's managed guest readonly: deployed to from here on, never wiped."""
    vm = change.fleet.vm_of(host_id)
    if vm is None or not vm.may_change:
        return change
    path = (str(vm.origin), vm.name, "readonly")
    text = NixText(DEFINITIONS, change.current(DEFINITIONS) or b"").set(path, "true")
    vms = {**change.fleet.vms, vm.name: replace(vm, readonly=True)}
    step = f"{DEFINITIONS}: {vm.attribute} is readonly"
    changed = change.edited(DEFINITIONS, text, step, {(DEFINITIONS, *path): True})
    return replace(changed, fleet=replace(changed.fleet, vms=vms))


def documented(change: Wanted, path: str, template: str | None = None) -> Wanted:
    """With the overview as the fleet is to be."""
    overview = render_overview(change.fleet, template)
    return change.edited(path, overview_of(change.current(path), overview, path), f"{path}: the overview")


def publish(changeset: Changeset, change: Wanted, message: str, *, commit: bool = True, say: Say, **how: Any) -> Done:
    """Stage all of it, verify it, and swap it in with one commit. FleetError when anything is not as it should be.

    `how` is passed to `stage`.
    """
    stage(changeset, change, commit=commit, say=say, **how)
    return swap_in(changeset, change, message, commit=commit, say=say)


def swap_in(changeset: Changeset, change: Wanted, message: str, *, commit: bool, say: Say) -> Done:
    """Put what was staged in place, with one commit. FleetError when that cannot be: then all is as it was."""
    removed = [path for path, content in change.files.items() if content is None]
    leaving = removed if change.gone or removed else None
    return changeset.publish(dict(change.seen), message, removed=leaving, commit=commit, say=say)


def stage(
    changeset: Changeset,
    change: Wanted,
    *,
    sops: Callable[[], AsOperator] | None = None,
    as_host: Sops | None = None,
    rotate: bool = False,
    give_up: bool = False,
    commit: bool = True,
    say: Say,
) -> None:
    """Make all of it beside the fleet's files, and verify it. FleetError when anything is not as it should be.

    `sops` makes the identity that can decrypt the files now; `as_host` is that of the host, while its key is here.
    With `give_up` whoever runs it may be unable to decrypt them afterwards.
    """
    with ThreadPoolExecutor(1) as pool:
        committable = pool.submit(changeset.require_committable, change.paths, commit=commit)
        for path, content in change.files.items():
            if content is not None:
                changeset.stage(path, content)
        files = (HOSTS, NIXHERD, DEFINITIONS)
        nix = {path: content for path, content in change.files.items() if content and path in files}
        if nix:
            say(f"evaluate {' and '.join(sorted(nix))} before and after")
            require_exactly(change.root, nix, change.intended, changeset.scratch, change.gone)
        count = len(change.rekeys) + len(change.created)
        if count:
            assert sops is not None
            say(f"encrypt {count} {'file' if count == 1 else 'files'}{'' if change.created else ' anew'}")
            program = sops()
            for store in change.secrets.stores:
                rekeys = [each for each in change.rekeys if each.config == store.config]
                new = [each for each in change.created if each.config == store.config]
                if rekeys or new:
                    text, how = change.rules_text(store), {"rotate": rotate, "give_up": give_up}
                    store.stage(changeset.staged, text, rekeys, program, new=new, **how)
                if as_host is not None:
                    paths = [*(each.path for each in rekeys), *(each.path for each in new)]
                    readable = _opens_alone(change, store, paths)
                    as_host.decrypt(changeset.staged, store.staged_config(changeset.staged), readable)
        committable.result()


def _opens_alone(change: Wanted, store: Store, paths: Iterable[str]) -> list[str]:
    """The files for which the key that joins is all that they take: of several key groups one may not suffice."""
    rules, key = change.rules()[store.config], change.host_key
    of_files = ((path, rules.rule_of(store.below(path))) for path in paths)
    if key is None:
        return []
    return [path for path, rule in of_files if isinstance(rule, Rule) and rule.opens_to({key})]


def render_overview(fleet: Fleet, template: str | None = None) -> str:
    """The overview, the same bytes for the same fleet. `template` is a path below the fleet's directory, of its own.

    FleetError when that is useless.
    """
    values = partial(_overview_values, fleet)
    if template is None:
        text = templating.render(resources.files("nixherd.trust").joinpath(_TEMPLATE).read_text(), values)
        return text.strip("\n") + "\n"
    path = Path(fleet.path) / template
    content = tree.read(Path(fleet.path), template)
    if content is None:
        raise FleetError(f"{path}: no such template")
    try:
        return templating.render_foreign(str(path), content.decode(), values).strip("\n") + "\n"
    except UnicodeDecodeError as error:
        raise FleetError(f"{path}: is not UTF-8 text ({error.reason})") from None


def overview_of(
    old: bytes | None, overview: str, name: str, markers: tuple[str, str] = (OVERVIEW_BEGIN, OVERVIEW_END)
) -> bytes:
    """The document with this overview between its markers, which are appended where there are none.

    FleetError, naming the document, when only one of them is there.
    """
    first, last = markers
    text = (old or _TITLE.encode()).decode(errors="surrogateescape")
    newline = "\r\n" if "\r\n" in text else "\n"
    block = f"{first}\n\n{overview}\n{last}".replace("\n", newline)
    if text.count(first) == 0 == text.count(last):
        gap = "" if text.endswith(newline * 2) or not text else newline * (1 if text.endswith(newline) else 2)
        return f"{text}{gap}{block}{newline}".encode(errors="surrogateescape")
    start, end = text.find(first), text.find(last)
    if text.count(first) != 1 or text.count(last) != 1 or end < start:
        raise FleetError(f"{name}: its two markers are not there once each, in their order; mend or remove them")
    return f"{text[:start]}{block}{text[end + len(last) :]}".encode(errors="surrogateescape")


def unseen(document: bytes, host_id: str) -> bytes:
    """The document without the row of a host that goes, in what was seen of machines."""
    above, begin, part = document.partition(SEEN[0].encode())
    part, end, below = part.partition(SEEN[1].encode())
    row = f"| {host_id} |".encode()
    kept = [line for line in part.splitlines(keepends=True) if not line.replace(b"\\", b"").startswith(row)]
    return b"".join((above, begin, *kept, end, below)) if end else document


def _overview_values(fleet: Fleet) -> dict[str, Any]:
    def guest(host: Host) -> str:
        vm = fleet.vm_of(host.id)
        return f"{vm.vmid} ({vm.name})" if vm else ""

    return {
        "guest": guest,
        "fingerprint": _fingerprint,
        "spec": _spec,
        "cell": _cell,
        "hosts": sorted(fleet.hosts.values(), key=lambda host: host.id),
        "vms": sorted(fleet.vms.values(), key=lambda vm: vm.vmid),
        "ranges": sorted(fleet.ranges, key=lambda each: each.start),
        "template": fleet.template,
        "endpoint": fleet.endpoint,
    }


def _fingerprint(host: Host) -> str:
    return parse_public_key(host.public_key).fingerprint if host.public_key else "none yet"


def _spec(vm: Vm, name: str) -> str:
    """Cores, memory or disk: what a managed guest is given, or what its owner wrote down of an imported one."""
    if name not in ("cores", "memory", "disk"):
        raise ValueError(f"spec() knows cores, memory and disk, not {name}")
    value = getattr(vm, name)
    if value is None:
        value = vm.specs.get(name) if isinstance(vm.specs, dict) else None
        return f"{value} MiB" if name == "memory" and isinstance(value, int) else _cell(value)
    return f"{value} MiB" if name == "memory" else format_size(value) if name == "disk" else str(value)


def _cell(value: object) -> str:
    """Somebody's words in a table: one line, no column of their own."""
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_cell, value))
    return "" if value is None else " ".join(str(value).split()).replace("|", "\\|")
