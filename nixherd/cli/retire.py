"""`nixherd retire`: take a host out of the fleet, with its guest and its access to secrets."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial
from typing import Any

import click

from nixherd.base.errors import FAILURES, FleetError, Refused, Usage
from nixherd.base.names import HOST_ID, is_a, many
from nixherd.base.terminal import say, worded
from nixherd.cli.completion import HOST
from nixherd.cli.front import Front, pass_front
from nixherd.cli.machines import forget_ways
from nixherd.cli.output import Say, narrate, progress
from nixherd.cli.parameters import (
    VMID,
    commit_option,
    edit_generated_option,
    give_up_option,
    identity_option,
    standing,
)
from nixherd.cli.parameters import changing as changing_options
from nixherd.fleet import signatures
from nixherd.fleet.changeset import Changeset, Done, changing, interrupted
from nixherd.fleet.models import DEFINITIONS, Fleet, Host
from nixherd.fleet.place import operators_data
from nixherd.proxmox.guest.adopt import Fate, Parting, partings
from nixherd.proxmox.guest.destroy import DestroyGuest
from nixherd.proxmox.guest.identity import label
from nixherd.trust import retire as retiring
from nixherd.trust.enrol import Wanted, stage, swap_in
from nixherd.trust.recipients import keys_of
from nixherd.trust.rehearsal import duties_of, require_evaluates
from nixherd.trust.retire import Retirement
from nixherd.trust.secrets.people import recipients_of_hosts
from nixherd.trust.secrets.sops import operator
from nixherd.trust.secrets.store import Secrets

_SHOWN = 20  # mentions


@dataclass(frozen=True)
class Options:
    """The options' values."""

    keep_vm: bool
    destroy: DestroyGuest | None
    remove_secrets: bool
    edit_generated: bool
    identity: str | None
    give_up: bool
    secrets: str | None
    docs_file: str
    docs_template: str | None
    commit: bool


@dataclass
class Plan:
    """What is to be done, then what was done; `warnings` of hosts that stay."""

    retirement: Retirement
    guests: list[Parting]
    warnings: list[str] = field(default_factory=list)

    @property
    def host(self) -> Host:
        return self.retirement.host

    @property
    def steps(self) -> list[str]:
        return [*(step for each in self.guests for step in each.steps), *self.retirement.change.steps]


@click.command()
@click.argument("name", type=HOST)
@click.option("--destroy", "vmid", type=VMID, metavar="VMID", help="Destroy its guest, after a backup.")
@click.option("--keep-vm", is_flag=True, help="Leave its guest on the hypervisor, which is not asked at all.")
@click.option("--stop", is_flag=True, help="Destroy the guest also when it runs.")
@click.option("--no-backup", is_flag=True, help="Make no backup of the guest: all of it is given up.")
@click.option("--discard", multiple=True, metavar="NAME", help="What may go although no backup holds it: scsi1.")
@click.option("--storage", metavar="NAME", help="Where the backup goes.")
@click.option("--purge", is_flag=True, help="Also from backup jobs, replication and HA.")
@click.option("--remove-secrets", is_flag=True, help="Also rules and secret files that no other machine uses.")
@edit_generated_option
@identity_option
@give_up_option
@standing("--secrets", "secrets_directory", None, "Only the secrets of the .sops.yaml there", metavar="DIR")
@standing("--docs-file", "docs_file", "docs/machines.md", "The overview", metavar="FILE")
@standing("--docs-template", "docs_template", None, "A template of your own for it", metavar="FILE")
@commit_option
@changing_options
@pass_front
def retire(front: Front, /, name: str, vmid: int | None, no_backup: bool, **options: Any) -> None:
    """Take host NAME out of the fleet: its guest, its access to secrets, and every file that is its alone; one commit.

    All of it is planned, evaluated without the host and encrypted anew before anything is done. A run that was killed
    is finished by running it again.
    """
    how = {each: options.pop(each) for each in ("stop", "discard", "storage", "purge")}
    if vmid is not None and options["keep_vm"]:
        raise click.UsageError("--destroy and --keep-vm exclude each other")
    if vmid is None and (no_backup or any(how.values())):
        raise click.UsageError("--stop, --no-backup, --discard, --storage and --purge belong to --destroy VMID")
    destroy = None if vmid is None else DestroyGuest("", vmid, backup=not no_backup, **how)
    _run(front, name, Options(destroy=destroy, **options))


def _run(front: Front, name: str, options: Options) -> None:
    if front.dry_run and interrupted(front.root):
        raise FleetError(f"{front.root}: a run was killed while it published its changes; run one without --dry-run")
    with front.recording(name) as recording, changing(front.root, recording.begin) as changeset:
        with progress(name) as tell:
            if not front.dry_run:
                front.wrote = changeset.resume(tell) is not None
            host = _host(front.fleet, name)
            if host is None:
                _retired_before(front, changeset, name, options)
                return
            if not front.dry_run:
                front.run.claim(host.id)
            plan = _planned(front, changeset, host, options, tell)
        _show_plan(front, plan, options)
        if front.dry_run:
            front.show(_document(plan, None))
            return
        front.confirm(f"Retire {host.id} like that?", f"{host.id} was not retired")
        recording.begin()
        plan.guests = [_destroyed(front, each) for each in plan.guests]
        with progress(host.id) as tell:
            done = _publish(front, changeset, plan, options, tell)
    front.wrote = True
    _forget(front, host.id)
    _read_back(front, plan, options)
    front.show(_document(plan, done), _lines(plan, done))
    if not front.wants_json:
        narrate(done.notes)


