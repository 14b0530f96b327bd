"""`nixherd retire`: a host leaves the fleet, its guest and its trust with it."""

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import click

from nixherd.cli.front import CHECKOUT, Front, pass_front
from nixherd.cli.output import progress, show_json, wants_json
from nixherd.cli.parameters import changing as changing_options
from nixherd.cli.parameters import commit_option, identity_option, standing
from nixherd.deploy import duties
from nixherd.errors import FAILURES, FleetError, Refused, Usage
from nixherd.faults import worded
from nixherd.fleet import signatures
from nixherd.fleet.changeset import Changeset, Done, changing, interrupted
from nixherd.fleet.load import load_fleet
from nixherd.fleet.models import Fleet, Host
from nixherd.names import HOST_ID, is_a
from nixherd.proxmox.guest.destroy import DestroyGuest
from nixherd.proxmox.guest.identity import label
from nixherd.proxmox.guest.retiring import Fate, Parting, partings
from nixherd.terminal import is_terminal, say
from nixherd.trust.enrol import Wanted, is_named_after, stage, swap_in
from nixherd.trust.rehearsal import require_evaluates
from nixherd.trust.retire import Retirement, plan
from nixherd.trust.secrets.rules import CONFIG
from nixherd.trust.secrets.sops import identity_file, operator
from nixherd.trust.secrets.store import Store, recipients_of_hosts

_SHOWN = 20  # mentions


@dataclass(frozen=True)
class Asked:
    """How it is to be done."""

    keep_vm: bool
    destroy: DestroyGuest | None
    remove_secrets: bool
    identity: str | None
    secrets: str
    docs: str
    template: str | None
    commit: bool
    yes: bool


@dataclass
class Told:
    """What there is to say of it."""

    retirement: Retirement
    guests: list[Parting]
    warnings: list[str] = field(default_factory=list)

    @property
    def steps(self) -> list[str]:
        return [*(step for each in self.guests for step in each.steps), *self.retirement.wanted.steps]


@click.command()
@click.argument("name")
@click.option(
    "--destroy",
    "vmid",
    type=click.IntRange(100, 999_999_999),
    metavar="VMID",
    help="Destroy its guest, after a backup.",
)
@click.option("--keep-vm", is_flag=True, help="Leave its guest on the hypervisor, which is not asked at all.")
@click.option("--stop", is_flag=True, help="Destroy the guest also when it runs.")
@click.option("--no-backup", is_flag=True, help="Make no backup of the guest: all of it is given up.")
@click.option(
    "--discard", multiple=True, metavar="NAME", help="What may go although no backup holds it: scsi1, unused0."
)
@click.option("--storage", metavar="NAME", help="Where the backup goes.")
@click.option("--purge", is_flag=True, help="Also from backup jobs, replication and HA.")
@click.option("--remove-secrets", is_flag=True, help="Also rules and secret files that no other machine uses.")
@identity_option
@click.option(
    "--secrets",
    metavar="DIR",
    callback=standing("secrets_directory", "secrets"),
    help="Where .sops.yaml is; else group data's secrets_directory, else secrets.",
)
@click.option(
    "--docs-file",
    metavar="FILE",
    callback=standing("docs_file", "docs/machines.md"),
    help="The overview; else group data's docs_file, else docs/machines.md.",
)
@click.option(
    "--docs-template", metavar="FILE", callback=standing("docs_template"), help="A template of your own for it."
)
@commit_option
@click.option("--yes", is_flag=True, help="Do not ask; there must have been a look at the plan.")
@changing_options
@pass_front
def retire(front: Front, /, name: str, vmid: int | None, keep_vm: bool, **options: Any) -> None:
    """Take host NAME out of the fleet: its guest, its access to secrets, and every file that is its alone; one commit.

    All of it is planned, evaluated without the host and encrypted anew before anything is done. A run that was killed
    is finished by running it again.
    """
    if vmid is not None and keep_vm:
        raise click.UsageError("--destroy and --keep-vm exclude each other")
    _run(front, name, _asked(vmid, keep_vm=keep_vm, **options))


