"""The secrets of a fleet as they lie in its directory: who should read each file, who can, and what follows."""

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from nixherd.base.errors import Finding, FleetError, Severity
from nixherd.base.files import sync
from nixherd.fleet import tree
from nixherd.fleet.models import Fleet, Host
from nixherd.ssh.age import recipient_of
from nixherd.trust.secrets.files import Encrypted, read_file
from nixherd.trust.secrets.keys import Recipient, age
from nixherd.trust.secrets.rules import CONFIG, Rules, Unknown, parse_rules
from nixherd.trust.secrets.sops import Sops, cores

# Beside the secrets people keep notes, public keys and Nix expressions.
_NO_SECRETS = (".md", ".nix", ".pub", ".txt.example")
_SECRETS = "secrets"


@dataclass(frozen=True, slots=True)
class People:
    """What recipients are called: hosts by hosts.nix, everybody else by what `.sops.yaml` calls them."""

    hosts: Mapping[Recipient, str]
    """by recipient, the host's id"""
    others: Mapping[str, str] = field(default_factory=dict)
    """by a recipient's value, the name there; hosts may be among them"""

    @classmethod
    def of(cls, fleet: Fleet, rules: Rules) -> "People":
        return cls(recipients_of_hosts(fleet), rules.names)

    def name(self, recipient: Recipient) -> str:
        return self.hosts.get(recipient) or self.others.get(recipient.value) or recipient.label


def recipients_of_hosts(fleet: Fleet) -> dict[Recipient, str]:
    """By age recipient, the id of each host whose key is known and can be one."""
    hosts = fleet.hosts.values()
    return {recipient: host.id for host in hosts if (recipient := recipient_of_host(host)) is not None}


def recipient_of_host(host: Host) -> Recipient | None:
    """The age recipient of the host's key; None where that is not known, or of a kind that cannot be one."""
    key = host.public_key
    return age(recipient_of(key)) if key is not None and key.startswith("ssh-ed25519 ") else None


@dataclass(frozen=True, slots=True)
class SecretFile:
    """A file below the secrets' directory, its path relative to that. `problem` says why it cannot be read."""

    path: str
    encrypted: Encrypted | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Rekey:
    """A file whose recipients are not those that its rule names. Shown as it is done."""

    path: str
    added: tuple[Recipient, ...]
    removed: tuple[Recipient, ...]
    recipients: frozenset[Recipient]
    names: tuple[str, ...]
    """`+dev`, `-old`, in that order"""

    def __str__(self) -> str:
        return f"{self.path}: {', '.join(self.names)}"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be encrypted anew, and what is wrong and no run can mend."""

    rekeys: tuple[Rekey, ...]
    findings: tuple[str, ...]


def plan(secrets: str, rules: Rules, people: People, files: Iterable[SecretFile]) -> Plan:
    """`secrets` is the directory's name, for messages."""
    rekeys, findings = [], list[str]()
    used = set[int]()
    for file in sorted(files, key=lambda each: each.path):
        rule = rules.rule_of(file.path)
        if isinstance(rule, Unknown):
            findings.append(f"{secrets}/{file.path}: unknown: {rule.why}")
            continue
        if rule is not None:
            used.add(rule.number)
        where = f"{secrets}/{file.path}"
        if file.problem is not None:
            findings.append(f"{where}: cannot be read: {file.problem}")
        elif rule is None:
            findings.append(f"{where}: no creation rule matches it; add one to {secrets}/.sops.yaml, or move it away")
        elif file.encrypted is None:
            findings.append(f"{where}: is not encrypted; `sops encrypt --in-place` it, and change what was in it")
        else:
            present, intended = file.encrypted.recipients, rule.recipients
            added = tuple(key for key in intended if key not in present)
            removed = tuple(key for key in present if key not in intended)
            if added or removed:
                names = (*(f"+{people.name(key)}" for key in added), *(f"-{people.name(key)}" for key in removed))
                rekeys.append(Rekey(file.path, added, removed, frozenset(intended), names))
    for rule in rules.rules:
        if rule.number not in used:
            findings.append(f"{secrets}/.sops.yaml: {rule.label} matches no file")
        if not rule.recipients:
            findings.append(f"{secrets}/.sops.yaml: {rule.label} names nobody who could decrypt")
    for recipient in rules.recipients:
        if recipient not in people.hosts and recipient.value not in people.others:
            remedy = "give it an anchor or a comment, or remove it"
            findings.append(f"{secrets}/.sops.yaml: {recipient.value} is not a host and nobody's; {remedy}")
    return Plan(tuple(rekeys), tuple(findings))


