"""What keeps a machine from its secrets, and the command that helps: who a file is encrypted for, which system runs,
which keys the machine has, what it complained of. Pure.

sops-nix decrypts all that belongs together (the system's secrets, those for users, a home's), or nothing of it: one
file that is closed to the machine is the reason of everything that is missing.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from nixherd.fleet.models import Fleet
from nixherd.nix.declared import Declared, DeclaredSecret, files_of
from nixherd.trust.secrets.causes import Causes
from nixherd.trust.secrets.files import Encrypted
from nixherd.trust.secrets.keys import Kind, Recipient
from nixherd.trust.secrets.people import recipient_of_host
from nixherd.trust.secrets.proof import Place, Proven, Verdict
from nixherd.trust.secrets.rules import Unknown
from nixherd.trust.secrets.store import Secrets

CLOSED = "not encrypted for it"
APPLY = "`nixherd secrets apply`"
_HOST_KEY = re.compile(r"/ssh_host_[^/]+$")  # of sshd, which shows what it began with
_OVERRIDE = re.compile(r"cannot override (\S+): ")
_CONTENT = re.compile(r"the key '[^']*' cannot be found|is not a string|does not refer to a dictionary")
_NOBODY = re.compile(r"failed to lookup (user|group) '([^']*)'")


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with some places, and what to do; `is_wrong` unless a step that is to come mends it."""

    state: Verdict
    names: tuple[str, ...]
    why: str
    remedy: str
    is_wrong: bool = True

    def __str__(self) -> str:
        return f"{self.state}: {', '.join(self.names)}: {self.why}; {self.remedy}"


@dataclass(frozen=True)
class Situation:
    """What is known here of a host; `causes` are by user, None for the system.

    `is_current`: it runs what the flake says.
    """

    host_id: str
    fleet: Fleet
    secrets: Secrets
    declared: Declared
    exists: Callable[[str], bool]
    """whether there is a file at a path from the fleet's directory"""
    is_current: bool
    causes: Mapping[str | None, Causes] = field(default_factory=dict)

    @property
    def deploy(self) -> str:
        return f"`nixherd deploy {self.host_id}`"

    @property
    def join(self) -> str:
        """The command that makes the host a recipient of what it declares."""
        return f"nixherd secrets add-host {self.host_id}"

    def again(self, user: str | None) -> str:
        """How sops-nix is made to install a system's or a home's secrets once more."""
        if user is not None:
            return f"`systemctl --user restart sops-nix` as {user} on {self.host_id}"
        unit = self.causes[None].has_unit if None in self.causes else False
        command = "systemctl restart sops-install-secrets" if unit else "/run/current-system/activate"
        return f"`sudo {command}` on {self.host_id}"


@dataclass(frozen=True, slots=True)
class Closed:
    """A file that the machine cannot decrypt, and the command that mends it."""

    path: str
    why: str
    step: str


def findings(situation: Situation, proven: Iterable[Proven]) -> Iterator[Finding]:
    """What is wrong with what is not as declared, each reason once; what is not known is not among it."""
    missing: dict[tuple[str | None, str], list[Proven]] = {}
    each_alone = list[Finding]()
    for each in proven:
        if each.verdict is Verdict.MISSING:
            missing.setdefault((each.place.user, each.place.directory), []).append(each)
        elif each.verdict in (Verdict.SHADOWED, Verdict.DIFFERS, Verdict.LATER):
            each_alone.append(_apart(situation, each))
    alike: dict[Finding, list[str]] = {}
    for finding in (*(_missing(situation, together) for together in missing.values()), *each_alone):
        alike.setdefault(replace(finding, names=()), []).extend(finding.names)
    for finding, names in alike.items():
        yield replace(finding, names=tuple(names))