def _asked(
    vmid: int | None,
    *,
    keep_vm: bool,
    stop: bool,
    no_backup: bool,
    discard: tuple[str, ...],
    storage: str | None,
    purge: bool,
    secrets: str,
    docs_file: str,
    docs_template: str | None,
    **rest: Any,
) -> Asked:
    if vmid is None and (stop or no_backup or discard or storage or purge):
        raise click.UsageError("--stop, --no-backup, --discard, --storage and --purge belong to --destroy VMID")
    how = {"stop": stop, "backup": not no_backup, "storage": storage, "purge": purge, "discard": discard}
    destroy = DestroyGuest(vm="", vmid=vmid, **how) if vmid is not None else None  # type: ignore[arg-type]
    return Asked(keep_vm=keep_vm, destroy=destroy, secrets=secrets, docs=docs_file, template=docs_template, **rest)


def _run(front: Front, name: str, asked: Asked) -> None:
    if front.dry_run and interrupted(front.root):
        raise FleetError(f"{front.root}: a run was killed while it published its changes; run one without --dry-run")
    with changing(front.root) as changeset:
        with progress(name) as told:
            if not front.dry_run:
                front.wrote = changeset.resume(told) is not None
            host = _host(front.fleet, name)
            if host is None:
                _retired_before(front, changeset, name, asked)
                return
            if not front.dry_run:
                front.run.claim(host.id)
            found = _planned(front, changeset, host, asked, told)
        _show_plan(front, found)
        if front.dry_run:
            _report(front, found, None)
            return
        _confirm(host, yes=asked.yes)
        found.guests = [_part(front, each) for each in found.guests]
        with progress(host.id) as told:
            done = _publish(front, changeset, found, asked, told)
    front.wrote = True
    _forget(front, host.id)
    _read_back(front, found, asked)
    _report(front, found, done)


def _host(fleet: Fleet, name: str) -> Host | None:
    """By its id, else by its hostname or alias. Usage when several are called so."""
    if name in fleet.hosts:
        return fleet.hosts[name]
    called = [
        host for host in fleet.hosts.values() if name.lower() in (host.hostname.lower(), (host.ssh_alias or "").lower())
    ]
    if len(called) > 1:
        raise Usage(
            f"{name}: {' and '.join(host.id for host in called)} are called so in hosts.nix; name one by its id"
        )
    return called[0] if called else None


def _retired_before(front: Front, changeset: Changeset, name: str, asked: Asked) -> None:
    """Nothing is left to do where the history says that this was done, and it is so. Usage where it does not."""
    commit = _commit_of(changeset, name)
    if commit is None:
        near = get_close_matches(name, front.fleet.hosts, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(front.fleet.hosts)) or 'none'}"
        raise Usage(f"{name}: no host of hosts.nix; {hint}")
    _require_nothing_left(front, name, asked, commit[:7])
    if not front.dry_run:
        _forget(front, name)
    if wants_json(front.as_json):
        show_json({"host": name, "steps": [], "changed": front.wrote, "commit": commit[:7]})
    else:
        say(f"{name} is no host of hosts.nix; it was retired by commit {commit[:7]}")


