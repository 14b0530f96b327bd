"""The fleet's own files as steps of a deploy: their changes, the host key that comes into them, their gate."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from pyinfra.api.host import Host

from nixherd.base.errors import FleetError, Refused, Usage
from nixherd.base.names import flag_of, path_below
from nixherd.base.ssh_keys import HOST_KEY_FILE, generate_ed25519, parse_public_key
from nixherd.fleet.changeset import changing, interrupted
from nixherd.fleet.committable import require_committable
from nixherd.fleet.host_keys import HostKeys
from nixherd.fleet.load import load_fleet
from nixherd.fleet.models import Fleet, GuestType
from nixherd.gate.results import Result, passed
from nixherd.gate.tools import Scope, run_all
from nixherd.pyinfra_glue.hosts import connector_of, context_of, executing, fleet_host, limited_to, vm_of
from nixherd.pyinfra_glue.installing import machine_for, machine_of
from nixherd.pyinfra_glue.operation import Change, NoChange
from nixherd.trust.enrol import Wanted, publish
from nixherd.trust.findings import look_at_secrets
from nixherd.trust.joining import Admission
from nixherd.trust.secrets.sops import as_host, operator
from nixherd.trust.secrets.store import Secrets
from nixherd.trust.templating import Values, render, render_foreign

_STEPS = "\n\n{% for step in steps %}- {{ step }}\n{% endfor %}"


def changed_files(
    host: Host,
    change: Callable[[Wanted], Wanted],
    subject: str,
    *,
    otherwise: str,
    before: Callable[[], object] = lambda: None,
) -> Change | NoChange:
    """The one step that makes a change of the fleet's files; none, and `otherwise` is said, where nothing changes.

    `before` is called first when the change is made.
    """
    root = Path(context_of(host).fleet.path)
    with context_of(host).run.fleet_files:
        fleet = load_fleet(root)
        files = change(Wanted(fleet, secrets_of(host, fleet)))
        steps = files.steps
        if interrupted(root):
            steps = ("finish what an interrupted run began to publish", *steps)
        elif steps and not executing(host):  # a plan that could not be carried out is none
            require_committable(root, files.paths, commit=_commits(host))
    if not steps:
        return NoChange("; ".join((otherwise, *files.notes)))
    return Change("; ".join(steps), partial(_publish, host, change, subject, before))


def _publish(host: Host, change: Callable[[Wanted], Wanted], subject: str, before: Callable[[], object]) -> None:
    """Make a change of the fleet's files as they are now, and commit it. What the flake says is evaluated anew then."""
    before()
    run, root = context_of(host).run, Path(context_of(host).fleet.path)
    with run.fleet_files, changing(root) as changeset:
        changeset.resume(host.log)
        fleet = load_fleet(root)
        files = change(Wanted(fleet, secrets_of(host, fleet)))
        identity = host.data.get("age_identity")
        done = publish(
            changeset,
            files,
            _message(host, subject, files),
            sops=lambda: operator(run, identity),
            as_host=as_host(run, context_of(host).keys, host.data.host_id),
            rotate=flag_of("rotate_removed", host.data.get("rotate_removed", False)),
            give_up=flag_of("give_up", host.data.get("give_up", False)),
            commit=_commits(host),
            say=host.log,
        )
    context_of(host).evaluator.forget()
    for note in (*files.notes, *done.notes):
        host.log(note)
    for path in done.paths:
        host.log(f"wrote {path}")
    if done.commit:
        host.log(f"commit {done.commit}")


def _commits(host: Host) -> bool:
    return flag_of("commit", host.data.get("commit", True))


def _message(host: Host, subject: str, files: Wanted) -> str:
    """The commit's message: data `commit_message`, a Jinja2 template of `host` and `steps`, or ours."""
    template = host.data.get("commit_message")
    values: Values = partial(dict, host=str(host.data.host_id), steps=tuple(files.steps))
    try:
        text = render_foreign("commit_message", str(template), values) if template else render(subject + _STEPS, values)
    except FleetError as error:
        raise Usage(f"{error}; it may use host and steps") from None
    text = text.strip()
    if not text:
        raise Usage("commit_message comes out empty")
    return text


def secrets_of(host: Host, fleet: Fleet) -> Secrets:
    """The fleet's secrets; those of data `secrets_directory` alone, where that is given. None with `secrets=none`."""
    root, given = Path(fleet.path), host.data.get("secrets_directory")
    if host.data.get("secrets") == "none":
        return Secrets(root)
    directory = path_below("secrets_directory", given) if given else None
    edit_generated = flag_of("edit_generated", host.data.get("edit_generated", False))
    return Secrets.load(root, directory, edit_generated=edit_generated)


