"""A host's way into the fleet's trust, and out of it, as changes of its files; none is written before `publish`.

Its host key becomes an age recipient of `.sops.yaml` and of the secret files, hosts.nix pins it, the definitions
protect its guest, the overview of the machines (rendered here) shows it. Nothing of that is published before all of it
was verified, and then it is published at once.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

from nixherd.base.errors import FleetError, Usage
from nixherd.base.names import format_size
from nixherd.base.ssh_keys import parse_public_key
from nixherd.fleet import tree
from nixherd.fleet.changeset import Changeset, Done
from nixherd.fleet.load import Leaf, require_exactly
from nixherd.fleet.models import DEFINITIONS, HOSTS, Fleet, Host, Vm
from nixherd.nix.commands import nix_string
from nixherd.nix.edit import NixText
from nixherd.ssh import age
from nixherd.trust import templating
from nixherd.trust.secrets import rules_edit
from nixherd.trust.secrets.keys import Recipient
from nixherd.trust.secrets.keys import age as age_key
from nixherd.trust.secrets.rules import Rule, Rules, parse_rules
from nixherd.trust.secrets.sops import Sops
from nixherd.trust.secrets.store import People, Rekey, Secrets, Store

OVERVIEW_BEGIN = f"<!-- nixherd: what follows is generated from hosts.nix and {DEFINITIONS} -->"
OVERVIEW_END = "<!-- nixherd: end -->"
_TITLE = "# Machines\n\n"
_TEMPLATE = "templates/machines.md.j2"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Wanted:
    """Files of the fleet as they are to be, and how that came about.

    `files` are the new contents by path, None where a file is to go; `seen` what they were made from; `intended` what
    the Nix files' evaluation is to differ in, `gone` what it is to have no more; `rekeys` the secret files to be
    encrypted anew; `edits` a line for people for each of `files`.
    """

    fleet: Fleet
    secrets: Secrets
    files: Mapping[str, bytes | None] = field(default_factory=dict)
    seen: Mapping[str, bytes | None] = field(default_factory=dict)
    intended: Mapping[Leaf, Any] = field(default_factory=dict)
    gone: tuple[Leaf, ...] = ()
    rekeys: tuple[Rekey, ...] = ()
    edits: tuple[str, ...] = ()

    @property
    def steps(self) -> tuple[str, ...]:
        """What is done, a line each."""
        return (*self.edits, *(f"encrypt {rekey}" for rekey in self.rekeys))

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
        return tuple(sorted({*self.files, *(rekey.path for rekey in self.rekeys)}))

    def edited(self, path: str, content: bytes, step: str, intended: Mapping[Leaf, Any] | None = None) -> "Wanted":
        """With one more file changed; as it is when that changes nothing."""
        before = self.current(path)
        if content == before:
            return self
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
        return tree.read(self.root, path)


def trusted(change: Wanted, host: Host, public_key: str, rules: Collection[str | int] | None = None) -> Wanted:
    """With the host's key as a recipient of its rules, and pinned in hosts.nix.

    `rules` are numbers (from 1) or path_regexes; by default those that the key's predecessor was in, or else those that
    every other host is in and those whose path_regex has the host's id in it. Usage when that is none, FleetError when
    the key can be no recipient, CannotEdit when a file cannot be edited faithfully.
    """
    try:
        recipient = age_key(age.recipient(public_key))
    except FleetError as error:
        raise FleetError(f"{host.id}: its host key: {error}") from None
    for other in change.fleet.hosts.values():
        if other.id != host.id and other.public_key and other.public_key.split()[1] == public_key.split()[1]:
            raise FleetError(f"{host.id}: this is the host key of {other.id}; each machine needs its own")
    if change.secrets:
        change = _as_recipient(change, host, recipient, rules)
    if host.public_key is None or host.public_key.split()[:2] != public_key.split()[:2]:
        text = NixText(HOSTS, change.current(HOSTS) or b"").set((host.id, "publicKey"), nix_string(public_key))
        intended: dict[Leaf, Any] = {(HOSTS, host.id, "publicKey"): public_key}
        change = change.edited(HOSTS, text, f"{HOSTS}: {host.id}.publicKey pins its host key", intended)
        hosts = {**change.fleet.hosts, host.id: replace(host, public_key=public_key)}
        change = replace(change, fleet=replace(change.fleet, hosts=hosts))
    return with_rekeys(change)


def _as_recipient(change: Wanted, host: Host, recipient: Recipient, rules: Collection[str | int] | None) -> Wanted:
    people = change.secrets.people(change.fleet, change.rules())
    former = {store.config: _former(change, store, host.id, recipient, people) for store in change.secrets.stores}
    joining = [store for store in change.secrets.stores if former[store.config] is None]
    chosen = choose({store.config: parse_rules(change.rules_text(store)) for store in joining}, people, host.id, rules)
    if not any(former.values()) and not any(chosen.values()):
        labels = "; ".join(rule.label for each in change.rules().values() for rule in each.rules)
        raise Usage(f"{host.id}: which secrets are for it? No rule is every host's; name some by number: {labels}")
    for store in change.secrets.stores:
        text, config, old = change.rules_text(store), store.config, former[store.config]
        joined = chosen.get(config, [])
        if old is not None:
            new, step = rules_edit.replace(text, old, recipient), f"{config}: {host.id} has a new key"
        elif all(recipient in rule.recipients for rule in joined):
            continue
        else:
            new = rules_edit.add(text, recipient, host.id, [rule.number for rule in joined], beside=people.hosts)
            step = f"{config}: {host.id} joins {', '.join(rule.label for rule in joined)}"
        change = change.edited(config, new.encode(), step)
    return change


def _former(change: Wanted, store: Store, host_id: str, recipient: Recipient, people: People) -> Recipient | None:
    """The recipient in a store's `.sops.yaml` that is the host's by now, and is to be so no more."""
    text = change.rules_text(store)
    old = next((key for key, name in people.hosts.items() if name == host_id and key != recipient), None)
    now = parse_rules(text)
    named = next((key for key in now.known if now.names.get(key.value) == host_id and key != recipient), None)
    return next((key for key in (old, named) if key is not None and key.value in text), None)


def choose(
    rules: Mapping[str, Rules], people: People, host_id: str, given: Collection[str | int] | None
) -> dict[str, list[Rule]]:
    """The rules that a host is to be in, by configuration. Usage when a given one does not exist."""
    if given is not None:
        return _named(rules, given)
    found = {}
    for config, each in rules.items():
        hosts = {key for key in each.recipients if people.hosts.get(key, host_id) != host_id}
        shared = [rule for rule in each.rules if hosts and hosts <= set(rule.recipients)]
        named = [rule for rule in each.rules if rule.is_named_after(host_id) and rule not in shared]
        found[config] = sorted([*shared, *named], key=lambda rule: rule.number)
    return found


def _named(rules: Mapping[str, Rules], given: Collection[str | int]) -> dict[str, list[Rule]]:
    found = {config: list[Rule]() for config in rules}
    for each in given:
        matching = [
            (config, rule)
            for config, all_rules in rules.items()
            for rule in all_rules.rules
            if str(each) in (str(rule.number), rule.path_regex)
        ]
        if not matching:
            labels = "; ".join(rule.label for all_rules in rules.values() for rule in all_rules.rules)
            raise Usage(f".sops.yaml has no rule {each}; there are {labels}")
        if len(matching) > 1 and len({config for config, _ in matching}) > 1:
            places = ", ".join(dict.fromkeys(config for config, _ in matching))
            raise Usage(f"rule {each} is in several files: {places}; name it by its path_regex")
        found[matching[0][0]].append(matching[0][1])
    return found


def keys_of(change: Wanted, store: Store, host_id: str) -> list[Recipient]:
    """The recipients in a `.sops.yaml` that are a host's: by its key in hosts.nix, or by what they are called there."""
    text = change.rules_text(store)
    now, people = parse_rules(text), change.secrets.people(change.fleet, change.rules())
    keys = [key for key in dict.fromkeys([*people.hosts, *now.known]) if people.name(key) == host_id]
    keys += [key for key in now.known if now.names.get(key.value) == host_id and key not in keys]
    return [key for key in keys if key.value in text]