def _require_nothing_left(front: Front, name: str, asked: Asked, commit: str) -> None:
    """FleetError where something of a host that was retired is there, or nobody knows whether it is."""
    left = [f"vms/definitions.nix: {vm.attribute}" for vm in front.fleet.vms.values() if name in (vm.name, vm.host_id)]
    store = _store(front, asked)
    if store is not None and name in store.rules.names.values():
        left.append(f"{store.config}: {name} is a recipient")
    if left:
        raise FleetError(f"{name} was retired by commit {commit}, and is there again: {', '.join(left)}")
    if store is not None and asked.remove_secrets:
        machines = recipients_of_hosts(front.fleet)
        own = [
            rule
            for rule in store.rules.rules
            if is_named_after(rule, name) and not machines.keys() & set(rule.recipients)
        ]
        if own:
            raise FleetError(
                f"{name} was retired by commit {commit}, and {', '.join(rule.label for rule in own)} stayed in "
                f"{store.config}; take what is its alone out by hand, with its files"
            )
    if asked.destroy is None:
        return
    what = f"VMID {asked.destroy.vmid}"
    try:
        row = next((row for row in front.client.resources() if row.vmid == asked.destroy.vmid), None)
        is_there = row is not None or not front.client.is_free(asked.destroy.vmid)
    except FAILURES as error:
        failure = worded(error, f"looking for {what}")
        failure.args = (f"{name} was retired by commit {commit}; whether {what} is there is not known: {failure}",)
        raise failure from error
    if is_there:
        called = f" ({row.name})" if row and row.name else ""
        raise Refused(
            f"{name} was retired by commit {commit}; {what} is there{called}, and no definition is of it, so it is not "
            "destroyed; declare it under managed again, or remove it by hand"
        )


def _store(front: Front, asked: Asked) -> Store | None:
    """None where no `.sops.yaml` is in the secrets' directory."""
    return Store.load(front.root, asked.secrets) if os.path.lexists(front.root / asked.secrets / CONFIG) else None


def _commit_of(changeset: Changeset, name: str) -> str | None:
    if changeset.repository is None:
        return None
    subject = _subject(name)
    ids = changeset.repository.reachable("--max-count=50", "--fixed-strings", f"--grep={subject}", "HEAD")
    found = changeset.repository.contents(ids)
    return next((id for id in ids if id in found and signatures.parse(id, found[id]).subject == subject), None)


def _subject(host_id: str) -> str:
    return f"fleet: {host_id} retires"


# Planning


def _planned(front: Front, changeset: Changeset, host: Host, asked: Asked, told: Any) -> Told:
    """All that will be done, verified. Nothing is changed but what is staged."""
    fleet = front.fleet
    wanted = Wanted(fleet, _store(front, asked))
    retirement = plan(
        wanted,
        host.id,
        changeset.repository,
        remove_secrets=asked.remove_secrets,
        docs=asked.docs,
        template=asked.template,
        beside=sorted((CHECKOUT / "group_data").glob("*.py")),
    )
    told(f"look for the guest of {host.id}")
    guests = partings(lambda: front.client, fleet, retirement.guests, asked.destroy, keep=asked.keep_vm)
    if asked.destroy and not guests:
        raise Usage(f"--destroy {asked.destroy.vmid}: {host.id} has no guest in vms/definitions.nix; leave it out")
    path = identity_file(asked.identity)
    stage(
        changeset,
        retirement.wanted,
        sops=lambda: operator(front.run, path),
        rotate=True,
        commit=asked.commit,
        say=told,
    )
    told(f"evaluate the fleet without {host.id}")
    wrong = require_evaluates(
        front.evaluator,
        retirement.wanted.files,
        changeset.repository,
        changeset.scratch,
    )
    return Told(retirement, guests, [*duties.of(front.evaluator, front.fleet, host, retirement.guests), *wrong])


def _show_plan(front: Front, found: Told) -> None:
    """What a person decides by: a result for people, beside the result where that is JSON."""
    beside, host_id = wants_json(front.as_json), found.retirement.host.id

    def line(text: object) -> None:
        say(f"{host_id}: {text}", err=beside)

    for step in found.steps:
        line(f"would {step}")
    for each in found.guests:
        if each.fate is not Fate.DESTROYED:
            line(each)
    for rule in found.retirement.own:
        if not rule.goes:
            line(f"{rule}, stays; --remove-secrets has it go")
    for text in found.retirement.stays:
        line(text)
    for text in found.warnings:
        line(f"warning: {text}")
    for mention in found.retirement.mentions[:_SHOWN]:
        line(f"still named in {mention}")
    if (more := len(found.retirement.mentions) - _SHOWN) > 0:
        line(f"still named in {more} lines more")


