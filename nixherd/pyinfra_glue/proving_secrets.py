"""The proof that a machine has what its configuration declares of secrets: asked of the machine, said to people."""

import os
import secrets as random
import shlex
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pyinfra.api.host import Host

from nixherd.base.errors import EndUnknown, FleetError, Unforeseen
from nixherd.base.process import Completed
from nixherd.base.reasons import failure
from nixherd.base.terminal import line_of
from nixherd.deploy.machine import ANSWER_DEADLINE
from nixherd.deploy.protocol import Kind
from nixherd.deploy.running import PROFILE, try_running
from nixherd.fleet.load import load_fleet
from nixherd.nix.commands import Evaluated
from nixherd.nix.declared import Declared, Identity
from nixherd.pyinfra_glue.engine import PyinfraMachine
from nixherd.pyinfra_glue.fleet_files import secrets_of
from nixherd.pyinfra_glue.hosts import context_of, executing, fleet_host, selection
from nixherd.trust.secrets import causes as causing
from nixherd.trust.secrets import proof as proving
from nixherd.trust.secrets.causes import Causes
from nixherd.trust.secrets.proof import Place, Proven, Verdict
from nixherd.trust.secrets.remedies import Finding, Situation, findings, making

_SALT = random.token_hex(16)
_ASKS = "nixherd-sudo-asks"
_AT_ONCE = 200  # places in one command, whose length has a bound


@dataclass(frozen=True)
class Proof:
    """What is proven of a host's secrets; `unknown` are lines, each with whether it is of the system's secrets."""

    proven: tuple[Proven, ...]
    findings: tuple[Finding, ...] = ()
    unknown: tuple[tuple[str, bool], ...] = ()

    @property
    def summary(self) -> str:
        done = sum(each.verdict is Verdict.DECRYPTED for each in self.proven)
        text = f"{done} of {len(self.proven)} secrets"
        unknown = sum(each.verdict is Verdict.UNKNOWN for each in self.proven)
        return text + (f"; of {unknown} that is not known" if unknown else "")

    @classmethod
    def of(cls, host: Host, declared: Declared, *, is_current: bool) -> "Proof":
        """Look at the machine; `is_current`: it runs what the flake says. What is missing is looked into."""
        places, is_nixos = proving.places(declared), fleet_host(host).is_nixos
        proven = _look(host, places)
        if any(each.verdict is Verdict.MISSING for each in proven):
            proven = _look(host, places)  # where a deployment was at work meanwhile
        unknown = list(_unknown(proven))
        if declared.problem:
            unknown.append((f"what its configuration declares: {declared.problem}", True))
        wrong = [each for each in proven if each.verdict not in (Verdict.DECRYPTED, Verdict.UNKNOWN)]
        if not wrong:
            return cls(proven, unknown=tuple(unknown))
        fleet = load_fleet(context_of(host).fleet.path)
        users = {each.place.user for each in wrong}
        causes = {each.user: _causes(host, each) for each in declared.identities if each.user in users}
        if not is_nixos:
            running = try_running(PyinfraMachine(host), Kind.HOME)
            is_current = not isinstance(running, FleetError) and running.current == _evaluated(host).toplevel
        secrets, host_id = secrets_of(host, fleet), fleet_host(host).id
        situation = Situation(host_id, fleet, secrets, declared, _exists(host), is_current, causes)
        return cls(proven, tuple(findings(situation, wrong)), tuple(unknown))


def declared_of(host: Host) -> Declared:
    """What the configuration declares. FleetError for a file that does not exist, or an evaluation that fails."""
    try:
        return _evaluated(host).declared
    except FleetError as error:
        host_id, evaluator = fleet_host(host).id, context_of(host).evaluator
        declared = evaluator.declared(_alike(host), host_id)
        gone = {each.file: each.name for each in declared.secrets if each.file and not _exists(host)(each.file)}
        if not gone:
            raise
        what = ", ".join(f"{file} (sops.secrets.{name})" for file, name in gone.items())
        step = making(secrets_of(host, context_of(host).fleet), host_id, next(iter(gone)))
        raise FleetError(f"{host_id}: {what} does not exist; {step}, then `nixherd deploy {host_id}`") from error


def running_of(host: Host, declared: Declared, system: str | None) -> tuple[str | None, Declared, bool]:
    """Say which specialisation the `system` that runs is, None for the base system; what that declares; and whether it
    is what the flake says. EndUnknown where the machine does not say.
    """
    toplevel = _evaluated(host).toplevel
    if system is None or system == toplevel or not declared.specialisations:
        return None, declared, system == toplevel
    names = [*declared.specialisations]
    paths = [f"{base}/specialisation/{name}" for base in (toplevel, PROFILE) for name in names]
    script = f'for path in {shlex.join(paths)}; do readlink -e "$path" || echo -; done'
    try:
        answer = _answer(host, script, "asking which specialisation runs").splitlines()
    except FleetError as error:
        raise EndUnknown(f"{fleet_host(host).id}: which specialisation runs is not known: {error}") from error
    number = answer.index(system) if system in answer else None
    if number is None:
        return None, declared, False
    name = names[number % len(names)]
    return name, declared.specialisations[name], number < len(names)


