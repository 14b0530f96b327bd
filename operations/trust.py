"""A machine's way into the fleet's trust: its key in hosts.nix and .sops.yaml, files encrypted to it, one commit."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jinja2
from pyinfra import host
from pyinfra.api import operation
from pyinfra.api.host import Host

from facts.age import HostKey
from fleetwright.changeset import changing, interrupted
from fleetwright.enrolment import Wanted, documented, protected, publish, trusted
from fleetwright.errors import FleetError, Refused, Usage
from fleetwright.fleet import load_fleet
from fleetwright.models import Fleet, GuestType
from fleetwright.proxmox.errors import AgentUnavailable
from fleetwright.proxmox.identity import is_ours, not_ours
from fleetwright.proxmox.observe import find
from fleetwright.reach import HOST_KEY_FILE, Epoch, epoch_of
from fleetwright.secrets.identity import as_host, identity_file, operator
from fleetwright.secrets.store import Store
from fleetwright.session import Session
from fleetwright.ssh_keys import generate_ed25519, parse_public_key
from operations.machine import machine_of
from operations.steps import Commands, connector_of, decide, do, executing, fleet_host, session_of

DOCS = "docs/machines.md"
_JOINS, _IN_SERVICE = "fleet: {{ host }} joins", "fleet: {{ host }} is in service"


@operation()
def enroll(docs: bool = False, protect: bool = False) -> Commands:
    """Make the machine's host key a recipient of its secrets and pin it in hosts.nix, with one commit.

    The key is the pinned one; for a VM that does not exist yet it is generated here, for a machine made elsewhere it is
    read through the guest agent or the authenticated connection. `docs`: the overview as well; `protect`: its managed
    guest becomes readonly as well.
    """
    yield from decide(host, lambda: _enroll(flag("docs", docs), flag("protect", protect)))


def _enroll(docs: bool, protect: bool) -> Commands:
    session, host_id = session_of(host), fleet_host(host).id
    key = _host_key()

    def change(wanted: Wanted) -> Wanted:
        about = wanted.fleet.hosts[host_id]
        wanted = trusted(wanted, about, about.public_key or key, _rules())
        wanted = protected(wanted, host_id) if protect else wanted
        if docs:
            template = host.data.get("docs_template")
            place = text_of("docs_file", host.data.get("docs_file") or DOCS)
            wanted = documented(wanted, place, session_path(session, template) if template else None)
        return wanted

    yield from changed_files(host, change, _IN_SERVICE if docs else _JOINS, otherwise=f"{host_id} is enrolled")


def _rules() -> list[str | int] | None:
    given = host.data.get("secrets_rules")
    if given is None:
        return None
    if not isinstance(given, (list, tuple)) or not all(isinstance(each, (str, int)) for each in given):
        raise Usage("secrets_rules is a list of rules' numbers or path_regexes")
    return list(given)


def _host_key() -> str:
    """The public half of the key that answers, or will answer, on the machine, with its comment."""
    session, about = session_of(host), fleet_host(host)
    known = session.pinned_key(about.id)
    if known:
        return known
    comment = f"root@{about.hostname}"
    vm = session.vm(about.id)
    if vm is None or vm.type is not GuestType.QEMU or not vm.is_managed:
        if connector_of(host).connected or executing(host):
            machine_of(host)
            found = host.get_fact(HostKey)
            if found:
                return f"{parse_public_key(found).bare} {comment}"
        raise FleetError(f"{about.id}: no host key is known; install it first, then run deploys/post_provision.py")
    through_agent = _key_through_agent(session)
    if through_agent:
        return f"{parse_public_key(through_agent).bare} {comment}"
    if executing(host):
        session.claim(about.id)
        return session.state_of(about.id).ensure_host_key().public
    return generate_ed25519(comment).public  # what it will be shows when it is made


def _key_through_agent(session: Session) -> str | None:
    """The key of an installed system in the host's guest; None while there is none. Refused when it is not ours."""
    about, vm = fleet_host(host), session.vm(fleet_host(host).id)
    assert vm is not None, "asked for guests only"
    found = find(session.client, session.fleet, vm)
    if found is None or found[1].lock == "clone":
        return None
    if not is_ours(session.fleet, vm, found[1]):
        raise Refused(not_ours(session.fleet, vm, found[1], found[0]))
    status = session.client.status(found[0], vm.vmid, vm.type)
    if status is None or not status.running:
        return None
    try:
        if epoch_of(session.client.agent_read(found[0], vm.vmid, "/etc/os-release")) is not Epoch.FINAL:
            return None
        return session.client.agent_read(found[0], vm.vmid, HOST_KEY_FILE).strip()
    except AgentUnavailable as error:
        raise FleetError(f"{about.id}: its guest agent does not say which host key it has: {error}") from error


