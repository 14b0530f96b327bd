"""Whether a hypervisor is set up so that it refuses by itself what the guard would refuse, and fits the definitions.

Only GETs are sent. What the token may not read is unknown, never fine.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial

from nixherd.base.errors import AgentUnavailable, ApiError, FleetError, NotVisible
from nixherd.fleet.models import DEFINITIONS, Fleet, GuestType, Vm
from nixherd.proxmox.answers import Permissions
from nixherd.proxmox.client import Client
from nixherd.proxmox.guest.identity import label, why_not_ours
from nixherd.proxmox.guest.observe import find, observe_template
from nixherd.proxmox.guest.storages import storage_seen
from nixherd.proxmox.preflight import template_findings

CLOCK_SECONDS = 5
EXPIRY_SECONDS = 14 * 86400
# What lets a token look and no more.
_LOOKING = frozenset(("VM.Audit", "VM.GuestAgent.Audit", "VM.GuestAgent.FileRead", "VM.Monitor"))
_NEEDED = (
    *("VM.Allocate", "VM.Audit", "VM.PowerMgmt", "VM.Backup", "VM.Snapshot", "VM.Snapshot.Rollback"),
    *(f"VM.Config.{what}" for what in ("CPU", "Memory", "Options", "Disk", "Network", "Cloudinit")),
)
# Rights that are for a whole cluster where they are granted there.
_BROAD = {
    "/": ("Sys.Modify", "Permissions.Modify", "VM.Allocate", "Datastore.Allocate", "User.Modify", "Sys.PowerMgmt"),
    "/vms": ("VM.Allocate", "VM.PowerMgmt", "VM.Config.Options", "VM.Config.Disk", "Permissions.Modify"),
    "/access": ("Permissions.Modify", "User.Modify"),
}


class Verdict(StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: what was found, and what to do about it. `check` may be left to `examine`."""

    check: str
    verdict: Verdict
    found: str
    remedy: str = ""


_ok, _warning = partial(Finding, "", Verdict.OK), partial(Finding, "", Verdict.WARNING)
_failed, _unknown = partial(Finding, "", Verdict.FAILED), partial(Finding, "", Verdict.UNKNOWN)


def examine(client: Client, fleet: Fleet) -> list[Finding]:
    """Return every finding. What the server does not let the token ask is UNKNOWN, a question that fails is FAILED."""
    findings: list[Finding] = []
    for name, check in _CHECKS.items():
        try:
            for each in check(client, fleet):
                findings.append(replace(each, check=each.check or name))
        except ApiError as error:
            verdict = Verdict.UNKNOWN if error.status in (401, 403) else Verdict.FAILED
            findings.append(Finding(name, verdict, str(error)))
        except FleetError as error:
            findings.append(Finding(name, Verdict.FAILED, str(error)))
    return findings


def _version(client: Client, fleet: Fleet) -> Iterator[Finding]:
    version = client.version()
    known = version.major == 9 or version.release.startswith("8.4")
    verdict = Verdict.OK if known else Verdict.WARNING
    yield Finding("", verdict, f"Proxmox VE {version.version}", "" if known else "8.4 and 9 are supported")


def _certificate(client: Client, fleet: Fleet) -> Iterator[Finding]:
    endpoint = fleet.endpoint
    if endpoint and (endpoint.fingerprint or endpoint.ca_file):
        yield _ok("pinned by fingerprint" if endpoint.fingerprint else "pinned by CA file")
        return
    yield _warning(
        "verified by the system's authorities, any of which could vouch for another server",
        f"set proxmox.fingerprint in {DEFINITIONS}",
    )


def _token(client: Client, fleet: Fleet) -> Iterator[Finding]:
    user, _, name = client.token_id.partition("!")
    try:
        info = client.token_info(user, name)
    except ApiError as error:
        if error.status != 403:
            raise
        # So it is on every server, for a token is not its user: only who may change users sees it.
        yield _unknown(
            f"whether {client.token_id} is separated from its user's rights cannot be known: no token may read itself",
            f"on the node: `pveum user token list {user}` has privsep 1 and no early expiry for {name}",
        )
        return
    if info["privsep"]:
        yield _ok(f"{client.token_id} is separated from its user's rights")
    else:
        yield _failed(
            f"{client.token_id} has all rights of {user}",
            f"`pveum user token modify {user} {name} --privsep 1`, and grant it what docs/proxmox.md lists",
        )
    expires = info["expire"]
    if expires and expires - time.time() < EXPIRY_SECONDS:
        when = time.strftime("%Y-%m-%d", time.gmtime(expires))
        yield _warning(f"it expires on {when}", "renew it in time")