@dataclass(frozen=True)
class EnrolledKey:
    """`known` is the public half with its comment; a key that is to be generated shows when `ensure` has made it."""

    known: str | None
    host_id: str
    keys: HostKeys = field(repr=False)
    provisional: str = ""

    @classmethod
    def of(cls, host: Host) -> "EnrolledKey":
        """The key that answers, or will answer, on the machine. FleetError when none is known."""
        keys, config = context_of(host).keys, fleet_host(host)
        comment = f"root@{config.hostname}"
        if pinned := keys.pinned(config.id):
            return cls(pinned, config.id, keys)
        vm = vm_of(host)
        if vm is None or vm.type is not GuestType.QEMU or not vm.is_managed:
            return cls(f"{_read(host)} {comment}", config.id, keys)
        if told := connector_of(host).told_key():
            return cls(f"{parse_public_key(told).bare} {comment}", config.id, keys)
        return cls(None, config.id, keys, generate_ed25519(comment).public)

    @property
    def public(self) -> str:
        """The public half; until it is made, one that nobody has stands for it in plans."""
        if self.known is not None:
            return self.known
        pair = self.keys.held(self.host_id)
        return pair.public if pair else self.provisional

    def ensure(self) -> None:
        """Generate the key here, where it is to be."""
        if self.known is None:
            self.keys.ensure(self.host_id)


def _read(host: Host) -> str:
    """The key of a machine that was made elsewhere, through the authenticated connection."""
    host_id = fleet_host(host).id
    if connector_of(host).connected or executing(host):
        machine_of(host)
        machine = machine_for(host)
        done = machine.look(lambda: machine.run(f"cat {HOST_KEY_FILE}"))
        if done.status == 0 and done.stdout.strip():
            try:
                key = parse_public_key(done.stdout.strip())
            except ValueError as error:
                raise FleetError(f"{host_id}: its {HOST_KEY_FILE} does not hold a public key: {error}") from None
            if other := context_of(host).keys.owner(done.stdout.strip(), but=host_id):
                raise Refused(f"{host_id} tells the host key of {other} as its own; find out who is root there")
            return key.bare
    raise FleetError(f"{host_id}: no host key is known; install it first, then `nixherd post-provision`")


def admission_of(host: Host) -> Admission:
    """How the host is to become a recipient: by what it declares, and data `secrets_rules`, `_replace` and `_create`.

    Usage when one of them is something else.
    """
    rules, replaces = host.data.get("secrets_rules"), host.data.get("secrets_replace")
    if rules is not None and not _is_list(rules, (str, int)):
        raise Usage("secrets_rules is a list of rules' numbers or path_regexes")
    replaces = [replaces] if isinstance(replaces, str) else replaces or []
    if not _is_list(replaces, str):
        raise Usage("secrets_replace is the name or the key of a recipient, or a list of them")
    creates = flag_of("secrets_create", host.data.get("secrets_create", False))
    declared = context_of(host).evaluator.declared(limited_to(host), fleet_host(host).id)
    return Admission(declared, rules, replaces, creates)


def _is_list(value: object, kinds: type | tuple[type, ...]) -> bool:
    return isinstance(value, (list, tuple)) and all(
        isinstance(each, kinds) and not isinstance(each, bool) for each in value
    )


def require_passed(host: Host, without: list[str]) -> None:
    """FleetError unless every tool lets the fleet through."""
    with context_of(host).gate[tuple(sorted(without))] as gate:
        if gate.is_empty:
            gate.value = _results(host, without)
        results = gate.value
    if not passed(results):
        bad = ", ".join(f"{result.tool} ({result.status})" for result in results if not result.status.is_good)
        raise FleetError(f"{host.data.host_id}: the quality gate: {bad}; see above, or `nixherd check`")


def _results(host: Host, without: list[str]) -> list[Result]:
    """Each tool's, said once, by the host that came first."""
    with Scope(Path(context_of(host).fleet.path), look_at_secrets) as scope:
        results = list(run_all(scope, without))
    for result in results:
        host.log(f"{result.status} {result.tool}: {result.reason or result.note or f'{len(result.findings)} found'}")
        for finding in result.findings:
            host.log(str(finding))
    return results
