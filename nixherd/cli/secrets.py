"""`nixherd secrets`: who may read which secret file, who can, and how to make the two agree."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import click

from nixherd.base.errors import Exit, FleetError, Usage
from nixherd.base.process import foreground
from nixherd.base.terminal import say
from nixherd.cli.front import Front, pass_front
from nixherd.cli.output import narrate, progress, show_json, show_rows
from nixherd.cli.parameters import commit_option, dry_run_option, identity_option, json_option, standing, together
from nixherd.fleet.changeset import Done, changing, interrupted
from nixherd.fleet.models import Fleet
from nixherd.fleet.tree import opened
from nixherd.trust.enrol import Wanted, publish
from nixherd.trust.joining import Admission
from nixherd.trust.recipients import trusted, untrusted, with_rekeys
from nixherd.trust.secrets.files import Format
from nixherd.trust.secrets.rules import Rule, Unknown
from nixherd.trust.secrets.sops import identity_file, operator
from nixherd.trust.secrets.store import Secrets, recipient_of_host

Change = Callable[[Wanted], Wanted]
_COLUMNS = ("file", "format", "rule", "recipients", "state")


@click.group()
@standing("--directory", "secrets_directory", None, "Only those of the .sops.yaml there, in the fleet", metavar="DIR")
@click.pass_context
def secrets(ctx: click.Context, directory: str | None) -> None:
    """Secret files encrypted with sops for age keys.

    Hosts are recipients by their host keys in hosts.nix; people by the keys that .sops.yaml names.
    """
    ctx.meta["secrets"] = directory
    ctx.ensure_object(Front).guarded = False


def _load(front: Front) -> Callable[[], Secrets]:
    """Make what loads the secrets, in any thread. FleetError where there are none."""
    directory: str | None = click.get_current_context().meta["secrets"]

    def load() -> Secrets:
        found = Secrets.load(front.root, directory)
        if not found:
            found.require_store("secrets/")
        return found

    return load


# what commands take that encrypt files again
_changes = together(
    json_option,
    identity_option,
    click.option("--rotate", is_flag=True, help="New data keys for files that somebody leaves."),
    commit_option,
    click.option("--message", metavar="TEXT", help="The commit's message."),
    dry_run_option,
)


@secrets.command()
@click.option("--machines", is_flag=True, help="Ask every machine as well which host key it shows.")
@json_option
@pass_front
def status(front: Front, /, machines: bool) -> int:
    """Show every file, who can decrypt it, and whether that is who should; status 1 when anything differs."""
    secrets, rows = _load(front)(), list[dict[str, Any]]()
    people, plan = secrets.people(front.fleet), secrets.plan(front.fleet)
    wrong = {rekey.path: ", ".join(rekey.names) for rekey in plan.rekeys}
    for path, file in secrets.files.items():
        store = secrets.require_store(path)
        rule, keys = store.rules.rule_of(file.path), file.encrypted.recipients if file.encrypted else ()
        state = f"unknown: {rule.why}" if isinstance(rule, Unknown) else file.problem or wrong.get(path)
        row: dict[str, Any] = {"file": path, "format": str(Format.of(path)), "config": store.config}
        state = state or ("ok" if file.encrypted and rule else "no rule" if rule is None else "not encrypted")
        row |= {
            "rule": rule.number if isinstance(rule, Rule) else None,
            "recipients": [people.name(key) for key in keys],
        }
        rows.append({**row, "state": state})
    hosts, findings = _hosts(front.fleet, secrets), list(plan.findings)
    if machines:
        findings += _compare(front, hosts)
    if interrupted(front.root):
        findings.insert(0, "a run was interrupted while it published; `nixherd secrets apply` finishes it")
    bad = bool(plan.rekeys or findings)
    if front.wants_json:
        show_json({"drift": bad, "files": rows, "hosts": hosts, "findings": findings})
    else:
        show_rows(rows, _COLUMNS, front.as_json, empty="no secret files")
        if machines:
            show_rows(hosts, ("host", "rules", "machine"), front.as_json)
        narrate(findings)
        if plan.rekeys:
            narrate([f"{len(plan.rekeys)} files differ; `nixherd secrets apply` encrypts them anew"])
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
            text = f"hosts.nix: {host.id}.publicKey is not the key that {scan.address} shows"
            findings.append(f"{text}; see whether it is that machine, and enroll it if its key is new")
    return findings


def _hosts(fleet: Fleet, secrets: Secrets) -> list[dict[str, Any]]:
    rows = []
    for host in fleet.hosts.values():
        recipient = recipient_of_host(host)
        all_rules = ((store.config, rule) for store in secrets.stores for rule in store.rules.rules)
        joined = [f"{config}:{rule.number}" for config, rule in all_rules if recipient in rule.recipients]
        rows.append({"host": host.id, "recipient": recipient.value if recipient else None, "rules": joined})
    return rows


@secrets.command()
@json_option
@pass_front
def plan(front: Front) -> int:
    """Show what `apply` would do, and what it cannot mend."""
    plan = _load(front)().plan(front.fleet)
    rekeys = [
        {"file": each.path, **{name: [key.value for key in getattr(each, name)] for name in ("added", "removed")}}
        for each in plan.rekeys
    ]
    lines = (f"would encrypt {rekey}" for rekey in plan.rekeys)
    front.show({"rekeys": rekeys, "findings": plan.findings}, lines)
    if not front.wants_json:
        narrate([*plan.findings, *([] if rekeys else ["every file is encrypted for whom its rule names"])])
    return Exit.FAILED if plan.findings else Exit.DONE


@secrets.command()
@_changes
@pass_front
def apply(front: Front, /, **options: Any) -> None:
    """Encrypt every file for whom its rule names, all or none, and commit that."""
    _carry_out(front, with_rekeys, "secrets: as .sops.yaml says", **options)


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
    """Make a host a recipient, by its publicKey in hosts.nix, of the secrets that its configuration declares."""

    def joined(change: Wanted) -> Wanted:
        declared = change.fleet.hosts.get(host)
        if declared is None:
            raise Usage(f"hosts.nix has no host {host}; it has {', '.join(sorted(change.fleet.hosts))}")
        if declared.public_key is None:
            raise Usage(f"hosts.nix: {host}.publicKey is a placeholder; enroll the host (deploys/enroll.py) instead")
        secrets = front.evaluator.declared((host,), host)
        return trusted(change, declared, declared.public_key, Admission(secrets, rules or None, replaces, creates))

    _carry_out(front, joined, f"secrets: {host} joins", **options)


@secrets.command("remove-host")
@click.argument("host")
@_changes
@pass_front
def remove_host(front: Front, /, host: str, **options: Any) -> None:
    """Remove a recipient from .sops.yaml and every file; it may have kept what it could read before."""
    _carry_out(front, lambda change: untrusted(change, host), f"secrets: {host} leaves", **options)


@secrets.command()
@click.argument("file")
@identity_option
@pass_front
def edit(front: Front, file: str, identity: str | None) -> int:
    """Edit a secret file in $EDITOR, or make a new one, encrypted for whom its rule names."""
    secrets, root = _load(front)(), front.root
    path = os.path.relpath(file, root) if os.path.isabs(file) else file  # noqa: PTH117
    if not os.path.lexists(root / path) and secrets.store_of(f"secrets/{path}") is not None:
        path = f"secrets/{path}"
    if path.startswith("..") or not (root / path).resolve().is_relative_to(root.resolve()):
        raise Usage(f"{file}: is outside of {root}")
    store = secrets.require_store(path)
    if store.rules.rule_of(store.below(path)) is None:
        raise FleetError(f"{path}: no creation rule matches it; add one to {store.config}")
    with opened(root) as tree:
        tree.stat(path)  # a link, or below one: not a file of the fleet
    sops = operator(front.run, identity_file(identity))
    words = ["--config", str(root / store.config), "edit", "--", str(root / path)]
    code = foreground(*sops.command(words))
    return int(Exit.DONE if code in (0, 200) else Exit.FAILED)  # 200: it was not changed


def _carry_out(
    front: Front, change: Change, subject: str, *, identity: str | None, message: str | None, **how: bool
) -> None:
    if front.dry_run:
        _show(front, change(Wanted(front.fleet, _load(front)())), None)
        return
    with changing(front.root) as changeset, progress("secrets") as tell:
        front.wrote = changeset.resume(tell) is not None  # before anything is read: what an interrupted run began
        with ThreadPoolExecutor(1) as pool:
            secrets = pool.submit(_load(front))  # while Nix evaluates
            result = change(Wanted(front.fleet, secrets.result()))
        text = message or "\n".join([subject, "", *(f"- {step}" for step in result.steps)]).strip()
        sops = partial(operator, front.run, identity_file(identity))
        done = publish(changeset, result, text, sops=sops, say=tell, **how)
        front.wrote = front.wrote or bool(done.paths)
    _show(front, result, done)
    if not how["rotate"] and any(rekey.removed for rekey in result.rekeys):
        text = "whoever was removed may have kept what the files held and their data keys"
        say(f"{text}; change the secrets, and use --rotate for new data keys", err=True)


def _show(front: Front, change: Wanted, done: Done | None) -> None:
    document: dict[str, Any] = {"steps": change.steps, "files": done.paths if done else change.paths}
    document |= {"changed": front.wrote, "commit": done.commit if done else None}
    lines = [f"would {step}" if front.dry_run else step for step in change.steps]
    lines = lines or ["nothing to do: every file is encrypted for whom its rule names"]
    lines += [f"commit {done.commit}: {len(done.paths)} files"] if done and done.commit else []
    front.show({**document, "notes": change.notes}, lines)
    if not front.wants_json:
        narrate(change.notes)
