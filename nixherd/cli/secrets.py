"""`nixherd secrets`: who may read which secret file, who can, and how to make the two agree."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any

import click

from nixherd.base.errors import Exit, FleetError, Usage
from nixherd.base.names import many
from nixherd.base.terminal import say
from nixherd.cli.completion import SECRET_FILE
from nixherd.cli.front import Front, pass_front
from nixherd.cli.help import Group
from nixherd.cli.output import narrate, progress, show_json, show_rows
from nixherd.cli.parameters import (
    commit_option,
    dry_run_option,
    edit_generated_option,
    give_up_option,
    identity_option,
    json_option,
    message_option,
    standing,
    together,
)
from nixherd.cli.secrets_edit import edit as edit_file
from nixherd.cli.secrets_init import people_of
from nixherd.cli.secrets_rows import files_of, for_people, hosts_of, others_of
from nixherd.fleet.changeset import Done, changing, interrupted
from nixherd.fleet.git import Repository
from nixherd.trust.enrol import Wanted, publish
from nixherd.trust.findings import findings_of
from nixherd.trust.joining import Admission
from nixherd.trust.leaving import OwnRule, leave
from nixherd.trust.recipients import as_ruled, trusted
from nixherd.trust.secrets.identities import Operator
from nixherd.trust.secrets.keeping import refusal, require_possible
from nixherd.trust.secrets.places import Layout, chosen_place, from_fleet
from nixherd.trust.secrets.rules import CONFIG
from nixherd.trust.secrets.sops import AsOperator
from nixherd.trust.secrets.store import Secrets
from nixherd.trust.starting import Start, started, unknown, unreadable

Change = Callable[[Wanted], Wanted]
_ALL_RIGHT = "nothing to do: every file is encrypted for whom its rule names"
_MAKE = "which names who may decrypt which files (docs/secrets.md)"
_COLUMNS = ("file", "format", "rule", "recipients", "you", "state")


@click.group(cls=Group)
@standing("--directory", "secrets_directory", None, "Only those of the .sops.yaml there, in the fleet", metavar="DIR")
@click.pass_context
def secrets(ctx: click.Context, directory: str | None) -> None:
    """Secret files encrypted with sops for age keys.

    Hosts are recipients by their host keys in hosts.nix; people by the keys that .sops.yaml names.
    """
    ctx.meta["secrets"] = directory
    ctx.ensure_object(Front).guarded = False


def _load(front: Front, *, edit_generated: bool = False, everywhere: bool = False) -> Callable[..., Secrets]:
    """Make what loads the secrets, in any thread, of a repository if that is known.

    It raises FleetError where there are none; none is fine with `everywhere`.
    """
    meta = click.get_current_context().meta  # not there where another command does this too
    directory: str | None = None if everywhere else meta.get("secrets", front.standing("secrets_directory"))

    def load(repository: Repository | None = None) -> Secrets:
        found = Secrets.load(front.root, directory, edit_generated=edit_generated, repository=repository)
        if not found and not everywhere:
            misnamed = "".join(f"; {each}" for each in found.findings)
            raise FleetError(f"{front.root}: no {CONFIG} is there, {_MAKE}{misnamed}")
        return found

    return load


# what commands take that encrypt files again
_changes = together(
    json_option,
    identity_option,
    click.option("--rotate", is_flag=True, help="New data keys for files that somebody leaves."),
    edit_generated_option,
    give_up_option,
    commit_option,
    message_option,
    dry_run_option,
)


@secrets.command()
@click.option("--machines", is_flag=True, help="Ask every machine as well which host key it shows.")
@identity_option
@json_option
@pass_front
def status(front: Front, /, machines: bool, identity: str | None) -> int:
    """Show every file, who can decrypt it, and whether that is who should; status 1 when anything differs.

    That you cannot decrypt a file yourself is shown, and does not count as a difference.
    """
    who = Operator.of(identity)
    secrets = _load(front)()
    plan = secrets.plan(front.fleet)
    rows = files_of(front.fleet, secrets, plan, who)
    hosts, findings = hosts_of(front.fleet, secrets), findings_of(front.fleet, secrets, plan)
    if machines:
        findings += _compare(front, hosts)
    if interrupted(front.root):
        findings.insert(0, "a run was interrupted while it published; `nixherd secrets apply` finishes it")
    bad = bool(plan.rekeys or findings)
    if front.wants_json:
        others = others_of(front.fleet, secrets)
        show_json(
            {"drift": bad, "files": rows, "hosts": hosts, "others": others, "findings": findings, "notes": plan.notes}
        )
    else:
        columns = _COLUMNS if len(secrets.stores) == 1 else ("file", "format", "config", *_COLUMNS[2:])
        show_rows(for_people(rows), columns, front.as_json, empty="no secret files")
        if machines:
            show_rows(hosts, ("host", "rules", "machine"), front.as_json)
        narrate([*findings, *plan.notes])
        if plan.rekeys:
            number = len(plan.rekeys)
            differ, them = ("differs", "it") if number == 1 else ("differ", "them")
            narrate([f"{many(number, 'file')} {differ}; `nixherd secrets apply` encrypts {them} anew"])
    return int(Exit.FAILED if bad else Exit.DONE)


def _compare(front: Front, rows: list[dict[str, Any]]) -> list[str]:
    """Add to the hosts' rows which key their machines show; return a finding for each that differs from hosts.nix."""
    from nixherd.locate.keyscan import keys_shown  # speaks SSH: not for those who only look at files

    shown, findings = keys_shown(front.hypervisor, front.keys, front.fleet.hosts.values()), []
    for row in rows:
        host, scan = front.fleet.hosts[row["host"]], shown[row["host"]]
        row["machine"] = scan.problem or ("other key" if scan.differs_from(host.public_key) else "ok")
        if scan.fault:
            findings.append(str(scan.problem))
        if scan.differs_from(host.public_key):
            text = f"{front.fleet.file}: {host.id}.publicKey is not the key that {scan.address} shows"
            findings.append(f"{text}; see whether it is that machine, and enroll it if its key is new")
    return findings