def _apart(situation: Situation, proven: Proven) -> Finding:
    """What is wrong with a place alone: it is decrypted, but not where, or not as, it is declared."""
    names, user = (proven.place.label,), proven.place.user
    if proven.verdict is Verdict.LATER:
        remedy = f"log in as {user}, or set users.users.{user}.linger = true"
        return Finding(proven.verdict, names, proven.why, remedy, is_wrong=False)
    again = situation.again(user) if situation.is_current else situation.deploy
    moved = f"move {proven.place.path} away there, then " if "is a directory" in proven.why else ""
    is_wrong = proven.verdict is Verdict.SHADOWED and situation.is_current and user is None
    return Finding(proven.verdict, names, proven.why, f"{moved}{again}", is_wrong)


def _missing(situation: Situation, together: Sequence[Proven]) -> Finding:
    """Why what belongs together is missing."""
    names, place = tuple(each.place.label for each in together), together[0].place
    closed = list(_closed(situation, place))
    if closed:
        whys = dict[str, list[str]]()
        for file in closed:
            whys.setdefault(file.why, []).append(file.path)
        why = "; ".join(f"{reason}: {', '.join(paths)}" for reason, paths in whys.items())
        return Finding(
            Verdict.MISSING, names, why, f"{_steps(situation, closed)}, then {situation.deploy}", is_wrong=False
        )
    if not situation.is_current:
        why = "its system is older than the files, which are encrypted for it by now"
        return Finding(Verdict.MISSING, names, why, situation.deploy, is_wrong=False)
    causes = situation.causes.get(place.user, Causes())
    is_wrong = place.user is None
    if absent := [key.path for key in causes.keys if key.is_absent]:
        why = f"{' and '.join(absent)}, which it decrypts with, does not exist there"
        return Finding(Verdict.MISSING, names, why, f"put it there, then {situation.again(place.user)}", is_wrong)
    if causes.complaints:
        line = causes.complaints[-1]
        return Finding(Verdict.MISSING, names, f"it says: {line}", _after(situation, place, line), is_wrong)
    return Finding(Verdict.MISSING, names, together[0].why, situation.again(place.user), is_wrong)


def _after(situation: Situation, place: Place, line: str) -> str:
    """What helps after a complaint of sops-install-secrets."""
    if match := _OVERRIDE.search(line):
        return f"move {match[1]} away there, then {situation.again(place.user)}"
    if _CONTENT.search(line):
        files = [path for path in files_of(_beside(situation.declared, place)) if path.rpartition("/")[2] in line]
        return f"`nixherd secrets edit {files[0] if files else 'FILE'}`, then {situation.deploy}"
    if match := _NOBODY.search(line):
        return f"declare the {match[1]} {match[2]}, or give the secret to another one, then {situation.deploy}"
    return situation.again(place.user)


def _beside(declared: Declared, place: Place) -> list[DeclaredSecret]:
    """The secrets that are decrypted together with a place, or not at all."""
    before = place.secret is not None and place.secret.needed_for_users
    return [each for each in declared.secrets if each.user == place.user and each.needed_for_users == before]


# Who a file is encrypted for


def _closed(situation: Situation, place: Place) -> Iterator[Closed]:
    for path in files_of(_beside(situation.declared, place)):
        if (closed := _of_file(situation, path, place.user)) is not None:
            yield closed


