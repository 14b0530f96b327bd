"""What is wrong with a fleet's secrets: said by `nixherd secrets status` and `plan`, and by `nixherd check`."""

import shlex
from collections import defaultdict
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from nixherd.base.errors import Finding, Severity
from nixherd.base.names import many
from nixherd.fleet.models import Fleet
from nixherd.trust.former import forms_of, is_former, known_keys, once_pinned
from nixherd.trust.secrets.keys import Recipient
from nixherd.trust.secrets.plan import Plan
from nixherd.trust.secrets.rules import CONFIG
from nixherd.trust.secrets.store import Secrets


def look_at_secrets(root: Path, fleet: Fleet) -> tuple[list[str], str]:
    """Find what is wrong with the files in `root`, and whose recipients differ from their rules; and say what was read.

    Raises FleetError where the rules or the files cannot be read.
    """
    secrets = Secrets.load(root)
    if not secrets:
        return [*secrets.findings, *shared_keys(fleet)], f"no {CONFIG} was found"
    plan = secrets.plan(fleet)
    findings = findings_of(fleet, secrets, plan)
    for rekey in plan.rekeys:
        what = f"its recipients are not those that its rule names: {', '.join(rekey.names)}"
        remedy = "`nixherd secrets apply` encrypts it anew"
        findings.append(Finding(Severity.ERROR, rekey.path, "", what, remedy))
    return findings, many(len(secrets.files), "file")


def findings_of(fleet: Fleet, secrets: Secrets, plan: Plan) -> list[str]:
    """What is wrong and no run can mend, a line each: with files, rules and recipients."""
    return [*plan.findings, *shared_keys(fleet), *left_behind(fleet, secrets)]


def shared_keys(fleet: Fleet) -> Iterator[str]:
    """Machines whose publicKey is one and the same, a line for each such key."""
    found = defaultdict[Recipient, list[str]](list)
    for host in fleet.hosts.values():
        if host.id == fleet.machine_of(host.id) and host.public_key and (forms := forms_of(host.public_key)):
            found[forms[0]].append(host.id)
    for key, hosts in found.items():
        if len(hosts) > 1:
            *others, last = hosts
            names = f"{', '.join(others)} and {last}"
            what = f"{names} have one publicKey, and each of them decrypts what is for another"
            made = "make a new host key on all but one, set their publicKey"
            steps = [f"remove-host {shlex.quote(key.value)}", *(f"add-host {host}" for host in reversed(hosts))]
            yield f"{fleet.file}: {what}; {made}, then {', '.join(f'`nixherd secrets {step}`' for step in steps)}"


def left_behind(fleet: Fleet, secrets: Secrets) -> Iterator[str]:
    """Recipients that were hosts by an earlier hosts.nix and are none now, a line each with what removes them."""
    people, pinned = secrets.people(fleet), once_pinned(fleet)
    for store in secrets.stores:
        encrypted = (file.recipients for file in store.encrypted.values())
        for key in dict.fromkeys((*store.rules.known, *chain.from_iterable(encrypted))):
            if people.host(key):
                continue
            name = people.others.get(key.value)
            if key.bare in pinned or (name and name not in fleet.hosts and is_former(fleet, name)):
                if name and _is_pinned(fleet, name) and key.bare in known_keys(fleet, name):
                    what = f"{key.value} was {name}'s key, and {fleet.file} pins another"
                    yield f"{store.config}: {what}; `nixherd secrets add-host {name}`"
                    continue
                given = name if name and name not in fleet.hosts else key.value
                called = f"{name} ({key.label})" if name else key.value
                remedy = f"`nixherd secrets remove-host {given if ' ' not in given else repr(given)}`"
                yield f"{store.config}: {called} was a host of the fleet and is none now; {remedy}"


def _is_pinned(fleet: Fleet, name: str) -> bool:
    return name in fleet.hosts and fleet.hosts[name].public_key is not None