@secrets.command()
@json_option
@pass_front
def plan(front: Front) -> int:
    """Show what `apply` would do, and what it cannot mend; status 1 when there is any of that."""
    secrets = _load(front)()
    plan = secrets.plan(front.fleet)
    findings = findings_of(front.fleet, secrets, plan)
    if refused := refusal(None, secrets.encrypted, plan.rekeys):
        findings.append(f"`apply` would be refused: {refused}")
    rekeys = [
        {
            "file": each.path,
            **{name: [key.value for key in getattr(each, name)] for name in ("added", "removed")},
            "groups": [[key.value for key in group] for group in each.groups],
            "threshold": each.threshold,
            "differs": each.names,
        }
        for each in plan.rekeys
    ]
    lines = (f"would encrypt {rekey}" for rekey in plan.rekeys)
    front.show({"rekeys": rekeys, "findings": findings}, lines)
    if not front.wants_json:
        narrate([*findings, *([] if rekeys or findings else [_ALL_RIGHT])])
    return Exit.FAILED if findings else Exit.DONE


@secrets.command()
@_changes
@pass_front
def apply(front: Front, /, **options: Any) -> int:
    """Encrypt every file for whom its rule names, all or none, and commit that.

    Status 1 when some are not known to be that afterwards: what is plain text, or has a rule that cannot be judged.
    """
    return rekey(front, **options)


def rekey(front: Front, /, **options: Any) -> int:
    """Encrypt every file anew that is not encrypted for whom its rule names; return the status."""
    left: tuple[str, ...] = ()

    def applied(change: Wanted) -> Wanted:
        nonlocal left
        change, left = as_ruled(change)
        return change

    _carry_out(front, applied, "secrets: as .sops.yaml says", **options)
    return Exit.FAILED if left else Exit.DONE