def _protected(client: Client, fleet: Fleet) -> Iterator[Finding]:
    """Check that the token has no rights where the guard would refuse: two locks, not one."""
    permissions = client.permissions()
    clone = frozenset(("VM.Clone",))
    guests = [(vm.vmid, label(vm), _LOOKING) for vm in fleet.vms.values() if not vm.may_change]
    if fleet.template:
        guests.append((fleet.template.vmid, f"template {fleet.template.vmid}", _LOOKING | clone))
    for vmid, who, allowed in guests:
        path = f"/vms/{vmid}"
        held = sorted(_held(permissions, path) - allowed)
        if held:
            yield _failed(
                f"the token may change {who}: {', '.join(held)} on {path}",
                "grant rights on a pool of the managed guests, not on /vms or /",
            )
        else:
            yield _ok(f"no right to change {who}")


def _held(permissions: Permissions, path: str) -> set[str]:
    """Return the VM privileges that the token has at a path."""
    every = {each for granted in permissions.paths.values() for each in granted if each.startswith("VM.")}
    return {privilege for privilege in every if permissions.allows(path, privilege)}


def _broad(client: Client, fleet: Fleet) -> Iterator[Finding]:
    permissions = client.permissions()
    for path, privileges in _BROAD.items():
        held = [each for each in privileges if permissions.allows(path, each)]
        if held:
            yield _failed(
                f"the token has {', '.join(held)} on {path}: on everything below it, undeclared guests too",
                f"remove that role from {path}; docs/proxmox.md lists what is needed, and where",
            )
    if not any(permissions.allows(path, each) for path, privileges in _BROAD.items() for each in privileges):
        yield _ok("no rights on everything at once")


def _needed(client: Client, fleet: Fleet) -> Iterator[Finding]:
    permissions = client.permissions()
    for vm in _changeable(fleet):
        pool = f"/pool/{vm.settings.pool}" if vm.settings.pool else None
        paths = [f"/vms/{vm.vmid}", *([pool] if pool else [])]
        missing = [each for each in _NEEDED if not any(permissions.allows(path, each) for path in paths)]
        if missing:
            where = pool or paths[0]
            yield _warning(
                f"the token lacks {', '.join(missing)} on {where}",
                f"grant what you use: `pveum acl modify {where} --roles ROLE --tokens '{client.token_id}'`",
            )
        else:
            yield _ok(f"what is needed for {label(vm)} is there")


def _changeable(fleet: Fleet) -> Sequence[Vm]:
    return [vm for vm in fleet.vms.values() if vm.may_change]


def _nodes(client: Client, fleet: Fleet) -> Iterator[Finding]:
    nodes = {node.name: node.status for node in client.node_rows()}
    declared = {fleet.node_of(vm) for vm in fleet.vms.values()} | ({fleet.endpoint.node} if fleet.endpoint else set())
    for node in sorted(declared):
        if node not in nodes:
            known = ", ".join(nodes) or "none that the token may see"
            yield _failed(f"node {node} does not exist", f"the cluster has: {known}")
        elif nodes[node] == "online":
            yield _ok(f"{node} is online")
        elif nodes[node] == "offline":
            yield _failed(f"{node} is offline", "bring it up")
        else:
            yield _unknown(
                f"whether {node} is online is not told: its status is {nodes[node]}",
                f"when that stays: `systemctl status pvestatd pve-cluster` on {node}",
            )


