"""`nixherd provision` and `post-provision`: the workflow's deploys in one run, and what is read back after them."""

import ipaddress
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from nixherd.base.errors import AgentUnavailable, Exit, FleetError, NoAgent, Refused, Usage
from nixherd.base.process import Completed
from nixherd.base.ssh_keys import same_key
from nixherd.base.terminal import say
from nixherd.cli.colours import Line
from nixherd.cli.completion import HOST
from nixherd.cli.front import Front, pass_front
from nixherd.cli.guests import declared, names_of
from nixherd.cli.host_rows import report_rows, rows_of, run_for
from nixherd.cli.parameters import VMID, commit_data, committing, data_option, dry_run_option, json_option
from nixherd.cli.run_pyinfra import own_error, run_deploys
from nixherd.fleet.load import load_fleet
from nixherd.fleet.models import DEFINITIONS, Fleet, GuestType, Vm
from nixherd.proxmox.guest.identity import label, mac_of, plain_address, require_may_change, why_not_ours
from nixherd.proxmox.guest.observe import find, interfaces_of

ENROLL, PROVISION, POST = (f"deploys/{name}.py" for name in ("enroll", "provision", "post_provision"))

_no_secrets = click.option(
    "--no-secrets", is_flag=True, help="It has secrets, and not by sops: you look after them. The same as secrets=none."
)


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...", type=HOST)
@dry_run_option
@_no_secrets
@data_option
@json_option
@pass_front
def provision(front: Front, /, names: Sequence[str], no_secrets: bool, data: Sequence[str]) -> int:
    """Make managed VMs out of nothing, and take them into service.

    Host key, secrets and hosts.nix first; then clone, configure, start, install, prove; then overview and protection.
    Steps that are done already are skipped, so the same command finishes a run that was killed.
    """
    guests = {(vm := _installable(front.fleet, name)).name: vm for name in names}
    return _run(front, (ENROLL, PROVISION, POST), [*guests.values()], _data(data, no_secrets=no_secrets))


@click.command()
@click.argument("hosts", nargs=-1, required=True, metavar="HOST|GROUP...")
@click.option("--rule", "rules", multiple=True, metavar="RULE", help="A rule that it joins as well; may be repeated.")
@click.option("--create", is_flag=True, help="Make the rules and files that are missing for what it declares.")
@_no_secrets
@committing
@pass_front
def enroll(
    front: Front,
    /,
    hosts: Sequence[str],
    rules: Sequence[str],
    create: bool,
    no_secrets: bool,
    commit: bool,
    message: str | None,
    data: Sequence[str],
) -> int:
    """Take machines into the fleet's trust, before they exist or after: key, age recipient, secret files, publicKey.

    All of a host or nothing, verified before any file is replaced; one commit.
    """
    given = [
        *commit_data(message, commit=commit),
        *([f"secrets_rules={json.dumps([*rules])}"] if rules else []),
        *(["secrets_create=true"] if create else []),
    ]
    told = [*given, *_data(data, no_secrets=no_secrets)]
    ended = run_for(front, [ENROLL], hosts, told, dry=front.dry_run)
    return report_rows(front, ended, {}, rows_of(ended, dry=front.dry_run))


@click.command("post-provision")
@click.argument("name", type=HOST)
@click.option("--ip", metavar="IP", help="Its address as you know it: refused unless the hypervisor confirms it.")
@click.option("--vmid", type=VMID, metavar="VMID", help="The VMID you take it to have: refused unless it has.")
@dry_run_option
@_no_secrets
@data_option
@json_option
@pass_front
def post_provision(
    front: Front, /, name: str, ip: str | None, vmid: int | None, no_secrets: bool, data: Sequence[str]
) -> int:
    """Take an installed VM into service: age recipient, secret files, publicKey, overview, readonly; one commit.

    Its identity and address are asked of the hypervisor and proven by the machine; options only confirm them.
    """
    vm = _declared(front.fleet, name, "post-provision")
    _compare(front, vm, ip, vmid)
    return _run(front, (POST,), [vm], _data(data, no_secrets=no_secrets))