@secrets.command()
@click.option("--name", metavar="NAME", help="What your key is called; by default as your account is.")
@click.option("--person", "persons", multiple=True, metavar="NAME=KEY", help="Somebody else's age or PGP key.")
@click.option("--replace-unreadable", is_flag=True, help="Make anew what is there and you cannot decrypt.")
@_changes
@pass_front
def init(front: Front, /, name: str | None, persons: tuple[str, ...], replace_unreadable: bool, **options: Any) -> None:
    """Begin a fleet's secrets: .sops.yaml for people and hosts, and each file that a host declares; one commit.

    Each secret is a random text until `nixherd secrets edit` gives it a value. Status 1 when what a host declares is
    not known: those of the others are made.
    """
    directory, identity = click.get_current_context().meta["secrets"], options["identity"]
    if directory is not None:
        prefix = Layout.of(front.root).prefix
        directory = from_fleet(chosen_place(front.root, prefix, directory), prefix)
    declared = front.declared()

    def begun(change: Wanted) -> Wanted:
        who = Operator.of(identity)
        named = people_of(who, name, persons)
        closed = unreadable(front.run, who, identity, change.secrets)
        start = Start(named, declared, directory, closed, replaces=replace_unreadable)
        change = started(change, start)
        return replace(
            change, notes=(*change.notes, *unknown(declared), *chain.from_iterable(each.unhandled for each in declared))
        )

    _carry_out(front, begun, "secrets: begin", everywhere=True, **options)
    if unknown(declared):
        raise FleetError("what a host declares is not known, see above; its files are missing")


@secrets.command("add-host")
@click.argument("host")
@click.option("--rule", "rules", multiple=True, metavar="RULE", help="Also this one: its number, or a part of it.")
@click.option("--replace", "replaces", multiple=True, metavar="NAME|KEY", help="In place of this key, which was its.")
@click.option("--create", "creates", is_flag=True, help="Make the rules and files that it declares and are missing.")
@_changes
@pass_front
def add_host(
    front: Front, /, host: str, rules: tuple[str, ...], replaces: tuple[str, ...], creates: bool, **options: Any
) -> None:
    """Make a host a recipient, by its pinned publicKey, of the secrets that its configuration declares."""

    def joined(change: Wanted) -> Wanted:
        fleet, declared = change.fleet, change.fleet.hosts.get(host)
        if declared is None:
            raise Usage(f"{fleet.file} has no host {host or repr(host)}; it has {', '.join(sorted(fleet.hosts))}")
        if declared.public_key is None:
            raise Usage(f"{fleet.file}: {host}.publicKey is a placeholder; enroll the host (nixherd enroll) instead")
        secrets = front.evaluator.declared((host,), host)
        return trusted(change, declared, declared.public_key, Admission(secrets, rules or None, replaces, creates))

    _carry_out(front, joined, f"secrets: {host} joins", hosts=(host,), **options)


@secrets.command("remove-host")
@click.argument("hosts", nargs=-1, required=True, metavar="HOST|NAME|KEY…")
@click.option("--remove-secrets", is_flag=True, help="Also rules and secret files that no other machine uses.")
@_changes
@pass_front
def remove_host(front: Front, /, hosts: tuple[str, ...], remove_secrets: bool, **options: Any) -> int:
    """Remove recipients from .sops.yaml and every file; they may have kept what they could read before.

    Each is a host's id, what a key is called that is not a host's, or a key. All of them go with one commit. Status 1
    when secrets were to go and stay, as another host may declare them.
    """
    rules: tuple[OwnRule, ...] = ()

    def left(change: Wanted) -> Wanted:
        nonlocal rules
        leaving = leave(change, hosts, remove=remove_secrets, declared=partial(front.declared, hosts))
        rules = leaving.rules
        return leaving.change

    def offered() -> list[str]:
        return [f"{rule}, stays; --remove-secrets has it go" for rule in rules if not remove_secrets]

    subject = f"secrets: {', '.join(hosts)} {'leaves' if len(hosts) == 1 else 'leave'}"
    ours = [each for each in hosts if each in front.fleet.hosts]
    _carry_out(front, left, subject, offered, hosts=ours, **options)
    return Exit.FAILED if remove_secrets and not all(rule.goes for rule in rules) else Exit.DONE