def untrusted(change: Wanted, host_id: str) -> Wanted:
    """Without the host as a recipient anywhere; hosts.nix stays. Usage when it is none."""
    present = {store.config: keys_of(change, store, host_id) for store in change.secrets.stores}
    if not any(present.values()):
        people = change.secrets.people(change.fleet, change.rules())
        known = sorted({people.name(key) for rules in change.rules().values() for key in rules.recipients})
        raise Usage(f"{host_id} is not a recipient in {' or '.join(present)}; there are {', '.join(known)}")
    for store in change.secrets.stores:
        text = change.rules_text(store)
        for key in present[store.config]:
            text = rules_edit.remove(text, key)
        change = change.edited(store.config, text.encode(), f"{store.config}: {host_id} leaves")
    return with_rekeys(change)


def with_rekeys(change: Wanted) -> Wanted:
    """With every secret file encrypted to whom the rules name. FleetError when one of them cannot be read."""
    for path, file in change.secrets.files.items():
        if file.problem and not file.is_foreign:
            raise FleetError(f"{change.root / path}: cannot be read: {file.problem}")
    rekeys = change.secrets.plan(change.fleet, change.rules()).rekeys
    seen = {rekey.path: change.secrets.content(rekey.path) for rekey in rekeys}
    return replace(change, rekeys=rekeys, seen={**seen, **change.seen})


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
    sops: Callable[[], Sops] | None = None,
    as_host: Sops | None = None,
    rotate: bool = False,
    commit: bool = True,
    say: Say,
) -> None:
    """Make all of it beside the fleet's files, and verify it. FleetError when anything is not as it should be.

    `sops` makes the identity that can decrypt the files now; `as_host` is that of the host, while its key is here.
    """
    with ThreadPoolExecutor(1) as pool:
        committable = pool.submit(changeset.require_committable, change.paths, commit=commit)
        for path, content in change.files.items():
            if content is not None:
                changeset.stage(path, content)
        nix = {path: content for path, content in change.files.items() if content and path in (HOSTS, DEFINITIONS)}
        if nix:
            say(f"evaluate {' and '.join(sorted(nix))} before and after")
            require_exactly(change.root, nix, change.intended, changeset.scratch, change.gone)
        if change.rekeys:
            assert sops is not None
            say(f"encrypt {len(change.rekeys)} files anew")
            program = sops()
            for store in change.secrets.stores:
                if rekeys := [rekey for rekey in change.rekeys if rekey.config == store.config]:
                    text = change.rules_text(store)
                    store.stage(changeset.staged, text, rekeys, program, as_host=as_host, rotate=rotate)
        committable.result()


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


def overview_of(old: bytes | None, overview: str, name: str) -> bytes:
    """The document with this overview between its markers, which are appended where there are none.

    FleetError, naming the document, when only one of them is there.
    """
    text = (old or _TITLE.encode()).decode(errors="surrogateescape")
    newline = "\r\n" if "\r\n" in text else "\n"
    block = f"{OVERVIEW_BEGIN}\n\n{overview}\n{OVERVIEW_END}".replace("\n", newline)
    if text.count(OVERVIEW_BEGIN) == 0 == text.count(OVERVIEW_END):
        gap = "" if text.endswith(newline * 2) or not text else newline * (1 if text.endswith(newline) else 2)
        return f"{text}{gap}{block}{newline}".encode(errors="surrogateescape")
    start, end = text.find(OVERVIEW_BEGIN), text.find(OVERVIEW_END)
    if text.count(OVERVIEW_BEGIN) != 1 or text.count(OVERVIEW_END) != 1 or end < start:
        raise FleetError(f"{name}: its two markers are not there once each, in their order; mend or remove them")
    return f"{text[:start]}{block}{text[end + len(OVERVIEW_END) :]}".encode(errors="surrogateescape")


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