def _of_file(situation: Situation, path: str, user: str | None) -> Closed | None:
    """Why the file is closed to the machine, as the files are now; None where it is not, or that is not known."""
    file = situation.secrets.files.get(path)
    if file is None or file.encrypted is None:
        if not situation.exists(path):
            return Closed(path, "does not exist", making(situation.secrets, situation.host_id, path))
        problem = "cannot be read" if file and file.problem else "not encrypted"
        return Closed(path, problem, "`nixherd secrets status` says what is wrong with it, mend that")
    keys, host = _keys(situation, user), situation.fleet.hosts[situation.host_id]
    causes = situation.causes.get(user)
    if keys is None or opens(file.encrypted, keys, has_gnupg=bool(causes and causes.has_gnupg)) is not False:
        return None
    recipient = recipient_of_host(host)
    if user is None and recipient is None:
        return Closed(path, "not encrypted for it", f"enroll it (`nixherd enroll {host.id}`)")
    if recipient is None or recipient not in keys:
        return _with_another_key(situation, path, user)
    store = situation.secrets.store_of(path)
    rule = store.rules.rule_of(store.below(path)) if store else None
    if store is None or isinstance(rule, Unknown):
        return Closed(path, CLOSED, f"`nixherd secrets status` says what is not known of {path}, mend that")
    if rule is None:
        return Closed(path, CLOSED, f"`{situation.join} --create`")
    if recipient in rule.recipients and not rule.opens_to(keys):
        step = f"name its key in {rule.threshold} key groups of that rule, or declare a file of another one"
        return Closed(path, rule.not_alone(host.id), step)
    if recipient in rule.recipients:
        return Closed(path, CLOSED, APPLY)
    raw = (host.public_key or "").split()[:2]
    is_raw = any(key.is_ssh and key.value.split()[:2] == raw for key in file.encrypted.recipients)
    why = "encrypted for its SSH key as it is, which sops-nix cannot open" if is_raw else CLOSED
    return Closed(path, why, f"`{situation.join}`")


def making(secrets: Secrets, host_id: str, path: str) -> str:
    """The command that makes a declared file that does not exist."""
    store = secrets.store_of(path)
    rule = store.rules.rule_of(store.below(path)) if store else None
    return f"`nixherd secrets edit {path}`" if rule is not None else f"`nixherd secrets add-host {host_id} --create`"


def _with_another_key(situation: Situation, path: str, user: str | None) -> Closed:
    """The machine, or the home, decrypts with a key that the fleet does not have."""
    causes = situation.causes[user]
    host = situation.host_id
    line = next((key for key in causes.keys if key.line and user is None and _HOST_KEY.search(key.path)), None)
    if line is not None:
        file = situation.fleet.file
        why = f"encrypted for the key that {file} pins, and {line.path} there is another one"
        step = f'if that is its key: restart sshd there, set {host}.publicKey = "{line.line}" in {file}, '
        step += f"`{situation.join}`"
        return Closed(path, why, step)
    places = ", ".join(f"{each.value} ({key.path})" for key in causes.keys for each in key.recipients) or "none"
    whose = f"{user}'s home decrypts" if user else "it decrypts"
    step = f"name that key in the file's rule of .sops.yaml, {APPLY}"
    return Closed(path, f"not encrypted for what {whose} with, {places}", step)


def _keys(situation: Situation, user: str | None) -> frozenset[Recipient] | None:
    """Whom the machine, or a home, decrypts for: by its own word, otherwise by hosts.nix."""
    causes = situation.causes.get(user)
    known = causes.recipients if causes else None
    if known or user is not None:
        return known or None
    recipient = recipient_of_host(situation.fleet.hosts[situation.host_id])
    return frozenset() if recipient is None else frozenset((recipient,))


def opens(encrypted: Encrypted, keys: frozenset[Recipient], *, has_gnupg: bool) -> bool | None:
    """Whether these keys decrypt a file: they are in as many of its groups as it takes. None where nobody knows."""
    if sum(any(key in keys for key in group) for group in encrypted.groups) >= encrypted.threshold:
        return True
    return None if has_gnupg and any(key.kind is Kind.PGP for key in encrypted.recipients) else False


def _steps(situation: Situation, closed: Sequence[Closed]) -> str:
    """The commands, each once. That by which a host joins also encrypts what its rules say already."""
    steps = list(dict.fromkeys(file.step for file in closed))
    creating = f"`{situation.join} --create`"
    if creating in steps:
        steps = [step for step in steps if step != f"`{situation.join}`"]
    if any(situation.join in step for step in steps):
        steps = [step for step in steps if step != APPLY]
    return ", ".join(steps)