@secrets.command()
@click.argument("file", type=SECRET_FILE)
@json_option
@identity_option
@commit_option
@message_option
@dry_run_option
@pass_front
def edit(front: Front, /, file: str, **options: Any) -> None:
    """Edit a secret file in $EDITOR, or make a new one, encrypted for whom its rule names; one commit.

    FILE is a path from the current directory, from the fleet's, or from that of the secrets. What is not valid, or
    would not be encrypted, does not become the file.
    """
    edit_file(front, _load(front)(), file, **options)


def _carry_out(
    front: Front,
    change: Change,
    subject: str,
    offered: Callable[[], list[str]] = list,
    *,
    hosts: Sequence[str] = (),
    everywhere: bool = False,
    identity: str | None,
    message: str | None,
    edit_generated: bool,
    **how: bool,
) -> None:
    """Make a change of the secrets, or show it; `offered` is what could be done besides, once the change is planned.

    `hosts`: whom it is about, of the fleet. `everywhere`: of all secrets that there are, which may be none.
    """
    load = _load(front, edit_generated=edit_generated, everywhere=everywhere)
    if front.dry_run:
        result = change(Wanted(front.fleet, load()))
        who, rekeys = Operator.of(identity), result.rekeys
        require_possible(who, result.secrets.encrypted, rekeys, give_up=how["give_up"])
        _show(front, result, None, offered())
        return
    recording = front.recording(*hosts)
    with recording, changing(front.root, recording.begin) as changeset, progress("secrets") as tell:
        front.wrote = changeset.resume(tell) is not None  # before anything is read: what an interrupted run began
        with ThreadPoolExecutor(2) as pool:
            secrets = pool.submit(load, changeset.repository)  # while Nix evaluates
            whoever = pool.submit(Operator.of, identity)  # what is wrong with it counts where it is needed
            result = change(Wanted(front.fleet, secrets.result()))
        text = message or "\n".join([subject, "", *(f"- {step}" for step in result.steps)]).strip()

        def sops() -> AsOperator:
            return AsOperator(front.run, whoever.result())

        done = publish(changeset, result, text, sops=sops, say=tell, **how)
        front.wrote = front.wrote or bool(done.paths)
    _show(front, result, done, offered())
    if not how["rotate"] and any(rekey.removed for rekey in result.rekeys):
        text = "whoever was removed may have kept what the files held and their data keys"
        remedy = "`sops rotate --in-place FILE` gives a file a new one, as --rotate would have"
        say(f"{text}; change the secrets; {remedy}", err=True)


def _show(front: Front, change: Wanted, done: Done | None, offered: list[str]) -> None:
    document: dict[str, Any] = {"steps": change.steps, "files": done.paths if done else change.paths}
    document |= {"changed": front.wrote, "commit": done.commit if done else None, "offered": offered}
    lines = [f"would {step}" if front.dry_run else step for step in change.steps]
    lines = lines or ["nothing to encrypt anew" if change.notes or _findings(front, change) else _ALL_RIGHT]
    lines += [f"commit {done.commit}: {many(len(done.paths), 'file')}"] if done and done.commit else []
    notes = (*change.notes, *(done.notes if done else ()))
    front.show({**document, "notes": notes}, lines)
    if front.is_part or not front.wants_json:
        narrate([*notes, *offered])


def _findings(front: Front, change: Wanted) -> bool:
    """Whether something is wrong that no run mends; that is for `status` to say."""
    return bool(change.secrets.plan(front.fleet, change.rules()).findings)