def _host(fleet: Fleet, name: str) -> Host | None:
    """Find a host by its id, else by its hostname or alias. Usage when several have the name."""
    if name in fleet.hosts:
        return fleet.hosts[name]
    names = {host.id: (host.hostname.lower(), (host.ssh_alias or "").lower()) for host in fleet.hosts.values()}
    ids = [host_id for host_id, each in names.items() if name.lower() in each]
    if len(ids) > 1:
        raise Usage(f"{name}: {' and '.join(ids)} have this name in {fleet.file}; name one by its id")
    return fleet.hosts[ids[0]] if ids else None


def _retired_before(front: Front, changeset: Changeset, name: str, options: Options) -> None:
    """Say that nothing is left to do, where a commit retired the host. Usage where none did."""
    commit = _commit_of(changeset, name)
    if commit is None:
        near = get_close_matches(name, front.fleet.hosts, n=1)
        hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(sorted(front.fleet.hosts)) or 'none'}"
        raise Usage(f"{front.fleet.file} has no host {name}; {hint}")
    _require_nothing_left(front, name, options, commit[:7])
    if not front.dry_run:
        _forget(front, name)
    document = {"host": name, "steps": [], "changed": front.wrote, "commit": commit[:7]}
    front.show(document, [f"{front.fleet.file} has no host {name}; commit {commit[:7]} retired it"])


def _require_nothing_left(front: Front, name: str, options: Options, commit: str) -> None:
    """FleetError where something of a retired host is left, or may be."""
    left = [f"{DEFINITIONS}: {vm.attribute}" for vm in front.fleet.vms.values() if name in (vm.name, vm.host_id)]
    now = Wanted(front.fleet, Secrets.load(front.root, options.secrets))
    stores = now.secrets.stores
    left += [f"{store.config}: {name} is a recipient" for store in stores if keys_of(now, store, name)]
    if left:
        raise FleetError(f"{name} was retired by commit {commit}, and is there again: {', '.join(left)}")
    machines = recipients_of_hosts(front.fleet)
    for store in stores if options.remove_secrets else ():
        named = [rule for rule in store.rules.rules if rule.is_named_after(name)]
        labels = [rule.label for rule in named if not machines.keys() & set(rule.recipients)]
        if labels:
            stayed = f"{', '.join(labels)} stayed in {store.config}"
            raise FleetError(f"{name} was retired by commit {commit}, and {stayed}; remove it by hand, with its files")
    if options.destroy is None:
        return
    vmid = options.destroy.vmid
    what = f"VMID {vmid}"
    try:
        row = next((row for row in front.client.resources() if row.vmid == vmid), None)
        is_there = row is not None or not front.client.is_free(vmid)
    except FAILURES as error:
        failure = worded(error, f"looking for {what}")
        failure.args = (f"{name} was retired by commit {commit}; whether {what} is there is not known: {failure}",)
        raise failure from error
    if is_there:
        seen = f"{what}{f' ({row.name})' if row and row.name else ''} is there, and no definition declares it"
        raise Refused(f"{name} was retired by commit {commit}; {seen}; declare it under managed, or remove it by hand")


def _commit_of(changeset: Changeset, name: str) -> str | None:
    if changeset.repository is None:
        return None
    subject = _subject(name)
    ids = changeset.repository.reachable("--max-count=50", "--fixed-strings", f"--grep={subject}", "HEAD")
    texts = changeset.repository.contents(ids)
    return next((id for id in ids if id in texts and signatures.parse(id, texts[id]).subject == subject), None)


def _subject(host_id: str) -> str:
    return f"fleet: {host_id} retires"


# Planning


def _planned(front: Front, changeset: Changeset, host: Host, options: Options, tell: Say) -> Plan:
    """Plan, stage and verify all that will be done; nothing else is changed."""
    fleet = front.fleet
    retirement = retiring.plan(
        Wanted(fleet, Secrets.load(front.root, options.secrets, edit_generated=options.edit_generated)),
        host.id,
        changeset.repository,
        remove_secrets=options.remove_secrets,
        declared=partial(front.declared, without=[host.id]),
        docs=options.docs_file,
        template=options.docs_template,
        beside=[file for each in operators_data(front.root) for file in sorted(each.glob("*.py"))],
    )
    tell(f"look for the guest of {host.id}")
    guests = partings(lambda: front.client, fleet, retirement.guests, options.destroy, keep=options.keep_vm)
    if options.destroy and not guests:
        raise Usage(f"--destroy {options.destroy.vmid}: {host.id} has no guest in {DEFINITIONS}; leave it out")
    sops = partial(operator, front.run, options.identity)
    stage(
        changeset,
        retirement.change,
        sops=sops,
        rotate=True,
        give_up=options.give_up,
        commit=options.commit,
        say=tell,
    )
    tell(f"evaluate the fleet without {host.id}")
    wrong = require_evaluates(front.evaluator, retirement.change.files, changeset.repository, changeset.scratch)
    return Plan(retirement, guests, [*duties_of(front.evaluator, front.fleet, host, retirement.guests), *wrong])