def _confirm(host: Host, *, yes: bool) -> None:
    if yes:
        return
    if not is_terminal(sys.stdin):
        raise Usage(f"{host.id} was not retired: without a terminal to ask on, say --yes")
    if not click.confirm(f"Retire {host.id} like that?", err=True):
        raise Usage(f"{host.id} was not retired; nothing was changed")


# Doing


def _part(front: Front, guest: Parting) -> Parting:
    if guest.action is None:
        return guest
    with progress(label(guest.vm)) as told:
        return guest.run(front.client, front.fleet, front.timeout, told)


def _publish(front: Front, changeset: Changeset, found: Told, asked: Asked, told: Any) -> Done:
    wanted = found.retirement.wanted
    text = "\n".join([_subject(found.retirement.host.id), "", *(f"- {step}" for step in wanted.steps)])
    try:
        return swap_in(changeset, wanted, text, commit=asked.commit, say=told)
    except FAILURES as error:
        failure = worded(error, f"{front.root}: publishing changes")
        if gone := [str(each) for each in found.guests if each.fate is Fate.DESTROYED]:
            failure.args = (f"{failure}; before that, {'; '.join(gone)}: run it again", *failure.args[1:])
        raise failure from error


def _forget(front: Front, host_id: str) -> None:
    """Remove what is kept of the host here between runs, its private key first."""
    if not is_a(HOST_ID, host_id):
        return
    kept = front.run.state_of(host_id).directory
    (kept / "ssh_host_ed25519_key").unlink(missing_ok=True)
    shutil.rmtree(kept, ignore_errors=True)


def _read_back(front: Front, found: Told, asked: Asked) -> None:
    """FleetError unless the fleet's files are without the host now."""
    host, now = found.retirement.host, load_fleet(front.root)
    left = [f"hosts.nix: {host.id}"] if host.id in now.hosts else []
    left += [f"vms/definitions.nix: {vm.attribute}" for vm in found.retirement.guests if vm.name in now.vms]
    if found.retirement.wanted.store is not None:
        store = Store.load(front.root, asked.secrets)
        gone = {key for rekey in found.retirement.wanted.rekeys for key in rekey.removed}
        left += [
            store.path(file.path) for file in store.files if file.encrypted and gone & set(file.encrypted.recipients)
        ]
    if left:
        raise FleetError(f"{host.id} is still there although it was retired: {', '.join(left)}; look at it by hand")


def _report(front: Front, found: Told, done: Done | None) -> None:
    retirement, host_id = found.retirement, found.retirement.host.id
    if wants_json(front.as_json):
        show_json(_document(found, done))
        return
    if done is None:
        return
    for guest in found.guests:
        for text in (*guest.steps, guest):
            say(f"{host_id}: {text}")
    rotated = len(retirement.wanted.rekeys)
    say(f"{host_id}: hosts.nix and the definitions are without it; {rotated} secret files have new data keys")
    if retirement.known:
        say(f"{host_id}: it knew what is in {', '.join(retirement.known)}: change the secrets themselves")
    if done.commit:
        say(f"{host_id}: commit {done.commit}: {len(done.paths)} files")


def _document(found: Told, done: Done | None) -> dict[str, Any]:
    retirement = found.retirement
    guests: Sequence[dict[str, Any]] = [
        {"name": each.vm.name, "vmid": each.vm.vmid, "fate": each.fate, "backups": each.backups}
        for each in found.guests
    ]
    about: dict[str, Any] = {"host": retirement.host.id, "guests": guests, "steps": found.steps}
    about |= {"known": retirement.known, "stays": retirement.stays, "warnings": found.warnings}
    about["rules"] = [{"rule": each.label, "files": each.files, "goes": each.goes} for each in retirement.own]
    about["mentions"] = [str(each) for each in retirement.mentions]
    if done is None:
        return {**about, "planned": True}
    return {**about, "changed": bool(done.paths), "files": done.paths, "commit": done.commit}
