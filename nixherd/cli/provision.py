"""`nixherd provision` and `post-provision`: the workflow's deploys in one run, and what is read back after them."""

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from nixherd.cli.front import Front, pass_front
from nixherd.cli.guests import declared, names_of
from nixherd.cli.output import show_json, wants_json
from nixherd.cli.parameters import data_option, json_option
from nixherd.cli.run_pyinfra import LOG, PARALLEL, despite, keep_report, last_words, own_error, run_pyinfra
from nixherd.deploy.journal import Journal, entries, new_directory
from nixherd.errors import FleetError, Refused, Usage
from nixherd.exit_codes import Exit
from nixherd.files import write_whole
from nixherd.fleet.load import load_fleet
from nixherd.fleet.models import DEFINITIONS, Fleet, GuestType, Vm
from nixherd.process import Completed
from nixherd.proxmox.errors import AgentUnavailable, NoAgent
from nixherd.proxmox.guest.identity import label, mac_of, plain_address, require_may_change, why_not_ours
from nixherd.proxmox.guest.observe import find, interfaces_of
from nixherd.ssh.keys import same_key
from nixherd.terminal import say, say_text

ENROLL, PROVISION, POST = (f"deploys/{name}.py" for name in ("enroll", "provision", "post_provision"))
_dry_run = click.option("--dry-run", is_flag=True, help="Show the steps, do none.")


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@_dry_run
@data_option
@json_option
@pass_front
def provision(front: Front, /, names: Sequence[str], dry_run: bool, data: Sequence[str]) -> int:
    """Make managed VMs out of nothing, and take them into service.

    Host key, secrets and hosts.nix first; then clone, configure, start, install, prove; then overview and protection.
    What is done already is passed over, so a run that was killed is finished by the same command.
    """
    guests = {(vm := _installable(front.fleet, name)).name: vm for name in names}
    return _run(front, (ENROLL, PROVISION, POST), [*guests.values()], data, dry=dry_run)


@click.command("post-provision")
@click.argument("name")
@click.option("--ip", metavar="IP", help="Where you take it to be: refused unless the hypervisor says so, too.")
@click.option(
    "--vmid",
    type=click.IntRange(100, 999_999_999),
    metavar="VMID",
    help="The VMID you take it to have: refused unless it has.",
)
@_dry_run
@data_option
@json_option
@pass_front
def post_provision(
    front: Front, /, name: str, ip: str | None, vmid: int | None, dry_run: bool, data: Sequence[str]
) -> int:
    """Take an installed VM into service: age recipient, secret files, hosts.nix, overview, readonly; one commit.

    Nothing is taken from the command line: who it is and where is asked of the hypervisor and proven by the machine.
    """
    vm = _declared(front.fleet, name, "post-provision")
    _compare(front, vm, ip, vmid)
    return _run(front, (POST,), [vm], data, dry=dry_run)


# Who is meant


def _declared(fleet: Fleet, name: str, verb: str) -> Vm:
    """The guest that is meant, which has a host. Usage or Refused, in one line, before anything is asked or sent."""
    host = next((host for host in fleet.hosts.values() if name in (host.id, host.hostname, host.ssh_alias)), None)
    if host is not None and name.lower() not in names_of(fleet):
        raise Usage(
            f"{host.id} is a host of hosts.nix, and no guest of {DEFINITIONS} is for it; declare one "
            f'(managed.{host.id} = {{ …; nixosConfig = "{host.id}"; }};), or use deploys/install.py and '
            "deploys/post_provision.py, which take machines that SSH reaches"
        )
    vm = declared(fleet, name, verb)
    if vm.host_id not in fleet.hosts:
        raise Usage(f"{DEFINITIONS}: {vm.attribute} belongs to no host of hosts.nix; add one")
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
    """Refuse what is said of the VM where definitions or hypervisor say something else, or do not say."""
    if vmid is not None and vmid != vm.vmid:
        raise Usage(
            f"--vmid {vmid}: {DEFINITIONS} declares {vm.attribute} as vm {vm.vmid}; correct the one or the other"
        )
    wanted = plain_address(ip) if ip is not None else None
    if ip is not None and wanted is None:
        raise Usage(f"--ip {ip} is no address; write one like 192.0.2.10, or leave it out")
    if ip is None and vmid is None:
        return
    found = find(front.client, front.fleet, vm)
    if found is None:
        raise FleetError(f"{label(vm)} does not exist on {front.fleet.node_of(vm)}; provision it first")
    node, config = found
    if why := why_not_ours(front.fleet, vm, config, node):
        raise Refused(why)
    if wanted is None:
        return
    try:
        interfaces = interfaces_of(front.client, node, vm)
    except (AgentUnavailable, NoAgent) as error:
        raise FleetError(
            f"--ip {ip}: where {label(vm)} is, is not known, its agent does not tell: {error}; leave --ip out"
        ) from error
    mac = mac_of(config)
    there = [
        plain_address(each) for interface in interfaces if mac and interface.mac == mac for each in interface.addresses
    ]
    if wanted not in there:
        seen = ", ".join(_shown(there)) or "no address yet"
        raise Usage(f"--ip {ip}: {label(vm)} on {node} is not there, its net0 ({mac or 'without a MAC'}) has {seen}")