def _show_plan(front: Front, plan: Plan, options: Options) -> None:
    """Show what a person decides by: on stdout, or on stderr where the result is JSON."""
    label, is_beside, retirement = plan.host.id, front.wants_json, plan.retirement
    lines: list[object] = [f"would {step}" for step in plan.steps]
    lines += [each for each in plan.guests if each.fate is not Fate.DESTROYED]
    if not options.remove_secrets:
        lines += [f"{rule}, stays; --remove-secrets has it go" for rule in retirement.rules]
    lines += [*retirement.stays, *(f"warning: {text}" for text in plan.warnings)]
    lines += [f"still named in {mention}" for mention in retirement.mentions[:_SHOWN]]
    if (more := len(retirement.mentions) - _SHOWN) > 0:
        lines.append(f"still named in {more} lines more")
    for line in lines:
        say(f"{label}: {line}", err=is_beside)


# Doing


def _destroyed(front: Front, guest: Parting) -> Parting:
    if guest.action is None:
        return guest
    with progress(label(guest.vm)) as tell:
        return guest.run(front.client, front.fleet, front.timeout, tell)


def _publish(front: Front, changeset: Changeset, plan: Plan, options: Options, tell: Say) -> Done:
    change = plan.retirement.change
    text = "\n".join([_subject(plan.host.id), "", *(f"- {step}" for step in change.steps)])
    try:
        return swap_in(changeset, change, text, commit=options.commit, say=tell)
    except FAILURES as error:
        failure = worded(error, f"{front.root}: publishing changes")
        if gone := [str(each) for each in plan.guests if each.fate is Fate.DESTROYED]:
            failure.args = (f"{failure}; before that, {'; '.join(gone)}: run it again", *failure.args[1:])
        raise failure from error


def _forget(front: Front, host_id: str) -> None:
    """Remove what is kept of the host on this machine between runs, its private key first."""
    if not is_a(HOST_ID, host_id):
        return
    front.keys.forget(host_id)
    shutil.rmtree(front.run.state_of(host_id).directory, ignore_errors=True)
    forget_ways(front, host_id)


def _read_back(front: Front, plan: Plan, options: Options) -> None:
    """FleetError unless the fleet's files are without the host now."""
    host, retirement, now = plan.host, plan.retirement, front.read_back(f"{plan.host.id} was retired")
    left = [f"{now.file}: {host.id}"] if host.id in now.hosts else []
    left += [f"{DEFINITIONS}: {vm.attribute}" for vm in retirement.guests if vm.name in now.vms]
    gone = {key for rekey in retirement.change.rekeys for key in rekey.removed}
    if gone:
        encrypted = Secrets.load(front.root, options.secrets).encrypted
        left += [path for path, each in encrypted.items() if gone & set(each.recipients)]
    if left:
        raise FleetError(f"{host.id} was retired, but is still in {', '.join(left)}; correct that by hand")


def _lines(plan: Plan, done: Done) -> Iterator[str]:
    retirement, label = plan.retirement, plan.host.id
    for guest in plan.guests:
        yield from (f"{label}: {text}" for text in (*guest.steps, guest))
    rotated = len(retirement.change.rekeys)
    keys = f"; {many(rotated, 'secret file')} {'has a new data key' if rotated == 1 else 'have new data keys'}"
    yield f"{label}: the fleet and the definitions are without it{keys if rotated else ''}"
    if retirement.known:
        yield f"{label}: it knew what is in {', '.join(retirement.known)}: change the secrets themselves"
    if done.commit:
        yield f"{label}: commit {done.commit}: {many(len(done.paths), 'file')}"


def _document(plan: Plan, done: Done | None) -> dict[str, Any]:
    retirement = plan.retirement
    guests = [
        {"name": each.vm.name, "vmid": each.vm.vmid, "fate": each.fate, "backups": each.backups} for each in plan.guests
    ]
    document: dict[str, Any] = {"host": plan.host.id, "guests": guests, "steps": plan.steps}
    document |= {"known": retirement.known, "stays": retirement.stays, "warnings": plan.warnings}
    document["rules"] = [{"rule": each.label, "files": each.files, "goes": each.goes} for each in retirement.rules]
    document["mentions"] = [str(each) for each in retirement.mentions]
    if done is None:
        return {**document, "planned": True}
    return {**document, "changed": bool(done.paths), "files": done.paths, "commit": done.commit, "notes": done.notes}