@dataclass(frozen=True)
class Store:
    """`directory` holds `.sops.yaml` and the files, relative to `root`; contents are by path below it."""

    root: Path
    directory: str
    text: str
    rules: Rules
    files: tuple[SecretFile, ...]
    contents: Mapping[str, bytes]

    @classmethod
    def load(cls, root: Path, directory: str = "secrets") -> "Store":
        """FleetError without a usable configuration. A file that cannot be read says so itself."""
        config = root / directory / CONFIG
        content = tree.read(root, f"{directory}/{CONFIG}")
        if content is None:
            raise FleetError(f"{config}: missing; it names who may decrypt which files (docs/secrets.md)")
        try:
            text = content.decode()
            parsed = parse_rules(text)
        except ValueError as error:
            raise FleetError(f"{config}: {error}") from None
        found = {path: _read(root, directory, path) for path in _walk(root / directory)}
        contents = {path: content for path, (_, content) in found.items() if content is not None}
        return cls(root, directory, text, parsed, tuple(file for file, _ in found.values()), contents)

    @property
    def config(self) -> str:
        return f"{self.directory}/{CONFIG}"

    def plan(self, people: People, rules: Rules | None = None) -> Plan:
        """What follows from the rules, or from those that are to be."""
        return plan(self.directory, rules or self.rules, people, self.files)

    def path(self, file: str) -> str:
        """A file's path below the fleet's directory."""
        return f"{self.directory}/{file}"

    def stage(
        self, staged: Path, text: str, rekeys: Collection[Rekey], sops: Sops, *, as_host: Sops | None, rotate: bool
    ) -> None:
        """Encrypt copies of the files below `staged`, at the paths that they have below the fleet's directory.

        Each is read back: its recipients are those that the rules name; `as_host` has decrypted it. With `rotate` those
        that somebody is removed from get a new data key. FleetError, with `staged` to be thrown away, otherwise.
        """
        place = staged / self.directory
        place.mkdir(parents=True, exist_ok=True)
        (place / CONFIG).write_bytes(text.encode())

        def one(share: Sequence[Rekey]) -> None:
            self._copy(place, share)
            sops.update_keys(place, [rekey.path for rekey in share])
            if rotated := [rekey.path for rekey in share if rotate and rekey.removed]:
                sops.rotate(place, rotated)
            self._read_back(place, share)

        with ThreadPoolExecutor(cores()) as pool:
            list(pool.map(one, filter(None, (list(rekeys)[start :: cores()] for start in range(cores())))))
        if as_host is not None:
            as_host.decrypt(place, [rekey.path for rekey in rekeys])

    def _copy(self, place: Path, rekeys: Sequence[Rekey]) -> None:
        for parent in {(place / rekey.path).parent for rekey in rekeys}:
            parent.mkdir(parents=True, exist_ok=True)
        for rekey in rekeys:
            mode = (self.root / self.directory / rekey.path).stat().st_mode & 0o7777
            handle = os.open(place / rekey.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(self.contents[rekey.path])
                os.fchmod(handle, mode)

    def _read_back(self, place: Path, rekeys: Sequence[Rekey]) -> None:
        for rekey in rekeys:
            sync(place / rekey.path)  # here, where another process of sops is at work meanwhile
            back = read_file(rekey.path, (place / rekey.path).read_bytes())
            if back is None or set(back.recipients) != rekey.recipients:
                what = f"sops encrypted it for others than {self.config} names"
                raise FleetError(f"{self.path(rekey.path)}: {what}; nothing was changed, see which rule matches it")


def _walk(directory: Path) -> Iterator[str]:
    """Files that may be secrets, relative to the directory, sorted; hidden ones and notes are left out."""
    for parent, directories, names in os.walk(directory):
        directories[:] = sorted(name for name in directories if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and not name.endswith(_NO_SECRETS):
                yield (Path(parent) / name).relative_to(directory).as_posix()


def _read(root: Path, directory: str, path: str) -> tuple[SecretFile, bytes | None]:
    top, whole = root.resolve(), (root / directory / path).resolve()
    if top not in whole.parents:
        return SecretFile(path, problem="it is a link that leads out of the fleet's directory"), None
    try:
        content = tree.read(root, str(whole.relative_to(top)))
        if content is None:
            return SecretFile(path, problem="it is gone"), None
        return SecretFile(path, read_file(path, content)), content
    except FleetError as error:
        return SecretFile(path, problem=str(error).removeprefix(f"{root / whole.relative_to(top)}: ")), None
    except ValueError as error:
        return SecretFile(path, problem=str(error)), None


def look_at_secrets(root: Path, fleet: Fleet) -> tuple[list[str], str]:
    """Find what is wrong with the files in `root`, and whose recipients differ from their rules; and say what was read.

    Raises FleetError where the rules or the files cannot be read.
    """
    if not (root / _SECRETS).exists():
        return [], f"{_SECRETS}/ does not exist"
    store = Store.load(root, _SECRETS)
    plan = store.plan(People.of(fleet, store.rules))
    findings: list[str] = [*plan.findings]
    for rekey in plan.rekeys:
        what = f"its recipients are not those that its rule names: {', '.join(rekey.names)}"
        remedy = "`nixherd secrets apply` encrypts it anew"
        findings.append(Finding(Severity.ERROR, store.path(rekey.path), "", what, remedy))
    return findings, f"{len(store.files)} files"