def _data(data: Sequence[str], *, no_secrets: bool) -> Sequence[str]:
    return (*data, "secrets=none") if no_secrets else data


# Which guest


def _declared(fleet: Fleet, name: str, verb: str) -> Vm:
    """Find a declared guest that has a host. Usage or Refused, before anything is sent."""
    host = next((host for host in fleet.hosts.values() if name in (host.id, host.hostname, host.ssh_alias)), None)
    if host is not None and name.lower() not in names_of(fleet):
        what = f"{host.id} is a host of {fleet.file}, and no guest of {DEFINITIONS} is for it"
        entry = f'managed.{host.id} = {{ …; nixosConfig = "{host.id}"; }};'
        raise Usage(f"{what}; declare one ({entry}), or use `nixherd install` where SSH reaches the machine")
    vm = declared(fleet, name, verb)
    if vm.host_id not in fleet.hosts:
        raise Usage(f"{DEFINITIONS}: {vm.attribute} belongs to no host of {fleet.file}; add one")
    return vm


def _installable(fleet: Fleet, name: str) -> Vm:
    vm = _declared(fleet, name, "provision")
    if vm.is_managed and vm.type is not GuestType.QEMU:
        raise Refused(f"{vm.attribute} is a container (lxc); only virtual machines are provisioned by cloning")
    try:
        require_may_change(vm, "provision")
    except Refused as error:
        if not (vm.is_managed and vm.readonly):
            raise
        raise Refused(f"{error}; what an earlier run left to do: nixherd post-provision {vm.name}") from None
    return vm


def _compare(front: Front, vm: Vm, ip: str | None, vmid: int | None) -> None:
    """Refuse an address or a VMID that the definitions or the hypervisor do not confirm."""
    if vmid is not None and vmid != vm.vmid:
        raise Usage(f"--vmid {vmid}: {DEFINITIONS} declares {vm.attribute} as vm {vm.vmid}; correct one of them")
    address = plain_address(ip) if ip is not None else None
    if ip is not None and address is None:
        raise Usage(f"--ip {ip} is not an address; write one like 192.0.2.10, or leave it out")
    if ip is None and vmid is None:
        return
    seen = find(front.client, front.fleet, vm)
    if seen is None:
        raise FleetError(f"{label(vm)} does not exist on {front.fleet.node_of(vm)}; provision it first")
    node, config = seen
    if why := why_not_ours(front.fleet, vm, config, node):
        raise Refused(why)
    if address is None:
        return
    try:
        interfaces = interfaces_of(front.client, node, vm)
    except (AgentUnavailable, NoAgent) as error:
        raise FleetError(f"--ip {ip}: the address of {label(vm)} is not known: {error}; leave --ip out") from error
    mac = mac_of(config)
    addresses = [plain_address(each) for card in interfaces if mac and card.mac == mac for each in card.addresses]
    if address not in addresses:
        shown = [each for each in addresses if each and not ipaddress.ip_address(each).is_link_local]
        has = ", ".join(shown) or "no address yet"
        raise Usage(f"--ip {ip}: {label(vm)} on {node} is not there, its net0 ({mac or 'without a MAC'}) has {has}")


# The run and its result


