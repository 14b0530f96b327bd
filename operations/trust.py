"""A machine's way into the fleet's trust: its key in hosts.nix and .sops.yaml, files encrypted to it, one commit."""

from pyinfra import host
from pyinfra.api import operation

from facts.age import HostKey
from nixherd.arguments import flag_of, path_below
from nixherd.errors import FleetError, Refused, Usage
from nixherd.fleet.load import load_fleet
from nixherd.fleet.models import GuestType
from nixherd.locate.guest_agent import owner_of
from nixherd.locate.reach import Epoch
from nixherd.ssh.keys import generate_ed25519, parse_public_key
from nixherd.trust.enrol import Wanted, documented, protected, trusted
from operations.fleet_files import changed_files
from operations.machine import machine_of
from operations.steps import Commands, connector_of, decide, do, executing, fleet_host, session_of

DOCS = "docs/machines.md"
_JOINS, _IN_SERVICE = "fleet: {{ host }} joins", "fleet: {{ host }} is in service"


@operation()
def enroll(docs: bool = False, protect: bool = False) -> Commands:
    """Make the machine's host key a recipient of its secrets and pin it in hosts.nix, with one commit.

    The key is the pinned one; for a VM that does not exist yet it is generated here, for a machine made elsewhere it is
    told by the guest agent, and proven, or read through the authenticated connection. `docs`: the overview as well;
    `protect`: its managed guest becomes readonly as well.
    """
    yield from decide(host, lambda: _enroll(flag_of("docs", docs), flag_of("protect", protect)))


def _enroll(docs: bool, protect: bool) -> Commands:
    host_id, key = fleet_host(host).id, _host_key()

    def change(wanted: Wanted) -> Wanted:
        about = wanted.fleet.hosts[host_id]
        wanted = trusted(wanted, about, about.public_key or key, _rules())
        wanted = protected(wanted, host_id) if protect else wanted
        if docs:
            place, template = host.data.get("docs_file") or DOCS, host.data.get("docs_template")
            own = path_below("docs_template", template) if template else None
            wanted = documented(wanted, path_below("docs_file", place), own)
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
                if other := owner_of(session, found, but=about.id):
                    raise Refused(f"{about.id} tells the host key of {other} as its own; find out who is root there")
                return f"{parse_public_key(found).bare} {comment}"
        raise FleetError(f"{about.id}: no host key is known; install it first, then run deploys/post_provision.py")
    told = connector_of(host).told_key()
    if told:
        return f"{parse_public_key(told).bare} {comment}"
    if executing(host):
        session.claim(about.id)
        return session.state_of(about.id).ensure_host_key().public
    return generate_ed25519(comment).public  # what it will be shows when it is made


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