def _storages(client: Client, fleet: Fleet) -> Iterator[Finding]:
    declared = {
        (fleet.node_of(vm), name, "rootdir" if vm.type is GuestType.LXC else "images")
        for vm in _changeable(fleet)
        for name in (fleet.storage_of(vm), *(disk.storage for disk in vm.settings.disks if disk.storage))
    }
    if fleet.endpoint and fleet.endpoint.backup_storage:
        declared.add((fleet.endpoint.node, fleet.endpoint.backup_storage, "backup"))
    for node, name, content in sorted(declared, key=str):
        storage = storage_seen(client, node, name) if name else None
        if storage is None:
            remedy = f"correct it in {DEFINITIONS}, or grant PVEDatastoreUser on /storage/{name}"
            yield _failed(f"{node} has no storage {name} that the token may see", remedy)
        elif storage.away:
            what, _, remedy = storage.away.partition("; ")
            yield _failed(f"{name} on {node} {what}", remedy)
        elif content not in storage.content:
            yield _failed(f"{name} on {node} holds no {content}", f"allow `{content}` there")
        elif storage.total and storage.available is not None and storage.available / storage.total < 0.05:
            yield _warning(f"{name} on {node} is nearly full", "make room")
        else:
            yield _ok(f"{name} on {node} is active and holds {content}")


def _template(client: Client, fleet: Fleet) -> Iterator[Finding]:
    if fleet.template is None and not any(vm.type is GuestType.QEMU for vm in _changeable(fleet)):
        return
    findings = list(template_findings(fleet, observe_template(client, fleet)))
    for finding in findings:
        what, _, remedy = finding.partition("; ")
        yield _failed(what, remedy)
    if not findings and fleet.template:
        yield _ok(f"template {fleet.template.vmid} has what a clone needs")


def _guests(client: Client, fleet: Fleet) -> Iterator[Finding]:
    for vm in fleet.vms.values():
        try:
            guest = find(client, fleet, vm)
        except NotVisible as error:
            what, _, remedy = str(error).partition("; ")
            yield Finding("", Verdict.FAILED if vm.may_change else Verdict.UNKNOWN, what, remedy)
            continue
        except ApiError as error:  # of this guest; what is for all of them ends the next question as well
            yield Finding("", Verdict.UNKNOWN if error.status == 403 else Verdict.FAILED, str(error))
            continue
        if not vm.is_managed:
            continue
        if guest is None:
            yield _warning(f"{label(vm)} does not exist", "provision it")
            continue
        node, config = guest
        if why := why_not_ours(fleet, vm, config, node):
            what, _, remedy = why.partition("; ")
            yield _failed(what, remedy)
        else:
            whose = "is this fleet's" if vm.may_change else "is readonly, and needs no mark of ours"
            yield _ok(f"{label(vm)} on {node} {whose}")
        status = client.status(node, vm.vmid, vm.type)
        if vm.type is GuestType.QEMU and status is not None and status.running:
            yield _agent(client, node, vm)


def _agent(client: Client, node: str, vm: Vm) -> Finding:
    try:
        client.agent_info(node, vm.vmid)
    except AgentUnavailable as error:
        remedy = "services.qemuGuest.enable = true in its configuration, and `agent: 1`"
        return Finding("agent", Verdict.FAILED, f"the agent of {label(vm)} does not answer: {error}", remedy)
    except ApiError as error:
        verdict = Verdict.UNKNOWN if error.status == 403 else Verdict.FAILED
        return Finding("agent", verdict, f"the agent of {label(vm)}: {error}")
    return Finding("agent", Verdict.OK, f"the agent of {label(vm)} answers")


def _clock(client: Client, fleet: Fleet) -> Iterator[Finding]:
    if fleet.endpoint is None:
        return
    before = time.time()
    remote = client.node_time(fleet.endpoint.node)
    off = abs(remote - (before + time.time()) / 2)
    node = fleet.endpoint.node
    if off > CLOCK_SECONDS:
        remedy = f"look at `chronyc tracking` on {node} and here"
        yield _failed(f"{node} and this machine are {off:.0f} s apart", remedy)
    else:
        yield _ok(f"{node} and this machine agree")


_CHECKS: dict[str, Callable[[Client, Fleet], Iterator[Finding]]] = {
    "version": _version,
    "certificate": _certificate,
    "token": _token,
    "protected": _protected,
    "breadth": _broad,
    "rights": _needed,
    "node": _nodes,
    "storage": _storages,
    "template": _template,
    "guest": _guests,
    "clock": _clock,
}