def _run(front: Front, deploys: Sequence[str], guests: Sequence[Vm], data: Sequence[str]) -> int:
    """Run the deploys for these guests, in one run; report what was read back of each. Return the status."""
    goes_on = "what the hypervisor or a machine is doing goes on; the same command finishes it"
    dry, known = front.dry_run, {*map(str, front.fleet.warnings)}  # pyinfra reports them as well

    def narrate(line: str) -> None:
        if not dry and line not in known:  # a plan is the result, and shown once
            say(line, err=True)

    hosts = [str(vm.host_id) for vm in guests]
    ended = run_deploys(front, deploys, hosts, data, dry=dry, stream=narrate, meanwhile=goes_on)
    if not any(entry["event"] == "run" for entry in ended.entries) and not ended.interrupted:
        return ended.not_begun()
    rows = [_row(front.root, vm, ended.entries, deploys, ended.output, dry=dry) for vm in guests]
    status = ended.output.status
    if status == Exit.DONE and any(row["outcome"] == "failed" for row in rows):
        status = int(Exit.FAILED)
    document = {"fleet": str(front.root), "deploys": [*deploys], "dry": dry, "hosts": rows}
    return ended.report(status, document, lambda document: front.show(document, lines(document)))


def _row(
    root: Path, vm: Vm, entries: Iterable[Mapping[str, Any]], deploys: Sequence[str], output: Completed, *, dry: bool
) -> dict[str, Any]:
    """Judge what became of a guest, by the run's journal and by the fleet's files as they are now."""
    of_vm = [entry for entry in entries if entry.get("host") == vm.host_id]
    row: dict[str, Any] = {"host": vm.host_id, "name": vm.name, "vmid": vm.vmid}
    row["steps"] = [entry["text"] for entry in of_vm if entry["event"] == "step" and entry["planned"] is dry]

    def failed(why: str | None, status: int | None = Exit.FAILED) -> dict[str, Any]:
        return {**row, "outcome": "failed", "why": why, "exit": status}

    end = next((entry for entry in of_vm if entry["event"] == "end"), None)
    # in a run of several its status is that of the one that failed
    others = any(entry["event"] == "end" and entry.get("host") != vm.host_id for entry in entries)
    if end is not None:
        return failed(end.get("why"), end.get("exit"))
    if output.status and not others:
        return failed(own_error(output) or f"pyinfra ended with status {output.status}", output.status)
    if dry:
        return {**row, "outcome": "planned", "why": None, "exit": 0}
    verified = next((entry["verified"] for entry in of_vm if "verified" in entry), None)
    try:
        now = load_fleet(root)
    except FleetError as error:
        return failed(str(error))
    host, guest = now.hosts.get(str(vm.host_id)), now.vms.get(vm.name)
    row |= {"verified": verified, "readonly": guest.readonly if guest else None}
    row |= {"publicKey": host.public_key if host else None, "file": now.file}
    lacks = [] if row["publicKey"] else [f"{now.file} pins no key of {vm.host_id}"]
    shown = verified.get("host_key") if verified else None
    if shown and row["publicKey"] and not same_key(shown, row["publicKey"]):
        lacks.append(f"{now.file} pins another key of {vm.host_id} than the machine showed")
    lacks += [] if guest else [f"{DEFINITIONS} does not declare {vm.name} any more"]
    lacks += ["what runs there was not read back"] if PROVISION in deploys and verified is None else []
    return failed("; ".join(lacks)) if lacks else {**row, "outcome": "in service", "why": None, "exit": 0}


def lines(document: Mapping[str, Any]) -> Iterator[str | Line]:
    """Say what became of each guest, and how many came to what."""
    for row in document["hosts"]:
        label = f"{row['host']} (vm {row['vmid']})"
        if row["outcome"] == "failed":
            yield Line(f"{label}: ", "failed", f": {row['why']}")
        elif document["dry"]:
            yield from (f"{label}: would {step}" for step in row["steps"])
            if not row["steps"]:
                yield f"{label}: nothing to do"
        else:
            seen = row["verified"]
            runs = f"at {seen['address']} runs {seen['system']}; " if seen else ""
            protected = "readonly" if row["readonly"] else "not readonly"
            yield Line(f"{label}: ", "in service", f": {runs}{row['file']} pins its key; {protected}")
    counts = Counter(row["outcome"] for row in document["hosts"])
    number = f" (report {document['report']})" if document.get("report") else ""
    yield f"{', '.join(f'{count} {outcome}' for outcome, count in counts.items())}{number}"