def _alike(host: Host) -> tuple[str, ...]:
    """The hosts of the run that are evaluated with this one: machines, or homes."""
    if fleet_host(host).is_nixos:
        return selection(host) or (fleet_host(host).id,)
    hosts, state = context_of(host).fleet.hosts, host.state
    limited = (str(each.data.host_id) for each in state.inventory if state.is_host_in_limit(each))
    return tuple(sorted(host_id for host_id in limited if not hosts[host_id].is_nixos))


def _evaluated(host: Host) -> Evaluated:
    return context_of(host).evaluator.evaluate(_alike(host), fleet_host(host).id)


def _exists(host: Host) -> Callable[[str], bool]:
    root = Path(context_of(host).fleet.path)
    return lambda path: os.path.lexists(root / path)


def report(host: Host, proof: Proof) -> None:
    """Say what was read back."""
    for each in sorted(proof.proven, key=lambda each: each.place.label) if executing(host) else ():
        if each.verdict in (Verdict.DECRYPTED, Verdict.DIFFERS):
            entry, notes = each.entry, "".join(f"; {note}" for note in (each.why, *each.notes) if note)
            owner = f"{entry.mode:o} {entry.owners[1]}"
            host.log(f"decrypted {each.place.label} ({owner}), salted SHA-256 {entry.hash[:16]}…{notes}")


def _unknown(proven: Iterable[Proven]) -> Iterator[tuple[str, bool]]:
    reasons: dict[tuple[str, bool], list[str]] = {}
    for each in proven:
        if each.verdict is Verdict.UNKNOWN:
            reasons.setdefault((each.why, each.place.user is None), []).append(each.place.label)
    for (why, is_system), names in reasons.items():
        yield f"{', '.join(names)}: {why}", is_system


def _look(host: Host, places: tuple[Place, ...]) -> tuple[Proven, ...]:
    """What is known of each place; not known, with the reason, where the machine does not say."""
    parts = (places[start : start + _AT_ONCE] for start in range(0, len(places), _AT_ONCE))
    return tuple(proven for part in parts for proven in _look_at(host, part))


def _look_at(host: Host, places: tuple[Place, ...]) -> tuple[Proven, ...]:
    host_id = fleet_host(host).id
    try:
        answer = _answer(host, proving.script(places, _SALT), "reading its secrets")
        return proving.judge(places, proving.parse(answer.splitlines(), places))
    except Unforeseen:
        raise
    except FleetError as error:
        return proving.unknown(places, str(error).removeprefix(f"{host_id}: "))


def _causes(host: Host, identity: Identity) -> Causes:
    """What the machine says of its keys; nothing where it does not."""
    try:
        answer = _answer(host, causing.script(identity), "asking why")
        return causing.parse(answer.splitlines(), identity)
    except Unforeseen:
        raise
    except FleetError:
        return Causes()


def _answer(host: Host, script: str, what: str) -> str:
    """What a script prints on the machine: as root, in a home as its user. FleetError where it fails."""
    machine, is_root = PyinfraMachine(host), fleet_host(host).is_nixos
    try:
        return machine.look(lambda: _run(machine, script, what, is_root=is_root), ANSWER_DEADLINE)
    except Unforeseen:
        raise
    except OSError as error:
        raise FleetError(line_of(error) or "no answer") from error


def _run(machine: PyinfraMachine, script: str, what: str, *, is_root: bool) -> str:
    if not is_root or machine.user == "root" or machine.password is not None:
        return _printed(machine.run(script, sudo=is_root), what)
    # sudo's own words would have pyinfra ask for a password itself
    become = machine.become
    run = f"exec {become.without_question} sh -c {shlex.quote(script)}"
    done = machine.run(f'state=$({become.state()}); case $state in free) {run} ;; esac; echo "{_ASKS} $state"')
    if not done.stdout.startswith(_ASKS):
        return _printed(done, what)
    state = done.stdout.split()[1]
    if state != "asks" or not machine.give_password():
        raise FleetError(become.remedy(state, machine.user))
    return _printed(machine.run(script, sudo=True), what)


def _printed(done: Completed, what: str) -> str:
    if done.status != 0:
        raise failure(f"{what} failed", done.stderr.strip() or done.stdout)
    return done.stdout