@operation()
def forget_key() -> Commands:
    """Delete the machine's private key here, once hosts.nix pins it and the machine has proved that it holds it."""
    yield from decide(host, _forget_key)


def _forget_key() -> Commands:
    session, host_id = session_of(host), fleet_host(host).id
    state = session.state_of(host_id)
    held = state.host_key()
    if held is None:
        host.noop(f"no private key of {host_id} is here")
        return
    if executing(host):
        machine_of(host)
        place = connector_of(host).reach()
        pinned = load_fleet(session.fleet.path).hosts[host_id].public_key
        blob = parse_public_key(held.public).blob
        if pinned is None or parse_public_key(pinned).blob != blob:
            raise FleetError(f"{host_id}: hosts.nix does not pin the key whose private half is here; enroll it first")
        if place.epoch is not Epoch.FINAL or parse_public_key(place.host_key).blob != blob:
            raise FleetError(f"{host_id}: the machine has not shown that it holds its key; its private half stays here")
    yield from do(host, f"delete the private key of {host_id} here; the machine has it", state.forget_host_key)


# The fleet's files


@contextmanager
def fleet_files(session: Session) -> Iterator[None]:
    """One host of the run at a time works on the fleet's files."""
    lock: threading.Lock = session.once("fleet files", threading.Lock)
    with lock:
        yield


def changed_files(host: Host, change: Callable[[Wanted], Wanted], subject: str, *, otherwise: str) -> Commands:
    """The one step that makes a change of the fleet's files; none, and `otherwise` is said, where nothing changes."""
    session = session_of(host)
    root = Path(session.fleet.path)
    with fleet_files(session):
        fleet = load_fleet(root)
        steps = change(Wanted(fleet, store_of(host, fleet))).steps
        if interrupted(root):
            steps = ("finish what an interrupted run began to publish", *steps)
    if not steps:
        host.noop(otherwise)
        return
    yield from do(host, "; ".join(steps), lambda: publish_changes(host, change, subject))


def publish_changes(host: Host, change: Callable[[Wanted], Wanted], subject: str) -> None:
    """Make a change of the fleet's files as they are now, and commit it. What the flake says is evaluated anew then."""
    session, host_id = session_of(host), host.data.host_id
    root = Path(session.fleet.path)
    with fleet_files(session), changing(root) as changeset:
        changeset.resume(host.log)
        fleet = load_fleet(root)
        wanted = change(Wanted(fleet, store_of(host, fleet)))
        key_file = identity_file(host.data.get("age_identity"))
        done = publish(
            changeset,
            wanted,
            _message(host, subject, wanted),
            sops=lambda: operator(session, key_file),
            as_host=as_host(session, host_id),
            rotate=flag("rotate_removed", host.data.get("rotate_removed", False)),
            commit=flag("commit", host.data.get("commit", True)),
            say=host.log,
        )
    session.forget("evaluate")
    for path in done.paths:
        host.log(f"wrote {path}")
    if done.commit:
        host.log(f"commit {done.commit}")


def _message(host: Host, subject: str, wanted: Wanted) -> str:
    """The commit's message: data `commit_message`, a Jinja2 template of `host` and `steps`, or ours."""
    template = host.data.get("commit_message") or subject + "\n\n{% for step in steps %}- {{ step }}\n{% endfor %}"
    try:
        environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)
        text = environment.from_string(str(template)).render(host=host.data.host_id, steps=wanted.steps).strip()
    except jinja2.TemplateError as error:
        raise Usage(f"commit_message: {error}; it may use host and steps") from None
    if not text:
        raise Usage("commit_message comes out empty")
    return text


def store_of(host: Host, fleet: Fleet) -> Store | None:
    """The fleet's secrets; None when it has none."""
    directory = text_of("secrets_directory", host.data.get("secrets_directory") or "secrets")
    if not (Path(fleet.path) / directory).is_dir():
        return None
    return Store.load(Path(fleet.path), directory)


def session_path(session: Session, path: Any) -> Path:
    return Path(session.fleet.path) / text_of("docs_template", path)


def text_of(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value or value.startswith(("-", "/")) or ".." in Path(value).parts:
        raise Usage(f"{name}={value} is no path below the fleet's directory")
    return value


def flag(name: str, value: Any) -> bool:
    """Usage when it is neither true nor false."""
    if value not in (True, False, 0, 1):
        raise Usage(f"{name}={value} is neither true nor false")
    return bool(value)