def _shown(addresses: Iterable[str | None]) -> list[str]:
    """The addresses that others could mean; those of the link alone say nothing."""
    return [each for each in addresses if each and not ipaddress.ip_address(each).is_link_local]


# The run, and what became of it


def _run(front: Front, deploys: Sequence[str], guests: Sequence[Vm], data: Sequence[str], *, dry: bool) -> int:
    """Run the deploys for these guests, in one run; report what was read back of each. The status."""
    directory = new_directory()
    Journal(directory).close()
    words = ["--dry" if dry else "-y", "--parallel", str(PARALLEL), "inventory.py", *deploys]
    words += [word for vm in guests for word in ("--limit", str(vm.host_id))]
    words += [word for pair in (f"journal={directory}", *data) for word in ("--data", pair)]
    goes_on = "what the hypervisor or a machine is doing goes on; the same command finishes it"
    known = {*map(str, front.fleet.warnings)}  # which pyinfra, too, says

    def narrate(line: str) -> None:
        if not dry and line not in known:  # a plan is the result, and said once
            say(line, err=True)

    done, interrupted = run_pyinfra(front, words, directory, stream=narrate, meanwhile=goes_on)
    noted = entries(directory)
    if not any(entry["event"] == "run" for entry in noted) and not interrupted:  # it never began
        say_text(last_words(done, directory / LOG), err=True)
        despite(lambda: write_whole(directory / LOG, done.stdout + done.stderr), str(directory))
        return done.status or int(Exit.FAILED)
    rows = [_row(front.root, vm, noted, deploys, done, dry=dry) for vm in guests]
    status = Exit.INTERRUPTED if interrupted else done.status
    if status == Exit.DONE and any(row["outcome"] == "failed" for row in rows):
        status = Exit.FAILED
    about = {"exit": int(status), "interrupted": interrupted, "pyinfra": done.status}
    document = {"fleet": str(front.root), "deploys": [*deploys], "dry": dry, "hosts": rows, **about}
    keep_report(directory, about, document, done.stdout + done.stderr)
    is_said = despite(lambda: _show(front, document), "stdout")
    return int(status or (Exit.DONE if is_said else Exit.FAILED))


def _row(
    root: Path, vm: Vm, noted: Iterable[Mapping[str, Any]], deploys: Sequence[str], done: Completed, *, dry: bool
) -> dict[str, Any]:
    """What became of a guest: by the run's journal, and by the fleet's files as they are now."""
    own = [entry for entry in noted if entry.get("host") == vm.host_id]
    row: dict[str, Any] = {"host": vm.host_id, "name": vm.name, "vmid": vm.vmid}
    row["steps"] = [entry["text"] for entry in own if entry["event"] == "step" and entry["planned"] is dry]
    end = next((entry for entry in own if entry["event"] == "end"), None)
    # a run of several: where one has failed its status says nothing of the others
    others = any(entry["event"] == "end" and entry.get("host") != vm.host_id for entry in noted)
    if end is not None:
        return {**row, "outcome": "failed", "why": end.get("why"), "exit": end.get("exit")}
    if done.status and not others:
        why = own_error(done) or f"pyinfra ended with status {done.status}"
        return {**row, "outcome": "failed", "why": why, "exit": done.status}
    if dry:
        return {**row, "outcome": "planned", "why": None, "exit": 0}
    verified = next((entry["verified"] for entry in own if "verified" in entry), None)
    try:
        now = load_fleet(root)
    except FleetError as error:
        return {**row, "outcome": "failed", "why": str(error), "exit": int(Exit.FAILED)}
    host, guest = now.hosts.get(str(vm.host_id)), now.vms.get(vm.name)
    row |= {"verified": verified, "readonly": guest.readonly if guest else None}
    row["publicKey"] = host.public_key if host else None
    lacks = [] if row["publicKey"] else [f"hosts.nix pins no key of {vm.host_id}"]
    shown = verified.get("host_key") if verified else None
    if shown and row["publicKey"] and not same_key(shown, row["publicKey"]):
        lacks.append(f"hosts.nix pins another key of {vm.host_id} than the machine showed")
    lacks += ["what runs there was not read back"] if PROVISION in deploys and verified is None else []
    if lacks:
        return {**row, "outcome": "failed", "why": "; ".join(lacks), "exit": int(Exit.FAILED)}
    return {**row, "outcome": "in service", "why": None, "exit": 0}


def _show(front: Front, document: Mapping[str, Any]) -> None:
    if wants_json(front.as_json):
        show_json(document)
        return
    for row in document["hosts"]:
        who = f"{row['host']} (vm {row['vmid']})"
        if row["outcome"] == "failed":
            say(f"{who}: failed: {row['why']}")
            continue
        if document["dry"]:
            for step in row["steps"] or ["nothing to do"]:
                say(f"{who}: would {step}" if row["steps"] else f"{who}: {step}")
            continue
        seen = row["verified"]
        runs = f"at {seen['address']} runs {seen['system']}; " if seen else ""
        protected = "readonly" if row["readonly"] else "not readonly"
        say(f"{who}: in service: {runs}hosts.nix pins its key; {protected}")
